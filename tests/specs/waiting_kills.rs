//! Slots that wait while planners and workers are killed one after another.

use std::{collections::BTreeMap, time::Duration};

use harness::{Fleet, within};
use shared::{
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

const NAMES: [&str; 3] = ["buffer_one", "buffer_all", "replace"];

/// Waits until runs of every schedule were begun that had not been before.
async fn progress(fleet: &Fleet) {
    let calls = || {
        NAMES.map(|name| {
            fleet.target.calls().iter().filter(|call| call.run.starts_with(&format!("{name}."))).count()
        })
    };
    let before = calls();
    within(Duration::from_secs(40), "two new runs of each schedule", async || {
        let now = calls();
        let is_progress = now.iter().zip(before).all(|(now, before)| *now >= before + 2);
        if is_progress { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    })
    .await;
}

#[tokio::test]
async fn planners_killed_again_and_again_leave_every_slot_accounted_for_in_order_and_each_run_once() {
    let fleet = Fleet::start().await;
    let schedule = |name: &str, every: &str, ms: u32| {
        format!(
            "{name}: {{every: {every}, overlap: {name}, task: {{target_service: target, action: slow, parameters: {{ms: \
             {ms}}}}}}}"
        )
    };
    let schedules = [
        schedule("buffer_one", "1s", 1_400),
        schedule("buffer_all", "1s", 900),
        schedule("replace", "1s", 2_500),
    ];
    let _worker = fleet.worker(&[]);
    let mut planners = [fleet.planner(), fleet.planner()];
    fleet.members("planner", 2).await;
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: 4s}}}}\nschedules: {{{}}}",
        schedules.join(", ")
    ));
    for planner in &mut planners {
        progress(&fleet).await;
        planner.kill();
        *planner = fleet.planner();
    }
    progress(&fleet).await;
    for name in NAMES {
        fleet.cronfleet(&["delete", name]);
    }
    let mut runs = within(Duration::from_mins(1), "the end of every run", async || {
        let runs: Vec<RunRecord> = fleet.records().await.into_iter().map(|stored| stored.value).collect();
        let open = runs.iter().filter(|run| !run.status.is_final()).count();
        let seen = NAMES.iter().all(|name| runs.iter().any(|run| run.id.name.as_str() == *name));
        // Somebody must have taken the partitions of those that died last.
        if open == 0 && seen && is_taken_over(&fleet).await { Ok(runs) } else { Err(open.to_string()) }
    })
    .await;
    runs.sort_by_key(|run| (run.id.name.clone(), run.slot));
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for call in fleet.target.calls() {
        let name = call.run.split('.').next().unwrap_or_default().to_owned();
        calls.entry(name).or_default().push(call.run);
    }
    for name in NAMES {
        let its: Vec<_> = runs.iter().filter(|run| run.id.name.as_str() == name).collect();
        let gaps = its
            .windows(2)
            .filter(|pair| pair[1].slot.zip(pair[0].slot).is_none_or(|(b, a)| (b - a).num_seconds() != 1));
        assert_eq!(gaps.count(), 0, "{name}: every slot has its record");
        let begun: Vec<_> = its.iter().filter(|run| run.attempt > 0).map(|run| run.id.to_string()).collect();
        assert_eq!(calls[name], begun, "{name}: in the order of their slots, each once");
        assert!(begun.len() >= 6, "{name}: {begun:?}");
        fleet.target.assert_never_two_at_once(name);
        for run in its {
            let is_right = match run.status {
                RunState::Success => true,
                RunState::Cancelled => matches!(
                    run.reason,
                    Some(
                        Reason::SkippedOverlap
                            | Reason::Replaced
                            | Reason::ScheduleDeleted
                            | Reason::SkippedMissed
                    )
                ),
                _ => false,
            };
            assert!(is_right, "{run:?}");
        }
    }
}

/// Whether every partition was planned since the schedules were deleted: nobody waits in any line.
async fn is_taken_over(fleet: &Fleet) -> bool {
    for name in NAMES {
        let line = fleet.streams.lines().get(&name.parse().expect("name")).await;
        if line.is_ok_and(|line| !line.runs.is_empty()) {
            return false;
        }
    }
    true
}
