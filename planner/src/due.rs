//! Which slots of a schedule are due. Pure: definitions and a window in, slots out.

use std::sync::Arc;

use chrono::TimeDelta;
use shared::{Timestamp, schedule::Schedule, slot::Slot};

use crate::planted::planted;

/// A definition and the instant from which it is in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epoch {
    /// In force for slots after this instant, until the next epoch's.
    pub(crate) since: Timestamp,
    /// Its revision in the bucket.
    pub(crate) revision: u64,
    /// The definition; none if the schedule was deleted, or cannot be understood.
    pub(crate) schedule: Option<Arc<Schedule>>,
}

/// A slot that is due, and the definition in force at its instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) slot: Slot,
    pub(crate) revision: u64,
    pub(crate) schedule: Arc<Schedule>,
}

/// The slots in `(after, upto]`, each by the definition in force at its instant, earliest first, at most `max`.
///
/// Half-open, so that windows that follow each other neither skip a slot nor repeat one.
pub(crate) fn due_between(epochs: &[Epoch], after: Timestamp, upto: Timestamp, max: usize) -> Vec<Due> {
    let ends = epochs.iter().skip(1).map(|epoch| epoch.since).chain([Timestamp::MAX_UTC]);
    let mut due = Vec::new();
    for (epoch, end) in epochs.iter().zip(ends) {
        let Some(schedule) = &epoch.schedule else { continue };
        let (from, to) = (after.max(epoch.since), upto.min(end));
        let from = if planted!(WindowClosedAtBothEnds) { from - TimeDelta::nanoseconds(1) } else { from };
        let is_open = planted!(WindowOpenAtBothEnds);
        let within = |slot: &Slot| slot.instant() < to || slot.instant() == to && !is_open;
        let slots = schedule.candidates_after(from).take_while(within);
        due.extend(slots.take(max - due.len()).map(|slot| Due {
            slot,
            revision: epoch.revision,
            schedule: Arc::clone(schedule),
        }));
        if due.len() >= max {
            break;
        }
    }
    due
}

/// The first slot after an instant, by the definition in force at that slot.
pub(crate) fn next_due(epochs: &[Epoch], after: Timestamp) -> Option<Slot> {
    due_between(epochs, after, Timestamp::MAX_UTC, 1).first().map(|due| due.slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn schedule(when: &str) -> Arc<Schedule> {
        let json = format!(r#"{{{when},"task":{{"target_service":"a","action":"b"}}}}"#);
        Arc::new(serde_json::from_str(&json).expect("schedule"))
    }

    fn slots(epochs: &[Epoch], after: &str, upto: &str) -> Vec<(String, u64)> {
        due_between(epochs, at(after), at(upto), 1_000)
            .into_iter()
            .map(|due| (due.slot.instant().format("%H:%M:%S").to_string(), due.revision))
            .collect()
    }

    #[test]
    fn windows_that_follow_each_other_neither_skip_a_slot_nor_repeat_one() {
        let epochs =
            [Epoch { since: at("00:00:00"), revision: 1, schedule: Some(schedule(r#""every":"7s""#)) }];
        let whole = slots(&epochs, "01:00:00", "01:10:00");
        let mut pieces = Vec::new();
        for minute in 0..10 {
            pieces.extend(slots(&epochs, &format!("01:0{minute}:00"), &format!("01:{:02}:00", minute + 1)));
        }
        assert_eq!(whole, pieces);
        assert!(whole.len() >= 85);
    }

    #[test]
    fn a_slot_is_computed_from_the_definition_in_force_at_its_instant() {
        let epochs = [
            Epoch { since: at("00:00:00"), revision: 1, schedule: Some(schedule(r#""every":"10m""#)) },
            Epoch { since: at("01:25:00"), revision: 2, schedule: Some(schedule(r#""every":"15m""#)) },
            Epoch { since: at("02:00:00"), revision: 3, schedule: None },
        ];
        let expected = [("01:10:00", 1), ("01:20:00", 1), ("01:30:00", 2), ("01:45:00", 2), ("02:00:00", 2)];
        let found = slots(&epochs, "01:00:00", "09:00:00");
        assert_eq!(found, expected.map(|(slot, revision)| (slot.to_owned(), revision)));
        assert_eq!(next_due(&epochs, at("02:00:00")), None);
    }

    #[test]
    fn nothing_is_due_before_the_schedule_was_made() {
        let epochs =
            [Epoch { since: at("12:00:00"), revision: 1, schedule: Some(schedule(r#""cron":"0 * * * *""#)) }];
        assert_eq!(slots(&epochs, "00:00:00", "13:30:00"), [("13:00:00".to_owned(), 1)]);
    }

    #[test]
    fn a_long_outage_comes_in_pieces() {
        let epochs =
            [Epoch { since: at("00:00:00"), revision: 1, schedule: Some(schedule(r#""every":"1s""#)) }];
        let first = due_between(&epochs, at("01:00:00"), at("02:00:00"), 100);
        assert_eq!(first.len(), 100);
        assert_eq!(first[99].slot.instant(), at("01:01:40"));
    }
}
