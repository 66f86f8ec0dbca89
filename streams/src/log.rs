//! The logs of runs: what they say while they run, in a stream of its own that forgets by age and by size. Nothing rests
//! on it: a log that cannot be written holds up no run.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, pull},
    context::GetStreamErrorKind,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
};
use bytes::Bytes;
use futures::StreamExt;
use shared::{
    run::RunId,
    run_log::{LogBatch, LogLine},
};

use crate::{ReadError, Streams, WriteError, headers::Headers};

const PULL_MAX: usize = 1_000;
const PULL_EXPIRES: Duration = Duration::from_secs(3);
/// A consumer that nobody reads any more goes after this.
const INACTIVE_MAX: Duration = Duration::from_secs(30);

impl Streams {
    /// Stores lines of a run's log. May be repeated: readers leave out what they have seen.
    pub async fn append_to_log(&self, run: &RunId, batch: &LogBatch) -> Result<u64, WriteError> {
        let bytes = Bytes::from(serde_json::to_vec(batch).unwrap_or_default());
        self.write(&self.names().log(run), Headers::new(), bytes).await
    }

    /// The log of a run, to be read from its beginning on.
    pub fn log_of(&self, run: &RunId) -> LogReader {
        let subject = self.names().log(run);
        LogReader { streams: self.clone(), subject, position: 0, seen: Seen::default(), is_there: false }
    }
}

/// Reads a run's log from its beginning on, and remembers how far it is.
pub struct LogReader {
    streams: Streams,
    subject: String,
    /// The place in the stream up to which it was read.
    position: u64,
    seen: Seen,
    /// Whether the stream was seen to be there.
    is_there: bool,
}

/// What was read of each attempt, so that what was stored twice is shown once.
#[derive(Debug, Default)]
struct Seen(Vec<(u64, u64)>);

impl Seen {
    /// The lines of a batch that are new.
    fn new_of(&mut self, batch: LogBatch) -> LogBatch {
        let place = self.0.iter().position(|(fence, _)| *fence == batch.fence).unwrap_or_else(|| {
            self.0.push((batch.fence, 0));
            self.0.len() - 1
        });
        let (_, last) = &mut self.0[place];
        let lines: Vec<LogLine> = batch.lines.into_iter().filter(|line| line.n > *last).collect();
        *last = lines.iter().map(|line| line.n).max().unwrap_or(*last);
        LogBatch { lines, ..batch }
    }
}

impl LogReader {
    /// All that is there and was not read yet.
    pub async fn rest(&mut self) -> Result<Vec<LogBatch>, ReadError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.position + 1 },
            filter_subject: self.subject.clone(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE_MAX,
            ..Default::default()
        };
        let stream = self.stream().await?;
        let consumer = stream.create_consumer(config).await.map_err(|error| self.unavailable(&error))?;
        let mut expected = consumer.cached_info().num_pending;
        let mut batches = Vec::new();
        while expected > 0 {
            let pull = consumer.batch().max_messages(PULL_MAX).expires(PULL_EXPIRES).messages().await;
            let mut messages = pull.map_err(|error| self.unavailable(&error))?;
            let mut heard = 0_usize;
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| self.unavailable(&error))?;
                let info = message.info().map_err(|error| self.unavailable(&error))?;
                heard += 1;
                expected = info.pending.min(expected.saturating_sub(1));
                self.position = info.stream_sequence;
                batches.extend(self.read(&message.payload));
                if expected == 0 {
                    break;
                }
            }
            // What was forgotten meanwhile does not come any more.
            if heard == 0 {
                break;
            }
        }
        Ok(batches)
    }

    /// What comes next, if it is there: cheap, so that it may be asked again and again.
    pub async fn next(&mut self) -> Result<Option<LogBatch>, ReadError> {
        loop {
            let stream = self.stream().await?;
            let found = stream.direct_get_next_for_subject(&self.subject, Some(self.position + 1)).await;
            let message = match found {
                Ok(message) => message,
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.unavailable(&error)),
            };
            self.position = message.sequence;
            if let Some(batch) = self.read(&message.payload) {
                return Ok(Some(batch));
            }
        }
    }

    /// Whether all that the stream's leader has at this moment was read.
    pub async fn is_current(&mut self) -> Result<bool, ReadError> {
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(message) => Ok(message.sequence <= self.position),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(true),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// What a message says that is new. One that cannot be understood is left out: the log goes on behind it.
    fn read(&mut self, payload: &[u8]) -> Option<LogBatch> {
        let batch = self.seen.new_of(serde_json::from_slice(payload).ok()?);
        (!batch.lines.is_empty()).then_some(batch)
    }

    /// The stream. Whether it is there is asked once.
    async fn stream(&mut self) -> Result<Stream<()>, ReadError> {
        let name = self.streams.names().log_stream();
        if !self.is_there {
            self.streams.jetstream().get_stream(&name).await.map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    ReadError::Missing { what: name.clone() }
                }
                _ => self.unavailable(&error),
            })?;
            self.is_there = true;
        }
        let stream = self.streams.jetstream().get_stream_no_info(&name).await;
        stream.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> ReadError {
        ReadError::unavailable(self.subject.clone(), error)
    }
}

#[cfg(test)]
mod tests {
    use shared::run_log::LogSource;

    use super::*;

    #[test]
    fn what_was_stored_twice_is_read_once_and_attempts_count_by_themselves() {
        let line = |n: u64| LogLine {
            n,
            at: "2026-11-24T02:00:00Z".parse().expect("an instant"),
            from: LogSource::Stdout,
            text: n.to_string(),
            cut: None,
            lossy: false,
            progress: None,
        };
        let batch = |fence: u64, numbers: &[u64]| LogBatch {
            attempt: 1,
            fence,
            worker: None,
            lines: numbers.iter().map(|n| line(*n)).collect(),
        };
        let mut seen = Seen::default();
        let mut numbers = |fence, numbers: &[u64]| -> Vec<u64> {
            seen.new_of(batch(fence, numbers)).lines.iter().map(|line| line.n).collect()
        };
        assert_eq!(numbers(7, &[1, 2]), [1, 2]);
        assert_eq!(numbers(9, &[1]), [1], "another attempt");
        assert_eq!(numbers(7, &[1, 2]), [0_u64; 0], "the same again");
        assert_eq!(numbers(7, &[2, 3, 9]), [3, 9]);
    }
}
