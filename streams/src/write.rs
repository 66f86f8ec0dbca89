//! The one way to write to a stream, and what its answers mean.

use std::time::Duration;

use async_nats::{Request, client::RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

use crate::{Streams, WriteError, headers::Headers, witness};

/// How long a write waits for its answer before it is unknown.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// `JetStream`'s error codes that callers tell apart (`nats-server/server/errors.json`).
mod code {
    pub(super) const WRONG_LAST_SEQUENCE: u64 = 10_071;
    /// Three replicas: another write to the same subject is on its way.
    pub(super) const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;
    pub(super) const STORE_FAILED: u64 = 10_077;
    pub(super) const TOO_MANY_REQUESTS: u64 = 10_167;
    pub(super) const MESSAGE_TOO_LARGE: u64 = 10_054;
    pub(super) const INSUFFICIENT_RESOURCES: u64 = 10_023;
}

#[derive(Deserialize)]
struct Answer {
    seq: Option<u64>,
    error: Option<ApiError>,
}

/// The server's word for why it refused.
#[derive(Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl ApiError {
    /// The code that tells errors apart.
    pub(crate) fn code(&self) -> u64 {
        self.err_code
    }
}

impl Streams {
    /// Publishes to a stream and waits for the server's word: the sequence it is stored under.
    pub(crate) async fn write(
        &self,
        subject: &str,
        headers: Headers,
        payload: Bytes,
    ) -> Result<u64, WriteError> {
        let what = || subject.to_owned();
        let bytes = payload.len();
        let is_creation = witness::is_installed() && headers.is_over_nothing();
        let request = Request::new().headers(headers.into_map()).payload(payload).timeout(Some(ANSWER_WAIT));
        let message = self.client().send_request(subject.to_owned(), request).await.map_err(|error| {
            match error.kind() {
                RequestErrorKind::NoResponders => WriteError::NoStream { what: what() },
                RequestErrorKind::MaxPayloadExceeded => WriteError::TooLarge { what: what(), bytes },
                // Sent or not, stored or not: nobody can say.
                _ => WriteError::Unknown { what: what() },
            }
        })?;
        let answer: Answer =
            serde_json::from_slice(&message.payload).map_err(|error| WriteError::Refused {
                what: what(),
                code: 0,
                detail: format!("an answer that is no JSON: {error}"),
            })?;
        match answer {
            Answer { error: Some(error), .. } => Err(classify(what(), bytes, error)),
            Answer { seq: Some(sequence), .. } => {
                witness::saw(|| witness::point_of(self.names(), subject, is_creation));
                Ok(sequence)
            }
            Answer { .. } => Err(WriteError::Unknown { what: what() }),
        }
    }
}

/// What a refusal means to whoever wrote.
pub(crate) fn classify(what: String, bytes: usize, error: ApiError) -> WriteError {
    let detail = error.description;
    match error.err_code {
        code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT => WriteError::Conflict { what },
        // One code for every refusal of the store; only its words tell them apart (nats-server store.go).
        code::STORE_FAILED if detail.contains("per subject") => WriteError::Occupied { what },
        code::STORE_FAILED | code::TOO_MANY_REQUESTS | code::INSUFFICIENT_RESOURCES => {
            WriteError::Full { what, detail }
        }
        code::MESSAGE_TOO_LARGE => WriteError::TooLarge { what, bytes },
        code => WriteError::Refused { what, code, detail },
    }
}
