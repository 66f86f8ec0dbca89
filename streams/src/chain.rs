//! Chains: following the ends of runs in the ledger, and how far a partition has followed them.
//!
//! The ledger's own stream is read, not the result subjects: what is republished there may be lost, and an end that nobody
//! hears would stop a chain without a word. The place in the stream is all that is remembered (`in_order.rs`). One consumer
//! per planner.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::Stream,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    limits::CHAIN_FILTERS_MAX,
    names::{MemberId, Name},
    run_record::RunRecord,
};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Stored, missing_or_unavailable, timestamp},
    in_order::{InOrder, Sizes},
    ledger::read_record,
    names::{bucket_prefix, bucket_stream, keys},
};

/// Records lie in memory until they are looked at, each with its output.
const SIZES: Sizes = Sizes { pull: 500, chunk: 100 };
/// The server drops a consumer that nobody pulls from after this.
const INACTIVE_MAX: Duration = Duration::from_secs(20);

/// Up to where the ends of runs were followed for the schedules of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainCursor {
    /// Every end up to and including this place in the ledger was dealt with.
    pub place: u64,
    /// The newest revision in the bucket of schedules that its writer had heard of, all up to there: schedules that came
    /// later, or follow another one since, were not followed up to this place.
    pub heard: u64,
    /// When the ledger was made in which that place is; in another it means nothing.
    pub ledger: Timestamp,
    /// The planner that wrote it.
    pub by: MemberId,
}

/// The cursors of the partitions.
#[derive(Clone)]
pub struct ChainCursors {
    bucket: Bucket,
}

impl Streams {
    /// How far the ends of runs were followed.
    pub fn chain_cursors(&self) -> ChainCursors {
        ChainCursors { bucket: self.bucket(self.names().planner_bucket()) }
    }
}

impl ChainCursors {
    /// A partition's, from the leader. What nobody understands is none, under its revision.
    pub async fn get(&self, partition: u16) -> Result<(Option<ChainCursor>, u64), ReadError> {
        let found = self.bucket.get_with_deleted(&keys::chain(partition)).await?;
        Ok(found.map_or((None, 0), |stored| {
            let cursor = stored.value.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            (cursor, stored.revision)
        }))
    }

    /// Writes a partition's over exactly this revision. A conflict means that somebody else follows ends for it.
    pub async fn write(
        &self,
        partition: u16,
        cursor: &ChainCursor,
        revision: u64,
    ) -> Result<u64, WriteError> {
        let bytes = Bytes::from(serde_json::to_vec(cursor).unwrap_or_default());
        self.bucket.update(&keys::chain(partition), bytes, revision).await
    }
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// The ledger was made anew, or has lost its newest records: no place in it means what it did.
    Anew,
    /// Records as they were written, in the order of their places, and the last place that was looked at.
    Records(Vec<Stored<RunRecord>>, u64),
}

/// Follows the records of runs of some schedules, from a place in the ledger on.
pub struct RecordFollower {
    streams: Streams,
    filters: Vec<String>,
    open: Option<Box<InOrder>>,
    /// The last place that was heard of.
    position: u64,
    /// When the ledger was made, by which one that was made anew is known.
    made: Timestamp,
}

impl Streams {
    /// When the ledger was made, and its last place.
    pub async fn ledger_extent(&self) -> Result<(Timestamp, u64), ReadError> {
        let stream = self.ledger_stream().await?;
        let info = stream.cached_info();
        Ok((timestamp(info.created.unix_timestamp_nanos()), info.state.last_sequence))
    }

