//! Overlap `skip`: never two runs of a schedule at once, held through retries and crashes, by the queue itself.

use std::time::Duration;

use harness::{Fleet, TargetService, eventually, within};
use shared::{run_record::Reason, run_state::RunState};

/// No two calls of one schedule overlap, by the target's own clock.
fn assert_never_two_at_once(target: &TargetService) {
    let mut calls = target.calls();
    calls.sort_by_key(|call| call.began_ms);
    for pair in calls.windows(2) {
        let ended = pair[0].ended_ms.expect("an end before the next begins");
        assert!(ended <= pair[1].began_ms, "{} overlaps {}", pair[0].run, pair[1].run);
    }
}

#[tokio::test]
async fn a_schedule_that_takes_longer_than_its_interval_skips_slots_and_says_so() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply(
        "targets: {target: {http: TARGET}}\n\
         schedules: {long: {every: 1s, task: {target_service: target, action: slow, parameters: {ms: 2500}}}}",
    );
    within(Duration::from_secs(90), "three runs that ended", async || {
        let ended = fleet.target.calls().iter().filter(|call| call.ended_ms.is_some()).count();
        if ended >= 3 { Ok(()) } else { Err(ended.to_string()) }
    })
    .await;
    fleet.cronfleet(&["delete", "long"]);
    eventually("the last run has ended", async || {
        let open = fleet.records().await.into_iter().filter(|stored| !stored.value.status.is_final()).count();
        if open == 0 { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    assert_never_two_at_once(&fleet.target);
    let records = fleet.records().await;
    let skipped = records.iter().filter(|stored| stored.value.reason == Some(Reason::SkippedOverlap)).count();
    let ran = records.iter().filter(|stored| stored.value.status == RunState::Success).count();
    assert!(skipped >= ran, "{ran} ran, {skipped} were skipped");
    assert_eq!(ran + skipped, records.len(), "every slot is one or the other");
}

#[tokio::test]
async fn a_retry_keeps_the_lock_of_its_schedule() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply(
        "targets: {target: {http: TARGET}}\n\
         schedules: {sick: {every: 1s, task: {target_service: target, action: fail, retry: {attempts: 3, backoff: 2s}}}}",
    );
    let run = within(Duration::from_mins(1), "a run that was tried three times", async || {
        let failed = fleet.records().await.into_iter().find(|stored| stored.value.status == RunState::Failed);
        failed.map(|stored| stored.value).ok_or("none".to_owned())
    })
    .await;
    assert_eq!((run.attempt, run.reason), (3, Some(Reason::AttemptsExhausted)));
    let calls = fleet.target.calls();
    let first = calls.iter().position(|call| call.run == run.id.to_string()).expect("its first call");
    let its = calls[first..].iter().take(3).map(|call| (call.run.clone(), call.attempt)).collect::<Vec<_>>();
    let expected: Vec<_> = (1..=3).map(|attempt| (run.id.to_string(), attempt)).collect();
    assert_eq!(its, expected, "nothing of the schedule came between the attempts");
}

#[tokio::test]
async fn a_dead_worker_blocks_its_schedule_no_longer_than_the_acknowledge_wait() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 3s}}\n\
         schedules: {stuck: {every: 1s, task: {target_service: target, action: hang, retry: {attempts: 1}}}}",
    );
    let mut worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let first = within(Duration::from_mins(1), "the first call", async || {
        fleet.target.calls().first().cloned().ok_or("none".to_owned())
    })
    .await;
    worker.kill();
    let _second_worker = fleet.worker(&[]);
    let lost = fleet.end_of(&first.run).await;
    assert_eq!((lost.status, lost.reason), (RunState::Failed, Some(Reason::Lost)), "{:?}", lost.error);
    within(Duration::from_secs(30), "the next slot runs", async || {
        let next = fleet.target.calls().into_iter().any(|call| call.run != first.run);
        if next { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}
