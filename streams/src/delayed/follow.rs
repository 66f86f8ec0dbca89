//! Following what waits in some partitions: all that is there, then what is added. Headers only: the tasks stay where
//! they are until they are due.
//!
//! Its own loop of pulls over a consumer without acknowledgements, not async-nats' ordered one: that loses a wakeup
//! after its first missed heartbeat. Here the place in the stream is all that is remembered, and whatever goes wrong is
//! mended by a new consumer that starts behind it.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::{Consumer, DeliverPolicy, pull},
};
use futures::{StreamExt, stream::ReadyChunks};
use shared::Timestamp;

use super::{Delayed, by_headers, door};
use crate::{ReadError, Streams, bucket::timestamp, headers};

/// Entries of one pull. Fewer than async-nats holds for a subscriber, so none is dropped.
const PULL_MAX: usize = 10_000;
/// A pull that was not filled ends after this, and is asked anew. That long a lost one is not missed.
const PULL_EXPIRES: Duration = Duration::from_secs(2);
/// Entries that are handed on at once.
const CHUNK_MAX: usize = 1_000;

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
    open: Option<Box<Open>>,
    /// The last place that was heard of.
    position: u64,
    /// Whether all that was there has been heard of.
    is_current: bool,
    /// When the stream was made, by which one that was made anew is known.
    made: Option<Timestamp>,
}

struct Open {
    consumer: Consumer<pull::Config>,
    batch: Option<ReadyChunks<pull::Batch>>,
    delivered: u64,
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
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.open().await? {
                    Some(open) => Box::new(open),
                    None => return Ok(Heard::Anew),
                },
            };
            let mut batch = if let Some(batch) = open.batch.take() {
                batch
            } else {
                let pull = open.consumer.batch().max_messages(PULL_MAX).expires(PULL_EXPIRES);
                let batch = pull.messages().await;
                batch.map_err(|error| ReadError::unavailable("delayed", error))?.ready_chunks(CHUNK_MAX)
            };
            let Some(chunk) = batch.next().await else {
                // Filled or expired: ask anew.
                self.open = Some(open);
                continue;
            };
            let mut entries = Vec::with_capacity(chunk.len());
            let mut trouble = None;
            for message in chunk {
                match message
                    .map_err(|error| error.to_string())
                    .and_then(|message| self.entry(&message, &mut open.delivered))
                {
                    Ok(entry) => entries.extend(entry),
                    Err(error) => {
                        trouble = Some(error);
                        break;
                    }
                }
            }
            match trouble {
                // With the next call a new consumer starts behind what was heard.
                Some(error) if entries.is_empty() => return Err(ReadError::unavailable("delayed", error)),
                Some(_) => {}
                None => {
                    open.batch = Some(batch);
                    self.open = Some(open);
                }
            }
            return Ok(Heard::Entries(entries));
        }
    }

    fn entry(&mut self, message: &Message, delivered: &mut u64) -> Result<Option<Entry>, String> {
        let info = message.info().map_err(|error| error.to_string())?;
        if info.consumer_sequence != *delivered + 1 {
            return Err(format!("delivery {} came after {delivered}", info.consumer_sequence));
        }
        *delivered = info.consumer_sequence;
        self.position = info.stream_sequence;
        self.is_current |= info.pending == 0;
        let Some((partition, queue, name, key)) = self.streams.names().parse_delayed(&message.subject) else {
            return Ok(None);
        };
        let written = headers::value(message.headers.as_ref(), headers::NOT_BEFORE);
        let submitted_at = timestamp(info.published.unix_timestamp_nanos());
        let due_ms = door::read((queue, name, key), written, submitted_at)
            .map_or(Entry::AT_ONCE, |appointment| appointment.not_before.timestamp_millis());
        Ok(Some(Entry { partition, due_ms, sequence: info.stream_sequence }))
    }

    /// A new consumer that starts behind what was heard; none if nothing of that is true any more.
    async fn open(&mut self) -> Result<Option<Open>, ReadError> {
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
        Ok(Some(Open { consumer, batch: None, delivered: 0 }))
    }
}
