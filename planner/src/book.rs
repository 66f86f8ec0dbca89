//! The schedules in memory, and which of them is due next. Pure: no waiting, no writing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    calendar::Calendar,
    hash::partition_of,
    limits::SLOTS_PER_ROUND_MAX,
    names::{CalendarName, Name, QueueName},
    slot::Slot,
};
use streams::schedules::Version;

use crate::due::{Due, Epoch, due_between, next_due};

/// A schedule in memory: the definitions in force since it was last accounted for.
#[derive(Debug)]
struct Entry {
    partition: u16,
    epochs: Vec<Epoch>,
    /// Every slot up to and including this instant has its record. Meaningful while its partition is held.
    accounted_to: Timestamp,
    /// Its place in the agenda.
    next: Option<Slot>,
    /// Why its newest definition cannot be understood.
    invalid: Option<String>,
}

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
    entries: HashMap<Name, Entry>,
    agenda: BTreeMap<u16, BTreeSet<(Slot, Name)>>,
    /// The newest revision of a definition that was heard of. They are heard in their order.
    heard: u64,
    pub(crate) queues: BTreeSet<QueueName>,
    pub(crate) calendars: BTreeMap<CalendarName, Calendar>,
}

impl Book {
    /// Takes in a version of a definition. A version that is known already changes nothing.
    pub(crate) fn learn(&mut self, version: Version) {
        let partition = partition_of(version.name.as_str());
        self.heard = self.heard.max(version.revision);
        let entry = self.entries.entry(version.name.clone()).or_insert_with(|| Entry {
            partition,
            epochs: Vec::new(),
            accounted_to: version.since,
            next: None,
            invalid: None,
        });
        if entry.epochs.last().is_some_and(|last| last.revision >= version.revision) {
            return;
        }
        let is_held = self.agenda.contains_key(&partition);
        if !is_held {
            // Who takes the partition later asks for the history since its cursor.
            entry.epochs.clear();
        }
        if entry.epochs.is_empty() {
            entry.accounted_to = version.since;
        }
        // A definition may reach us late; slots since its beginning are then looked at again, and found if done.
        entry.accounted_to = entry.accounted_to.min(version.since);
        let (schedule, invalid) = match version.definition {
            Ok(schedule) => (schedule.map(Arc::new), None),
            Err(why) => (None, Some(why)),
        };
        entry.invalid = invalid;
        entry.epochs.push(Epoch { since: version.since, revision: version.revision, schedule });
        if is_held {
            self.place(&version.name);
        }
    }

    /// The newest revision of a definition that was heard of.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Begins to keep the agenda of a partition, from its cursor on; for definitions younger than `lag` before it, from
    /// their own beginning, unless who wrote the cursor had heard of them. What is done already is found done.
    pub(crate) fn open(&mut self, partition: u16, cursor: Timestamp, lag: TimeDelta, heard: u64) {
        self.agenda.insert(partition, BTreeSet::new());
        for name in self.names_in(partition) {
            if let Some(entry) = self.entries.get_mut(&name) {
                let first = entry.epochs.first().map_or(cursor, |epoch| epoch.since);
                // The first of them, not the newest: those between had slots too.
                let is_fresh = |epoch: &&Epoch| epoch.revision > heard && epoch.since > before(cursor, lag);
                let fresh = entry.epochs.iter().find(is_fresh).map_or(cursor, |epoch| epoch.since);
                entry.accounted_to = cursor.min(fresh).max(first);
                entry.next = None;
            }
            self.place(&name);
        }
    }

    /// Puts the versions between a cursor and the newest in their place, so that slots get the definition of their time.
    pub(crate) fn learn_history(&mut self, name: &Name, versions: Vec<Version>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let newest = entry.epochs.last().map_or(0, |epoch| epoch.revision);
        let older = versions.into_iter().filter(|version| version.revision < newest);
        let mut epochs: Vec<Epoch> = older
            .map(|version| Epoch {
                since: version.since,
                revision: version.revision,
                schedule: version.definition.ok().flatten().map(Arc::new),
            })
            .collect();
        epochs.extend(entry.epochs.drain(..).filter(|epoch| epoch.revision >= newest));
        entry.epochs = epochs;
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
        let changed = |entry: &Entry| entry.epochs.last().is_some_and(is_new);
        let entries = self.entries.iter().filter(|(_, entry)| entry.partition == partition && changed(entry));
        entries.map(|(name, _)| name.clone()).collect()
    }

    /// When the oldest schedule of a partition was last defined: where a partition begins that has no cursor yet.
    pub(crate) fn beginning_of(&self, partition: u16) -> Option<Timestamp> {
        let entries = self.entries.values().filter(|entry| entry.partition == partition);
        entries.filter_map(|entry| Some(entry.epochs.first()?.since)).min()
    }

    /// Stops keeping the agenda of a partition.
    pub(crate) fn close(&mut self, partition: u16) {
        self.agenda.remove(&partition);
        for name in self.names_in(partition) {
            if let Some(entry) = self.entries.get_mut(&name) {
                let older = entry.epochs.len().saturating_sub(1);
                entry.epochs.drain(..older);
                entry.next = None;
            }
        }
    }

