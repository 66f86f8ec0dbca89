//! What this planner says of itself at each heartbeat.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{Timestamp, clock_check::Suspicion, limits::MEMBER_HEARTBEAT, names::MemberId};
use streams::{
    Streams,
    members::{Member, PlannerStatus, Waiting},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// After a change that people wait to see, the heartbeat comes this soon: several changes make one.
const NEWS_WAIT: Duration = Duration::from_millis(200);
/// A heartbeat that was not taken by then is late; the next one follows.
const HEARTBEAT_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// What a stopping planner waits for its last word to be taken.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What this planner says of itself, gathered from its parts.
pub(crate) struct Status {
    id: MemberId,
    now: Mutex<PlannerStatus>,
    /// Schedules that follow themselves: each can be understood, and all of them together cannot.
    cycles: Mutex<Vec<String>>,
    /// Ends of runs that wait to be followed.
    ends_waiting: Mutex<Option<Waiting>>,
    news: Notify,
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
            clock_offset_ms: None,
            clock_suspect: None,
            waiting: None,
            stopping: false,
        };
        Self {
            id,
            now: Mutex::new(now),
            cycles: Mutex::default(),
            ends_waiting: Mutex::default(),
            news: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> &MemberId {
        &self.id
    }

    pub(crate) fn note_schedules(&self, (known, invalid): (usize, Vec<String>)) {
        self.change(|status| (status.schedules, status.invalid) = (known, invalid));
    }

    /// Notes the ends of runs that wait to be followed.
    pub(crate) fn note_ends_waiting(&self, waiting: Option<Waiting>) {
        *self.ends_waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// Notes the schedules that follow themselves. Whether that is news.
    pub(crate) fn note_cycles(&self, cycles: Vec<String>) -> bool {
        let mut known = self.cycles.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != cycles;
        *known = cycles;
        is_news
    }

    pub(crate) fn note_partitions(&self, partitions: Vec<u16>) {
        self.change(|status| status.partitions = partitions);
        self.news.notify_one();
    }

    pub(crate) fn note_lateness(&self, lateness: TimeDelta) {
        let late = lateness.num_milliseconds().max(0).unsigned_abs();
        self.change(|status| status.lateness_ms = Some(late));
    }

    pub(crate) fn note_clock(&self, offset: Option<TimeDelta>, suspicion: Option<Suspicion>) {
        let suspect = suspicion.map(|suspicion| suspicion.to_string());
        let mut is_news = false;
        self.change(|status| {
            is_news = status.clock_suspect.is_some() != suspect.is_some();
            (status.clock_offset_ms, status.clock_suspect) =
                (offset.map(|by| by.num_milliseconds()), suspect);
        });
        if is_news {
            self.news.notify_one();
        }
    }

    pub(crate) fn note_waiting(&self, waiting: Option<Waiting>) {
        self.change(|status| status.waiting = waiting);
    }

    /// Notes what waits so far in a round that has not ended: it may show more than what is known, not less.
    pub(crate) fn note_waiting_at_least(&self, waiting: &Waiting) {
        self.change(|status| {
            if status.waiting.as_ref().is_none_or(|known| known.slots < waiting.slots) {
                status.waiting = Some(waiting.clone());
            }
        });
    }

    pub(crate) fn note_stopping(&self) {
        self.change(|status| status.stopping = true);
    }

    pub(crate) fn member(&self) -> Member {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        now.invalid.extend(self.cycles.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let ends = self.ends_waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        now.waiting = match (now.waiting, ends) {
            (Some(slots), Some(ends)) => Some(Waiting {
                slots: slots.slots + ends.slots,
                since: slots.since.min(ends.since),
                why: slots.why,
            }),
            (slots, ends) => slots.or(ends),
        };
        Member::Planner(now)
    }

    fn change(&self, change: impl FnOnce(&mut PlannerStatus)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Says at every heartbeat what this planner does, and at the end that it is gone. For people: planners themselves look
/// at each other's seats.
pub(crate) async fn beat(streams: Streams, status: Arc<Status>, stop: CancellationToken) {
    let (members, clock) = (streams.members(), streams.clock().clone());
    while !stop.is_cancelled() {
        let me = status.member();
        let taken = tokio::select! {
            taken = members.heartbeat(&me) => taken.map_err(|error| error.to_string()),
            () = clock.sleep(HEARTBEAT_WAIT_MAX) => Err("no answer in time".to_owned()),
            () = stop.cancelled() => break,
        };
        if let Err(error) = taken {
            tracing::warn!(error, "A heartbeat was not taken: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(MEMBER_HEARTBEAT) => {}
            () = async { status.news.notified().await; clock.sleep(NEWS_WAIT).await } => {}
        }
    }
    // Without it the entry runs out by itself a moment later.
    let me = status.member();
    tokio::select! {
        _ = members.leave(&me) => {}
        () = clock.sleep(LEAVE_WAIT_MAX) => {}
    }
}
