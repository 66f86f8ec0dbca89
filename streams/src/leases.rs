//! Leases and cursors of the planners' partitions.
//!
//! Leases follow the rule of Kubernetes' leader election, which needs no synchronised clocks: a holder renews by
//! compare-and-set; a candidate that has seen the same revision for a whole lease by its own monotonic clock takes it
//! by compare-and-set. They save work; safety rests on the ledger.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{Timestamp, names::MemberId};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Stored},
    names::keys,
};

/// Who holds a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The planner; none if it was given up, and anybody may take it at once.
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
}

/// A lease that a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSeen {
    /// The partition.
    pub partition: u16,
    /// Its lease; none if the key was deleted or holds something nobody understands: then it is free.
    pub lease: Option<Lease>,
    /// Its revision: what a compare-and-set must name.
    pub revision: u64,
}

/// The partitions' leases and cursors.
#[derive(Clone)]
pub struct Partitions {
    bucket: Bucket,
}

impl Streams {
    /// The partitions' leases and cursors.
    pub fn partitions(&self) -> Partitions {
        Partitions { bucket: self.bucket(self.names().planner_bucket()) }
    }
}

impl Partitions {
    /// Writes a lease over exactly this revision (0: nobody ever held it). The new revision.
    pub async fn write_lease(&self, partition: u16, lease: &Lease, revision: u64) -> Result<u64, WriteError> {
        self.bucket.update(&keys::lease(partition), encode(lease), revision).await
    }

    /// The lease as the leader has it.
    pub async fn lease(&self, partition: u16) -> Result<Option<Stored<Lease>>, ReadError> {
        self.read(&keys::lease(partition)).await
    }

    /// All leases now, then every change. Ends with an error when it is lost.
    pub async fn watch_leases(
        &self,
    ) -> Result<impl Stream<Item = Result<LeaseSeen, ReadError>> + Send + Unpin + use<>, ReadError> {
        let changes = self.bucket.watch("lease.*").await?;
        Ok(Box::pin(changes.filter_map(|change| async {
            let change = match change {
                Ok(change) => change,
                Err(error) => return Some(Err(error)),
            };
            let partition = change.key.strip_prefix("lease.")?.parse().ok()?;
            let lease = change.value.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            Some(Ok(LeaseSeen { partition, lease, revision: change.revision }))
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
