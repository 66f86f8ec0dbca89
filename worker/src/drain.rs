//! Being asked from afar to stop: as by a signal, and it is known who asked.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use shared::limits::MEMBER_HEARTBEAT;
use streams::{Streams, drain::DrainRequest};
use tokio_util::sync::CancellationToken;

use crate::{Stop, member::Status};

/// Stops the worker when it is asked to. Goes on listening until the worker has stopped: it may be asked to hurry.
pub(crate) async fn follow(streams: Streams, status: Arc<Status>, stop: Stop, closing: CancellationToken) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = listen(&streams, &status, &stop) => {}
    }
}

async fn listen(streams: &Streams, status: &Status, stop: &Stop) {
    loop {
        // Subscribed anew after each interruption, and after each look when that is refused.
        match streams.drains(status.id()).await {
            Ok(requests) => heed_all(streams, status, stop, requests).await,
            Err(error) => {
                tracing::warn!(%error, "Requests to stop are not heard just now, only looked for: {error}");
                streams.clock().sleep(MEMBER_HEARTBEAT).await;
                if let Some(request) = Box::pin(streams.drain_asked(status.id())).await.ok().flatten() {
                    heed(status, stop, &request);
                }
            }
        }
    }
}

/// Heeds what is heard, and what is found at each heartbeat; returns when nothing is heard any more.
async fn heed_all(
    streams: &Streams,
    status: &Status,
    stop: &Stop,
    mut requests: impl Stream<Item = DrainRequest> + Unpin,
) {
    loop {
        let request = tokio::select! {
            request = requests.next() => match request {
                Some(request) => Some(request),
                // It is subscribed anew, not in a hot loop.
                None => return streams.clock().sleep(MEMBER_HEARTBEAT).await,
            },
            // A read that failed is made again at the next.
            () = streams.clock().sleep(MEMBER_HEARTBEAT) => Box::pin(streams.drain_asked(status.id())).await.ok().flatten(),
        };
        if let Some(request) = request {
            heed(status, stop, &request);
        }
    }
}

fn heed(status: &Status, stop: &Stop, request: &DrainRequest) {
    if !stop.drain.is_cancelled() {
        let by = &request.by;
        tracing::info!(by, "Stopping: {by} asked for it");
        status.note_drained_by(by);
        stop.drain.cancel();
    }
    if request.now && !stop.abort.is_cancelled() {
        let by = &request.by;
        tracing::warn!(by, "Handing running work back: {by} asked for it");
        stop.abort.cancel();
    }
}
