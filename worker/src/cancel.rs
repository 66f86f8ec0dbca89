//! Requests to cancel: heard at once by a subscription, and looked for in the control stream at every renewal of the
//! hold, because what is heard over core NATS may be lost.

use std::time::Duration;

use futures::StreamExt;
use shared::{limits::HEARTBEATS_PER_ACK_WAIT, run_record::RunRecord};
use streams::{Streams, cancel::CancelRequest};
use tokio_util::sync::CancellationToken;

use crate::running::{Place, Running};

/// Before a subscription that ended is made anew.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Stops the runs whose end is asked for, until it is told to stop itself.
pub(crate) async fn follow(streams: Streams, running: Running, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = listen(&streams, &running) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = streams.clock().sleep(LISTEN_AGAIN) => {}
        }
    }
}

async fn listen(streams: &Streams, running: &Running) {
    match streams.cancels().await {
        Ok(mut requests) => {
            while let Some(request) = requests.next().await {
                running.cancel(request);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "Requests to cancel are not heard just now, only looked for: {error}");
        }
    }
}

/// Returns when somebody asked for the end of a run that is under way.
pub(crate) async fn asked(
    streams: &Streams,
    place: &Place,
    record: &RunRecord,
    ack_wait: Duration,
) -> CancelRequest {
    let heard = place.cancelled(record);
    tokio::pin!(heard);
    loop {
        tokio::select! {
            request = &mut heard => return request,
            () = streams.clock().sleep(ack_wait / HEARTBEATS_PER_ACK_WAIT) => {}
        }
        // A read that failed is made again at the next renewal.
        if let Ok(Some(request)) = Box::pin(streams.cancel_asked(record)).await {
            return request;
        }
    }
}
