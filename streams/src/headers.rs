//! Headers, built so that nothing a user wrote can break a message.
//!
//! `HeaderMap::insert` panics on CR or LF in raw text, so values are parsed first and refused with an error.

use async_nats::header::{HeaderMap, HeaderValue};

use crate::WriteError;

/// The run a message is about. Trusted on `due` subjects only.
pub const RUN: &str = "Cronfleet-Run";
/// The ledger revision of the record a planner made, so that the first claim is one write.
pub const REVISION: &str = "Cronfleet-Revision";
/// That a submission has a record already, because it waited for its instant. Anybody may say so: its worker looks.
pub const RECORDED: &str = "Cronfleet-Recorded";
/// The attempt's number, from 1.
pub const ATTEMPT: &str = "Cronfleet-Attempt";
/// The attempt's fencing number; grows with every claim.
pub const FENCE: &str = "Cronfleet-Fence";
/// The slot of a planned run, RFC 3339.
pub const SLOT: &str = "Cronfleet-Slot";
/// Which part of a sharded run a run is, from 0.
pub const SHARD_INDEX: &str = "Cronfleet-Shard-Index";
/// How many parts there are.
pub const SHARD_TOTAL: &str = "Cronfleet-Shard-Total";
/// The run it is a part of.
pub const SHARD_PARENT: &str = "Cronfleet-Shard-Parent";
/// The run whose end a run follows.
pub const UPSTREAM_RUN: &str = "Cronfleet-Upstream-Run";
/// How that ended.
pub const UPSTREAM_STATUS: &str = "Cronfleet-Upstream-Status";
/// The same for every attempt of a run, so that a target can drop repeats.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The instant before which a submission may not run, RFC 3339.
pub const NOT_BEFORE: &str = "Cronfleet-Not-Before";
/// The subject a run that waits for its next attempt came on, and goes back to.
pub const SUBJECT: &str = "Cronfleet-Subject";
/// The place in the task stream of the message it came by.
pub const SEQUENCE: &str = "Cronfleet-Sequence";
/// Where a target may leave its answer later, over HTTP. It alone is told.
pub const CALLBACK: &str = "Cronfleet-Callback";
/// Where it may leave its answer over NATS. It alone is told.
pub const CALLBACK_SUBJECT: &str = "Cronfleet-Callback-Subject";
/// When its answer must have come, RFC 3339.
pub const CALLBACK_DEADLINE: &str = "Cronfleet-Callback-Deadline";
/// In an answer over NATS: the run is taken on, and how it ends comes later. `true`.
pub const ACCEPTED: &str = "Cronfleet-Accepted";
/// In an answer with an error: how long the service wants to be left alone, in seconds or as an HTTP date.
pub const RETRY_AFTER: &str = "Cronfleet-Retry-After";
/// In an answer with an error: whether another attempt would mend it, `true` or `false`.
pub const RETRYABLE: &str = "Cronfleet-Retryable";
/// In an answer of the consoles' service: how it went, as HTTP says it.
pub const STATUS: &str = "Cronfleet-Status";
/// In an answer of theirs with an error: the problem, as JSON.
pub const PROBLEM: &str = "Cronfleet-Problem";
/// Who asked for something, in the audit.
pub const BY: &str = "Cronfleet-By";

pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
pub(crate) const TTL: &str = "Nats-TTL";
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
pub(crate) const STORED_SUBJECT: &str = "Nats-Subject";
pub(crate) const STORED_SEQUENCE: &str = "Nats-Sequence";
pub(crate) const TIME: &str = "Nats-Time-Stamp";
pub(crate) const KV_OPERATION: &str = "KV-Operation";
pub(crate) const SERVICE_ERROR: &str = "Nats-Service-Error";
pub(crate) const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// Headers under construction.
#[derive(Debug, Clone, Default)]
pub struct Headers(HeaderMap);

impl Headers {
    /// No headers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one header more; a value with a line break is refused.
    pub fn with(mut self, name: &'static str, value: &str) -> Result<Self, WriteError> {
        let parsed: HeaderValue =
            value.parse().map_err(|_| WriteError::Header { name, value: value.to_owned() })?;
        self.set(name, parsed);
        Ok(self)
    }

    #[expect(clippy::disallowed_methods, reason = "a parsed value holds no line break")]
    fn set(&mut self, name: &'static str, parsed: HeaderValue) {
        self.0.insert(name, parsed);
    }

    /// With a header one can do without: a value with a line break is left out.
    #[must_use]
    pub fn with_if_legal(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(parsed) = value.parse::<HeaderValue>() {
            self.set(name, parsed);
        }
        self
    }

    /// With a header that is a number.
    #[must_use]
    pub fn with_number(mut self, name: &'static str, value: u64) -> Self {
        self.set(name, HeaderValue::from(value));
        self
    }

    /// Whether they demand that nothing is there yet.
    pub(crate) fn is_over_nothing(&self) -> bool {
        value(Some(&self.0), EXPECTED_LAST_SUBJECT_SEQUENCE) == Some("0")
    }

    pub(crate) fn into_map(self) -> HeaderMap {
        self.0
    }
}

/// A header's value, if it is there.
pub(crate) fn value<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(HeaderValue::as_str)
}

/// A header's value, if it is a number.
pub(crate) fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    value(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_a_value_is_an_error_and_no_panic() {
        for value in ["a\r\nNats-Rollup: all", "a\nb", "a\rb"] {
            assert!(matches!(Headers::new().with(BY, value), Err(WriteError::Header { .. })), "{value:?}");
            assert!(Headers::new().with_if_legal(BY, value).into_map().is_empty(), "{value:?}");
        }
        assert!(Headers::new().with(BY, "Zoë 运维").is_ok());
    }
}
