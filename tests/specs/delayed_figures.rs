//! How many may wait, and how late they run: figures, not promises, so these run only when they are asked for:
//!
//! `cargo test --release -p cronfleet-specs --test specs -- --ignored --nocapture --test-threads 1 delayed_figures`

use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use harness::{Fleet, Process, eventually, within};
use serde_json::json;
use shared::{
    Timestamp,
    clock::{Clock, SystemClock},
    run::RunId,
};

const IN_FLIGHT: usize = 1_024;

/// A task of 300 bytes.
fn task() -> String {
    let filler = "x".repeat(230);
    json!({"target_service": "target", "action": "ok", "parameters": {"filler": filler}}).to_string()
}

async fn submit(fleet: &Fleet, due: impl Iterator<Item = (RunId, Timestamp)>) -> usize {
    let (task, queue) = (task(), "default".parse().expect("queue"));
    let delayed = fleet.streams.delayed();
    let accepted = stream::iter(due)
        .map(|(run, at)| {
            let (delayed, queue, task) = (&delayed, &queue, task.as_bytes());
            async move { delayed.submit(queue, &run, at, task, None).await }
        })
        .buffer_unordered(IN_FLIGHT)
        .filter(|answer| std::future::ready(answer.is_ok()));
    accepted.count().await
}

fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn percentile(sorted: &[i64], percent: usize) -> i64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::test]
#[ignore = "a measurement of a minute, in release mode"]
async fn a_million_that_wait_are_read_by_a_planner_that_starts() {
    const WAITING: u32 = 1_000_000;
    let fleet = Fleet::start().await;
    let clock = SystemClock;
    let mut idle = fleet.planner();
    fleet.members("planner", 1).await;
    harness::wait::for_a_while(Duration::from_secs(3)).await;
    let before = resident_kib(&idle);
    idle.stop().await;
    let far = fleet.now() + TimeDelta::days(30);
    let began = clock.elapsed();
    let due = (0..WAITING).map(|n| {
        let run = format!("reminder.user-{n}").parse().expect("a run id");
        (run, far + TimeDelta::milliseconds(i64::from(n) * 7_919 % 86_400_000))
    });
    assert_eq!(submit(&fleet, due).await, WAITING as usize);
    let submitting = clock.elapsed().saturating_sub(began);
    let began = clock.elapsed();
    let planner = fleet.planner();
    within(Duration::from_mins(2), "all of it read", async || {
        let read: u64 = planner
            .said()
            .lines()
            .filter(|line| line.contains("Read what waits"))
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|line| line["entries"].as_u64())
            .sum();
        if read >= u64::from(WAITING) { Ok(()) } else { Err(read.to_string()) }
    })
    .await;
    let reading = clock.elapsed().saturating_sub(began);
    let after = resident_kib(&planner);
    let each = (after.saturating_sub(before)) * 1_024 / u64::from(WAITING);
    println!(
        "{{\"waiting\": {WAITING}, \"submit_s\": {:.1}, \"ready_s\": {:.2}, \"rss_idle_mb\": {}, \"rss_mb\": {}, \"bytes_each\": {each}}}",
        submitting.as_secs_f64(),
        reading.as_secs_f64(),
        before / 1_024,
        after / 1_024
    );
}

#[tokio::test]
#[ignore = "a measurement of half a minute, in release mode"]
async fn ten_thousand_that_are_due_over_ten_seconds_are_this_late() {
    const RUNS: u32 = 10_000;
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&["--places", "64"]));
    fleet.members("planner", 1).await;
    fleet.members("worker", 1).await;
    let begin = fleet.now() + TimeDelta::seconds(8);
    let due: BTreeMap<RunId, Timestamp> = (0..RUNS)
        .map(|n| {
            (format!("late.{n}").parse().expect("a run id"), begin + TimeDelta::milliseconds(i64::from(n)))
        })
        .collect();
    assert_eq!(submit(&fleet, due.iter().map(|(run, at)| (run.clone(), *at))).await, RUNS as usize);
    eventually("all of them called", async || {
        let calls = fleet.target.calls().len();
        if calls >= RUNS as usize { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    let mut handled: Vec<i64> = fleet
        .target
        .calls()
        .iter()
        .map(|call| call.began_ms - due[&call.run.parse().expect("a run id")].timestamp_millis())
        .collect();
    let records = fleet.records().await;
    let mut recorded: Vec<i64> = records
        .iter()
        .map(|stored| (stored.value.created_at - due[&stored.value.id]).num_milliseconds())
        .collect();
    for (what, late) in [("handler", &mut handled), ("record", &mut recorded)] {
        late.sort_unstable();
        println!(
            "{{\"late\": \"{what}\", \"n\": {}, \"early\": {}, \"p50_ms\": {}, \"p99_ms\": {}, \"max_ms\": {}}}",
            late.len(),
            late.iter().filter(|late| **late < 0).count(),
            percentile(late, 50),
            percentile(late, 99),
            percentile(late, 100)
        );
    }
}
