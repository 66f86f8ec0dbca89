//! Following what waits in some partitions: all that is there, then what is added. Headers only: the tasks stay where
//! they are until they are due.
//!
//! The place in the stream is all that is remembered (`in_order.rs`).

use std::collections::BTreeSet;

use async_nats::jetstream::{
    Message,
    consumer::{DeliverPolicy, pull},
};
use shared::Timestamp;

use super::{Delayed, by_headers, door};
use crate::{
    ReadError, Streams,
    bucket::timestamp,
    headers,
    in_order::{InOrder, Sizes},
};

/// An entry is small.
const SIZES: Sizes = Sizes { pull: 10_000, chunk: 1_000 };

/// One that waits, as it is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its partition.
    pub partition: u16,
    /// When it is due, in milliseconds since 1970; [`Entry::AT_ONCE`] if it can never be a run, so that it is
    /// dealt with now.
    pub due_ms: i64,
    /// Its place in the stream.
    pub sequence: u64,
}

impl Entry {
    /// Before everything else.
    pub const AT_ONCE: i64 = i64::MIN;
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The stream was made anew: nothing of what was heard before is true.
    Anew,
    /// These wait, too; in the order of their places.
    Entries(Vec<Entry>),
}

/// Follows what waits in some partitions.
pub struct Follower {
    streams: Streams,
    filters: Vec<String>,
    open: Option<Box<InOrder>>,
    /// The last place that was heard of.
    position: u64,
    /// Whether all that was there has been heard of.
    is_current: bool,
    /// When the stream was made, by which one that was made anew is known.
    made: Option<Timestamp>,
}

impl Delayed {
    /// Follows what waits in these partitions, from the first on.
    pub fn follow(&self, partitions: &BTreeSet<u16>) -> Follower {
        let filters = self.streams.names().delayed_in(partitions);
        Follower {
            streams: self.streams.clone(),
            filters,
            open: None,
            position: 0,
            is_current: false,
            made: None,
        }
    }
}

impl Follower {
    /// Whether all that was there when it began has been heard of. Not said of partitions in which nothing waits.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// The next that is heard. After an error wait a moment; then it goes on where it was.
    pub async fn next(&mut self) -> Result<Heard, ReadError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.open().await? {
                Some(open) => Box::new(open),
                None => return Ok(Heard::Anew),
            },
        };
        let messages = open.next("delayed").await?;
        let entries = messages.iter().filter_map(|message| self.entry(message)).collect();
        if !open.is_broken() {
            self.open = Some(open);
        }
        Ok(Heard::Entries(entries))
    }

    fn entry(&mut self, message: &Message) -> Option<Entry> {
        let info = message.info().ok()?;
        self.position = info.stream_sequence;
        self.is_current |= info.pending == 0;
        let written = headers::value(message.headers.as_ref(), headers::NOT_BEFORE);
        let submitted_at = timestamp(info.published.unix_timestamp_nanos());
        let names = self.streams.names();
        let (partition, due) = if let Some((partition, ..)) = names.parse_parked(&message.subject) {
            (partition, door::read_not_before(written, submitted_at).ok())
        } else {
            let (partition, queue, name, key) = names.parse_delayed(&message.subject)?;
            let read = door::read((queue, name, key), written, submitted_at);
            (partition, read.ok().map(|appointment| appointment.not_before))
        };
        let due_ms = due.map_or(Entry::AT_ONCE, |due| due.timestamp_millis());
        Some(Entry { partition, due_ms, sequence: info.stream_sequence })
    }

    /// A new consumer that starts behind what was heard; none if nothing of that is true any more.
    async fn open(&mut self) -> Result<Option<InOrder>, ReadError> {
        let name = self.streams.names().delayed_stream();
        let delayed = self.streams.delayed();
        let stream = self.streams.jetstream().get_stream(&name).await;
        let stream = stream.map_err(|error| delayed.unavailable(&error))?;
        let info = stream.cached_info();
        let made = timestamp(info.created.unix_timestamp_nanos());
        let is_anew =
            self.made.is_some_and(|before| before != made) || info.state.last_sequence < self.position;
        self.made = Some(made);
        if is_anew {
            self.position = 0;
            return Ok(None);
        }
        let config = pull::Config {
            filter_subjects: self.filters.clone(),
            ..by_headers(DeliverPolicy::ByStartSequence { start_sequence: self.position + 1 })
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| delayed.unavailable(&error))?;
        Ok(Some(InOrder::new(consumer, SIZES)))
    }
}
