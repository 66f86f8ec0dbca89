//! The schedules in memory, and which of them is due next. Pure: no waiting, no writing.
//!
//! A planner knows all schedules of the fleet, those of other planners' partitions too, so there may be a million of them.
//! A definition is kept as its text, when it is due is shared with others that say it in the same words, and nothing but
//! opening and closing a partition looks at more than what is asked for: at most all schedules of that one partition.

mod census;
mod partition;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    calendar::Calendar,
    definition::Definition,
    hash::partition_of,
    names::{CalendarName, Name, QueueName},
    slot::Slot,
};
use streams::schedules::Version;

use crate::due::{Due, Epoch};
use census::Census;
use partition::{Learned, Partition};

/// Slots of one schedule that are due.
#[derive(Debug)]
pub(crate) struct DueSlots {
    pub(crate) name: Name,
    pub(crate) slots: Vec<Due>,
    /// When all of them have their records, the schedule is accounted for up to here.
    pub(crate) upto: Timestamp,
}

/// An instant so much earlier; a cursor that somebody wrote may lie before all time.
pub(crate) fn before(instant: Timestamp, by: TimeDelta) -> Timestamp {
    instant.checked_sub_signed(by).unwrap_or(Timestamp::MIN_UTC)
}

/// The schedules, queues and calendars a planner knows, and the agenda of the partitions it holds.
#[derive(Debug, Default)]
pub(crate) struct Book {
    partitions: BTreeMap<u16, Partition>,
    census: Census,
    /// The newest revision of a definition that was heard of. They are heard in their order.
    heard: u64,
    pub(crate) queues: BTreeSet<QueueName>,
    pub(crate) calendars: BTreeMap<CalendarName, Calendar>,
}

impl Book {
    /// Takes in a version of a definition. A version that is known already changes nothing.
    /// Whether it was news.
    pub(crate) fn learn(&mut self, version: impl Into<Version<Definition>>) -> bool {
        let Version { name, definition, revision, since } = version.into();
        self.heard = self.heard.max(revision);
        let (definition, why) = match definition {
            Ok(definition) => (definition, None),
            Err(why) => (None, Some(why)),
        };
        let is_understood = definition.is_some();
        let partition = self.partitions.entry(partition_of(name.as_str())).or_default();
        match partition.learn(&name, Epoch { since, revision, definition }) {
            Learned::Nothing => false,
            Learned::News { was_understood } => {
                self.census.note(&name, was_understood, is_understood, why);
                true
            }
        }
    }

    /// The revision of the newest definition of a schedule.
    pub(crate) fn newest_revision(&self, name: &Name) -> Option<u64> {
        self.partitions.get(&partition_of(name.as_str()))?.newest_revision(name)
    }

    /// The newest revision of a definition that was heard of.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Begins to keep the agenda of a partition, from its cursor on; for definitions younger than `lag` before it, from
    /// their own beginning, unless who wrote the cursor had heard of them. What is done already is found done.
    pub(crate) fn open(&mut self, partition: u16, cursor: Timestamp, lag: TimeDelta, heard: u64) {
        self.partitions.entry(partition).or_default().open(cursor, lag, heard);
    }

    /// Puts the versions between a cursor and the newest in their place, so that slots get the definition of their time.
    pub(crate) fn learn_history<V: Into<Version<Definition>>>(&mut self, name: &Name, versions: Vec<V>) {
        let Some(partition) = self.partitions.get_mut(&partition_of(name.as_str())) else { return };
        let epochs = versions.into_iter().map(|version| {
            let Version { definition, revision, since, .. } = version.into();
            Epoch { since, revision, definition: definition.ok().flatten() }
        });
        partition.learn_history(name, epochs);
    }

    /// The schedules of a partition whose newest definition is younger than its cursor, or up to `lag` older and unknown
    /// to who wrote the cursor.
    pub(crate) fn changed_since(
        &self,
        partition: u16,
        cursor: Timestamp,
        lag: TimeDelta,
        heard: u64,
    ) -> Vec<Name> {
        let is_new = |epoch: &Epoch| {
            epoch.since > cursor || (epoch.since > before(cursor, lag) && epoch.revision > heard)
        };
        self.partitions.get(&partition).map_or_else(Vec::new, |partition| partition.changed(is_new))
    }

    /// When the oldest schedule of a partition was last defined: where a partition begins that has no cursor yet.
    pub(crate) fn beginning_of(&self, partition: u16) -> Option<Timestamp> {
        self.partitions.get(&partition)?.beginning()
    }