    /// The last place in the ledger before an instant, by the server's clock.
    pub async fn ledger_place_before(&self, at: Timestamp) -> Result<u64, ReadError> {
        let stream = self.ledger_stream().await?;
        let nanos = at.timestamp_nanos_opt().unwrap_or_default();
        let start_time = async_nats::datetime::from_nanos(nanos.into())
            .map_err(|error| ReadError::unavailable("ledger", error))?;
        let config = reader(Vec::new(), DeliverPolicy::ByStartTime { start_time });
        let created = stream.create_consumer(config).await;
        let consumer = created.map_err(|error| self.no_ledger(&error))?;
        // The server says where a consumer begins before it has delivered anything.
        let info = consumer.cached_info();
        let place = info.delivered.stream_sequence;
        // If this is lost the server drops it by itself.
        let _ = stream.delete_consumer(&info.name).await;
        Ok(place)
    }

    /// Follows the records of these schedules' runs behind a place in the ledger that was made then.
    pub fn follow_records(&self, of: &BTreeSet<Name>, behind: u64, made: Timestamp) -> RecordFollower {
        let prefix = bucket_prefix(&self.names().runs_bucket());
        let filters = if of.len() > CHAIN_FILTERS_MAX {
            Vec::new()
        } else {
            of.iter().map(|name| format!("{prefix}{name}.*")).collect()
        };
        RecordFollower { streams: self.clone(), filters, open: None, position: behind, made }
    }

    pub(crate) async fn ledger_stream(&self) -> Result<Stream, ReadError> {
        let name = bucket_stream(&self.names().runs_bucket());
        self.jetstream().get_stream(name).await.map_err(|error| self.no_ledger(&error))
    }

    /// A new consumer of the ledger that was made then, which starts behind a place; none if nothing of that is true any more.
    pub(crate) async fn open_ledger(
        &self,
        filters: Vec<String>,
        behind: u64,
        made: Timestamp,
        sizes: Sizes,
    ) -> Result<Option<InOrder>, ReadError> {
        let stream = self.ledger_stream().await?;
        let info = stream.cached_info();
        if timestamp(info.created.unix_timestamp_nanos()) != made || info.state.last_sequence < behind {
            return Ok(None);
        }
        let from = DeliverPolicy::ByStartSequence { start_sequence: behind + 1 };
        let created = stream.create_consumer(reader(filters, from)).await;
        let consumer = created.map_err(|error| self.no_ledger(&error))?;
        Ok(Some(InOrder::new(consumer, sizes)))
    }

    fn no_ledger(&self, error: &impl std::fmt::Display) -> ReadError {
        missing_or_unavailable(&format!("bucket {}", self.names().runs_bucket()), error)
    }
}

fn reader(filter_subjects: Vec<String>, deliver_policy: DeliverPolicy) -> pull::Config {
    pull::Config {
        filter_subjects,
        deliver_policy,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: INACTIVE_MAX,
        ..Default::default()
    }
}

impl RecordFollower {
    /// The next records. After an error wait a moment; then it goes on where it was.
    pub async fn next(&mut self) -> Result<Heard, ReadError> {
        let open = match self.open.take() {
            Some(open) => Some(open),
            None => self.open().await?.map(Box::new),
        };
        let Some(mut open) = open else { return Ok(Heard::Anew) };
        let messages = open.next("ledger").await?;
        let records = messages.iter().filter_map(|message| self.record(message)).collect();
        if !open.is_broken() {
            self.open = Some(open);
        }
        Ok(Heard::Records(records, self.position))
    }

    fn record(&mut self, message: &Message) -> Option<Stored<RunRecord>> {
        let info = message.info().ok()?;
        self.position = info.stream_sequence;
        let prefix = bucket_prefix(&self.streams.names().runs_bucket());
        let key = message.subject.strip_prefix(&prefix).unwrap_or_default();
        let stored_at = timestamp(info.published.unix_timestamp_nanos());
        // A stranger's writing, or a deletion: no run has ended.
        let value = read_record(key, &message.payload, info.stream_sequence).ok()?;
        Some(Stored { value, revision: info.stream_sequence, stored_at })
    }
    async fn open(&self) -> Result<Option<InOrder>, ReadError> {
        self.streams.open_ledger(self.filters.clone(), self.position, self.made, SIZES).await
    }
}
