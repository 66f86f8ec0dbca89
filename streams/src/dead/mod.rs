//! The dead letters: tasks that will not be tried again by themselves, whole, with what went wrong.
//!
//! | file | what |
//! |---|---|
//! | `filter.rs` | which of them are meant (pure) |
//! | `list.rs` | going through all of them |
//! | `retry.rs` | running one again by hand, under its own id |

mod filter;
mod list;
mod retry;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    past_attempts::{PastAttempt, attempts_of},
    run::RunId,
    run_record::RunRecord,
    task::Task,
};

pub use self::{
    filter::Wanted,
    list::Found,
    retry::{RetryError, Retrying},
};
use crate::{ReadError, Streams, WriteError, headers::Headers};

/// A task that will not be tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The run, as it ended.
    pub run: RunRecord,
    /// The task, if it could be understood.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<Task>,
    /// The message as it came, if it could not: as text, cut to a bound, with what is no text replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub raw: Option<String>,
    /// The subject it came on.
    pub subject: String,
    /// The attempts that were made, the earliest first, with what went wrong: those that the record's history still had
    /// when the letter was stored. It keeps 16 versions, which are seven attempts at least.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attempts: Vec<PastAttempt>,
}

/// Bytes of an unreadable message kept in its dead letter.
const RAW_BYTES_MAX: usize = 64 * 1024;

impl DeadLetter {
    /// The letter of a run whose task is understood.
    pub fn of(run: RunRecord, task: Task, subject: String) -> Self {
        Self { run, task: Some(task), raw: None, subject, attempts: Vec::new() }
    }

    /// The letter of a message that is no task: with what came, cut to a bound.
    pub fn unreadable(run: RunRecord, payload: &[u8], subject: String) -> Self {
        let kept = &payload[..payload.len().min(RAW_BYTES_MAX)];
        let raw = Some(String::from_utf8_lossy(kept).into_owned());
        Self { run, task: None, raw, subject, attempts: Vec::new() }
    }
}

impl Streams {
    /// Stores a dead letter under its run, with the attempts that were made. Storing the same again replaces it, so this may
    /// be repeated.
    pub async fn bury(&self, mut letter: DeadLetter) -> Result<(), WriteError> {
        let subject = self.names().dead(&letter.run.queue, &letter.run.id);
        letter.attempts = Box::pin(self.attempts_at(&letter.run)).await;
        let bytes = Bytes::from(serde_json::to_vec(&letter).unwrap_or_default());
        self.write(&subject, Headers::new(), bytes).await.map(|_| ())
    }

    /// The attempts that were made at a run that has failed. The last one is in its record; only of a run with several the
    /// history is read, and what cannot be read just now is left out: the letter matters more.
    async fn attempts_at(&self, run: &RunRecord) -> Vec<PastAttempt> {
        let last = || attempts_of(run.finished_at.map(|finished_at| (run, finished_at)));
        if run.attempt <= 1 {
            return last();
        }
        match self.ledger().history(&run.id).await {
            Ok(versions) => attempts_of(versions.iter().map(|stored| (&stored.value, stored.stored_at))),
            Err(error) => {
                tracing::warn!(run.id = %run.id, %error, "The earlier attempts at `{}` cannot be read: {error}", run.id);
                last()
            }
        }
    }

    /// Whether a run has its dead letter, be it one that cannot be understood. Not one of its life before it was retried by hand:
    /// whoever retried it may not have come to deleting that, and it says nothing of this failure.
    pub async fn is_buried(&self, run: &RunRecord) -> Result<bool, ReadError> {
        let message = self.dead_message(&self.names().dead(&run.queue, &run.id)).await?;
        Ok(message.is_some_and(|message| {
            Found::read(&message).is_none_or(|found| found.letter.run.times_retried() >= run.times_retried())
        }))
    }

    /// The dead letter of a run, if there is one.
    pub async fn dead_letter(&self, run: &RunRecord) -> Result<Option<DeadLetter>, ReadError> {
        let message = self.dead_message(&self.names().dead(&run.queue, &run.id)).await?;
        Ok(message.as_ref().and_then(Found::read).map(|found| found.letter))
    }

    /// The dead letter of a run, in whatever queue, with its place.
    pub async fn find_dead_letter(&self, run: &RunId) -> Result<Option<Found>, ReadError> {
        Ok(self.dead_message(&self.names().dead_run(run)).await?.as_ref().and_then(Found::read))
    }

    async fn dead_message(
        &self,
        subject: &str,
    ) -> Result<Option<async_nats::jetstream::message::StreamMessage>, ReadError> {
        let name = self.names().dead_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(unavailable(&error)),
            },
        }
    }
}