    /// Stops keeping the agenda of a partition.
    pub(crate) fn close(&mut self, partition: u16) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.close();
        }
    }

    /// What is due in a partition up to now, schedule by schedule, bounded per schedule; without those that are left out,
    /// because they are on their way or wait: a definition that is due is read again.
    pub(crate) fn due(
        &self,
        partition: u16,
        now: Timestamp,
        is_left_out: impl Fn(&Name) -> bool,
    ) -> Vec<DueSlots> {
        self.partitions.get(&partition).map_or_else(Vec::new, |partition| partition.due(now, is_left_out))
    }

    /// Notes that a schedule is accounted for up to an instant, and finds its next slot.
    pub(crate) fn account(&mut self, name: &Name, upto: Timestamp) -> Option<Slot> {
        self.partitions.get_mut(&partition_of(name.as_str()))?.account(name, upto)
    }

    /// Up to where a whole partition is accounted for, when everything but what is still in the agenda is done.
    pub(crate) fn accounted_to(&self, partition: u16, now: Timestamp) -> Timestamp {
        self.partitions.get(&partition).map_or(now, |partition| partition.accounted_to(now))
    }

    /// The next slot in any partition that is kept, of a schedule that is not held back.
    pub(crate) fn next_slot(&self, is_held_back: impl Fn(&Name) -> bool) -> Option<Slot> {
        self.partitions.values().filter_map(|partition| partition.next_slot(&is_held_back)).min()
    }

    /// How many schedules are known, and which of them cannot be understood.
    pub(crate) fn census(&self) -> (usize, Vec<String>) {
        self.census.shown()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod compared_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use shared::schedule::Schedule;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn version(name: &str, revision: u64, since: &str, when: Option<&str>) -> Version {
        let schedule = |when: &str| -> Schedule {
            let json = format!(r#"{{{when},"task":{{"target_service":"a","action":"b"}}}}"#);
            serde_json::from_str(&json).expect("schedule")
        };
        Version {
            name: name.parse().expect("name"),
            definition: Ok(when.map(schedule)),
            revision,
            since: at(since),
        }
    }

    fn partition() -> u16 {
        partition_of("hourly")
    }

    fn book() -> Book {
        let mut book = Book::default();
        book.learn(version("hourly", 1, "00:00:00", Some(r#""cron":"0 * * * *""#)));
        book.open(partition(), at("01:00:00"), TimeDelta::minutes(1), 0);
        book
    }

    #[test]
    fn the_cursor_waits_for_a_slot_that_has_no_record_yet() {
        let mut book = book();
        let name: Name = "hourly".parse().expect("name");
        assert_eq!(book.next_slot(|_| false), Some(Slot::at(at("02:00:00"))));
        assert_eq!(book.due(partition(), at("03:30:00"), |_| false)[0].slots.len(), 2);
        book.account(&name, at("02:00:00"));
        assert_eq!(book.accounted_to(partition(), at("03:30:00")), at("02:00:00"), "03:00 is not done");
        book.account(&name, at("03:30:00"));
        assert_eq!(book.accounted_to(partition(), at("03:30:00")), at("03:30:00"));
        assert_eq!(book.next_slot(|_| false), Some(Slot::at(at("04:00:00"))));
    }

    #[test]
    fn a_change_takes_effect_at_its_instant_and_what_was_due_before_it_is_still_due() {
        let mut book = book();
        book.learn(version("hourly", 2, "02:30:00", Some(r#""cron":"45 * * * *""#)));
        let due: Vec<_> = book.due(partition(), at("04:00:00"), |_| false)[0]
            .slots
            .iter()
            .map(|due| due.slot.instant())
            .collect();
        assert_eq!(due, [at("02:00:00"), at("02:45:00"), at("03:45:00")]);
        book.learn(version("hourly", 3, "03:00:00", None));
        let due: Vec<_> = book.due(partition(), at("04:00:00"), |_| false)[0]
            .slots
            .iter()
            .map(|due| due.slot.instant())
            .collect();
        assert_eq!(due, [at("02:00:00"), at("02:45:00")], "deleted at three");
    }

    #[test]
    fn a_version_seen_again_changes_nothing_and_one_nobody_understands_hurts_only_its_schedule() {
        let mut book = book();
        book.learn(version("hourly", 1, "00:00:00", Some(r#""cron":"0 * * * *""#)));
        assert_eq!(book.due(partition(), at("02:00:00"), |_| false)[0].slots.len(), 1);
        let broken: Version =
            Version { definition: Err("not JSON".to_owned()), ..version("hourly", 2, "01:30:00", None) };
        book.learn(broken);
        assert!(book.due(partition(), at("05:00:00"), |_| false).is_empty());
        assert_eq!(book.census(), (1, vec!["hourly: not JSON".to_owned()]));
    }

    #[test]
    fn a_new_holder_uses_the_definition_of_each_slots_time() {
        let mut book = Book::default();
        book.learn(version("hourly", 9, "03:30:00", Some(r#""cron":"15 * * * *""#)));
        let name: Name = "hourly".parse().expect("name");
        assert_eq!(
            book.changed_since(partition(), at("01:00:00"), TimeDelta::zero(), 0),
            std::slice::from_ref(&name)
        );
        book.learn_history(
            &name,
            vec![
                version("hourly", 4, "00:00:00", Some(r#""cron":"0 * * * *""#)),
                version("hourly", 9, "03:30:00", Some(r#""cron":"15 * * * *""#)),
            ],
        );
        book.open(partition(), at("01:00:00"), TimeDelta::minutes(1), 0);
        let due: Vec<_> = book.due(partition(), at("04:30:00"), |_| false)[0]
            .slots
            .iter()
            .map(|due| due.slot.instant())
            .collect();
        assert_eq!(due, [at("02:00:00"), at("03:00:00"), at("04:15:00")]);
    }

    #[test]
    fn what_the_writer_of_the_cursor_may_not_have_known_is_looked_at_from_its_beginning_and_nothing_else_is()
    {
        let name: Name = "hourly".parse().expect("name");
        for (heard, looks_back) in [(8, true), (9, false)] {
            let mut book = Book::default();
            book.learn(version("hourly", 9, "01:59:30", Some(r#""cron":"0 * * * *""#)));
            assert_eq!(book.heard(), 9);
            let lag = TimeDelta::minutes(1);
            let changed = book.changed_since(partition(), at("02:00:10"), lag, heard);
            assert_eq!(changed.contains(&name), looks_back, "heard up to {heard}");
            book.open(partition(), at("02:00:10"), lag, heard);
            assert_eq!(
                book.due(partition(), at("02:00:20"), |_| false).len(),
                usize::from(looks_back),
                "heard up to {heard}"
            );
        }
    }
}
