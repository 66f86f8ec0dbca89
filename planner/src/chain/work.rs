//! Ends of runs that are being dealt with: which are begun next, and up to where a partition has dealt with all. Pure.
//!
//! The ends that one schedule follows are dealt with in their order, one at a time, so that its runs come in that order; no
//! schedule waits for another. An end that cannot be dealt with just now is tried again, and the cursor of its partition
//! waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use shared::{Timestamp, hash::partition_of, names::Name, run_record::RunRecord};
use streams::bucket::Stored;

/// Before an end is tried again, and at most.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(5);

/// An end, and a schedule that may follow it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) downstream: Name,
    pub(crate) end: Arc<Stored<RunRecord>>,
}

/// How far a partition is.
#[derive(Debug, Default)]
struct Reading {
    /// Every end up to here was taken in.
    read: u64,
    /// Those that are not dealt with yet.
    open: BTreeSet<(u64, Name)>,
}

/// All that is being dealt with.
#[derive(Debug, Default)]
pub(crate) struct Work {
    partitions: BTreeMap<u16, Reading>,
    waiting: BTreeMap<Name, VecDeque<Item>>,
    begun: BTreeSet<Name>,
    held_back: BTreeMap<Name, (Duration, Duration)>,
}

impl Work {
    /// Takes in for a partition, from now on, what lies behind this place. What of it is open stays so.
    pub(crate) fn open(&mut self, partition: u16, behind: u64) {
        self.partitions.entry(partition).or_default().read = behind;
    }

    /// Up to where a partition's ends were taken in; none if it is not open.
    pub(crate) fn read(&self, partition: u16) -> Option<u64> {
        self.partitions.get(&partition).map(|reading| reading.read)
    }

    /// The place behind which somebody has to read.
    pub(crate) fn behind(&self) -> Option<u64> {
        self.partitions.values().map(|reading| reading.read).min()
    }

    /// The partitions that are open.
    pub(crate) fn partitions(&self) -> Vec<u16> {
        self.partitions.keys().copied().collect()
    }

    /// Drops a partition: it is another planner's, who deals with what is left.
    pub(crate) fn close(&mut self, partition: u16) {
        self.partitions.remove(&partition);
        self.waiting.retain(|name, _| partition_of(name.as_str()) != partition);
        self.held_back.retain(|name, _| partition_of(name.as_str()) != partition);
    }

    /// Takes in an end that these schedules may follow.
    pub(crate) fn take_in(&mut self, end: Stored<RunRecord>, followers: &[Name]) {
        let (place, end) = (end.revision, Arc::new(end));
        for downstream in followers {
            let Some(reading) = self.partitions.get_mut(&partition_of(downstream.as_str())) else { continue };
            // What was taken in before comes again when the reading had to begin anew further back.
            if place > reading.read && reading.open.insert((place, downstream.clone())) {
                let item = Item { downstream: downstream.clone(), end: Arc::clone(&end) };
                let items = self.waiting.entry(downstream.clone()).or_default();
                items.insert(items.partition_point(|other| other.end.revision < place), item);
            }
        }
    }

    /// Notes that all up to a place was taken in.
    pub(crate) fn note_read(&mut self, place: u64) {
        for reading in self.partitions.values_mut() {
            reading.read = reading.read.max(place);
        }
    }

    /// What is to be begun now, so that at most so many are at work.
    pub(crate) fn begin(&mut self, now: Duration, at_once_max: usize) -> Vec<Item> {
        let places = at_once_max.saturating_sub(self.begun.len());
        let is_free = |name: &Name| {
            !self.begun.contains(name) && self.held_back.get(name).is_none_or(|(until, _)| *until <= now)
        };
        let heads = self.waiting.iter().filter(|(name, _)| is_free(name));
        let begun: Vec<Item> = heads.filter_map(|(_, items)| items.front().cloned()).take(places).collect();
        self.begun.extend(begun.iter().map(|item| item.downstream.clone()));
        begun
    }

    /// Notes what came of one that was begun.
    pub(crate) fn end(&mut self, downstream: &Name, place: u64, went_well: bool, now: Duration) {
        self.begun.remove(downstream);
        if !went_well {
            let before = self.held_back.get(downstream).map(|(_, wait)| *wait);
            let wait = before.map_or(TRY_AGAIN, |wait| (wait * 2).min(TRY_AGAIN_MAX));
            self.held_back.insert(downstream.clone(), (now + wait, wait));
            return;
        }
        self.held_back.remove(downstream);
        if let Some(reading) = self.partitions.get_mut(&partition_of(downstream.as_str())) {
            reading.open.remove(&(place, downstream.clone()));
        }
        if let Some(items) = self.waiting.get_mut(downstream) {
            // Not if its partition was closed and opened meanwhile: then another may be first.
            items.retain(|item| item.end.revision != place);
            if items.is_empty() {
                self.waiting.remove(downstream);
            }
        }
    }

