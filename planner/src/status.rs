//! What this planner says of itself at each heartbeat.

use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;
use shared::{Timestamp, names::MemberId};
use streams::members::{Member, PlannerStatus};

/// What this planner says of itself, gathered from its parts.
pub(crate) struct Status {
    id: MemberId,
    now: Mutex<PlannerStatus>,
}

impl Status {
    pub(crate) fn new(id: MemberId, started_at: Timestamp) -> Self {
        let now = PlannerStatus {
            id: id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            partitions: Vec::new(),
            schedules: 0,
            invalid: Vec::new(),
            lateness_ms: None,
            stopping: false,
        };
        Self { id, now: Mutex::new(now) }
    }

    pub(crate) fn id(&self) -> &MemberId {
        &self.id
    }

    pub(crate) fn note_schedules(&self, (known, invalid): (usize, Vec<String>)) {
        self.change(|status| (status.schedules, status.invalid) = (known, invalid));
    }

    pub(crate) fn note_partitions(&self, partitions: Vec<u16>) {
        self.change(|status| status.partitions = partitions);
    }

    pub(crate) fn note_lateness(&self, lateness: TimeDelta) {
        let late = lateness.num_milliseconds().max(0).unsigned_abs();
        self.change(|status| status.lateness_ms = Some(late));
    }

    pub(crate) fn note_stopping(&self) {
        self.change(|status| status.stopping = true);
    }

    pub(crate) fn member(&self) -> Member {
        Member::Planner(self.now.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn change(&self, change: impl FnOnce(&mut PlannerStatus)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
