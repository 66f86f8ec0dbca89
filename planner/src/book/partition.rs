//! The schedules of one partition, each under a number of its own, and which of them is due next.

use std::{
    collections::BTreeSet,
    iter::{self, Chain, Once},
    mem, slice,
};

use chrono::TimeDelta;
use indexmap::IndexMap;
use shared::{
    Timestamp,
    limits::{DEFINITION_HISTORY, SLOTS_PER_ROUND_MAX},
    names::Name,
    slot::Slot,
};

use super::{DueSlots, before};
use crate::due::{Epoch, due_between, next_due};

/// The place of a schedule among those of its partition: four bytes that stand for its name. Schedules are never taken out,
/// because a deleted one must be known too, so a place is never somebody else's.
type Place = u32;

/// The schedules of a partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    entries: IndexMap<Name, Entry>,
    /// The next slot of each schedule that has one. None while somebody else holds the partition.
    agenda: Option<BTreeSet<(Slot, Place)>>,
}

/// A schedule in memory. There may be a million: what it takes is looked at by `bench schedules`.
#[derive(Debug)]
struct Entry {
    /// The definitions that were in force since it was last accounted for, without the newest; mostly none.
    older: Vec<Epoch>,
    newest: Epoch,
    /// Every slot up to and including this instant has its record. Meaningful while its partition is held.
    accounted_to: Timestamp,
    /// Its slot in the agenda.
    next: Option<Slot>,
}

impl Entry {
    fn epochs(&self) -> Chain<slice::Iter<'_, Epoch>, Once<&Epoch>> {
        self.older.iter().chain(iter::once(&self.newest))
    }

    fn first(&self) -> &Epoch {
        self.older.first().unwrap_or(&self.newest)
    }

    /// Forgets the definitions that are no longer in force for any slot that has no record.
    fn forget_past(&mut self) {
        let past = self.epochs().skip(1).take_while(|epoch| epoch.since <= self.accounted_to).count();
        self.older.drain(..past);
        if self.older.is_empty() {
            self.older = Vec::new();
        }
    }
}

impl Partition {
    /// Takes in a version of a definition. Returns what was the newest before, if this one is news.
    pub(super) fn learn(&mut self, name: &Name, version: Epoch) -> Learned {
        let is_held = self.agenda.is_some();
        let since = version.since;
        let Some((place, _, entry)) = self.entries.get_full_mut(name) else {
            let entry = Entry { older: Vec::new(), newest: version, accounted_to: since, next: None };
            let (place, _) = self.entries.insert_full(name.clone(), entry);
            self.place(place);
            return Learned::News { was_understood: false };
        };
        if entry.newest.revision >= version.revision {
            return Learned::Nothing;
        }
        let before = mem::replace(&mut entry.newest, version);
        let was_understood = before.definition.is_some();
        if is_held {
            // Who is defined anew all day without a slot must not fill our memory; the bucket keeps no more either.
            let surplus = (entry.older.len() + 1).saturating_sub(DEFINITION_HISTORY.unsigned_abs() as usize);
            entry.older.drain(..surplus);
            entry.older.push(before);
            // A definition may reach us late; slots since its beginning are then looked at again, and found if done.
            entry.accounted_to = entry.accounted_to.min(since);
        } else {
            // Who takes the partition later asks for the history since its cursor.
            entry.older = Vec::new();
            entry.accounted_to = since;
        }
        self.place(place);
        Learned::News { was_understood }
    }

    /// The revision of the newest definition of a schedule.
    pub(super) fn newest_revision(&self, name: &Name) -> Option<u64> {
        Some(self.entries.get(name)?.newest.revision)
    }

    /// Puts the versions between a cursor and the newest in their place, so that slots get the definition of their time.
    pub(super) fn learn_history(&mut self, name: &Name, versions: impl Iterator<Item = Epoch>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let newest = entry.newest.revision;
        entry.older = versions.filter(|version| version.revision < newest).collect();
    }

