//! Runs that wait for their turn at a limit: outside their queue, where they hold nobody's place.
//!
//! Each stands in its lane, in the order in which they came. It goes back to its queue when the limit has room.

use async_nats::jetstream::{message::StreamMessage, response::Response, stream};
use serde::Deserialize;
use serde_json::json;
use shared::limit::{GateKey, Scope};

use crate::{
    ReadError, Streams, WriteError,
    bucket::missing_or_unavailable,
    delivery::Delivery,
    headers::{self, Headers},
};

/// A run that waits for its turn.
pub struct Limited {
    message: StreamMessage,
}

/// What came of letting a run go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetGo {
    /// It is in its queue again.
    Queued,
    /// Its message is in the queue already, and it waits still: it came out a moment ago and is not acknowledged yet, or was
    /// submitted once more.
    IsQueued,
}

impl Limited {
    /// Its place in the stream.
    pub fn sequence(&self) -> u64 {
        self.message.sequence
    }
}

#[derive(Deserialize)]
struct Counted {
    total: Option<u64>,
}

impl Streams {
    /// Puts a run that came out of its queue among those that wait in a lane. Whether it did: if a message of it stands there
    /// already, somebody may be about to remove that one, because they have just let it go.
    ///
    /// Its delivery is to be acknowledged only after that; if it did not, only if it is not one that was let go.
    pub async fn let_wait(&self, lane: &GateKey, delivery: &Delivery) -> Result<bool, WriteError> {
        let Some(subject) = self.names().limited(lane, &delivery.subject) else {
            return Err(WriteError::NoStream { what: delivery.subject.clone() });
        };
        let mut headers = Headers::new();
        if let Some(run) = &delivery.run_header {
            headers = headers.with(headers::RUN, run)?;
        }
        if let Some(revision) = delivery.revision {
            headers = headers.with_number(headers::REVISION, revision);
        }
        if let Some(traceparent) = &delivery.traceparent {
            headers = headers.with_if_legal(headers::TRACEPARENT, traceparent);
        }
        match self.write(&subject, headers, delivery.payload.clone()).await {
            Ok(_) => Ok(true),
            Err(WriteError::Occupied { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The run that has waited longest in a lane, of those from a place in the stream on, by the leader.
    pub async fn first_waiting(&self, lane: &GateKey, from: u64) -> Result<Option<Limited>, ReadError> {
        self.first_message(&self.names().limited_in(lane), from).await
    }

    async fn first_message(&self, filter: &str, from: u64) -> Result<Option<Limited>, ReadError> {
        let name = self.names().limited_stream();
        let unavailable = |error: &dyn std::fmt::Display| {
            missing_or_unavailable(&format!("stream {name}"), &error.to_string())
        };
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        match stream.get_first_raw_message_by_subject(filter, from).await {
            Ok(message) => Ok(Some(Limited { message })),
            Err(error) if error.kind() == stream::RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The lane of the first run that waits in any, from a place in the stream on, with its place there.
    pub async fn anybody_waiting(&self, from: u64) -> Result<Option<(GateKey, u64)>, ReadError> {
        let found = self.first_message(&self.names().limited_all(), from).await?;
        Ok(found
            .and_then(|found| Some((self.names().limited_lane(&found.message.subject)?, found.sequence()))))
    }

    /// Puts a run that waited back into its queue. Safe to repeat: its record decides that it runs once.
    pub async fn let_go(&self, waiting: &Limited) -> Result<LetGo, WriteError> {
        let message = &waiting.message;
        let Some(subject) = self.names().limited_came_on(&message.subject) else {
            return Err(WriteError::NoStream { what: message.subject.to_string() });
        };
        let mut headers = Headers::new();
        for name in [headers::RUN, headers::REVISION, headers::TRACEPARENT] {
            if let Some(value) = headers::value(Some(&message.headers), name) {
                headers = headers.with(name, value)?;
            }
        }
        // It has a record, which says that it waits.
        headers = headers.with_number(headers::RECORDED, 1);
        match self.write(&subject, headers, message.payload.clone()).await {
            Ok(_) => {}
            // It must not be removed here: whoever let it wait is about to acknowledge the other.
            Err(WriteError::Occupied { .. }) => return Ok(LetGo::IsQueued),
            Err(error) => return Err(error),
        }
        // If it stays, it is let go once more, and dropped as a run that has begun or ended.
        let _ = self.remove_message(&self.names().limited_stream(), message.sequence).await;
        Ok(LetGo::Queued)
    }

    /// How many runs of a scope wait for their turn.
    pub async fn count_waiting(&self, scope: &Scope) -> Result<u64, ReadError> {
        let name = self.names().limited_stream();
        let unavailable = |error: &dyn std::fmt::Display| {
            missing_or_unavailable(&format!("stream {name}"), &error.to_string())
        };
        let request = json!({ "subjects_filter": self.names().limited_of(scope) });
        let answer: Response<Counted> = self
            .jetstream()
            .request(format!("STREAM.INFO.{name}"), &request)
            .await
            .map_err(|error| unavailable(&error))?;
        match answer {
            Response::Ok(counted) => Ok(counted.total.unwrap_or_default()),
            Response::Err { error } => Err(unavailable(&error)),
        }
    }
}
