//! What was promised under a caller's idempotency key: which run, or which backfill, a request became.
//!
//! One message in the control stream for each key, written over nothing, so that of two requests that come at once, to whichever console,
//! one makes the promise and the other finds it. It is kept as long as that stream's audit.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use uuid::Uuid;

use crate::{
    ReadError, Streams, WriteError,
    headers::{self, Headers},
};

/// What a request became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The request in a few letters: what differs is another request.
    pub fingerprint: String,
    /// The run, or the backfill, that it became.
    pub id: String,
    /// When it was made.
    pub at: Timestamp,
    /// Whether it was carried out, so that asking again need not.
    #[serde(default)]
    pub is_kept: bool,
}

impl Promise {
    /// A promise about a request.
    pub fn new(request: &[u8], id: String, at: Timestamp) -> Self {
        let fingerprint = Uuid::new_v5(&Uuid::NAMESPACE_OID, request).simple().to_string();
        Self { fingerprint, id, at, is_kept: false }
    }
}

/// A promise that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What was promised.
    pub promise: Promise,
    /// Whether it was made before.
    pub is_older: bool,
    key: String,
    revision: u64,
}

impl Streams {
    /// Makes a promise under a key of the caller's, in this scope (which verb, on what). Finds the one that was made before, if one
    /// was; whether it is about the same request is for the caller to compare.
    pub async fn promise(&self, scope: &str, key: &str, promise: Promise) -> Result<Standing, WriteError> {
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{scope}\n{key}").as_bytes()).simple();
        let subject = self.names().promise(&hash.to_string());
        let unknown = |_: ReadError| WriteError::Unknown { what: subject.clone() };
        // Twice: what was written between the read and the write is found by the second read.
        for _ in 0..2 {
            if let Some((promise, revision)) = self.promised(&subject).await.map_err(unknown)? {
                return Ok(Standing { promise, is_older: true, key: subject, revision });
            }
            match self.write_promise(&subject, &promise, 0).await {
                Ok(revision) => return Ok(Standing { promise, is_older: false, key: subject, revision }),
                Err(WriteError::Conflict { .. } | WriteError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let found = self.promised(&subject).await.map_err(unknown)?;
        let (promise, revision) = found.ok_or(WriteError::Unknown { what: subject.clone() })?;
        Ok(Standing { promise, is_older: true, key: subject, revision })
    }

    /// Says that it was carried out. What cannot be written is not: then asking again does it again, idempotently.
    pub async fn keep(&self, standing: &Standing) {
        let kept = Promise { is_kept: true, ..standing.promise.clone() };
        if let Err(error) = self.write_promise(&standing.key, &kept, standing.revision).await {
            tracing::debug!(%error, "A promise was kept and could not be marked so: {error}");
        }
    }

    async fn promised(&self, subject: &str) -> Result<Option<(Promise, u64)>, ReadError> {
        let Some((payload, revision)) = self.last_control_with_place(subject).await? else { return Ok(None) };
        let promise = serde_json::from_slice(&payload).map_err(|error| ReadError::Corrupt {
            what: subject.to_owned(),
            revision,
            detail: error.to_string(),
        })?;
        Ok(Some((promise, revision)))
    }

    async fn write_promise(&self, subject: &str, promise: &Promise, over: u64) -> Result<u64, WriteError> {
        let headers = Headers::new().with_number(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, over);
        self.write(subject, headers, Bytes::from(serde_json::to_vec(promise).unwrap_or_default())).await
    }
}
