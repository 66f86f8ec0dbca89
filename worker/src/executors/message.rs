//! Requests to targets over NATS: the same body and headers as over HTTP, to `<prefix>.<action>`.
//!
//! Promise: one attempt is one request with one answer; an answer is read up to [`limits::RESPONSE_BYTES_MAX`].
//! Failure: without an answer in time the target may have acted all the same; it knows a repeat by its
//! `Idempotency-Key`.

use bytes::Bytes;
use serde_json::Value;
use shared::{limits, run_record::ErrorKind, target::Target};
use streams::{Streams, headers::Headers, requests::RequestError};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Failure,
    answer::{output_of, quoted, refused, stopped, too_large},
};

/// Makes attempts over NATS. Cheap to clone.
#[derive(Clone)]
pub struct MessageExecutor {
    streams: Streams,
}

impl MessageExecutor {
    /// An executor on this connection.
    pub fn new(streams: Streams) -> Self {
        Self { streams }
    }

    /// Makes one attempt. It waits for the answer as long as the task allows, or until `stop`.
    pub async fn execute(
        &self,
        attempt: &Attempt,
        target: &Target,
        stop: &CancellationToken,
    ) -> Result<Value, Failure> {
        let place = target.place_of(attempt.task.action());
        let payload = Bytes::from(attempt.body());
        let request = self.streams.request(&place, headers_of(attempt), payload, attempt.task.timeout);
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(stopped(&place)),
            answer = request => output(&place, answer),
        }
    }
}

fn headers_of(attempt: &Attempt) -> Headers {
    attempt
        .headers()
        .into_iter()
        // Only a broken trace context can be left out here, and tracing never stands in the way of a run.
        .fold(Headers::new(), |headers, (name, value)| headers.with_if_legal(name, &value))
        .with_if_legal("Content-Type", "application/json")
}

fn output(place: &str, answer: Result<Bytes, RequestError>) -> Result<Value, Failure> {
    let error = match answer {
        Ok(payload) if payload.len() > limits::RESPONSE_BYTES_MAX => return Err(too_large(place)),
        Ok(payload) => return Ok(output_of(&payload)),
        Err(error) => error,
    };
    let words = error.to_string();
    Err(match error {
        RequestError::Service { code, message } => refused(place, code, &quoted(message.as_bytes())),
        RequestError::TimedOut { .. } => Failure::retryable(ErrorKind::Timeout, words),
        RequestError::NoResponders(_) | RequestError::Send { .. } => {
            Failure::retryable(ErrorKind::Unreachable, words)
        }
        RequestError::Forbidden(_) => Failure::permanent(ErrorKind::UnknownTarget, words),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn failure(error: RequestError) -> (ErrorKind, bool) {
        let failure = output("svc.a.b", Err(error)).expect_err("an error");
        (failure.error.kind, failure.permanent)
    }

    #[test]
    fn an_answer_becomes_the_output_if_it_is_not_too_large() {
        assert_eq!(output("svc.a.b", Ok(Bytes::from_static(br#"{"rows":3}"#))), Ok(json!({"rows": 3})));
        assert_eq!(output("svc.a.b", Ok(Bytes::from_static(b"done"))), Ok(json!({"text": "done"})));
        assert_eq!(output("svc.a.b", Ok(Bytes::new())), Ok(Value::Null));
        let large = Bytes::from(vec![b'1'; limits::RESPONSE_BYTES_MAX + 1]);
        let failure = output("svc.a.b", Ok(large)).expect_err("too large");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::ResponseTooLarge, true));
    }

    #[test]
    fn what_another_attempt_may_mend_is_retryable() {
        let subject = || "svc.a.b".to_owned();
        assert_eq!(failure(RequestError::NoResponders(subject())), (ErrorKind::Unreachable, false));
        let timed_out = RequestError::TimedOut { subject: subject(), wait: Duration::from_secs(1) };
        assert_eq!(failure(timed_out), (ErrorKind::Timeout, false));
        let not_sent = RequestError::Send { subject: subject(), detail: "gone".to_owned() };
        assert_eq!(failure(not_sent), (ErrorKind::Unreachable, false));
        assert_eq!(failure(RequestError::Forbidden("$JS.API".to_owned())), (ErrorKind::UnknownTarget, true));
        for (code, permanent) in
            [(400, true), (404, true), (408, false), (425, false), (429, false), (500, false), (503, false)]
        {
            let error = RequestError::Service { code, message: "no".to_owned() };
            assert_eq!(failure(error), (ErrorKind::Target, permanent), "{code}");
        }
    }

    #[test]
    fn the_words_of_a_service_are_quoted_without_what_would_steer_a_terminal() {
        let error = RequestError::Service { code: 500, message: "\u{1b}[31mno\u{7}".to_owned() };
        let failure = output("svc.a.b", Err(error)).expect_err("an error");
        assert_eq!(failure.error.message, "svc.a.b answered 500: [31mno");
    }
}
