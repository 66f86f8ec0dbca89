//! Requests to targets over HTTP.
//!
//! Promise: one attempt is one request. Nothing is repeated or followed behind the caller's back: no proxy from the
//! environment, no cookies, no redirects but those that the target's declaration allows, and an answer is read up to the
//! target's bound, counted after it is unpacked, and no further.
//! Failure: a connection that breaks after the request was sent leaves open whether the target acted. The attempt is
//! retryable all the same; the target knows a repeat by its `Idempotency-Key`.
//! Limit: which addresses may be reached is not decided here. Targets are declared by whoever may `apply`; what only the
//! worker knows goes to a target's own host and nowhere else.

mod clients;
mod incoming;
mod outgoing;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use shared::{
    clock::SharedClock, human_duration::HumanDuration, request::Shape, run_record::ErrorKind, target::Target,
};
use tokio_util::sync::CancellationToken;

use self::{
    clients::Clients,
    incoming::{beginning_of_body, next_place, redirected, retry_after_of, unreachable, whole_body},
    outgoing::{Outgoing, declared_headers, header_map, unfit, url_of},
};
use super::{
    Attempt, Done, Failure,
    answer::{output_of, quoted, refused, stopped, with_causes},
    secrets::{Secrets, SecretsFolder},
};

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct HttpSetupError(String);

/// Makes attempts over HTTP. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct HttpExecutor {
    clients: Clients,
    clock: SharedClock,
    secrets: SecretsFolder,
}

impl HttpExecutor {
    /// An executor with connections of its own, and its secrets in the usual folder.
    pub fn new(clock: SharedClock) -> Result<Self, HttpSetupError> {
        Ok(Self { clients: Clients::new(clock.clone())?, clock, secrets: SecretsFolder::default() })
    }

    /// With its secrets in another folder.
    #[must_use]
    pub fn with_secrets(self, secrets: SecretsFolder) -> Self {
        Self { secrets, ..self }
    }

    /// Makes one attempt. Its time is bounded by `stop`, and by what the target declares.
    pub async fn execute(
        &self,
        attempt: &Attempt,
        target: &Target,
        stop: &CancellationToken,
    ) -> Result<Done, Failure> {
        let shape = target.shape_of(attempt.task.action());
        let place = target.place_of(&attempt.template_values()).map_err(|error| unfit(&error))?;
        let out_of_time = async {
            match shape.timeout() {
                Some(timeout) => self.clock.sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Dropping the other branch closes its connection, which tells the target that nobody listens any more.
            () = stop.cancelled() => Err(stopped(&place)),
            answered = self.exchange(attempt, target, &shape, &place) => answered,
            () = out_of_time => Err(too_slow(&place, shape.timeout().unwrap_or_default())),
        }
    }

    /// What a target answers to a GET of this URL with all that its declaration asks for: the status, or what went wrong.
    pub(super) async fn probe(&self, target: &Target, url: &str, wait: Duration) -> Result<u16, String> {
        let prepared = async {
            let (client, url) = self.clients.of(target, url_of(url, &[])?).await?;
            let (headers, _) = declared_headers(target, &self.secrets).await?;
            Ok::<_, Failure>(client.get(url).headers(headers).timeout(wait))
        };
        match prepared.await.map_err(|failure| failure.error.message)?.send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) if error.is_timeout() => Err(format!("did not answer within {wait:?}")),
            Err(error) => Err(format!("did not answer: {}", with_causes(&error.without_url()))),
        }
    }

    async fn exchange(
        &self,
        attempt: &Attempt,
        target: &Target,
        shape: &Shape<'_>,
        place: &str,
    ) -> Result<Done, Failure> {
        let (mut headers, secrets) = declared_headers(target, &self.secrets).await?;
        headers.extend(attempt.offer.as_ref().map(|offer| header_map(offer.headers())).unwrap_or_default());
        let mut request = Outgoing::of(attempt, target, shape, place, headers)?;
        let (mut client, url) = self.clients.of(target, request.url.clone()).await?;
        request.url = url;
        let mut redirects_left = target.redirects;
        loop {
            let response = send(&request, &client, place).await?;
            let status = response.status();
            let rest = Answered { response, place, shape, target, secrets: &secrets };
            if let Some(offer) = attempt.offer.as_ref().filter(|_| status == StatusCode::ACCEPTED) {
                return Ok(offer.taken_on(self.clock.now()));
            }
            if shape.is_success(status.as_u16()) {
                return rest.output().await.map(Done::Output);
            }
            if !status.is_redirection() || shape.is_permanent(status.as_u16()).is_some() {
                return Err(rest.failure(&self.clock).await);
            }
            let next = next_place(&request.url, status.as_u16(), rest.response.headers())?;
            let Some(next) = next.filter(|_| redirects_left > 0) else {
                return Err(redirected(place, status.as_u16(), rest.response.headers(), target.redirects));
            };
            redirects_left -= 1;
            let is_own;
            (request, is_own) = request.redirected(status.as_u16(), next);
            if !is_own {
                // Nor is our certificate shown to anybody else.
                client = self.clients.usual().clone();
            }
        }
    }
}

async fn send(request: &Outgoing, client: &Client, place: &str) -> Result<Response, Failure> {
    request.on(client).send().await.map_err(|error| unreachable(place, error))
}

/// An answer, and by what it is judged.
struct Answered<'a> {
    response: Response,
    place: &'a str,
    shape: &'a Shape<'a>,
    target: &'a Target,
    secrets: &'a Secrets,
}

impl Answered<'_> {
    async fn output(self) -> Result<Value, Failure> {
        let body = whole_body(self.response, self.place, self.target.max_response_bytes).await?;
        Ok(output_of(&self.secrets.masked(body)))
    }

    async fn failure(self, clock: &SharedClock) -> Failure {
        let status = self.response.status().as_u16();
        let retry_after = retry_after_of(self.response.headers(), clock);
        let words = quoted(&self.secrets.masked(beginning_of_body(self.response, clock).await));
        let failure = refused(self.place, status, &words, self.shape.is_permanent(status));
        Failure { retry_after: retry_after.filter(|_| !failure.permanent), ..failure }
    }
}

fn too_slow(place: &str, timeout: Duration) -> Failure {
    let words = format!(
        "{place} did not answer within {}, which is the target's own timeout; it may have acted on the request",
        HumanDuration(timeout)
    );
    Failure::retryable(ErrorKind::Timeout, words)
}
