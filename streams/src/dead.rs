//! The dead letters: tasks that will not be tried again, whole, with what went wrong.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{run_record::RunRecord, task::Task};

use crate::{Streams, WriteError, headers::Headers};

/// A task that will not be tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
}

/// Bytes of an unreadable message kept in its dead letter.
const RAW_BYTES_MAX: usize = 64 * 1024;

impl DeadLetter {
    /// The letter of a message that is no task: with what came, cut to a bound.
    pub fn unreadable(run: RunRecord, payload: &[u8], subject: String) -> Self {
        let kept = &payload[..payload.len().min(RAW_BYTES_MAX)];
        Self { run, task: None, raw: Some(String::from_utf8_lossy(kept).into_owned()), subject }
    }
}

impl Streams {
    /// Stores a dead letter under its run. Storing the same again replaces it, so this may be repeated.
    pub async fn bury(&self, letter: &DeadLetter) -> Result<(), WriteError> {
        let subject = self.names().dead(&letter.run.queue, &letter.run.id);
        let bytes = Bytes::from(serde_json::to_vec(letter).unwrap_or_default());
        self.write(&subject, Headers::new(), bytes).await.map(|_| ())
    }

    /// Whether a run has its dead letter, be it one that cannot be understood.
    pub async fn is_buried(&self, run: &RunRecord) -> Result<bool, crate::ReadError> {
        Ok(self.dead_message(run).await?.is_some())
    }

    /// The dead letter of a run, if there is one.
    pub async fn dead_letter(&self, run: &RunRecord) -> Result<Option<DeadLetter>, crate::ReadError> {
        let payload = self.dead_message(run).await?;
        Ok(payload.and_then(|payload| serde_json::from_slice(&payload).ok()))
    }

    async fn dead_message(&self, run: &RunRecord) -> Result<Option<Bytes>, crate::ReadError> {
        let name = self.names().dead_stream();
        let unavailable = |error: &dyn std::fmt::Display| crate::ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        let subject = self.names().dead(&run.queue, &run.id);
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) => match error.kind() {
                async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(unavailable(&error)),
            },
        }
    }
}
