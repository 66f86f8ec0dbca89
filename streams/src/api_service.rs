//! The consoles' verbs as a NATS micro service: found by `$SRV.PING|INFO|STATS` (ADR-32), one endpoint for each verb.

use std::{collections::HashMap, sync::Arc};

use async_nats::service::{ServiceExt, endpoint::Endpoint, error::Error};
use bytes::Bytes;
use futures::{StreamExt, stream::SelectAll};
use shared::limits::CONSOLE_REQUESTS_MAX;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    ReadError, Streams,
    headers::{self, Headers},
};

/// A verb as the service announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVerb {
    /// `schedules.trigger`; the end of its subject.
    pub id: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// The same over HTTP: `POST /api/v1/schedules/{name}/trigger`.
    pub http: String,
}

/// What a verb answers.
#[derive(Debug, Clone, Default)]
pub struct ApiAnswer {
    /// As over HTTP; from 400 on it is an error.
    pub status: u16,
    /// JSON. Of an error the problem.
    pub body: Bytes,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// The revision of what was read or written.
    pub revision: Option<u64>,
}

/// The name of the service, as `$SRV` knows it, of this fleet.
fn service_name(streams: &Streams) -> String {
    format!("{}-api", streams.names().namespace())
}

impl Streams {
    /// Answers requests to the verbs until it is told to stop. Several consoles share the requests.
    pub async fn serve_api<H, F>(
        &self,
        verbs: Vec<ApiVerb>,
        handler: H,
        stop: CancellationToken,
    ) -> Result<(), ReadError>
    where
        H: Fn(String, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = ApiAnswer> + Send + 'static,
    {
        let name = service_name(self);
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(format!("service {name}"), error);
        let service = self
            .client()
            .service_builder()
            .description("Cronfleet's verbs: a JSON object with their parameters, and the body under `body`")
            .start(&name, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|error| failed(&error))?;
        let mut requests = SelectAll::new();
        for verb in verbs {
            let about = HashMap::from([
                ("summary".to_owned(), verb.summary.clone()),
                ("http".to_owned(), verb.http.clone()),
            ]);
            let endpoint: Endpoint = service
                .endpoint_builder()
                .name(verb.id.replace('.', "-"))
                .metadata(about)
                .add(self.names().api(&verb.id))
                .await
                .map_err(|error| failed(&error))?;
            requests.push(endpoint.map(move |request| (verb.id.clone(), request)).boxed());
        }
        let handler = Arc::new(handler);
        let places = Arc::new(Semaphore::new(CONSOLE_REQUESTS_MAX));
        let mut working = tokio::task::JoinSet::new();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => break,
                next = requests.next() => next,
            };
            let Some((verb, request)) = next else { return Err(failed(&"the subscriptions ended")) };
            while working.try_join_next().is_some() {}
            // What comes while all places are taken waits in the client's buffer.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let answering = handler(verb, request.message.payload.clone());
            working.spawn(async move {
                let answer = answering.await;
                let map = headers_of(&answer).into_map();
                let answer = match answer.error {
                    None => Ok(answer.body),
                    Some(error) => Err(Error { status: one_line(&error), code: usize::from(answer.status) }),
                };
                if let Err(error) = request.respond_with_headers(answer, map).await {
                    tracing::warn!(%error, "An answer could not be sent: {error}");
                }
                drop(place);
            });
        }
        let _ = service.stop().await;
        while working.join_next().await.is_some() {}
        Ok(())
    }
}

/// What goes with an answer beside its body. An error has no body on NATS, so its problem travels here.
fn headers_of(answer: &ApiAnswer) -> Headers {
    let mut all = Headers::new().with_number(headers::STATUS, u64::from(answer.status));
    if let Some(revision) = answer.revision {
        all = all.with_number(headers::REVISION, revision);
    }
    if answer.error.is_some() {
        let problem = one_line(&String::from_utf8_lossy(&answer.body));
        // One line by now, so it is never refused.
        all = all.clone().with(headers::PROBLEM, &problem).unwrap_or(all);
    }
    all
}

/// A text that travels in a header, where a line break would break the message.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(4_000).collect()
}
