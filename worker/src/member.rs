//! What this worker says of itself at each heartbeat.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
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

use crate::{WorkerSettings, progress::ProgressBoard, running::Running};

/// A heartbeat that was not taken by then is late; the next one follows.
const HEARTBEAT_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// What a stopping worker waits for its last word to be taken.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What this worker says of itself.
pub(crate) struct Status {
    fixed: WorkerStatus,
    draining: AtomicBool,
    progress: ProgressBoard,
    /// Who asked from afar for that.
    drained_by: OnceLock<String>,
    /// Since when every heartbeat of ours was taken, in elapsed time; none if the last was not.
    heard_since: Mutex<Option<Duration>>,
}

impl Status {
    pub(crate) fn new(id: MemberId, settings: &WorkerSettings, started_at: Timestamp) -> Self {
        let fixed = WorkerStatus {
            id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            queues: settings.queues.iter().map(|share| share.queue.clone()).collect(),
            weights: settings.queues.iter().map(|share| (share.queue.clone(), share.weight)).collect(),
            commands: settings.local.commands.keys().cloned().collect(),
            places: settings.places,
            running: Vec::new(),
            progress: Vec::new(),
            draining: false,
            drained_by: None,
        };
        let draining = AtomicBool::new(false);
        let progress = ProgressBoard::default();
        Self { fixed, draining, progress, drained_by: OnceLock::new(), heard_since: Mutex::new(None) }
    }

    pub(crate) fn id(&self) -> &MemberId {
        &self.fixed.id
    }

    /// How far the runs are that it executes.
    pub(crate) fn progress(&self) -> &ProgressBoard {
        &self.progress
    }

    pub(crate) fn note_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Notes who asked from afar that it stops; the first counts.
    pub(crate) fn note_drained_by(&self, by: &str) {
        let _ = self.drained_by.set(by.to_owned());
    }

    /// For how long the fleet has heard every heartbeat of ours. Whoever was not heard himself cannot tell whether
    /// another's silence is that one's or the server's.
    pub(crate) fn heard_for(&self, now: Duration) -> Duration {
        let since = *self.heard_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn note_heartbeat(&self, taken: bool, asked_at: Duration) {
        let mut since = self.heard_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if taken { since.or(Some(asked_at)) } else { None };
    }

    fn member(&self, running: &Running) -> Member {
        let draining = self.draining.load(Ordering::Relaxed);
        let drained_by = self.drained_by.get().cloned();
        let (running, progress) = (running.list(), self.progress.list());
        Member::Worker(WorkerStatus { running, progress, draining, drained_by, ..self.fixed.clone() })
    }
}

/// Says at every heartbeat that this worker is alive and what it executes, and at the end that it is gone.
pub(crate) async fn beat(streams: Streams, status: Arc<Status>, running: Running, stop: CancellationToken) {
    let members = streams.members();
    while !stop.is_cancelled() {
        let asked_at = streams.clock().elapsed();
        let me = status.member(&running);
        let taken = tokio::select! {
            taken = members.heartbeat(&me) => taken.map_err(|error| error.to_string()),
            () = streams.clock().sleep(HEARTBEAT_WAIT_MAX) => Err("no answer in time".to_owned()),
        };
        if let Err(error) = &taken {
            tracing::warn!(error, "A heartbeat was not taken: {error}");
        }
        status.note_heartbeat(taken.is_ok(), asked_at);
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
