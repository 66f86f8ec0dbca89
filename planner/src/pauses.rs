//! The pauses in memory: what was said of each schedule, and since when it holds. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::{Timestamp, hash::partition_of, limits::DEFINITION_HISTORY, names::Name, pause::PauseEpoch};
use streams::pauses::PauseVersion;

/// What was said of the schedules that were ever paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    epochs: HashMap<Name, Vec<PauseEpoch>>,
    /// Of which schedules of a partition something was said, by when it was last.
    newest: BTreeMap<u16, BTreeSet<(Timestamp, Name)>>,
}

impl Pauses {
    /// Takes in what was said. What is known already changes nothing.
    pub(crate) fn learn(&mut self, version: PauseVersion) {
        self.change(version.name, |epochs| {
            if epochs.last().is_none_or(|last| last.revision < version.epoch.revision) {
                epochs.push(version.epoch);
                // Somebody who pauses and resumes all day must not fill our memory; the bucket keeps no more either.
                let surplus = epochs.len().saturating_sub(DEFINITION_HISTORY.unsigned_abs() as usize);
                epochs.drain(..surplus);
            }
        });
    }

    /// Puts what was said between a cursor and the newest word in its place. What came meanwhile stays.
    pub(crate) fn learn_history(&mut self, name: &Name, history: Vec<PauseEpoch>) {
        let Some(newest) = history.last().map(|epoch| epoch.revision) else { return };
        self.change(name.clone(), |epochs| {
            epochs.retain(|epoch| epoch.revision > newest);
            epochs.splice(..0, history);
        });
    }

    /// The schedules of a partition of which something was said since its cursor: a watch tells only the newest word.
    pub(crate) fn changed_since(&self, partition: u16, cursor: Timestamp) -> Vec<Name> {
        let newest_first = self.newest.get(&partition).into_iter().flat_map(|said| said.iter().rev());
        newest_first.take_while(|(since, _)| *since > cursor).map(|(_, name)| name.clone()).collect()
    }

    fn change(&mut self, name: Name, change: impl FnOnce(&mut Vec<PauseEpoch>)) {
        let newest = self.newest.entry(partition_of(name.as_str())).or_default();
        let epochs = self.epochs.entry(name.clone()).or_default();
        let before = epochs.last().map(|epoch| epoch.since);
        change(epochs);
        let after = epochs.last().map(|epoch| epoch.since);
        if before != after {
            if let Some(before) = before {
                newest.remove(&(before, name.clone()));
            }
            newest.extend(after.map(|since| (since, name)));
        }
    }

    /// What was said of a schedule, in order.
    pub(crate) fn of(&self, name: &Name) -> &[PauseEpoch] {
        self.epochs.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::pause::{Pause, pause_at};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn epoch(revision: u64, since: &str, is_paused: bool) -> PauseEpoch {
        let pause = is_paused.then(|| Pause { by: "ann".to_owned(), reason: None, until: None });
        PauseEpoch { since: at(since), revision, pause }
    }

    fn name() -> Name {
        "nightly".parse().expect("name")
    }

    fn learned(words: &[(u64, &str, bool)]) -> Pauses {
        let mut pauses = Pauses::default();
        for (revision, since, is_paused) in words {
            pauses.learn(PauseVersion { name: name(), epoch: epoch(*revision, since, *is_paused) });
        }
        pauses
    }

    #[test]
    fn a_planner_that_was_away_across_a_pause_and_a_resume_decides_each_slot_by_its_instant() {
        // All its watch tells is the newest word: resumed.
        let mut pauses = learned(&[(9, "03:00:00", false)]);
        let is_paused = |pauses: &Pauses, slot| pause_at(pauses.of(&name()), at(slot)).is_some();
        assert!(!is_paused(&pauses, "02:30:00"));
        let partition = partition_of("nightly");
        assert_eq!(pauses.changed_since(partition, at("01:00:00")), [name()]);
        assert!(pauses.changed_since(partition, at("03:00:00")).is_empty());
        assert!(pauses.changed_since(partition + 1, at("01:00:00")).is_empty());
        pauses.learn_history(&name(), vec![epoch(4, "02:00:00", true), epoch(9, "03:00:00", false)]);
        let found = ["01:30:00", "02:30:00", "03:30:00"].map(|slot| is_paused(&pauses, slot));
        assert_eq!(found, [false, true, false]);
    }

    #[test]
    fn a_word_heard_twice_changes_nothing_and_one_that_came_while_history_was_read_stays() {
        let mut pauses = learned(&[(4, "02:00:00", true), (4, "02:00:00", true), (12, "04:00:00", true)]);
        assert_eq!(pauses.of(&name()).len(), 2);
        pauses.learn_history(&name(), vec![epoch(4, "02:00:00", true), epoch(9, "03:00:00", false)]);
        let revisions: Vec<u64> = pauses.of(&name()).iter().map(|epoch| epoch.revision).collect();
        assert_eq!(revisions, [4, 9, 12]);
    }

    #[test]
    fn memory_keeps_no_more_words_than_the_bucket() {
        let mut pauses = Pauses::default();
        for revision in 1..=1_000 {
            let epoch = PauseEpoch { revision, ..epoch(1, "02:00:00", revision % 2 == 0) };
            pauses.learn(PauseVersion { name: name(), epoch });
        }
        assert_eq!(pauses.of(&name()).len(), 64);
        assert_eq!(pauses.of(&name()).last().map(|epoch| epoch.revision), Some(1_000));
    }
}
