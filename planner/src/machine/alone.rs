//! Of which schedules no run is queued or running under another lock: from before their queue or overlap was changed.
//!
//! Whoever dispatches a schedule's first slot by a definition must know that, and asks. When many come due at once, as
//! after a change of holder, the server is asked once which schedules have live runs at all. Once it was true of a
//! definition it stays true: all later runs hold its one lock.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{Timestamp, names::Name};

use crate::due::Due;

/// As many schedules of which it is not known as make one question for all worth while.
const ASK_FOR_ALL_FROM: usize = 16;
/// Between two questions for all.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long what is due waits for the answer; then each asks for itself.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// A definition must be this old when all are asked for: whoever planned by an older one has heard of it, and what was on
/// its way has come.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(10);
/// As many as are kept in memory; it is only a matter of speed.
const KNOWN_MAX: usize = 65_536;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Alone {
    known: HashMap<Name, u64>,
    /// The schedules with live runs, and the instant at which they were asked for.
    live: Option<(Timestamp, BTreeSet<Name>)>,
    /// When all were last asked for, by both clocks, and whether the answer is still awaited.
    asked: Option<(Duration, Timestamp)>,
    is_awaited: bool,
}

impl Alone {
    /// Whether all live runs of a schedule hold the one lock of the definition by which this slot is due. Only to be asked
    /// of its newest definition: by a newer one a run may have been queued meanwhile.
    pub(super) fn is_known(&self, name: &Name, due: &Due) -> bool {
        self.known.get(name) == Some(&due.revision)
            || self.live.as_ref().is_some_and(|(asked_at, live)| {
                due.since + SETTLED_AFTER <= *asked_at && !live.contains(name)
            })
    }

    /// It was found so.
    pub(super) fn note(&mut self, name: &Name, revision: u64) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(name.clone(), revision);
    }

    /// Whether it is worth while to ask for all, with so many due of which it is not known.
    pub(super) fn asks_for_all(&self, unknown: usize, elapsed: Duration) -> bool {
        unknown >= ASK_FOR_ALL_FROM && self.asked.is_none_or(|(at, _)| elapsed >= at + ASK_AGAIN)
    }

    /// All are being asked for.
    pub(super) fn asked(&mut self, elapsed: Duration, wall: Timestamp) {
        (self.asked, self.is_awaited) = (Some((elapsed, wall)), true);
    }

    /// The answer; none if there is none.
    pub(super) fn answered(&mut self, live: Option<BTreeSet<Name>>) {
        self.is_awaited = false;
        if let (Some(live), Some((_, asked_at))) = (live, self.asked) {
            self.live = Some((asked_at, live));
        }
    }

    /// Until when what is due waits for the answer.
    pub(super) fn awaited_until(&self) -> Option<Duration> {
        self.asked.filter(|_| self.is_awaited).map(|(at, _)| at + ANSWER_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::slot::Slot;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn due(revision: u64, since: &str) -> Due {
        let json = r#"{"every":"1m","task":{"target_service":"a","action":"b"}}"#;
        let schedule = Arc::new(serde_json::from_str(json).expect("schedule"));
        Due { slot: Slot::at(at("03:00:00")), revision, since: at(since), schedule }
    }

    #[test]
    fn one_answer_tells_it_of_all_settled_definitions_without_a_live_run() {
        let (quiet, live): (Name, Name) = ("quiet".parse().expect("name"), "live".parse().expect("name"));
        let mut alone = Alone::default();
        let second = Duration::from_secs;
        assert!(!alone.asks_for_all(15, second(1)) && alone.asks_for_all(16, second(1)));
        alone.asked(second(1), at("02:00:00"));
        assert_eq!(alone.awaited_until(), Some(second(1) + ANSWER_PATIENCE));
        assert!(!alone.is_known(&quiet, &due(1, "01:00:00")));
        alone.answered(Some(BTreeSet::from([live.clone()])));
        assert_eq!(alone.awaited_until(), None);
        assert!(alone.is_known(&quiet, &due(1, "01:59:50")));
        assert!(!alone.is_known(&quiet, &due(2, "01:59:51")), "somebody may still plan by the older one");
        assert!(!alone.is_known(&live, &due(1, "01:00:00")));
        alone.note(&live, 1);
        assert!(alone.is_known(&live, &due(1, "01:00:00")));
        assert!(!alone.is_known(&live, &due(2, "02:00:00")), "another definition has another lock");
        assert!(!alone.asks_for_all(99, second(10)) && alone.asks_for_all(99, second(11)));
        alone.asked(second(11), at("02:00:10"));
        alone.answered(None);
        assert!(alone.is_known(&quiet, &due(1, "01:00:00")), "what was true stays true");
    }
}
