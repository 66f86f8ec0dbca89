//! Requests to targets over HTTP.
//!
//! Promise: one attempt is one request. Nothing is repeated, followed or decoded behind the caller's back: no
//! redirects, no proxy from the environment, no cookies, no decompression, and an answer is read up to
//! [`limits::RESPONSE_BYTES_MAX`] and no further.
//! Failure: a connection that breaks after the request was sent leaves open whether the target acted. The attempt is
//! retryable all the same; the target knows a repeat by its `Idempotency-Key`.
//! Limit: which addresses may be reached is not decided here. Targets are declared by whoever may `apply`.

use std::{sync::Once, time::Duration};

use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect,
};
use serde_json::Value;
use shared::{clock::SharedClock, limits, run_record::ErrorKind, target::Target};
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, Failure,
    answer::{output_of, quoted, refused, stopped, too_large, with_causes},
    retry_after,
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: less than common servers keep theirs (5 s), so that a request is not sent
/// into a connection that its other end is just closing.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How often a silent connection is checked, so that a target whose machine is gone is noticed before the timeout.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes that are read of an answer that is an error: enough for what a message quotes.
const ERROR_BODY_BYTES_MAX: usize = 4 * 1024;
/// How long the body of an error is waited for; its status has said what matters.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(2);

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct HttpSetupError(String);

/// Makes attempts over HTTP. Cheap to clone; clones share one pool of connections.
#[derive(Clone)]
pub struct HttpExecutor {
    client: Client,
    clock: SharedClock,
}

impl HttpExecutor {
    /// An executor with a client of its own.
    pub fn new(clock: SharedClock) -> Result<Self, HttpSetupError> {
        install_crypto();
        let client = match client_settings().build() {
            Ok(client) => client,
            // A machine or container without CA certificates can still reach targets over http://.
            Err(error) => {
                let client = client_settings().tls_certs_only([]).build();
                let client = client.map_err(|_| HttpSetupError(with_causes(&error)))?;
                tracing::warn!(
                    error = %with_causes(&error),
                    "No CA certificates: every https:// target will be refused; install ca-certificates or set SSL_CERT_FILE"
                );
                client
            }
        };
        Ok(Self { client, clock })
    }

    /// The client, for health checks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes one attempt. Its time is bounded by `stop` alone.
    pub async fn execute(
        &self,
        attempt: &Attempt,
        target: &Target,
        stop: &CancellationToken,
    ) -> Result<Value, Failure> {
        let place = target.place_of(attempt.task.action());
        let url: Url = place.parse().map_err(|error| {
            Failure::permanent(
                ErrorKind::UnknownTarget,
                format!("{place} is not a URL ({error}); mend the target's `http:` or `path:` and apply"),
            )
        })?;
        let request = self.client.post(url).headers(headers_of(attempt)).body(attempt.body());
        tokio::select! {
            biased;
            // Dropping the other branch closes its connection, which tells the target that nobody listens any more.
            () = stop.cancelled() => Err(stopped(&place)),
            answered = ask(request, &place, &self.clock) => answered,
        }
    }
}

/// rustls asks for one provider per process; async-nats may have installed the same one already.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is installed: whoever was first has decided.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn client_settings() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("cronfleet/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        // The features are off; these lines hold when another crate turns them on.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_keepalive(KEEPALIVE)
}

fn headers_of(attempt: &Attempt) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        // Only a broken trace context can fail here, and tracing never stands in the way of a run.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            map.insert(name, value);
        }
    };
    for (name, value) in attempt.headers() {
        set(name, &value);
    }
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map
}

async fn ask(request: RequestBuilder, place: &str, clock: &SharedClock) -> Result<Value, Failure> {
    let response = request.send().await.map_err(|error| unreachable(place, error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(output_of(&whole_body(response, place).await?));
    }
    if status.is_redirection() {
        return Err(redirected(place, status, response.headers()));
    }
    let retry_after = retry_after_of(response.headers(), clock);
    let words = quoted(&beginning_of_body(response, clock).await);
    let failure = refused(place, status.as_u16(), &words);
    Err(Failure { retry_after: retry_after.filter(|_| !failure.permanent), ..failure })
}

fn unreachable(place: &str, error: reqwest::Error) -> Failure {
    let repair = if error.is_connect() {
        "is the service running, and is its address right?"
    } else {
        "the service may have acted on the request; it is told so by the Idempotency-Key"
    };
    // The place is named once, by us.
    let causes = with_causes(&error.without_url());
    Failure::retryable(ErrorKind::Unreachable, format!("{place} did not answer: {causes}; {repair}"))
}

/// Reads an answer to its end, or up to the bound.
async fn whole_body(mut response: Response, place: &str) -> Result<Vec<u8>, Failure> {
    // What it announces decides early; what it sends decides in any case.
    let announced =
        response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits::RESPONSE_BYTES_MAX as u64) {
        return Err(too_large(place));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(place, error))? {
        if body.len() + chunk.len() > limits::RESPONSE_BYTES_MAX {
            return Err(too_large(place));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads as much of an error's body as a message quotes, and waits for it only briefly.
async fn beginning_of_body(mut response: Response, clock: &SharedClock) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BODY_BYTES_MAX - body.len())]);
            if body.len() == ERROR_BODY_BYTES_MAX {
                break;
            }
        }
    };
    // Late or broken: then the status alone is the message.
    tokio::select! {
        () = reading => {}
        () = clock.sleep(ERROR_BODY_WAIT) => {}
    }
    body
}

/// A redirect is not followed: the target was declared, its new place was not, and it could be any address at all.
fn redirected(place: &str, status: StatusCode, headers: &HeaderMap) -> Failure {
    let location = headers.get(LOCATION).map(|value| quoted(value.as_bytes())).unwrap_or_default();
    // A query may hold what should not be in a record.
    let location =
        location.split(['?', '#']).next().filter(|text| !text.is_empty()).unwrap_or("an unnamed place");
    Failure::permanent(
        ErrorKind::Target,
        format!(
            "{place} answered {} and points to {location}; redirects are not followed: write the final address into the target's `http:` and apply",
            status.as_u16()
        ),
    )
}

/// How long the target asks to be left alone. A date is compared with the target's own, if it sends one.
fn retry_after_of(headers: &HeaderMap, clock: &SharedClock) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let now = text(DATE).and_then(retry_after::http_date).unwrap_or_else(|| clock.now());
    retry_after::parse(text(RETRY_AFTER)?, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_a_redirect_points_to_is_named_without_its_query() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("http://169.254.169.254/meta?token=secret"));
        let failure = redirected("http://here", StatusCode::FOUND, &headers);
        assert!(failure.permanent);
        assert!(failure.error.message.contains("http://169.254.169.254/meta;"), "{}", failure.error.message);
        assert!(!failure.error.message.contains("secret"));
        assert!(
            redirected("http://here", StatusCode::FOUND, &HeaderMap::new()).error.message.contains("unnamed")
        );
    }
}
