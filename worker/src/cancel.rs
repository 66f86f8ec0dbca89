//! Requests to cancel: heard at once by a subscription, and looked for in the control stream at every renewal of the
//! hold, because what is heard over core NATS may be lost.

use std::time::Duration;

use chrono::TimeDelta;
use futures::{StreamExt, stream::BoxStream};
use shared::{
    limits::{CANCEL_LOOK_AGAIN, CLOCK_OFFSET_MAX, HEARTBEATS_PER_ACK_WAIT},
    run_record::RunRecord,
};
use streams::{ReadError, Streams, cancel::CancelRequest};
use tokio_util::sync::CancellationToken;

use crate::running::{Place, Running};

/// Before a subscription that ended is made anew.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Requests as they are made.
pub(crate) type Cancels = BoxStream<'static, CancelRequest>;

/// Stops the runs whose end is asked for, until it is told to stop itself.
///
/// The first subscription is made by the caller, before anything is pulled: of a run that is begun without a claim, who cancels
/// it relies on being heard.
pub(crate) async fn follow(
    streams: Streams,
    running: Running,
    first: Result<Cancels, ReadError>,
    stop: CancellationToken,
) {
    let mut first = Some(first);
    loop {
        let requests = match first.take() {
            Some(requests) => requests,
            None => subscribe(&streams).await,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = listen(requests, &running) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = streams.clock().sleep(LISTEN_AGAIN) => {}
        }
    }
}

/// Hears of the requests that were made just before this worker began to listen.
pub(crate) async fn catch_up(streams: &Streams, running: &Running) -> Result<(), ReadError> {
    let back = TimeDelta::from_std(CANCEL_LOOK_AGAIN + CLOCK_OFFSET_MAX).unwrap_or(TimeDelta::zero());
    for request in streams.cancels_since(streams.clock().now() - back).await? {
        running.cancel(request);
    }
    Ok(())
}

/// Subscribes to requests.
pub(crate) async fn subscribe(streams: &Streams) -> Result<Cancels, ReadError> {
    streams.cancels().await.map(StreamExt::boxed)
}

async fn listen(requests: Result<Cancels, ReadError>, running: &Running) {
    match requests {
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
