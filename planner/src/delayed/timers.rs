//! What waits in the partitions of this planner: when it is due, and where its task lies. Pure.
//!
//! Sixteen bytes an entry, in one heap per partition, so that a partition that is lost is dropped as a whole. What was
//! cancelled stays here until it would have been due.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use streams::delayed::Entry;

/// The entries of one partition, by when they are due.
type Heap = BinaryHeap<Reverse<(i64, u64)>>;

/// What waits, by partition.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    partitions: BTreeMap<u16, Heap>,
}

impl Timers {
    /// Begins to keep what waits in a partition. One that is kept already is emptied.
    pub(crate) fn open(&mut self, partition: u16) {
        self.partitions.insert(partition, Heap::new());
    }

    /// Forgets a partition with all that waits in it.
    pub(crate) fn close(&mut self, partition: u16) {
        self.partitions.remove(&partition);
    }

    /// Adds one that waits; of a partition that is not kept it is none of ours.
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Some(heap) = self.partitions.get_mut(&entry.partition) {
            heap.push(Reverse((entry.due_ms, entry.sequence)));
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.partitions.values().map(BinaryHeap::len).sum()
    }

    /// When the next one of these partitions is due.
    pub(crate) fn next_due(&self, partitions: &[u16]) -> Option<i64> {
        self.first(partitions).map(|entry| entry.due_ms)
    }

    /// Takes the one of these partitions that is due first, if it is due by then.
    pub(crate) fn take_due(&mut self, upto_ms: i64, partitions: &[u16]) -> Option<Entry> {
        let first = self.first(partitions).filter(|entry| entry.due_ms <= upto_ms)?;
        self.partitions.get_mut(&first.partition)?.pop();
        Some(first)
    }

    fn first(&self, partitions: &[u16]) -> Option<Entry> {
        let tops = partitions.iter().filter_map(|partition| {
            let Reverse((due_ms, sequence)) = *self.partitions.get(partition)?.peek()?;
            Some(Entry { partition: *partition, due_ms, sequence })
        });
        tops.min_by_key(|entry| (entry.due_ms, entry.sequence))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FEW: u16 = 4;

    #[derive(Debug, Clone)]
    enum Step {
        Open(u16),
        Close(u16),
        Push(u16, i64),
        Take(i64, Vec<u16>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let due = prop_oneof![1 => Just(Entry::AT_ONCE), 9 => 0..50_i64];
        prop_oneof![
            1 => (0..FEW).prop_map(Step::Open),
            1 => (0..FEW).prop_map(Step::Close),
            8 => (0..FEW, due).prop_map(|(partition, due)| Step::Push(partition, due)),
            6 => (0..60_i64, prop::collection::vec(0..FEW, 0..5))
                .prop_map(|(upto, partitions)| Step::Take(upto, partitions)),
        ]
    }

    /// The same, as slowly and plainly as can be.
    #[derive(Default)]
    struct Model {
        open: Vec<u16>,
        waiting: Vec<Entry>,
    }

    impl Model {
        fn take(&mut self, upto: i64, partitions: &[u16]) -> Option<Entry> {
            let mut due: Vec<Entry> = self.waiting.clone();
            due.retain(|entry| entry.due_ms <= upto && partitions.contains(&entry.partition));
            due.sort_by_key(|entry| (entry.due_ms, entry.sequence));
            let first = *due.first()?;
            self.waiting.retain(|entry| *entry != first);
            Some(first)
        }

        fn forget(&mut self, partition: u16) {
            self.open.retain(|open| *open != partition);
            self.waiting.retain(|entry| entry.partition != partition);
        }
    }

    proptest! {
        #[test]
        fn what_is_due_comes_out_in_order_and_only_from_the_partitions_asked_for(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let (mut timers, mut model) = (Timers::default(), Model::default());
            for (sequence, step) in (1..).zip(steps) {
                match step {
                    Step::Open(partition) => {
                        timers.open(partition);
                        model.forget(partition);
                        model.open.push(partition);
                    }
                    Step::Close(partition) => {
                        timers.close(partition);
                        model.forget(partition);
                    }
                    Step::Push(partition, due_ms) => {
                        let entry = Entry { partition, due_ms, sequence };
                        timers.push(entry);
                        if model.open.contains(&partition) {
                            model.waiting.push(entry);
                        }
                    }
                    Step::Take(upto, partitions) => {
                        prop_assert_eq!(timers.take_due(upto, &partitions), model.take(upto, &partitions));
                    }
                }
                prop_assert_eq!(timers.len(), model.waiting.len());
                let all: Vec<u16> = (0..FEW).collect();
                prop_assert_eq!(timers.next_due(&all), model.waiting.iter().map(|entry| entry.due_ms).min());
            }
        }
    }

    #[test]
    fn an_entry_takes_sixteen_bytes() {
        assert_eq!(size_of::<Reverse<(i64, u64)>>(), 16);
    }
}
