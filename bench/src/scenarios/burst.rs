//! `burst`: schedules that are all due in the same second. When does the last of their runs begin?

use chrono::TimeDelta;
use serde_json::json;

use super::{runs_begin, second_after};
use crate::{Bench, Report, load, target::Seen};

/// Schedules are written at several thousand a second; until the slot all of them must be known.
const WRITTEN_PER_SECOND: i64 = 1_500;

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let target = bench.target().await?;
    let _worker = bench.worker().await?;
    let _planner = bench.planner()?;
    bench.planners_share(1).await?;
    let writing = TimeDelta::seconds(5 + i64::try_from(bench.n)? / WRITTEN_PER_SECOND);
    let slot = second_after(bench.clock().now(), writing)?;
    let schedules = (0..bench.n).map(|n| load::schedule(&format!("burst-{n}"), json!({ "at": slot })));
    bench.schedules(schedules).await?;
    (bench.say)(&format!("{} schedules are due at {slot}", bench.n));
    anyhow::ensure!(bench.clock().now() < slot, "writing the schedules took longer than until their slot");
    bench.clock().sleep((slot - bench.clock().now()).to_std().unwrap_or_default()).await;
    runs_begin(bench, &target, bench.n).await;

    let seen = target.seen();
    let late: Vec<f64> = seen.values().filter_map(Seen::late_ms).collect();
    let last = late.iter().copied().reduce(f64::max);
    let report = Report {
        last_ms: last,
        per_s: last.map(|last| late.len() as f64 * 1_000.0 / last.max(1.0)),
        missed: Some(bench.n.saturating_sub(seen.len())),
        double: Some(seen.values().filter(|seen| seen.times > 1).count()),
        ..Report::default()
    };
    Ok(report.with_latencies(late))
}
