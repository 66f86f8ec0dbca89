//! Wherever a run is when somebody cancels it, there is one right answer: the rows of the table in `docs/PROTOCOL.md` that
//! `cancelling.rs`, `delayed.rs` and `retry_waits.rs` do not show.

use std::time::Duration;

use harness::{Fleet, crash::CRASH_AT, eventually, wait::for_a_while};
use serde_json::{Value, json};
use shared::{
    run_record::{Reason, RunRecord},
    run_state::RunState::{self, Cancelled, Failed, Pending, Retry, Success},
};
use streams::cancel::{CancelRequest, Cancelling};

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action, "parameters": {"ms": 60}, "retry": {"attempts": 1}})
}

fn schedule(overlap: &str, action: &str) -> String {
    format!(
        "targets: {{target: {{http: TARGET}}}}\nschedules: {{yearly: {{cron: '0 0 1 1 *', overlap: {overlap}, task: \
         {{target_service: target, action: {action}, retry: {{attempts: 5, backoff: 30s}}}}}}}}"
    )
}

async fn triggered(fleet: &Fleet, state: RunState, reason: Option<Reason>) -> RunRecord {
    let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
    eventually(&format!("{run} is {state}"), async || match fleet.record(&run).await {
        Some(record) if (record.status, record.reason) == (state, reason) => Ok(record),
        other => Err(format!("{other:?}")),
    })
    .await
}

fn cancel(fleet: &Fleet, run: &RunRecord) {
    let cancelled = fleet.cronfleet_json(&["cancel", &run.id.to_string()]);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
}

#[tokio::test]
async fn a_planned_run_that_waits_in_its_queue_or_in_line_is_cancelled_and_makes_room_at_once() {
    let fleet = Fleet::start().await;
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    fleet.apply(&schedule("buffer_all", "ok"));
    // No worker lives: the first is queued, the others wait in line.
    let first = triggered(&fleet, Pending, None).await;
    let second = triggered(&fleet, Pending, Some(Reason::Buffered)).await;
    let third = triggered(&fleet, Pending, Some(Reason::Buffered)).await;
    cancel(&fleet, &second);
    cancel(&fleet, &first);
    let _worker = fleet.worker(&[]);
    assert_eq!(fleet.end_of(&third.id.to_string()).await.status, Success);
    for run in [first, second] {
        assert_eq!(fleet.record(&run.id.to_string()).await.map(|record| record.status), Some(Cancelled));
        assert!(fleet.target.calls_of(&run.id.to_string()).is_empty(), "{} was not begun", run.id);
    }
}

#[tokio::test]
async fn a_run_that_holds_its_schedules_lock_while_it_waits_for_its_retry_frees_it_when_it_is_cancelled() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.members("planner", 1).await;
    fleet.apply(&schedule("skip", "flaky"));
    let first = triggered(&fleet, Retry, None).await;
    cancel(&fleet, &first);
    // The next is not skipped: nothing is in its way.
    triggered(&fleet, Retry, None).await;
    assert_eq!(fleet.target.calls_of(&first.id.to_string()).len(), 1);
}

#[tokio::test]
async fn a_run_that_failed_is_not_cancelled_and_one_whose_retry_is_half_done_is() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&[]);
    fleet.submit("bad.1", &task("fail")).await.expect("submitted");
    let record = fleet.end_of("bad.1").await;
    fleet.dead_letter(&record).await;
    let refused = fleet.try_cronfleet(&["cancel", "bad.1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is FAILED already"), "nothing to cancel");
    let mut dies = fleet.spawn_with("retry", &["retry", "bad.1"], &[(CRASH_AT, "runs.update:1".to_owned())]);
    assert!(!dies.ended().await.success());
    let half_done = fleet.record("bad.1").await.expect("a record");
    assert_eq!(half_done.status, Pending);
    cancel(&fleet, &half_done);
    let refused = fleet.try_cronfleet(&["retry", "bad.1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is CANCELLED"), "and is not retried any more");
    worker.stop().await;
    assert_eq!(fleet.target.calls().len(), 1);
}

#[tokio::test]
async fn several_who_cancel_a_run_at_once_all_hear_the_same_end() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.submit_until_called("hangs.1", &task("hang")).await;
    let mut others = ["first", "second", "third"].map(|name| fleet.spawn(name, &["cancel", "hangs.1"]));
    for other in &mut others {
        assert!(other.ended().await.success(), "{}", other.said());
    }
    let record = fleet.end_of("hangs.1").await;
    assert_eq!((record.status, record.attempt), (Cancelled, 1));
    assert_eq!(fleet.target.calls().len(), 1);
}

#[tokio::test]
async fn a_run_that_is_cancelled_while_it_comes_to_its_end_has_one_end_and_whoever_asked_hears_which() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let (mut ended_well, mut stopped) = (0, 0);
    for number in 0..30_u64 {
        let (run, action) = (format!("race.{number}"), if number % 5 == 4 { "fail" } else { "slow" });
        fleet.submit(&run, &task(action)).await.expect("submitted");
        // From before it is begun to after it has ended.
        for_a_while(Duration::from_millis(number * 4)).await;
        let id = run.parse().expect("run");
        let request =
            CancelRequest { run: id, reason: Reason::ByOperator, by: "spec".to_owned(), at: fleet.now() };
        let told = eventually("an end", async || match fleet.streams.cancel(&request).await {
            Ok(Cancelling::Ended(record) | Cancelling::Cancelled(record)) => Ok(*record),
            other => Err(format!("{other:?}")),
        })
        .await;
        match told.status {
            Cancelled => stopped += 1,
            Success | Failed => ended_well += 1,
            other => panic!("{run} is {other}"),
        }
        let record = fleet.record(&run).await.expect("a record");
        assert_eq!(record, told, "what was told is the end, and stays it");
        let life = fleet.life(&run).await;
        assert_eq!(life.iter().filter(|state| state.is_final()).count(), 1, "{run}: {life:?}");
        assert!(fleet.target.calls_of(&run).len() <= 1, "{run} was begun once at most");
    }
    assert!(stopped > 0 && ended_well > 0, "{stopped} stopped, {ended_well} ended: the race was run");
}
