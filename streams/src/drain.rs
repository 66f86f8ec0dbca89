//! Asking a worker from afar to stop: it fetches no more, finishes what it has, hands back the rest, and ends.
//!
//! The request lies in the control stream, under the worker's id, which no other process ever has. The worker hears it by a
//! plain subscription, and looks for it with every heartbeat, because what is heard that way may be lost.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{Timestamp, names::MemberId};

use crate::{
    ReadError, Streams, WriteError,
    headers::{self, Headers},
};

/// "Stop fetching, finish what you have, and end."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The worker.
    pub worker: MemberId,
    /// Hand back what runs at once, instead of letting it finish.
    #[serde(default)]
    pub now: bool,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Streams {
    /// Asks a worker to stop. Stored when this returns, whether or not the worker lives.
    pub async fn drain(&self, request: &DrainRequest) -> Result<u64, WriteError> {
        let id = format!("drain.{}.{}", request.worker, request.now);
        let headers = Headers::new().with(headers::BY, &request.by)?.with(headers::MESSAGE_ID, &id)?;
        let bytes = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        self.write(&self.names().drain(&request.worker), headers, bytes).await
    }

    /// The last request to stop that a worker got, read from the stream's leader.
    pub async fn drain_asked(&self, worker: &MemberId) -> Result<Option<DrainRequest>, ReadError> {
        let payload = self.last_control(&self.names().drain(worker)).await?;
        Ok(payload.and_then(|payload| parse(worker, &payload)))
    }

    /// Requests to stop that a worker gets from now on. One may be lost; the stream has it.
    pub async fn drains(
        &self,
        worker: &MemberId,
    ) -> Result<impl Stream<Item = DrainRequest> + Send + Unpin + use<>, ReadError> {
        let subject = self.names().drain(worker);
        let messages = self
            .client()
            .subscribe(subject.clone())
            .await
            .map_err(|error| ReadError::unavailable(subject, error))?;
        let worker = worker.clone();
        Ok(Box::pin(messages.filter_map(move |message| {
            let request = parse(&worker, &message.payload);
            async move { request }
        })))
    }
}

/// A request that names another worker than its subject is nobody's.
fn parse(worker: &MemberId, payload: &[u8]) -> Option<DrainRequest> {
    let request: DrainRequest = serde_json::from_slice(payload).ok()?;
    (request.worker == *worker).then_some(request)
}
