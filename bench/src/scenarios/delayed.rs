//! `delayed`: submissions that wait, due one after another over a while. How long after its instant is one recorded,
//! and how long after it does its run begin?

use std::{collections::HashMap, time::Duration};

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use shared::{Timestamp, names::QueueName, run::RunId};

use super::{RUNS_WAIT, second_after};
use crate::{Bench, Report, load, report::Latencies, target::Target};

/// What they are submitted under.
const NAME: &str = "delayed";
/// Submissions whose acknowledgement has not come yet.
const IN_FLIGHT: usize = 1_024;
/// All are submitted before the first is due.
const SUBMITTED_PER_SECOND: i64 = 4_000;
/// How long after the last run began its end may still be written.
const ENDS_WAIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let target = bench.target().await?;
    let _worker = bench.worker().await?;
    let _planner = bench.planner()?;
    bench.planners_share(1).await?;
    let submitting = TimeDelta::seconds(5 + i64::try_from(bench.n)? / SUBMITTED_PER_SECOND);
    let first = second_after(bench.clock().now(), submitting)?;
    let due = due(bench, first)?;
    submit(bench, &due).await?;
    (bench.say)(&format!("{} submissions are due within {} s from {first}", bench.n, bench.seconds));
    anyhow::ensure!(bench.clock().now() < first, "submitting took longer than until the first was due");
    let last = first + TimeDelta::seconds(bench.seconds.into());
    bench.clock().sleep((last - bench.clock().now()).to_std().unwrap_or_default()).await;
    let all = async || Ok((target.count() >= due.len()).then_some(()));
    // A run that never comes is counted below.
    let _ = bench.wait_for("the last run", RUNS_WAIT, all).await;
    count(bench, &target, &due).await
}

/// The runs with their instants, spread evenly over the while.
fn due(bench: &Bench, first: Timestamp) -> anyhow::Result<HashMap<String, Timestamp>> {
    let span_ms = i64::from(bench.seconds) * 1_000;
    let count = i64::try_from(bench.n)?;
    Ok((0..count)
        .map(|n| (format!("{NAME}.{n}"), first + TimeDelta::milliseconds(n * span_ms / count)))
        .collect())
}

/// Submits all of them. One that is not acknowledged ends the scenario: it could be counted neither as lost nor as kept.
async fn submit(bench: &Bench, due: &HashMap<String, Timestamp>) -> anyhow::Result<()> {
    let (queue, task) = (&QueueName::default_queue(), &load::task("run").to_string());
    let delayed = &bench.streams.delayed();
    let mut answers = stream::iter(due)
        .map(|(run, at)| async move {
            let run: RunId = run.parse()?;
            anyhow::Ok(delayed.submit(queue, &run, *at, task.as_bytes(), None).await?)
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

async fn count(bench: &Bench, target: &Target, due: &HashMap<String, Timestamp>) -> anyhow::Result<Report> {
    let ledger = bench.streams.ledger();
    let records = async || {
        let records = ledger.list(&format!("{NAME}.*")).await?;
        let ended = records.iter().filter(|stored| stored.value.status.is_final()).count();
        Ok((ended >= due.len()).then_some(()))
    };
    let _ = bench.wait_for("the last ends", ENDS_WAIT, records).await;
    let records = ledger.list(&format!("{NAME}.*")).await?;
    let late = |run: &str, at: Timestamp| Some((at - *due.get(run)?).num_milliseconds() as f64);
    let recorded: Vec<f64> = records
        .iter()
        .filter_map(|stored| late(&stored.value.id.to_string(), stored.value.created_at))
        .collect();
    let seen = target.seen();
    let began: Vec<f64> = seen.iter().filter_map(|(run, seen)| late(run, seen.began)).collect();
    let ended = records.iter().filter(|stored| stored.value.status.is_final()).count();
    let recorded = Latencies::of(recorded);
    Ok(Report {
        recorded_p50_ms: recorded.p50,
        recorded_p99_ms: recorded.p99,
        recorded_max_ms: recorded.max,
        early: Some(began.iter().filter(|late| **late < 0.0).count()),
        missed: Some(due.len().saturating_sub(began.len())),
        double: Some(seen.values().filter(|seen| seen.times > 1).count()),
        lost: Some(due.len().saturating_sub(ended)),
        per_s: Some(began.len() as f64 / f64::from(bench.seconds)),
        ..Report::default()
    }
    .with_latencies(began))
}