    /// The partitions whose agenda is kept.
    pub(crate) fn open_partitions(&self) -> Vec<u16> {
        self.agenda.keys().copied().collect()
    }

    /// What is due in a partition up to now, schedule by schedule, bounded per schedule.
    pub(crate) fn due(&self, partition: u16, now: Timestamp) -> Vec<DueSlots> {
        let Some(agenda) = self.agenda.get(&partition) else { return Vec::new() };
        let due = agenda.iter().take_while(|(slot, _)| slot.instant() <= now);
        due.filter_map(|(_, name)| {
            let entry = self.entries.get(name)?;
            let slots = due_between(&entry.epochs, entry.accounted_to, now, SLOTS_PER_ROUND_MAX);
            let is_whole = slots.len() < SLOTS_PER_ROUND_MAX;
            let upto = if is_whole { now } else { slots.last()?.slot.instant() };
            Some(DueSlots { name: name.clone(), slots, upto })
        })
        .collect()
    }

    /// Notes that a schedule is accounted for up to an instant, and finds its next slot.
    pub(crate) fn account(&mut self, name: &Name, upto: Timestamp) -> Option<Slot> {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.accounted_to = entry.accounted_to.max(upto);
            let past =
                entry.epochs.iter().skip(1).take_while(|epoch| epoch.since <= entry.accounted_to).count();
            entry.epochs.drain(..past);
        }
        self.place(name);
        self.entries.get(name)?.next
    }

    /// Up to where a whole partition is accounted for, when everything but what is still in the agenda is done.
    pub(crate) fn accounted_to(&self, partition: u16, now: Timestamp) -> Timestamp {
        let Some(agenda) = self.agenda.get(&partition) else { return now };
        let waiting = agenda.iter().take_while(|(slot, _)| slot.instant() <= now);
        let earliest = waiting.filter_map(|(_, name)| Some(self.entries.get(name)?.accounted_to)).min();
        earliest.map_or(now, |earliest| earliest.min(now))
    }

    /// The next slot in any partition that is kept, of a schedule that is not held back.
    pub(crate) fn next_slot(&self, is_held_back: impl Fn(&Name) -> bool) -> Option<Slot> {
        let first = |agenda: &BTreeSet<(Slot, Name)>| {
            agenda.iter().find(|(_, name)| !is_held_back(name)).map(|(slot, _)| *slot)
        };
        self.agenda.values().filter_map(first).min()
    }

    /// How many schedules are known, and which of them cannot be understood.
    pub(crate) fn census(&self) -> (usize, Vec<String>) {
        let known = self.entries.values().filter(|entry| {
            entry.invalid.is_some() || entry.epochs.last().is_some_and(|epoch| epoch.schedule.is_some())
        });
        let invalid = self
            .entries
            .iter()
            .filter_map(|(name, entry)| entry.invalid.as_ref().map(|why| format!("{name}: {why}")));
        (known.count(), invalid.take(16).collect())
    }

    fn names_in(&self, partition: u16) -> Vec<Name> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.partition == partition);
        entries.map(|(name, _)| name.clone()).collect()
    }

    /// Finds the next slot of a schedule and puts it into the agenda of its partition.
    fn place(&mut self, name: &Name) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some(agenda) = self.agenda.get_mut(&entry.partition) else { return };
        if let Some(before) = entry.next.take() {
            agenda.remove(&(before, name.clone()));
        }
        entry.next = next_due(&entry.epochs, entry.accounted_to);
        if let Some(slot) = entry.next {
            agenda.insert((slot, name.clone()));
        }
    }
}

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
        assert_eq!(book.due(partition(), at("03:30:00"))[0].slots.len(), 2);
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
        let due: Vec<_> =
            book.due(partition(), at("04:00:00"))[0].slots.iter().map(|due| due.slot.instant()).collect();
        assert_eq!(due, [at("02:00:00"), at("02:45:00"), at("03:45:00")]);
        book.learn(version("hourly", 3, "03:00:00", None));
        let due: Vec<_> =
            book.due(partition(), at("04:00:00"))[0].slots.iter().map(|due| due.slot.instant()).collect();
        assert_eq!(due, [at("02:00:00"), at("02:45:00")], "deleted at three");
    }

    #[test]
    fn a_version_seen_again_changes_nothing_and_one_nobody_understands_hurts_only_its_schedule() {
        let mut book = book();
        book.learn(version("hourly", 1, "00:00:00", Some(r#""cron":"0 * * * *""#)));
        assert_eq!(book.due(partition(), at("02:00:00"))[0].slots.len(), 1);
        let broken =
            Version { definition: Err("not JSON".to_owned()), ..version("hourly", 2, "01:30:00", None) };
        book.learn(broken);
        assert!(book.due(partition(), at("05:00:00")).is_empty());
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
        let due: Vec<_> =
            book.due(partition(), at("04:30:00"))[0].slots.iter().map(|due| due.slot.instant()).collect();
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
                book.due(partition(), at("02:00:20")).len(),
                usize::from(looks_back),
                "heard up to {heard}"
            );
        }
    }
}
