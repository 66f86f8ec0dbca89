//! A service that answers requests over NATS, found by `$SRV.PING|INFO|STATS` (ADR-32).

use std::sync::Arc;

use async_nats::service::{ServiceExt, error::Error};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{ReadError, Streams};

/// Requests one service works on at once; the others wait in the client's buffer.
const REQUESTS_AT_ONCE_MAX: usize = 16;

/// An error a service answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// Like an HTTP status: 4xx is the caller's fault and not worth a repeat.
    pub code: u16,
    /// The value, the rule and the repair.
    pub message: String,
}

impl Streams {
    /// Answers requests to `<prefix>.<action>` until it is told to stop. Several instances share the requests.
    pub async fn respond<H, F>(
        &self,
        name: &str,
        prefix: &str,
        handler: H,
        stop: CancellationToken,
    ) -> Result<(), ReadError>
    where
        H: Fn(String, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, ServiceError>> + Send + 'static,
    {
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(format!("service {name}"), error);
        let service = self
            .client()
            .service_builder()
            .description(format!("{name}, answering on {prefix}.<action>"))
            .start(name, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(|error| failed(&error))?;
        let mut requests = service
            .endpoint_builder()
            .name("actions")
            .add(format!("{prefix}.*"))
            .await
            .map_err(|error| failed(&error))?;
        let handler = Arc::new(handler);
        let places = Arc::new(Semaphore::new(REQUESTS_AT_ONCE_MAX));
        let mut working = tokio::task::JoinSet::new();
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => break,
                request = requests.next() => request,
            };
            let Some(request) = request else { return Err(failed(&"the subscription ended")) };
            while working.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let action = request.message.subject.rsplit('.').next().unwrap_or_default().to_owned();
            let handler = Arc::clone(&handler);
            working.spawn(async move {
                let answer = handler(action, request.message.payload.clone()).await;
                let answer = answer
                    .map_err(|error| Error { status: one_line(&error.message), code: error.code.into() });
                if let Err(error) = request.respond(answer).await {
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

/// An error travels in a header, where a line break would break the message.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1_000).collect()
}
