//! The hold on a run: acks-in-progress while it is alive, and the end of the attempt when they do not get through.
//!
//! A worker that cannot renew must have stopped before the server hands the run to another, so it counts from the
//! moment it *asked* the last time that was confirmed, and stops a margin before the acknowledge wait is over.

use std::time::Duration;

use shared::{clock::SharedClock, limits::HEARTBEATS_PER_ACK_WAIT};

use crate::running::Place;

/// Renews the hold on a run for ever; returns when it is lost.
pub(crate) async fn keep(place: &Place, clock: &SharedClock, ack_wait: Duration) {
    let trusted_for = ack_wait.saturating_sub(ack_wait / 6);
    let mut confirmed_at = clock.elapsed();
    loop {
        clock.sleep(ack_wait / HEARTBEATS_PER_ACK_WAIT).await;
        let asked_at = clock.elapsed();
        let give_up_at = confirmed_at + trusted_for;
        let Some(left) = give_up_at.checked_sub(asked_at) else { return };
        let Some(delivery) = place.delivery() else { return };
        let confirmed = tokio::select! {
            answer = delivery.in_progress() => answer.is_ok(),
            () = clock.sleep(left) => return,
        };
        if confirmed {
            confirmed_at = asked_at;
        }
    }
}
