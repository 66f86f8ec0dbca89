//! Handing a run back until its next attempt: for a short wait to the server, with a delay; for a long one to the planners,
//! so that it holds no place of its queue meanwhile.
//!
//! Recorded RETRY first, then parked, then acknowledged. Killed after the first, the run comes out of its queue again after
//! the acknowledge wait, and is parked then; killed after the second, it lies in both places, and whoever puts it back sees
//! that. Whatever goes wrong, the delay at the server is always right.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{
    limits::{MEMBER_GONE, PARK_AFTER},
    run_record::RunRecord,
    run_state::RunState,
};
use streams::{
    Streams,
    delayed::Parking,
    delivery::{Delivery, NotConfirmed},
    members::Member,
};

/// Hands runs back until their next attempt.
pub(crate) struct Parker {
    streams: Streams,
    /// Whether a planner was alive, and when that was looked at.
    planner: Mutex<Option<(Duration, bool)>>,
}

impl Parker {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { streams, planner: Mutex::new(None) }
    }

    /// Hands a run back that waits for its next attempt by a record of this revision.
    pub(crate) async fn hand_back(
        &self,
        delivery: &Delivery,
        record: &RunRecord,
        revision: u64,
        wait: Duration,
    ) -> Result<(), NotConfirmed> {
        let now = self.streams.clock().now();
        let is_soon = |at| at - now <= TimeDelta::from_std(PARK_AFTER).unwrap_or(TimeDelta::MAX);
        if wait > PARK_AFTER && !record.next_attempt_at.is_some_and(is_soon) {
            return self.hand_back_elsewhere(delivery, record, revision, wait).await;
        }
        delivery.hand_back(wait).await
    }

    /// The same of one whose message somebody else may still remove: it waits outside its queue however short that is.
    pub(crate) async fn hand_back_elsewhere(
        &self,
        delivery: &Delivery,
        record: &RunRecord,
        revision: u64,
        wait: Duration,
    ) -> Result<(), NotConfirmed> {
        if self.park(delivery, record, revision).await {
            return delivery.ack().await;
        }
        delivery.hand_back(wait).await
    }

    /// As [`Parker::hand_back`], of a run that was found to wait for so long. Not if it was put back already: then its planner
    /// thinks that its time has come, and would do so again.
    pub(crate) async fn hand_back_found(
        &self,
        delivery: &Delivery,
        found: &RunRecord,
        wait: Duration,
    ) -> Result<(), NotConfirmed> {
        if wait > PARK_AFTER
            && !delivery.is_put_back
            && let Ok(Some(stored)) = self.streams.ledger().get(&found.id).await
        {
            return self.hand_back(delivery, &stored.value, stored.revision, wait).await;
        }
        delivery.hand_back(wait).await
    }

    /// Whether it lies with the planners now.
    async fn park(&self, delivery: &Delivery, record: &RunRecord, revision: u64) -> bool {
        let Some(next_attempt_at) = record.next_attempt_at.filter(|_| record.status == RunState::Retry)
        else {
            return false;
        };
        // The message on a lock is the lock: while the run waits, no other of its schedule may run.
        if delivery.is_on_lock || !self.has_planner().await {
            return false;
        }
        let delayed = self.streams.delayed();
        match delayed.park(&record.queue, &record.id, (next_attempt_at, revision), delivery).await {
            Ok(Parking::Parked) => true,
            Ok(Parking::Occupied | Parking::NoRoom) => false,
            // Stored or not: if it is, it is found there; the delay at the server holds in any case.
            Err(error) => {
                tracing::debug!(run.id = %record.id, %error, "`{}` waits in its queue: {error}", record.id);
                false
            }
        }
    }

    /// Whether there is somebody to put it back. A fleet may have workers only.
    async fn has_planner(&self) -> bool {
        let now = self.streams.clock().elapsed();
        let known = *self.planner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((looked_at, is_alive)) = known
            && now < looked_at + MEMBER_GONE
        {
            return is_alive;
        }
        let is_alive = |member: &Member| matches!(member, Member::Planner(planner) if !planner.stopping);
        let is_alive = self.streams.members().list().await.is_ok_and(|members| members.iter().any(is_alive));
        *self.planner.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, is_alive));
        is_alive
    }
}
