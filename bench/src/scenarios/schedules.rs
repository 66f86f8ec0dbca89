//! `schedules`: very many schedules, of which ten are due each second. How long does a planner read them, how much
//! memory do they take, how idle is it, and how soon is a change in force, a new one and the end of one?

use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use serde_json::json;
use shared::{names::Name, run::RunId, slot::Slot};

use super::second_after;
use crate::{Bench, Report, load};

/// Distinct expressions among them.
const EXPRESSIONS: usize = 10_000;
/// Schedules that are due every second.
const DUE_EACH_SECOND: usize = 10;
/// Schedules that are changed, and as many that are added, one after another.
const UPDATES: usize = 10;
/// Schedules that are deleted.
const DELETED: usize = 3;
/// What a planner that has not heard of a deletion would go on with is waited for.
const DELETED_FOR: Duration = Duration::from_secs(3);
const READY_WAIT: Duration = Duration::from_mins(5);
/// What is idle is looked at for this long.
const IDLE_FOR: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let target = bench.target().await?;
    (bench.say)(&format!("writing {} schedules", bench.n));
    // Not one of them comes while it is measured: the first of January, at ten thousand different times.
    let many = (0..bench.n).map(|n| {
        let (second, minute, hour) = (n % 20, n % EXPRESSIONS / 20 % 60, n % EXPRESSIONS / 1_200);
        load::schedule(&format!("many-{n}"), json!({ "cron": format!("{second} {minute} {hour} 1 1 *") }))
    });
    bench.schedules(many).await?;
    let few = (0..DUE_EACH_SECOND).map(|n| load::schedule(&format!("busy-{n}"), json!({ "every": "1s" })));
    bench.schedules(few).await?;
    let _worker = bench.worker().await?;

    (bench.say)("starting the planner");
    let before = target.count();
    let started = bench.clock().elapsed();
    let planner = bench.planner()?;
    let first = async || Ok((target.count() > before).then_some(()));
    bench.wait_for("the first run", READY_WAIT, first).await?;
    let ready = bench.clock().elapsed().saturating_sub(started);
    bench.planners_share(1).await?;

    (bench.say)("watching it do little");
    bench.clock().sleep(Duration::from_secs(3)).await;
    let (cpu_before, before) = (planner.cpu()?, bench.clock().elapsed());
    bench.clock().sleep(IDLE_FOR.min(Duration::from_secs(bench.seconds.into()))).await;
    let (cpu, time) =
        (planner.cpu()?.saturating_sub(cpu_before), bench.clock().elapsed().saturating_sub(before));

    (bench.say)("changing some of them, adding and deleting others");
    let mut slowest: f64 = 0.0;
    for n in 0..UPDATES {
        slowest = slowest.max(begin(bench, &format!("many-{n}")).await?);
        slowest = slowest.max(begin(bench, &format!("new-{n}")).await?);
    }
    for n in 0..DELETED {
        slowest = slowest.max(end(bench, &format!("busy-{n}")).await?);
    }
    Ok(Report {
        ready_s: Some(ready.as_secs_f64()),
        rss_mb: Some(planner.rss_mb()?),
        idle_cpu_pct: Some(100.0 * cpu.as_secs_f64() / time.as_secs_f64()),
        update_ms: Some(slowest),
        ..Report::default()
    })
}

/// Makes a schedule due at the next second, one that is there or a new one; from the write to the record of that slot, less
/// what lay between anyway, in milliseconds.
async fn begin(bench: &Bench, name: &str) -> anyhow::Result<f64> {
    let slot = second_after(bench.clock().now(), TimeDelta::milliseconds(20))?;
    let written = bench.clock().now();
    bench.schedules(std::iter::once(load::schedule(name, json!({ "at": slot })))).await?;
    let run = RunId::planned(&name.parse::<Name>()?, Slot::at(slot));
    let recorded = async || Ok(bench.streams.ledger().get(&run).await?);
    let record = bench.wait_for("the run of a changed schedule", Duration::from_mins(1), recorded).await?;
    Ok((record.stored_at - written.max(slot)).num_milliseconds().max(0) as f64)
}

/// Deletes a schedule that is due every second; from then to the last slot that ran all the same, in milliseconds.
async fn end(bench: &Bench, name: &str) -> anyhow::Result<f64> {
    bench.streams.schedules().delete(&name.parse::<Name>()?).await?;
    let deleted = bench.clock().now();
    bench.clock().sleep(DELETED_FOR).await;
    let records = bench.streams.ledger().list(&format!("{name}.>")).await?;
    let last = records.into_iter().filter_map(|record| record.value.slot).max().context("a run before")?;
    Ok((last - deleted).num_milliseconds().max(0) as f64)
}
