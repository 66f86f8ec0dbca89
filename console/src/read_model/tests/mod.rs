//! The model on `SQLite` alone: changes go in by its own writer, and questions are asked as by anybody.

mod answers;
mod feed;
mod history;
mod plans;

use std::path::{Path, PathBuf};

use shared::{Timestamp, clock::SystemClock, run_record::RunRecord};
use streams::{
    Bytes,
    ledger_changes::{LedgerChange, LedgerExtent},
};
use tempfile::TempDir;

use super::{ReadModel, Writer, filling::Filling};

/// A model in a folder of its own, and who writes it.
pub(super) struct Table {
    pub(super) model: ReadModel,
    pub(super) writer: Option<Writer>,
    pub(super) extent: LedgerExtent,
    folder: TempDir,
}

impl Table {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let model = open(&folder.path().join("model.sqlite"));
        let extent =
            LedgerExtent { stream: "KV_runs".to_owned(), made: at(0), first: 1, last: u64::MAX >> 1 };
        let mut table = Self { model, writer: None, extent, folder };
        table.restart();
        table
    }

    /// Ends the writer and starts another, as a restart of the process does.
    pub(super) fn restart(&mut self) {
        self.writer = None;
        let writer = Writer::open(std::sync::Arc::clone(self.model.inner()), &self.extent, None);
        self.writer = Some(writer.unwrap_or_else(|ended| panic!("{ended:?}")));
    }

    pub(super) fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("a writer")
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("model.sqlite")
    }

    /// Stores changes, behind which nothing waits.
    pub(super) fn store(&mut self, changes: &[LedgerChange]) {
        self.writer().store(changes, 0).expect("stored");
    }

    /// Stores made-up runs of a few schedules; all that was stored.
    pub(super) fn fill(&mut self, runs: u64, schedules: u64) -> Vec<RunRecord> {
        let filling = Filling { runs, schedules, until: at(3_600_000) };
        let mut ends = Vec::new();
        let mut changes = Vec::new();
        for (number, revision) in (0..runs).zip((1..).step_by(2)) {
            let [planned, ended] = filling.versions(number).expect("a life");
            changes.push(change(&planned, revision));
            changes.push(change(&ended, revision + 1));
            ends.push(RunRecord { output: None, ..ended });
        }
        for batch in changes.chunks(1_000) {
            self.store(batch);
        }
        ends
    }
}

pub(super) fn open(path: &Path) -> ReadModel {
    ReadModel::open_file(path, SystemClock::shared()).expect("opened")
}

/// An instant, in milliseconds from one that the tests know.
pub(super) fn at(millisecond: i64) -> Timestamp {
    let zero: Timestamp = "2026-11-24T02:00:00Z".parse().expect("instant");
    zero + chrono::Duration::milliseconds(millisecond)
}

pub(super) fn change(record: &RunRecord, revision: u64) -> LedgerChange {
    let value = Some(Bytes::from(serde_json::to_vec(record).expect("JSON")));
    LedgerChange { key: record.id.to_string(), value, revision, stored_at: at(0) }
}

pub(super) fn deletion(id: &str, revision: u64) -> LedgerChange {
    LedgerChange { key: id.to_owned(), value: None, revision, stored_at: at(0) }
}
