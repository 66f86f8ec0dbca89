//! Stopping is not failing.

use harness::{Fleet, eventually};
use serde_json::json;
use shared::{run_record::Reason, run_state::RunState};

#[tokio::test]
async fn a_worker_that_is_told_to_stop_lets_its_runs_finish() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&["--drain", "30s"]);
    let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": 2000}});
    fleet.submit("slow.1", &task).await.expect("submitted");
    eventually(
        "the call",
        async || {
            if fleet.target.calls().is_empty() { Err("none".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    assert!(worker.stop().await.success());
    let record = fleet.record("slow.1").await.expect("a record");
    assert_eq!((record.status, record.attempt), (RunState::Success, 1));
    fleet.members("worker", 0).await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_handed_back_at_once_with_its_attempt_unspent() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&["--drain", "200ms"]);
    let task = json!({"target_service": "target", "action": "hang", "retry": {"attempts": 1}});
    fleet.submit("hang.1", &task).await.expect("submitted");
    eventually(
        "the call",
        async || {
            if fleet.target.calls().is_empty() { Err("none".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    assert!(worker.stop().await.success());
    let record = fleet.record("hang.1").await.expect("a record");
    assert_eq!((record.status, record.attempt, record.reason), (RunState::Pending, 0, Some(Reason::Drained)));
    let stopped_at = fleet.now();
    let _next = fleet.worker(&[]);
    eventually("the next worker has it", async || {
        if fleet.target.calls().len() == 2 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let second = &fleet.target.calls()[1];
    assert_eq!(second.attempt, 1, "the only attempt it has was not spent");
    let waited = second.began_ms - stopped_at.timestamp_millis();
    assert!(waited < 20_000, "not after the acknowledge wait of 30 s: {waited} ms");
}

#[tokio::test]
async fn a_run_that_may_not_be_repeated_is_handed_back_if_nothing_was_sent_yet() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, max_concurrent: 1}}");
    let mut worker = fleet.worker(&["--drain", "200ms"]);
    let task = json!({"target_service": "target", "action": "hang", "delivery": "at_most_once"});
    fleet.submit_until_called("once.first", &task).await;
    fleet.submit("once.second", &task).await.expect("submitted");
    eventually("the second waits for its place at the target", async || {
        let seen = fleet.record("once.second").await.map(|record| (record.status, record.reason));
        if seen == Some((RunState::Pending, Some(Reason::Limited))) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    assert!(worker.stop().await.success());
    let first = fleet.record("once.first").await.expect("a record");
    assert_eq!((first.status, first.reason), (RunState::Failed, Some(Reason::Lost)), "it may have acted");
    let second = fleet.record("once.second").await.expect("a record");
    assert_eq!((second.status, second.attempt), (RunState::Pending, 0));
    assert!(fleet.target.calls_of("once.second").is_empty());
    let _next = fleet.worker(&[]);
    eventually("the next worker has it", async || {
        if fleet.target.calls_of("once.second").len() == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_stood_still_while_its_run_was_taken_over_cannot_write_its_result() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 3s}}");
    let first = fleet.worker(&[]);
    let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": 2500}});
    fleet.submit_until_called("zombie.1", &task).await;
    eventually("its claim", async || match fleet.record("zombie.1").await {
        Some(record) if record.status == RunState::Running => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    first.pause();
    let _second = fleet.worker(&[]);
    let record = fleet.end_of("zombie.1").await;
    assert_eq!((record.status, record.attempt), (RunState::Success, 2));
    first.resume();
    eventually("the first says that it lost the run", async || {
        let said = first.said();
        // It ended and then was refused, or found before that that its hold was over.
        let (refused, stopped) = (
            "Attempt 1 of `zombie.1` ended SUCCESS but the run was taken over: its result is refused",
            "Attempt 1 of `zombie.1` was stopped: its hold could not be renewed, or it was taken over",
        );
        if said.contains(refused) || said.contains(stopped) {
            Ok(())
        } else {
            Err(said.lines().last().unwrap_or_default().to_owned())
        }
    })
    .await;
    assert_eq!(fleet.record("zombie.1").await, Some(record), "the record is as the second worker wrote it");
    let life = fleet.life("zombie.1").await;
    assert_eq!(life, [RunState::Running, RunState::Retry, RunState::Running, RunState::Success]);
}