    /// How many wait because one before them, of the same schedule, could not be dealt with, and since when the oldest.
    pub(crate) fn held_back(&self) -> Option<(usize, Timestamp)> {
        let stuck = self.waiting.iter().filter(|(name, _)| self.held_back.contains_key(*name));
        let (counts, oldest): (Vec<usize>, Vec<Option<Timestamp>>) =
            stuck.map(|(_, items)| (items.len(), items.front().map(|item| item.end.stored_at))).unzip();
        Some((counts.iter().sum(), oldest.into_iter().flatten().min()?))
    }

    /// How many are not dealt with.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Up to where all of a partition's ends were dealt with.
    pub(crate) fn accounted_to(&self, partition: u16) -> Option<u64> {
        let reading = self.partitions.get(&partition)?;
        Some(
            reading.open.first().map_or(reading.read, |(place, _)| place.saturating_sub(1).min(reading.read)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::names::QueueName;

    const NOW: Duration = Duration::from_secs(9);

    fn name(text: &str) -> Name {
        text.parse().expect("name")
    }

    fn end(place: u64) -> Stored<RunRecord> {
        let at = "2026-11-24T02:00:00Z".parse().expect("instant");
        let id = format!("up.{place}").parse().expect("run");
        Stored {
            value: RunRecord::pending(id, QueueName::default_queue(), at),
            revision: place,
            stored_at: at,
        }
    }

    fn begun(work: &mut Work, now: Duration) -> Vec<(String, u64)> {
        let begun = work.begin(now, 256);
        begun.iter().map(|item| (item.downstream.to_string(), item.end.revision)).collect()
    }

    #[test]
    fn ends_are_dealt_with_in_their_order_and_nobody_waits_for_another_schedule() {
        let (one, other) = (name("one"), name("other"));
        let (mine, theirs) = (partition_of("one"), partition_of("other"));
        assert_ne!(mine, theirs);
        let mut work = Work::default();
        work.open(mine, 10);
        work.open(theirs, 11);
        assert_eq!(work.behind(), Some(10));
        let both = [one.clone(), other.clone()];
        for place in [10, 11, 12, 14] {
            work.take_in(end(place), &both);
        }
        work.note_read(14);
        assert_eq!(work.len(), 3 + 2, "only what lies behind the cursors");
        assert_eq!(begun(&mut work, NOW), [("one".to_owned(), 11), ("other".to_owned(), 12)]);
        assert!(begun(&mut work, NOW).is_empty(), "one at a time");
        assert_eq!([work.accounted_to(mine), work.accounted_to(theirs)], [Some(10), Some(11)]);
        work.end(&one, 11, true, NOW);
        work.end(&other, 12, false, NOW);
        assert_eq!(begun(&mut work, NOW), [("one".to_owned(), 12)], "the other is tried again later");
        assert_eq!([work.accounted_to(mine), work.accounted_to(theirs)], [Some(11), Some(11)]);
        assert_eq!(begun(&mut work, NOW + TRY_AGAIN), [("other".to_owned(), 12)]);
        work.end(&other, 12, true, NOW);
        work.end(&one, 12, true, NOW);
        for (downstream, place) in begun(&mut work, NOW) {
            work.end(&name(&downstream), place, true, NOW);
        }
        assert_eq!([work.accounted_to(mine), work.accounted_to(theirs)], [Some(14), Some(14)]);
        assert_eq!(work.len(), 0);
    }

    #[test]
    fn what_is_read_again_is_not_taken_in_twice_while_it_is_open_and_its_cursor_waits_for_it() {
        let one = name("one");
        let partition = partition_of("one");
        let mut work = Work::default();
        work.open(partition, 0);
        work.take_in(end(5), std::slice::from_ref(&one));
        work.take_in(end(6), std::slice::from_ref(&one));
        work.note_read(6);
        // A schedule of the partition was heard of late: it is read from further back.
        work.open(partition, 3);
        for place in 4..=6 {
            work.take_in(end(place), std::slice::from_ref(&one));
        }
        assert_eq!(work.len(), 3);
        assert_eq!(work.accounted_to(partition), Some(3));
        let first = begun(&mut work, NOW);
        assert_eq!(first, [("one".to_owned(), 4)], "the earliest first");
        work.close(partition);
        work.open(partition, 4);
        work.take_in(end(6), std::slice::from_ref(&one));
        work.end(&one, 4, true, NOW);
        assert_eq!(
            begun(&mut work, NOW),
            [("one".to_owned(), 6)],
            "what was begun before does not count for it"
        );
        assert_eq!(work.accounted_to(partition), Some(4));
    }

    #[test]
    fn what_fails_again_and_again_is_tried_less_and_less_often() {
        let one = name("one");
        let mut work = Work::default();
        work.open(partition_of("one"), 0);
        work.take_in(end(5), std::slice::from_ref(&one));
        assert_eq!(work.held_back(), None);
        let mut now = NOW;
        for wait_ms in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            assert_eq!(begun(&mut work, now).len(), 1);
            work.end(&one, 5, false, now);
            assert!(begun(&mut work, now + Duration::from_millis(wait_ms - 1)).is_empty());
            now += Duration::from_millis(wait_ms);
        }
        assert_eq!(work.held_back(), Some((1, end(5).stored_at)));
        work.close(partition_of("one"));
        assert_eq!((work.len(), work.behind(), work.held_back()), (0, None, None));
    }
}
