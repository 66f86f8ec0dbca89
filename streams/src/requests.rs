//! Requests to targets that are reached by NATS messages.

use std::time::Duration;

use async_nats::{Request, client::RequestErrorKind};
use bytes::Bytes;
use shared::run::RunId;

use crate::{
    ReadError, Streams,
    headers::{self, Headers},
};

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens there.
    #[error("nobody listens on {0}; is the service running?")]
    NoResponders(String),
    /// No answer in time.
    #[error("no answer on {subject} within {wait:?}")]
    TimedOut {
        /// Where it was sent.
        subject: String,
        /// How long the answer was waited for.
        wait: Duration,
    },
    /// The service answered with an error (`Nats-Service-Error`, ADR-32).
    #[error("the service answered {code}: {message}")]
    Service {
        /// Its code, like an HTTP status.
        code: u16,
        /// Its words.
        message: String,
        /// How long it wants to be left alone, as it wrote it.
        retry_after: Option<String>,
        /// Whether another attempt would mend it, if it says so.
        retryable: Option<bool>,
    },
    /// It could not be sent.
    #[error("the request to {subject} could not be sent: {detail}")]
    Send {
        /// Where it was to go.
        subject: String,
        /// What went wrong.
        detail: String,
    },
    /// This subject is the server's or the fleet's own.
    #[error(
        "{0} is not a subject of a target: the server's and the fleet's own subjects are closed to tasks"
    )]
    Forbidden(String),
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it holds.
    pub payload: Bytes,
    /// Whether the service has only taken the request on, and will answer later.
    pub is_accepted: bool,
}

impl Streams {
    /// Sends a request and returns the answer.
    pub async fn request(
        &self,
        subject: &str,
        headers: Headers,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Reply, RequestError> {
        self.check_target_subject(subject)?;
        let request = Request::new().headers(headers.into_map()).payload(payload).timeout(Some(wait));
        let message = self.client().send_request(subject.to_owned(), request).await.map_err(|error| {
            let subject = subject.to_owned();
            match error.kind() {
                RequestErrorKind::NoResponders => RequestError::NoResponders(subject),
                RequestErrorKind::TimedOut => RequestError::TimedOut { subject, wait },
                _ => RequestError::Send { subject, detail: error.to_string() },
            }
        })?;
        let header = |name| headers::value(message.headers.as_ref(), name);
        match (header(headers::SERVICE_ERROR_CODE), header(headers::SERVICE_ERROR)) {
            (None, None) => {
                let is_accepted = header(headers::ACCEPTED) == Some("true");
                Ok(Reply { payload: message.payload, is_accepted })
            }
            (code, message) => Err(RequestError::Service {
                code: code.and_then(|code| code.parse().ok()).unwrap_or(500),
                message: message.unwrap_or("(no message)").to_owned(),
                retry_after: header(headers::RETRY_AFTER).map(str::to_owned),
                retryable: header(headers::RETRYABLE).and_then(|word| word.parse().ok()),
            }),
        }
    }

    /// Sends a message that nobody answers, for this run; returns when the server has it. Whether anybody listens is not known.
    pub async fn tell(
        &self,
        subject: &str,
        headers: Headers,
        payload: Bytes,
        run: &RunId,
    ) -> Result<(), RequestError> {
        self.check_target_subject(subject)?;
        let not_sent = |error: &dyn std::fmt::Display| RequestError::Send {
            subject: subject.to_owned(),
            detail: error.to_string(),
        };
        let sent = self.client().publish_with_headers(subject.to_owned(), headers.into_map(), payload).await;
        sent.map_err(|error| not_sent(&error))?;
        // A question that travels behind it on the same connection: its answer says that the server has read this far.
        match self.ledger().get(run).await {
            Ok(_) | Err(ReadError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(not_sent(&error)),
        }
    }

    /// Whatever is declared or discovered: nobody's task speaks to the server or to the fleet itself.
    fn check_target_subject(&self, subject: &str) -> Result<(), RequestError> {
        let own = format!("{}.", self.names().namespace());
        let is_closed =
            subject.starts_with('$') || subject.starts_with("_INBOX") || subject.starts_with(&own);
        if is_closed { Err(RequestError::Forbidden(subject.to_owned())) } else { Ok(()) }
    }
}
