//! `failover`: slots every second, two planners, one of which is killed or told to stop, again and again. How long does
//! nobody dispatch its slots?

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use serde_json::json;
use shared::{Timestamp, names::Name, run::RunId, slot::Slot};

use super::second_after;
use crate::{Bench, Report, fleet::Process, load, target::Target};

/// Each way to end is measured this often.
const ROUNDS: usize = 20;
/// What is watched after a planner ended.
const WATCHED: Duration = Duration::from_secs(9);
const LAST_RUNS_WAIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let target = bench.target().await?;
    let _worker = bench.worker().await?;
    let mut planners = [bench.planner()?, bench.planner()?];
    let names: Vec<Name> = (0..bench.n).map(|n| format!("failing-{n}").parse()).collect::<Result<_, _>>()?;
    let fields = || json!({ "every": "1s", "overlap": "allow", "missed": "all" });
    bench.schedules(names.iter().map(|name| load::schedule(name.as_str(), fields()))).await?;
    bench.planners_share(2).await?;
    let from = second_after(bench.clock().now(), TimeDelta::seconds(3))?;
    let mut worst = [0.0_f64; 2];
    for round in 0..2 * ROUNDS {
        bench.planners_share(2).await?;
        // Not always at the same part of a second.
        bench.clock().sleep(Duration::from_millis(500 + 97 * (round as u64 % 10))).await;
        let (planner, is_kill) = (&mut planners[round % 2], round % 4 < 2);
        let ended_at = bench.clock().now();
        if is_kill {
            planner.kill();
        } else {
            planner.ask_to_stop()?;
        }
        bench.clock().sleep(WATCHED).await;
        if !is_kill {
            planner.ended(bench).await?;
        }
        let wait = longest_wait(&target, &names, ended_at);
        (bench.say)(&format!("{}: {wait} ms", if is_kill { "killed" } else { "told to stop" }));
        let place = &mut worst[usize::from(!is_kill)];
        *place = place.max(wait);
        start_again(bench, planner)?;
    }
    let until = bench.clock().now() - TimeDelta::seconds(3);
    let (missed, double) = count(bench, &target, &names, from, until).await;
    Ok(Report {
        kill_max_ms: Some(worst[0]),
        term_max_ms: Some(worst[1]),
        missed: Some(missed),
        double: Some(double),
        ..Report::default()
    })
}

fn start_again(bench: &Bench, planner: &mut Process) -> anyhow::Result<()> {
    *planner = bench.planner()?;
    Ok(())
}

/// The slots of the two seconds after the end: how long after it, or after their slot, the last of them began.
fn longest_wait(target: &Target, names: &[Name], ended_at: Timestamp) -> f64 {
    let names: BTreeSet<&str> = names.iter().map(Name::as_str).collect();
    let seen = target.seen();
    let waits = seen.iter().filter_map(|(run, seen)| {
        let slot = seen.slot?;
        let is_after = slot > ended_at && slot <= ended_at + TimeDelta::seconds(2);
        let is_ours = run.split_once('.').is_some_and(|(name, _)| names.contains(name));
        (is_after && is_ours).then(|| (seen.began - ended_at.max(slot)).num_milliseconds() as f64)
    });
    waits.fold(0.0, f64::max)
}

/// Slots without a run, and runs that began more often than once.
async fn count(
    bench: &Bench,
    target: &Target,
    names: &[Name],
    from: Timestamp,
    until: Timestamp,
) -> (usize, usize) {
    let seconds = (until - from).num_seconds();
    let slots = || (0..seconds).map(|n| Slot::at(from + TimeDelta::seconds(n)));
    let wanted: Vec<String> =
        names.iter().flat_map(|name| slots().map(|slot| RunId::planned(name, slot).to_string())).collect();
    let all = async || {
        let seen = target.seen();
        Ok(wanted.iter().all(|run| seen.contains_key(run)).then_some(()))
    };
    let _ = bench.wait_for("the last runs", LAST_RUNS_WAIT, all).await;
    let seen = target.seen();
    let missed = wanted.iter().filter(|run| !seen.contains_key(*run)).count();
    (missed, seen.values().filter(|seen| seen.times > 1).count())
}
