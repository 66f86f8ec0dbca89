//! `lateness`: schedules that are each due every second. How long after its slot does a run begin?

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use shared::{run::RunId, slot::Slot};

use super::{RUNS_WAIT, second_after};
use crate::{Bench, Report, load, report::Latencies};

/// Raw bursts that are measured.
const RAW_ROUNDS: usize = 20;

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let target = bench.target().await?;
    let names: Vec<String> = (0..bench.n).map(|n| format!("every-second-{n}")).collect();
    let _worker = bench.worker().await?;
    let _planner = bench.planner()?;
    bench.planners_share(1).await?;
    (bench.say)("what the server needs for as many raw messages");
    let raw = bench.streams.raw_bursts(RAW_ROUNDS, bench.n, load::MESSAGE_BYTES).await?;
    let raw = Latencies::of(raw.iter().map(|late| late.as_secs_f64() * 1_000.0).collect());
    let fields = || json!({ "every": "1s", "overlap": "allow" });
    bench.schedules(names.iter().map(|name| load::schedule(name, fields()))).await?;
    (bench.say)(&format!("{} schedules every second, for {} s", bench.n, bench.seconds));

    // Not the first seconds: the processes warm up.
    let from = second_after(bench.clock().now(), TimeDelta::seconds(5))?;
    let slots = || (0..i64::from(bench.seconds)).map(|n| Slot::at(from + TimeDelta::seconds(n)));
    let until = from + TimeDelta::seconds(bench.seconds.into());
    bench.clock().sleep((until - bench.clock().now()).to_std().unwrap_or_default()).await;
    let wanted: Vec<String> = names
        .iter()
        .flat_map(|name| {
            slots().filter_map(|slot| Some(RunId::planned(&name.parse().ok()?, slot).to_string()))
        })
        .collect();
    let all = async || {
        let seen = target.seen();
        Ok(wanted.iter().all(|run| seen.contains_key(run)).then_some(()))
    };
    // A run that never comes is counted below.
    let _ = bench.wait_for("the last runs", RUNS_WAIT.min(Duration::from_secs(20)), all).await;

    let seen = target.seen();
    let found: Vec<_> = wanted.iter().filter_map(|run| seen.get(run)).collect();
    let report = Report {
        missed: Some(wanted.len() - found.len()),
        double: Some(found.iter().filter(|seen| seen.times > 1).count()),
        per_s: Some(found.len() as f64 / f64::from(bench.seconds)),
        raw_p50_ms: raw.p50,
        raw_p99_ms: raw.p99,
        ..Report::default()
    };
    Ok(report.with_latencies(found.iter().filter_map(|seen| seen.late_ms()).collect()))
}
