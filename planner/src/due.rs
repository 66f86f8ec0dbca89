//! Which slots of a schedule are due. Pure: definitions and a window in, slots out.

use std::sync::Arc;

use chrono::TimeDelta;
use shared::{
    Timestamp,
    definition::{Definition, DefinitionError},
    schedule::Schedule,
    slot::Slot,
};

use crate::planted::planted;

/// A definition and the instant from which it is in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epoch {
    /// In force for slots after this instant, until the next epoch's.
    pub(crate) since: Timestamp,
    /// Its revision in the bucket.
    pub(crate) revision: u64,
    /// The definition; none if the schedule was deleted, or cannot be understood.
    pub(crate) definition: Option<Definition>,
}

/// A slot that is due, and the definition in force at its instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) slot: Slot,
    pub(crate) revision: u64,
    /// Since when that definition is in force.
    pub(crate) since: Timestamp,
    pub(crate) schedule: Arc<Schedule>,
}

/// The slots in `(after, upto]`, each by the definition in force at its instant, earliest first, at most `max`. A
/// definition is read again for its slots, once.
///
/// Half-open, so that windows that follow each other neither skip a slot nor repeat one.
pub(crate) fn due_between<'a>(
    epochs: impl IntoIterator<Item = &'a Epoch, IntoIter: Clone>,
    after: Timestamp,
    upto: Timestamp,
    max: usize,
) -> Result<Vec<Due>, DefinitionError> {
    let mut due: Vec<Due> = Vec::new();
    for (epoch, definition, slot) in slots_between(epochs, after, upto).take(max) {
        let schedule = match due.last() {
            Some(last) if last.revision == epoch.revision => Arc::clone(&last.schedule),
            _ => Arc::new(definition.schedule()?),
        };
        due.push(Due { slot, revision: epoch.revision, since: epoch.since, schedule });
    }
    Ok(due)
}

/// The first slot after an instant, by the definition in force at that slot.
pub(crate) fn next_due<'a>(
    epochs: impl IntoIterator<Item = &'a Epoch, IntoIter: Clone>,
    after: Timestamp,
) -> Option<Slot> {
    let next = |(epoch, until): (&Epoch, Timestamp)| {
        let slot = epoch.definition.as_ref()?.timing().next_candidate(after.max(epoch.since));
        slot.filter(|slot| slot.instant() <= until)
    };
    with_ends(epochs).find_map(next)
}

fn slots_between<'a>(
    epochs: impl IntoIterator<Item = &'a Epoch, IntoIter: Clone>,
    after: Timestamp,
    upto: Timestamp,
) -> impl Iterator<Item = (&'a Epoch, &'a Definition, Slot)> {
    with_ends(epochs).flat_map(move |(epoch, until)| {
        let (from, to) = (after.max(epoch.since), upto.min(until));
        let from = if planted!(WindowClosedAtBothEnds) { from - TimeDelta::nanoseconds(1) } else { from };
        let is_open = planted!(WindowOpenAtBothEnds);
        let within = move |slot: &Slot| slot.instant() < to || slot.instant() == to && !is_open;
        epoch.definition.iter().flat_map(move |definition| {
            let slots = definition.timing().candidates_after(from);
            slots.take_while(within).map(move |slot| (epoch, definition, slot))
        })
    })
}

/// Each definition with the last instant at which it is in force.
fn with_ends<'a>(
    epochs: impl IntoIterator<Item = &'a Epoch, IntoIter: Clone>,
) -> impl Iterator<Item = (&'a Epoch, Timestamp)> {
    let epochs = epochs.into_iter();
    let ends = epochs.clone().skip(1).map(|epoch| epoch.since).chain([Timestamp::MAX_UTC]);
    epochs.zip(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::known_timings::KnownTimings;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn definition(when: &str) -> Definition {
        let json = format!(r#"{{{when},"task":{{"target_service":"a","action":"b"}}}}"#);
        Definition::read(&"a".parse().expect("name"), json.as_bytes(), &KnownTimings::default()).expect(when)
    }

    fn slots(epochs: &[Epoch], after: &str, upto: &str) -> Vec<(String, u64)> {
        due_between(epochs, at(after), at(upto), 1_000)
            .expect("definitions that were read before")
            .into_iter()
            .map(|due| (due.slot.instant().format("%H:%M:%S").to_string(), due.revision))
            .collect()
    }

    #[test]
    fn windows_that_follow_each_other_neither_skip_a_slot_nor_repeat_one() {
        let epochs =
            [Epoch { since: at("00:00:00"), revision: 1, definition: Some(definition(r#""every":"7s""#)) }];
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
            Epoch { since: at("00:00:00"), revision: 1, definition: Some(definition(r#""every":"10m""#)) },
            Epoch { since: at("01:25:00"), revision: 2, definition: Some(definition(r#""every":"15m""#)) },
            Epoch { since: at("02:00:00"), revision: 3, definition: None },
        ];
        let expected = [("01:10:00", 1), ("01:20:00", 1), ("01:30:00", 2), ("01:45:00", 2), ("02:00:00", 2)];
        let found = slots(&epochs, "01:00:00", "09:00:00");
        assert_eq!(found, expected.map(|(slot, revision)| (slot.to_owned(), revision)));
        assert_eq!(next_due(&epochs, at("02:00:00")), None);
    }

    #[test]
    fn nothing_is_due_before_the_schedule_was_made() {
        let epochs = [Epoch {
            since: at("12:00:00"),
            revision: 1,
            definition: Some(definition(r#""cron":"0 * * * *""#)),
        }];
        assert_eq!(slots(&epochs, "00:00:00", "13:30:00"), [("13:00:00".to_owned(), 1)]);
    }

    #[test]
    fn a_long_outage_comes_in_pieces() {
        let epochs =
            [Epoch { since: at("00:00:00"), revision: 1, definition: Some(definition(r#""every":"1s""#)) }];
        let first = due_between(&epochs, at("01:00:00"), at("02:00:00"), 100).expect("definitions");
        assert_eq!(first.len(), 100);
        assert_eq!(first[99].slot.instant(), at("01:01:40"));
    }
}
