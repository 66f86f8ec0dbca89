//! The hold on a run: acks-in-progress while it is alive, and the end of the attempt when they do not get through.
//!
//! A worker that cannot renew must have stopped before the server hands the run to another. So it counts from the
//! moment the run came, or from when it *asked* the last time that was confirmed, and stops a margin before the
//! acknowledge wait is over.

use std::time::Duration;

use shared::{
    clock::SharedClock,
    limits::{HEARTBEATS_PER_ACK_WAIT, HOLD_MARGIN_PART},
};

use crate::running::Place;

/// Renews the hold on a run for ever; returns when it is lost. `since` is when the run came, in elapsed time.
pub(crate) async fn keep(place: &Place, clock: &SharedClock, since: Duration, ack_wait: Duration) {
    let trusted_for = ack_wait.saturating_sub(ack_wait / HOLD_MARGIN_PART);
    let between = ack_wait / HEARTBEATS_PER_ACK_WAIT;
    let mut confirmed_at = since;
    let mut ask_at = since + between;
    loop {
        clock.sleep(ask_at.saturating_sub(clock.elapsed())).await;
        let asked_at = clock.elapsed();
        ask_at = asked_at + between;
        // A claim may have taken longer than is trusted; then the first word decides, and has a moment to come.
        let is_first = confirmed_at == since;
        let left = (confirmed_at + trusted_for).checked_sub(asked_at).or(is_first.then_some(between));
        let Some(left) = left else { return };
        let Some(delivery) = place.delivery() else { return };
        let confirmed = tokio::select! {
            answer = Box::pin(delivery.in_progress()) => answer.is_ok(),
            () = clock.sleep(left) => return,
        };
        if confirmed {
            confirmed_at = asked_at;
        }
    }
}
