//! How far the runs are that this worker executes: what its heartbeat tells the fleet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use shared::{limits::PROGRESS_TOLD_MAX, run::RunId, run_log::Progress};

/// How far the runs are that said so. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgressBoard {
    told: Arc<Mutex<BTreeMap<RunId, (u64, Progress)>>>,
}

impl ProgressBoard {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, (u64, Progress)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt with this fence is so far.
    pub(crate) fn note(&self, run: &RunId, fence: u64, progress: Progress) {
        self.lock().insert(run.clone(), (fence, progress));
    }

    /// The attempt with this fence has ended. A newer one of the same run keeps its place.
    pub(crate) fn forget(&self, run: &RunId, fence: u64) {
        let mut told = self.lock();
        if told.get(run).is_some_and(|(noted, _)| *noted <= fence) {
            told.remove(run);
        }
    }

    /// All of them, up to what a heartbeat holds.
    pub(crate) fn list(&self) -> Vec<(RunId, Progress)> {
        let told = self.lock();
        told.iter()
            .take(PROGRESS_TOLD_MAX)
            .map(|(run, (_, progress))| (run.clone(), progress.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_until_its_attempt_has_ended_and_a_newer_attempt_keeps_its_place() {
        let board = ProgressBoard::default();
        let run: RunId = "nightly.1".parse().expect("a run id");
        board.note(&run, 7, Progress::new(0.4, None));
        board.note(&run, 9, Progress::new(0.1, None));
        board.forget(&run, 7);
        assert_eq!(board.list(), [(run.clone(), Progress::new(0.1, None))]);
        board.forget(&run, 9);
        assert!(board.list().is_empty());
    }
}
