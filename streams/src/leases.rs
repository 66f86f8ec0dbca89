//! Seats, leases and cursors of the planners.
//!
//! A planner has one *seat*, and renews it by compare-and-set. A *lease* says which planner holds a partition, and is
//! written only when that changes. Seats follow the rule of Kubernetes' leader election, which needs no synchronised
//! clocks: whoever has seen the same revision of a seat for a whole lease, by its own monotonic clock, empties it by
//! compare-and-set. A lease whose holder has no seat is free. They save work; safety rests on the ledger.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{Timestamp, names::MemberId};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Stored},
    names::keys,
};

/// A planner's place among the planners: while it is renewed, its planner lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The planner; none if it left, or was silent for too long: anybody may have the seat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub planner: Option<MemberId>,
    /// It lives, and wants no partitions: its clock is not to be believed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub aside: bool,
}

/// Who holds a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The planner; none if it was given up. It counts only while that planner has a seat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<MemberId>,
    /// How often the partition changed hands.
    pub term: u64,
    /// When this planner took it.
    pub since: Timestamp,
}

/// Up to where a partition is accounted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Every slot up to and including this instant has its record.
    pub accounted_to: Timestamp,
    /// The planner that wrote it.
    pub by: MemberId,
    /// The version of the zone data the slots were computed with.
    pub tzdb: String,
    /// The newest revision in the bucket of schedules that its writer had heard of: all up to there, in their order. A
    /// successor need not look at what these may have been due for before the cursor.
    #[serde(default)]
    pub heard: u64,
}

/// What a watch of seats and leases saw, in the order in which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A seat: its number, what it says and its revision. None if the key was deleted or holds something nobody
    /// understands: then it is empty.
    Seat(u16, Option<Seat>, u64),
    /// A lease: its partition, what it says and its revision. None likewise: then it is free.
    Lease(u16, Option<Lease>, u64),
}

/// What the leader has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The value; none if the key was deleted or holds something nobody understands.
    pub value: Option<T>,
    /// Its revision: what a compare-and-set must name; 0 if there never was one.
    pub revision: u64,
    /// When the server stored it, by its own clock.
    pub stored_at: Option<Timestamp>,
}

/// The planners' seats, leases and cursors.
#[derive(Clone)]
pub struct Partitions {
    bucket: Bucket,
}

impl Streams {
    /// The planners' seats, leases and cursors.
    pub fn partitions(&self) -> Partitions {
        Partitions { bucket: self.bucket(self.names().planner_bucket()) }
    }
}

impl Partitions {
    /// Writes a lease over exactly this revision (0: nobody ever held it). The new revision.
    pub async fn write_lease(&self, partition: u16, lease: &Lease, revision: u64) -> Result<u64, WriteError> {
        self.bucket.update(&keys::lease(partition), encode(lease), revision).await
    }

    /// Writes a seat over exactly this revision (0: nobody ever had it). The new revision.
    pub async fn write_seat(&self, number: u16, seat: &Seat, revision: u64) -> Result<u64, WriteError> {
        self.bucket.update(&keys::seat(number), encode(seat), revision).await
    }

    /// The lease as the leader has it.
    pub async fn lease(&self, partition: u16) -> Result<Found<Lease>, ReadError> {
        self.find(&keys::lease(partition)).await
    }

    /// The seat as the leader has it.
    pub async fn seat(&self, number: u16) -> Result<Found<Seat>, ReadError> {
        self.find(&keys::seat(number)).await
    }

    /// All seats and leases now, then every change, in the order in which they were written. Ends with an error when
    /// it is lost.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<Seen, ReadError>> + Send + Unpin + use<>, ReadError> {
        let changes = self.bucket.watch_many(&[keys::SEATS, keys::LEASES]).await?;
        Ok(Box::pin(changes.filter_map(|change| async {
            let change = match change {
                Ok(change) => change,
                Err(error) => return Some(Err(error)),
            };
            let (kind, number) = change.key.split_once('.')?;
            let number = number.parse().ok()?;
            Some(Ok(match kind {
                "seat" => Seen::Seat(number, decode(change.value), change.revision),
                _ => Seen::Lease(number, decode(change.value), change.revision),
            }))
        })))
    }

    /// The cursor as the leader has it.
    pub async fn cursor(&self, partition: u16) -> Result<Option<Stored<Cursor>>, ReadError> {
        self.read(&keys::cursor(partition)).await
    }

    /// Moves a cursor over exactly this revision. A conflict means that somebody else plans this partition.
    pub async fn write_cursor(
        &self,
        partition: u16,
        cursor: &Cursor,
        revision: u64,
    ) -> Result<u64, WriteError> {
        self.bucket.update(&keys::cursor(partition), encode(cursor), revision).await
    }

    async fn find<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Found<T>, ReadError> {
        Ok(match self.bucket.get_with_deleted(key).await? {
            Some(stored) => Found {
                value: decode(stored.value),
                revision: stored.revision,
                stored_at: Some(stored.stored_at),
            },
            None => Found { value: None, revision: 0, stored_at: None },
        })
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<Stored<T>>, ReadError> {
        let Some(stored) = self.bucket.get(key).await? else { return Ok(None) };
        let value = serde_json::from_slice(&stored.value).map_err(|error| ReadError::Corrupt {
            what: key.to_owned(),
            revision: stored.revision,
            detail: error.to_string(),
        })?;
        Ok(Some(Stored { value, revision: stored.revision, stored_at: stored.stored_at }))
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

fn decode<T: serde::de::DeserializeOwned>(value: Option<Bytes>) -> Option<T> {
    value.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}
