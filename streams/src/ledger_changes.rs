//! All that is written to the ledger, in its order, from a place on: for who keeps a copy of it.
//!
//! The ledger's own stream is read, as chains do (`chain.rs`): what is republished may be lost. What cannot be understood is
//! handed on too, so that a copy knows of every place.

use async_nats::jetstream::Message;
use bytes::Bytes;
use shared::{Timestamp, run_record::RunRecord};

use crate::{
    ReadError, Streams,
    bucket::timestamp,
    headers,
    in_order::{InOrder, Sizes},
    ledger::read_record,
    names::{bucket_prefix, bucket_stream},
};

/// Records lie in memory until they are copied, each with its output: at the worst 64 MiB of them.
const SIZES: Sizes = Sizes { pull: 1_000, chunk: 500 };

/// What there is of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerExtent {
    /// Its stream: another fleet's has another name.
    pub stream: String,
    /// When it was made, by which one that was made anew is known.
    pub made: Timestamp,
    /// The first place that is still remembered; one more than the last if nothing is.
    pub first: u64,
    /// The last place.
    pub last: u64,
}

/// A write to the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerChange {
    /// The key: the run's id, if it is one.
    pub key: String,
    /// What was written; none if the key was deleted.
    pub value: Option<Bytes>,
    /// Its place: the revision of the record.
    pub revision: u64,
    /// When the server stored it.
    pub stored_at: Timestamp,
}

impl LedgerChange {
    /// The record that was written. What is none, and what is not of this key, is an error.
    pub fn record(&self) -> Result<RunRecord, ReadError> {
        read_record(&self.key, self.value.as_deref().unwrap_or_default(), self.revision)
    }
}

/// What a follower of the ledger hears.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerHeard {
    /// The ledger was made anew, or has lost its newest records: no place in it means what it did.
    Anew,
    /// What was written, in the order of places, and how much more there was behind it.
    Changes(Vec<LedgerChange>, u64),
}

/// Follows the ledger from a place on.
pub struct LedgerFollower {
    streams: Streams,
    prefix: String,
    open: Option<Box<InOrder>>,
    position: u64,
    made: Timestamp,
}

impl Streams {
    /// What there is of the ledger at this moment.
    pub async fn ledger_extent_now(&self) -> Result<LedgerExtent, ReadError> {
        let stream = self.ledger_stream().await?;
        let info = stream.cached_info();
        Ok(LedgerExtent {
            stream: bucket_stream(&self.names().runs_bucket()),
            made: timestamp(info.created.unix_timestamp_nanos()),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
        })
    }

    /// Follows the ledger that was made then, behind a place in it.
    pub fn follow_ledger(&self, behind: u64, made: Timestamp) -> LedgerFollower {
        let prefix = bucket_prefix(&self.names().runs_bucket());
        LedgerFollower { streams: self.clone(), prefix, open: None, position: behind, made }
    }
}

impl LedgerFollower {
    /// The next changes. After an error wait a moment; then it goes on where it was.
    pub async fn next(&mut self) -> Result<LedgerHeard, ReadError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.streams.open_ledger(Vec::new(), self.position, self.made, SIZES).await? {
                Some(open) => Box::new(open),
                None => return Ok(LedgerHeard::Anew),
            },
        };
        let messages = open.next("ledger").await?;
        let mut changes = Vec::with_capacity(messages.len());
        let mut pending = 0;
        for message in messages {
            let Some((change, more)) = self.change(message) else { continue };
            self.position = change.revision;
            pending = more;
            changes.push(change);
        }
        if !open.is_broken() {
            self.open = Some(open);
        }
        Ok(LedgerHeard::Changes(changes, pending))
    }

    fn change(&self, message: Message) -> Option<(LedgerChange, u64)> {
        // What is in order says its place: see `in_order.rs`.
        let info = message.info().ok()?;
        let (revision, pending) = (info.stream_sequence, info.pending);
        let stored_at = timestamp(info.published.unix_timestamp_nanos());
        let message = message.message;
        let is_deleted = headers::value(message.headers.as_ref(), headers::KV_OPERATION).is_some();
        let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
        let value = (!is_deleted).then_some(message.payload);
        Some((LedgerChange { key, value, revision, stored_at }, pending))
    }
}
