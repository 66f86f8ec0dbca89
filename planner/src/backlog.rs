//! Slots that are due and wait, because something is full or does not answer. They come late and none is lost, and it
//! can be seen: in the planner's status, and in one line of the log every few seconds, however many schedules wait.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{Timestamp, names::Name};
use streams::members::Waiting;

use crate::status::Status;

/// Between two lines of the log about it.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// What waits in the present round.
pub(crate) struct Backlog {
    status: Arc<Status>,
    now: Mutex<Round>,
}

#[derive(Default)]
struct Round {
    schedules: usize,
    waiting: Option<Waiting>,
    /// When it was last said; none if nothing waited then.
    said_at: Option<Duration>,
}

impl Backlog {
    pub(crate) fn new(status: Arc<Status>) -> Self {
        Self { status, now: Mutex::default() }
    }

    /// So many slots of a schedule, from this one on, have to wait for the next round.
    pub(crate) fn note(&self, schedule: &Name, slots: usize, oldest: Timestamp, why: &impl ToString) {
        tracing::debug!(schedule.name = %schedule, slots, "Slots of `{schedule}` wait: {}", why.to_string());
        let mut round = self.lock();
        round.schedules += 1;
        let waiting = match round.waiting.take() {
            None => Waiting { slots, since: oldest, why: why.to_string() },
            Some(known) => {
                Waiting { slots: known.slots + slots, since: known.since.min(oldest), why: why.to_string() }
            }
        };
        self.status.note_waiting_at_least(&waiting);
        round.waiting = Some(waiting);
    }

    /// A round has ended: what waits now is all that waits.
    pub(crate) fn end_of_round(&self, elapsed: Duration) {
        let mut round = self.lock();
        let schedules = std::mem::take(&mut round.schedules);
        let waiting = round.waiting.take();
        self.status.note_waiting(waiting.clone());
        match (waiting, round.said_at) {
            (Some(Waiting { slots, since, why }), said_at)
                if said_at.is_none_or(|at| elapsed.saturating_sub(at) >= SAY_AGAIN) =>
            {
                round.said_at = Some(elapsed);
                tracing::warn!(
                    slots,
                    schedules,
                    "{slots} slots of {schedules} schedules wait, the oldest since {since}; they come late. The latest says: {why}"
                );
            }
            (None, Some(_)) => {
                round.said_at = None;
                tracing::info!("No slot waits any more");
            }
            _ => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Round> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streams::members::Member;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    #[test]
    fn what_waits_is_counted_over_all_schedules_and_forgotten_when_nothing_waits_any_more() {
        let status = Arc::new(Status::new("planner-a-1".parse().expect("id"), at("00:00:00")));
        let backlog = Backlog::new(Arc::clone(&status));
        let shown = || match status.member() {
            Member::Planner(planner) => planner.waiting,
            Member::Worker(_) => None,
        };
        let name: Name = "hourly".parse().expect("name");
        backlog.note(&name, 2, at("02:00:00"), &"full");
        backlog.note(&name, 3, at("01:00:00"), &"full to the brim");
        let all = Waiting { slots: 5, since: at("01:00:00"), why: "full to the brim".to_owned() };
        assert_eq!(shown(), Some(all.clone()), "seen before the round has ended");
        backlog.end_of_round(Duration::from_secs(1));
        assert_eq!(shown(), Some(all.clone()));
        backlog.note(&name, 1, at("01:00:00"), &"full");
        assert_eq!(shown(), Some(all), "a round that has just begun does not know better");
        backlog.end_of_round(Duration::from_secs(2));
        assert_eq!(shown().map(|waiting| waiting.slots), Some(1));
        backlog.end_of_round(Duration::from_secs(3));
        assert_eq!(shown(), None);
    }
}
