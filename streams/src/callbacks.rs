//! What targets leave that answer later. It is kept in a stream of its own, under a subject that only the attempt's target was
//! told; so it is not lost, whoever is there to hear it, and an answer to an earlier attempt lies where nobody looks.
//!
//! Promise: an answer whose publish was acknowledged is found by whoever looks at its run, for as long as the run waits.
//! Failure: the hint that one was left may be lost; the run is looked at every [`shared::limits::ASYNC_LOOK`] all the same.

use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use shared::{
    Timestamp,
    callback::{Awaited, Callback, CallbackStatus},
    limits::CALLBACKS_READ_MAX,
    run::RunId,
    task::Task,
};

use crate::{
    ReadError, Streams, WriteError, bucket::timestamp, headers::Headers, names::Origin, tasks::DueTask,
};

/// The group in which workers listen: each hint goes to one of them.
const LISTENERS: &str = "workers";

/// What is found for a run that waits.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// No answer yet; when its target was last heard.
    Nothing(Option<Timestamp>),
    /// An answer, or words about one that nobody can read.
    Answer(Result<Callback, String>),
}

/// A hint that an answer was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// For which run.
    pub run: RunId,
    /// Under which token.
    pub token: String,
    /// What was left.
    pub payload: Bytes,
}

/// The task of a run as it lies in its queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedTask {
    /// What is to be done.
    pub task: Task,
    /// Its place in the stream.
    pub sequence: u64,
    /// The subject it came on.
    pub subject: String,
}

impl Streams {
    /// Leaves an answer, or a sign of life, for a run. Kept when this returns.
    pub async fn leave(
        &self,
        run: &RunId,
        token: &str,
        status: CallbackStatus,
        payload: Bytes,
    ) -> Result<u64, WriteError> {
        let subject = match status {
            CallbackStatus::Progress => self.names().callback_progress(run, token),
            CallbackStatus::Success | CallbackStatus::Failed => self.names().callback(run, token),
        };
        self.write(&subject, Headers::new(), payload).await
    }

    /// What was left for a run under the token that counts, from the stream's leader. Of several answers the first counts.
    pub async fn left_for(&self, run: &RunId, awaited: &Awaited) -> Result<Left, ReadError> {
        let name = self.names().callbacks_stream();
        // By its subjects: others may leave what they like for a run, under tokens that are none.
        let Some(subjects) = self.subjects_of(&name, &self.names().callbacks_of(run)).await? else {
            return Err(ReadError::unavailable(name, "more was left for this run than can be listed"));
        };
        let counts = |subject: &&String| {
            let token = self.names().parse_callback(subject).map(|(_, token)| token);
            token.is_some_and(|token| awaited.is_answered_under(token))
        };
        let mut heard_at = None;
        for subject in subjects.iter().filter(counts) {
            match self.first_answer_on(&name, subject).await? {
                Left::Answer(answer) => return Ok(Left::Answer(answer)),
                Left::Nothing(heard) => heard_at = heard_at.max(heard),
            }
        }
        Ok(Left::Nothing(heard_at))
    }

    /// The first answer under a subject, behind the signs of life that may lie there.
    async fn first_answer_on(&self, name: &str, subject: &str) -> Result<Left, ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name, error);
        let stream = self.jetstream().get_stream_no_info(name).await.map_err(|error| unavailable(&error))?;
        let is_progress = subject.ends_with(".progress");
        let (mut from, mut heard_at) = (1, None);
        for _ in 0..CALLBACKS_READ_MAX {
            let message = match stream.get_first_raw_message_by_subject(subject, from).await {
                Ok(message) => message,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(unavailable(&error)),
            };
            from = message.sequence + 1;
            let callback = Callback::read(&message.payload);
            if !is_progress && !callback.as_ref().is_ok_and(|left| left.status() == CallbackStatus::Progress)
            {
                return Ok(Left::Answer(callback));
            }
            heard_at = heard_at.max(Some(timestamp(message.time.unix_timestamp_nanos())));
        }
        Ok(Left::Nothing(heard_at))
    }

    /// Hints that answers were left, from now on, each for one of those that listen.
    pub async fn hints(&self) -> Result<impl Stream<Item = Hint> + Send + Unpin + use<>, ReadError> {
        let subject = self.names().callbacks();
        let heard = self.client().queue_subscribe(subject.clone(), LISTENERS.to_owned()).await;
        let heard = heard.map_err(|error| ReadError::unavailable(subject, error))?;
        let streams = self.clone();
        Ok(Box::pin(heard.filter_map(move |message| {
            let hint = streams.names().parse_callback(&message.subject).map(|(run, token)| Hint {
                run,
                token: token.to_owned(),
                payload: message.payload.clone(),
            });
            async move { hint }
        })))
    }

    /// The task of a run as it lies in its queue; none if it lies there no more, or cannot be understood.
    pub async fn queued_task(&self, run: &RunId) -> Result<Option<QueuedTask>, ReadError> {
        let Some(holder) = self.task_of(run).await? else { return Ok(None) };
        let name = self.names().tasks_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        let message = match stream.get_raw_message(holder.sequence).await {
            Ok(message) => message,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let task = match self.names().parse_task(&message.subject).map(|(origin, ..)| origin) {
            Some(Origin::Due) => serde_json::from_slice::<DueTask>(&message.payload)
                .ok()
                .map(|due| std::sync::Arc::unwrap_or_clone(due.task)),
            Some(Origin::AdHoc) => Task::from_json(&message.payload).ok(),
            None => None,
        };
        let (sequence, subject) = (message.sequence, message.subject.to_string());
        Ok(task.map(|task| QueuedTask { task, sequence, subject }))
    }
}
