//! The ledger.

use shared::{Timestamp, limits, run::RunId, run_record::RunRecord};
use streams::{
    bucket::Stored,
    ledger::{Creation, Update},
};

use super::bucket::Bucket;

/// The record of every run.
#[derive(Debug)]
pub(crate) struct Records(Bucket<RunId, RunRecord>);

impl Default for Records {
    fn default() -> Self {
        Self(Bucket::new(limits::RUN_HISTORY.unsigned_abs() as usize))
    }
}

impl Records {
    /// Creates the record of a run, once: whoever comes second gets what is there.
    pub(crate) fn create(&mut self, record: &RunRecord, now: Timestamp) -> Creation {
        if let Some(found) = self.get(&record.id) {
            return Creation::Exists(Box::new(found));
        }
        match self.0.write(record.id.clone(), Some(record.clone()), 0, now) {
            Update::Stored(revision) => Creation::Created(revision),
            // Nothing in the ledger is ever deleted: what is not there never was.
            Update::Stale => Creation::Created(0),
        }
    }

    /// Writes a record over exactly this revision.
    pub(crate) fn update(&mut self, record: &RunRecord, over: u64, now: Timestamp) -> Update {
        self.0.write(record.id.clone(), Some(record.clone()), over, now)
    }

    pub(crate) fn get(&self, run: &RunId) -> Option<Stored<RunRecord>> {
        let entry = self.0.get(run)?;
        let value = entry.value.clone()?;
        Some(Stored { value, revision: entry.revision, stored_at: entry.stored_at })
    }
}
