//! Requests to targets over NATS: the same body and headers as over HTTP, to `<prefix>.<action>` or to where a micro service
//! says that it listens.
//!
//! Promise: one attempt is one message, with one answer where one is waited for; an answer is read up to the target's bound.
//! Failure: without an answer in time the target may have acted all the same; it knows a repeat by its
//! `Idempotency-Key`. With `reply: none` nothing is known of the target at all, only that the server took the message.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use shared::{
    Timestamp,
    request::{Reply, Shape},
    run_record::ErrorKind,
    target::{Address, Target},
};
use streams::{
    Streams,
    headers::Headers,
    requests::{Reply as SentReply, RequestError},
};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Done, Failure,
    answer::{output_of, quoted, refused, stopped, too_large},
    endpoints::Endpoints,
    retry_after,
};

/// Makes attempts over NATS. Cheap to clone.
#[derive(Clone)]
pub struct MessageExecutor {
    streams: Streams,
    endpoints: Endpoints,
}

/// By what an answer is judged.
struct Judged<'a> {
    place: &'a str,
    shape: Shape<'a>,
    bytes_max: usize,
    now: Timestamp,
}

impl MessageExecutor {
    /// An executor on this connection.
    pub fn new(streams: Streams) -> Self {
        Self { endpoints: Endpoints::new(streams.clone()), streams }
    }

    /// Makes one attempt. It waits for the answer as long as task and target allow, or until `stop`.
    pub async fn execute(
        &self,
        attempt: &Attempt,
        target: &Target,
        stop: &CancellationToken,
    ) -> Result<Done, Failure> {
        let action = attempt.task.action();
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(stopped(&format!("action {action} of the target"))),
            answered = self.exchange(attempt, target) => answered,
        }
    }

    async fn exchange(&self, attempt: &Attempt, target: &Target) -> Result<Done, Failure> {
        let action = attempt.task.action();
        let place = match &target.address {
            Address::Service(name) => self.endpoints.of(name, action).await?,
            Address::Message(prefix) | Address::Http(prefix) => format!("{prefix}.{action}"),
        };
        let shape = target.shape_of(action);
        let payload = Bytes::from(attempt.body());
        if payload.len() > target.max_request_bytes {
            let words = format!(
                "the request to {place} has {} bytes; the target takes at most {}: pass a reference instead of the data",
                payload.len(),
                target.max_request_bytes
            );
            return Err(Failure::permanent(ErrorKind::Request, words));
        }
        let answer = match shape.reply() {
            Reply::Wait => {
                let wait = shape.timeout().unwrap_or(Duration::MAX).min(attempt.task.timeout);
                self.streams.request(&place, headers_of(attempt), payload, wait).await
            }
            Reply::None => self
                .streams
                .tell(&place, headers_of(attempt), payload, &attempt.run)
                .await
                .map(|()| SentReply { payload: Bytes::new(), is_accepted: true }),
        };
        if let (Address::Service(name), Err(RequestError::NoResponders(_))) = (&target.address, &answer) {
            // It has moved, or is gone: the next attempt looks again.
            self.endpoints.forget(name, action);
        }
        let now = self.streams.clock().now();
        if let (Some(offer), Ok(SentReply { is_accepted: true, .. })) = (&attempt.offer, &answer) {
            return Ok(offer.taken_on(now));
        }
        let answer = answer.map(|reply| reply.payload);
        Judged { place: &place, shape, bytes_max: target.max_response_bytes, now }
            .output(answer)
            .map(Done::Output)
    }
}

fn headers_of(attempt: &Attempt) -> Headers {
    attempt
        .headers()
        .into_iter()
        .chain(attempt.offer.iter().flat_map(super::Offer::headers))
        // Only a broken trace context can be left out here, and tracing never stands in the way of a run.
        .fold(Headers::new(), |headers, (name, value)| headers.with_if_legal(name, &value))
        .with_if_legal("Content-Type", "application/json")
}

impl Judged<'_> {
    fn output(&self, answer: Result<Bytes, RequestError>) -> Result<Value, Failure> {
        let error = match answer {
            Ok(payload) if payload.len() > self.bytes_max => {
                return Err(too_large(self.place, self.bytes_max));
            }
            Ok(payload) => return Ok(output_of(&payload)),
            Err(error) => error,
        };
        let words = error.to_string();
        Err(match error {
            RequestError::Service { code, message, retry_after, retryable } => {
                // What the service says of this one answer, then what is declared, then what the code says.
                let declared = self.shape.is_permanent(code);
                let is_permanent = retryable.map(|is_retryable| !is_retryable).or(declared);
                let failure = refused(self.place, code, &quoted(message.as_bytes()), is_permanent);
                let wait = retry_after.and_then(|text| retry_after::parse(&text, self.now));
                Failure { retry_after: wait.filter(|_| !failure.permanent), ..failure }
            }
            RequestError::TimedOut { .. } => Failure::retryable(ErrorKind::Timeout, words),
            RequestError::NoResponders(_) | RequestError::Send { .. } => {
                Failure::retryable(ErrorKind::Unreachable, words)
            }
            RequestError::Forbidden(_) => Failure::permanent(ErrorKind::UnknownTarget, words),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use shared::limits;

    use super::*;

    fn output(place: &str, answer: Result<Bytes, RequestError>) -> Result<Value, Failure> {
        let target: Target =
            serde_json::from_value(json!({"message": "svc.a", "permanent": [503], "retryable": [409]}))
                .expect("a target");
        let now = "2026-11-24T02:00:00Z".parse().expect("an instant");
        let action = "b".parse().expect("an action");
        let shape = target.shape_of(&action);
        Judged { place, shape, bytes_max: limits::RESPONSE_BYTES_MAX, now }.output(answer)
    }

    fn service(code: u16, retryable: Option<bool>, retry_after: Option<&str>) -> RequestError {
        let retry_after = retry_after.map(str::to_owned);
        RequestError::Service { code, message: "no".to_owned(), retry_after, retryable }
    }

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
        for (code, permanent) in [
            (400, true),
            (404, true),
            (408, false),
            (409, false),
            (425, false),
            (429, false),
            (500, false),
            (503, true),
        ] {
            assert_eq!(failure(service(code, None, None)), (ErrorKind::Target, permanent), "{code}");
            for retryable in [true, false] {
                let error = service(code, Some(retryable), None);
                assert_eq!(
                    failure(error),
                    (ErrorKind::Target, !retryable),
                    "{code}: the answer itself says so"
                );
            }
        }
    }

    #[test]
    fn a_service_that_asks_to_be_left_alone_is_obeyed_within_bounds() {
        let wait = |code, text| {
            output("svc.a.b", Err(service(code, None, Some(text)))).expect_err("an error").retry_after
        };
        assert_eq!(wait(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(429, "Tue, 24 Nov 2026 02:01:00 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(wait(429, "99999999999"), Some(limits::BACKOFF_MAX));
        assert_eq!(wait(429, "soon"), None);
        assert_eq!(wait(400, "7"), None, "nobody comes back");
    }

    #[test]
    fn the_words_of_a_service_are_quoted_without_what_would_steer_a_terminal() {
        let error = RequestError::Service {
            code: 500,
            message: "\u{1b}[31mno\u{7}".to_owned(),
            retry_after: None,
            retryable: None,
        };
        let failure = output("svc.a.b", Err(error)).expect_err("an error");
        assert_eq!(failure.error.message, "svc.a.b answered 500: [31mno");
    }
}