    /// Begins to keep the agenda: see [`super::Book::open`].
    pub(super) fn open(&mut self, cursor: Timestamp, lag: TimeDelta, heard: u64) {
        let mut agenda = Vec::with_capacity(self.entries.len());
        for (place, entry) in self.entries.values_mut().enumerate() {
            let first = entry.first().since;
            // The first of them, not the newest: those between had slots too.
            let is_fresh = |epoch: &&Epoch| epoch.revision > heard && epoch.since > before(cursor, lag);
            let fresh = entry.epochs().find(is_fresh).map_or(cursor, |epoch| epoch.since);
            entry.accounted_to = cursor.min(fresh).max(first);
            entry.next = next_due(entry.epochs(), entry.accounted_to);
            agenda.extend(entry.next.map(|slot| (slot, place as Place)));
        }
        // All at once: a tree that is built from what is sorted is denser than one that grew.
        self.agenda = Some(agenda.into_iter().collect());
    }

    /// Stops keeping the agenda.
    pub(super) fn close(&mut self) {
        self.agenda = None;
        for entry in self.entries.values_mut() {
            entry.older = Vec::new();
            entry.next = None;
        }
    }

    /// The schedules whose newest definition passes.
    pub(super) fn changed(&self, is_new: impl Fn(&Epoch) -> bool) -> Vec<Name> {
        let changed = self.entries.iter().filter(|(_, entry)| is_new(&entry.newest));
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// When the oldest schedule was last defined.
    pub(super) fn beginning(&self) -> Option<Timestamp> {
        self.entries.values().map(|entry| entry.first().since).min()
    }

    /// What is due up to now of the schedules that are not to be left out, each bounded.
    pub(super) fn due(&self, now: Timestamp, is_left_out: impl Fn(&Name) -> bool) -> Vec<DueSlots> {
        let waiting = self.waiting(now).filter(|(name, _)| !is_left_out(name));
        let due = waiting.filter_map(|(name, entry)| {
            let slots = due_between(entry.epochs(), entry.accounted_to, now, SLOTS_PER_ROUND_MAX);
            let slots = slots.inspect_err(|error| {
                // It was read before it came here. Its slots wait, and so does the cursor: nothing is lost.
                tracing::error!(schedule.name = %name, %error, "The definition of `{name}` cannot be read again: {error}");
            });
            let slots = slots.ok()?;
            let is_whole = slots.len() < SLOTS_PER_ROUND_MAX;
            let upto = if is_whole { now } else { slots.last()?.slot.instant() };
            Some(DueSlots { name: name.clone(), slots, upto })
        });
        due.collect()
    }

    /// Notes that a schedule is accounted for up to an instant, and finds its next slot.
    pub(super) fn account(&mut self, name: &Name, upto: Timestamp) -> Option<Slot> {
        let (place, _, entry) = self.entries.get_full_mut(name)?;
        entry.accounted_to = entry.accounted_to.max(upto);
        entry.forget_past();
        self.place(place);
        self.entries.get_index(place)?.1.next
    }

    /// Up to where everything is accounted for but what is in the agenda.
    pub(super) fn accounted_to(&self, now: Timestamp) -> Timestamp {
        self.waiting(now).map(|(_, entry)| entry.accounted_to).fold(now, Timestamp::min)
    }

    /// The next slot of a schedule that is not held back.
    pub(super) fn next_slot(&self, is_held_back: impl Fn(&Name) -> bool) -> Option<Slot> {
        let mut agenda = self.agenda.iter().flatten();
        let is_free = |place: Place| {
            self.entries.get_index(place as usize).is_some_and(|(name, _)| !is_held_back(name))
        };
        agenda.find(|(_, place)| is_free(*place)).map(|(slot, _)| *slot)
    }

    /// The schedules that have a slot up to now.
    fn waiting(&self, now: Timestamp) -> impl Iterator<Item = (&Name, &Entry)> {
        let due = self.agenda.iter().flatten().take_while(move |(slot, _)| slot.instant() <= now);
        due.filter_map(|(_, place)| self.entries.get_index(*place as usize))
    }

    /// Finds the next slot of a schedule and puts it into the agenda, if that is kept.
    fn place(&mut self, place: usize) {
        let Some(agenda) = &mut self.agenda else { return };
        let Some((_, entry)) = self.entries.get_index_mut(place) else { return };
        let next = next_due(entry.epochs(), entry.accounted_to);
        let place = place as Place;
        if let Some(before) = mem::replace(&mut entry.next, next) {
            agenda.remove(&(before, place));
        }
        agenda.extend(next.map(|slot| (slot, place)));
    }
}

/// What came of a version that was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was known.
    Nothing,
    /// It is the newest now.
    News {
        /// Whether the newest before could be planned.
        was_understood: bool,
    },
}
