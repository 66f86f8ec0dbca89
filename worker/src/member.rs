//! What this worker says of itself at each heartbeat.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{Timestamp, limits::MEMBER_HEARTBEAT, names::MemberId};
use streams::{
    Streams,
    members::{Member, WorkerStatus},
};
use tokio_util::sync::CancellationToken;

use crate::{WorkerSettings, running::Running};

/// What a stopping worker waits for its last word to be taken.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What this worker says of itself.
pub(crate) struct Status {
    fixed: WorkerStatus,
    draining: AtomicBool,
}

impl Status {
    pub(crate) fn new(id: MemberId, settings: &WorkerSettings, started_at: Timestamp) -> Self {
        let fixed = WorkerStatus {
            id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            queues: settings.queues.clone(),
            places: settings.places,
            running: Vec::new(),
            draining: false,
        };
        Self { fixed, draining: AtomicBool::new(false) }
    }

    pub(crate) fn id(&self) -> &MemberId {
        &self.fixed.id
    }

    pub(crate) fn note_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn member(&self, running: &Running) -> Member {
        let draining = self.draining.load(Ordering::Relaxed);
        Member::Worker(WorkerStatus { running: running.list(), draining, ..self.fixed.clone() })
    }
}

/// Says at every heartbeat that this worker is alive and what it executes, and at the end that it is gone.
pub(crate) async fn beat(streams: Streams, status: Arc<Status>, running: Running, stop: CancellationToken) {
    let members = streams.members();
    while !stop.is_cancelled() {
        if let Err(error) = members.heartbeat(&status.member(&running)).await {
            tracing::warn!(%error, "A heartbeat was not taken: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = streams.clock().sleep(MEMBER_HEARTBEAT) => {}
        }
    }
    // Without it the entry runs out by itself a moment later.
    let me = status.member(&running);
    tokio::select! {
        _ = members.leave(&me) => {}
        () = streams.clock().sleep(LEAVE_WAIT_MAX) => {}
    }
}
