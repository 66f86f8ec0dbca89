//! One file per scenario.

pub(crate) mod burst;
pub(crate) mod delayed;
pub(crate) mod dispatch;
pub(crate) mod drain;
pub(crate) mod failover;
pub(crate) mod latency;
pub(crate) mod lateness;
pub(crate) mod schedules;
pub(crate) mod submit;
pub(crate) mod worker_kill;
pub(crate) mod worker_memory;

use std::time::Duration;

use chrono::{DurationRound, TimeDelta};
use shared::Timestamp;

use crate::{Bench, target::Target};

/// How long after the last slot runs may still come.
const RUNS_WAIT: Duration = Duration::from_mins(2);

/// A whole second that is this far away at least.
fn second_after(now: Timestamp, wait: TimeDelta) -> anyhow::Result<Timestamp> {
    Ok((now + wait).duration_round_up(TimeDelta::seconds(1))?)
}

/// Waits until so many runs began. Fewer are no error: the report counts what is missing.
async fn runs_begin(bench: &Bench, target: &Target, count: usize) {
    let _ =
        bench.wait_for("the last run", RUNS_WAIT, async || Ok((target.count() >= count).then_some(()))).await;
}
