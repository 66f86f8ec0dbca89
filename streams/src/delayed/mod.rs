//! What waits: ad-hoc submissions that may not run before an instant, and runs that wait long for their next attempt.
//!
//! The stream holds each until a planner has put it into its queue, and then it is deleted, by its sequence. The server
//! refuses a second one of the same run while the first waits, and stores each under the partition of its run, so that a
//! planner reads its own share and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `door.rs` | what a stranger wrote, read and judged (pure) |
//! | `follow.rs` | all that waits in some partitions, then what is added, by its headers only |
//! | `list.rs` | what waits, for people |
//! | `cancel.rs` | so that it never runs |
//! | `parked.rs` | runs that wait for their next attempt |

mod cancel;
mod door;
mod follow;
mod list;
mod parked;

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    message::StreamMessage,
    stream,
};
use bytes::Bytes;
use shared::{Timestamp, names::QueueName, run::RunId};

pub use self::{
    door::{Appointment, Fault, Unusable, check_not_before, read_not_before},
    follow::{Entry, Follower, Heard},
    list::{Listed, Wanted},
    parked::{InPlace, Parked, Parking},
};
use crate::{
    ReadError, Streams, WriteError,
    bucket::{missing_or_unavailable, timestamp},
    headers::{self, Headers},
};

/// How long the server keeps a consumer that nobody pulls from.
const INACTIVE_MAX: Duration = Duration::from_secs(30);

/// A consumer that reads what waits by its headers and takes nothing away.
fn by_headers(deliver_policy: DeliverPolicy) -> pull::Config {
    pull::Config {
        deliver_policy,
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: INACTIVE_MAX,
        ..Default::default()
    }
}

/// The submissions that wait.
#[derive(Clone)]
pub struct Delayed {
    streams: Streams,
}

/// A submission that waits, whole.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// When it may run, as which run; or why it never will.
    pub read: Result<Appointment, Unusable>,
    /// The W3C trace context it carries.
    pub traceparent: Option<String>,
    /// The task.
    pub payload: Bytes,
    /// The subject it was submitted to.
    pub subject: String,
    /// Its place in the stream; unique for ever.
    pub sequence: u64,
    /// When the server took it.
    pub submitted_at: Timestamp,
}

/// What lies under a place in the stream.
#[derive(Debug, Clone)]
pub enum Lying {
    /// A submission that waits for its instant.
    Submission(Box<Waiting>),
    /// A run that waits for its next attempt.
    Parked(Box<Parked>),
}

impl Streams {
    /// The submissions that wait.
    pub fn delayed(&self) -> Delayed {
        Delayed { streams: self.clone() }
    }
}

impl Delayed {
    /// Submits a task that shall wait: what any NATS client does with one publish.
    ///
    /// [`WriteError::Occupied`]: this very run waits already. That the queue is declared is not checked here.
    pub async fn submit(
        &self,
        queue: &QueueName,
        run: &RunId,
        not_before: Timestamp,
        task: &[u8],
        traceparent: Option<&str>,
    ) -> Result<u64, WriteError> {
        let instant = not_before.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let mut headers = Headers::new().with(headers::NOT_BEFORE, &instant)?;
        if let Some(traceparent) = traceparent {
            headers = headers.with(headers::TRACEPARENT, traceparent)?;
        }
        let subject = self.streams.names().delayed(queue, run);
        self.streams.write(&subject, headers, Bytes::copy_from_slice(task)).await
    }

    /// Reads one whole. None: it is there no more, because it was dispatched or cancelled.
    pub async fn get(&self, sequence: u64) -> Result<Option<Lying>, ReadError> {
        let stream = self.stream().await?;
        match stream.direct_get(sequence).await {
            Ok(message) => return Ok(self.lying(message)),
            // A replica may be behind: what is not there is asked of the leader, who knows.
            Err(error) if error.kind() == stream::DirectGetErrorKind::NotFound => {}
            Err(error) => return Err(self.unavailable(&error)),
        }
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(self.lying(message)),
            Err(error) if error.kind() == stream::RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// The newest submission of a run that waits, in whatever queue; read from the leader. In a fleet without the
    /// stream nothing waits.
    pub async fn find(&self, run: &RunId) -> Result<Option<Waiting>, ReadError> {
        let subject = self.streams.names().delayed_run(run);
        match self.stream().await?.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(self.waiting(message)),
            Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => match self.unavailable(&error) {
                ReadError::Missing { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Removes exactly this one. If it is gone already, that is what was wanted.
    pub async fn remove(&self, sequence: u64) -> Result<(), ReadError> {
        self.streams.remove_message(&self.streams.names().delayed_stream(), sequence).await
    }

    /// How many wait, in the whole fleet.
    pub async fn count(&self) -> Result<u64, ReadError> {
        let name = self.streams.names().delayed_stream();
        let stream = self.streams.jetstream().get_stream(&name).await;
        Ok(stream.map_err(|error| self.unavailable(&error))?.cached_info().state.messages)
    }

    async fn stream(&self) -> Result<stream::Stream<()>, ReadError> {
        let name = self.streams.names().delayed_stream();
        self.streams.jetstream().get_stream_no_info(&name).await.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &impl std::fmt::Display) -> ReadError {
        missing_or_unavailable(&format!("stream {}", self.streams.names().delayed_stream()), error)
    }

    fn lying(&self, message: StreamMessage) -> Option<Lying> {
        if self.streams.names().parse_parked(&message.subject).is_some() {
            return Some(Lying::Parked(Box::new(self.parked(message)?)));
        }
        Some(Lying::Submission(Box::new(self.waiting(message)?)))
    }

    fn waiting(&self, message: StreamMessage) -> Option<Waiting> {
        let names = self.streams.names();
        // Nothing else can be in the stream: it takes these subjects only, and transforms them all.
        let (_, queue, name, key) = names.parse_delayed(&message.subject)?;
        let header = |header: &str| headers::value(Some(&message.headers), header);
        let submitted_at = timestamp(message.time.unix_timestamp_nanos());
        Some(Waiting {
            read: door::read((queue, name, key), header(headers::NOT_BEFORE), submitted_at),
            traceparent: header(headers::TRACEPARENT).map(str::to_owned),
            subject: names.delayed_as_submitted(queue, name, key),
            payload: message.payload,
            sequence: message.sequence,
            submitted_at,
        })
    }
}
