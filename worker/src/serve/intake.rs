//! What a delivery is, how it is claimed, and how it goes back if it was not begun.

use std::time::Duration;

use chrono::SubsecRound as _;
use shared::names::QueueName;
use streams::{ReadError, delivery::Delivery};

use super::{Inner, Server};
use crate::{
    claim::Claimer,
    identify::{Identified, Parts, Unreadable, identify},
};

impl Server {
    /// Hands back what was not begun: nothing of it is spent.
    pub(crate) async fn give_back(&self, delivery: &Delivery, queue: &QueueName, wait: Duration) {
        // Its next worker will know this from an attempt that was lost, if that can be written just now.
        if let Ok(run) = identified(delivery, queue) {
            // Of what is not begun no acknowledge wait matters.
            let claimer = self.inner.claimer(queue, Duration::ZERO);
            if let Err(error) = claimer.note_handed_back(&run, delivery).await {
                tracing::debug!(run.id = %run.record.id, %error, "That `{}` is handed back is not written down: {error}", run.record.id);
            }
        }
        let _ = delivery.hand_back(wait).await;
    }
}

impl Inner {
    /// For how long a run goes back to its queue because another worker there has its command, and this one has not.
    pub(super) async fn belongs_elsewhere(
        &self,
        run: &Identified,
        delivery: &Delivery,
    ) -> Result<Option<Duration>, ReadError> {
        let Some(command) = self.executors.lacks_command(&run.task) else { return Ok(None) };
        let wanted = (&run.record.queue, command);
        self.elsewhere.wait_for_another(&self.streams, &self.status, wanted, delivery.deliveries).await
    }

    pub(super) fn claimer(&self, queue: &QueueName, ack_wait: Duration) -> Claimer<'_> {
        Claimer {
            streams: &self.streams,
            running: &self.running,
            status: &self.status,
            ack_wait,
            settings: self.targets.queues.settings(queue),
            lookups: self.lookups.as_ref(),
            is_limited: false,
        }
    }
}

/// Says which run a delivery is, and which task.
pub(super) fn identified(delivery: &Delivery, queue: &QueueName) -> Result<Identified, Unreadable> {
    let parts = Parts {
        origin: delivery.origin,
        tokens: (&delivery.tokens.0, &delivery.tokens.1),
        run_header: delivery.run_header.as_deref(),
        revision: delivery.revision,
        traceparent: delivery.traceparent.as_deref(),
        payload: &delivery.payload,
    };
    // To the millisecond, as our own clock says it.
    identify(&parts, queue, delivery.published_at.trunc_subsecs(3))
}
