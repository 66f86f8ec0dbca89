//! What the read model answers with.

use chrono::NaiveDate;
use serde::Serialize;
use shared::{
    Timestamp,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

use super::Cursor;

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// Its record, without the output, which only the ledger has.
    #[serde(flatten)]
    pub record: RunRecord,
    /// The revision of the record: its sequence in the ledger's stream.
    pub revision: u64,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The runs, in the order that was asked for. There may be fewer than were asked for though more follow: a search that
    /// finds little stops after a while and goes on with the next page.
    pub items: Vec<Listed>,
    /// Where the next page begins; absent at the end of the list.
    pub next: Option<Cursor>,
}

/// How many runs there are, as far as it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// So many at least.
    pub number: u64,
    /// Whether there are no more: counting stops at `limits::COUNT_MAX`, and when it takes too long.
    pub is_exact: bool,
}

/// The last runs of a schedule, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Strip {
    /// The schedule.
    pub schedule: String,
    /// Its runs.
    pub runs: Vec<StripRun>,
}

/// A run in a strip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StripRun {
    /// Its id.
    pub id: RunId,
    /// Its state.
    pub status: RunState,
    /// Why it is in that state.
    pub reason: Option<Reason>,
    /// When it was due; its slot, the instant it waited for, or when it was created.
    pub due: Timestamp,
    /// How long its latest attempt took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Whether it was late.
    pub late: bool,
}

/// How many runs are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// Waiting for a worker.
    pub pending: u64,
    /// At a worker.
    pub running: u64,
    /// Waiting for their next attempt.
    pub retry: u64,
    /// Ended well.
    pub success: u64,
    /// Ended badly.
    pub failed: u64,
    /// Skipped or stopped.
    pub cancelled: u64,
}

/// What ended in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MinuteCounts {
    /// When the minute begins.
    pub minute: Timestamp,
    /// Runs that ended well.
    pub success: u64,
    /// Runs that ended badly.
    pub failed: u64,
    /// Runs that were skipped or stopped.
    pub cancelled: u64,
    /// Of those that ended in their first attempt: how long after they were due it began, in milliseconds, for half of them.
    pub delay_p50_ms: Option<u64>,
    /// The same for 99 of 100.
    pub delay_p99_ms: Option<u64>,
}

/// How long the attempts of a schedule's runs took that were created within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DurationBucket {
    /// When the time begins.
    pub from: Timestamp,
    /// How many runs were counted.
    pub runs: u64,
    /// Half of them took at most so many milliseconds.
    pub p50_ms: u64,
    /// 90 of 100 took at most so many.
    pub p90_ms: u64,
    /// 99 of 100 took at most so many.
    pub p99_ms: u64,
}

/// How a schedule's runs of a day ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DayCounts {
    /// The day, in the zone that was asked for, by when the runs were due.
    pub day: NaiveDate,
    /// Ended well.
    pub success: u64,
    /// Ended badly.
    pub failed: u64,
    /// Slots at which it was due and did not run.
    pub skipped: u64,
    /// Stopped for another reason.
    pub cancelled: u64,
    /// Not ended.
    pub open: u64,
}

impl DayCounts {
    /// A day on which nothing was.
    pub(super) fn of(day: NaiveDate) -> Self {
        Self { day, success: 0, failed: 0, skipped: 0, cancelled: 0, open: 0 }
    }
}

/// The runs around a run, as far as the model has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Relatives {
    /// The run whose end it follows.
    pub upstream: Option<Listed>,
    /// Runs that follow its end, the newest first.
    pub downstream: Vec<Listed>,
    /// The run it is a part of.
    pub whole: Option<Listed>,
    /// Its parts, by their index.
    pub shards: Vec<Listed>,
}
