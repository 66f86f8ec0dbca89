//! Long waits for the next attempt: they hold no place of the queue, and whatever dies meanwhile, the next attempt comes,
//! once, and not before its instant.

use harness::{Fleet, Process, crash::CRASH_AT, eventually};
use serde_json::{Value, json};
use shared::{
    run_record::{Reason, RunRecord},
    run_state::RunState::{self, Cancelled, Retry, Running, Success},
};

/// Longer than what is waited for in the queue, and not longer than a spec can wait.
const BACKOFF: &str = "7s";

fn task(action: &str) -> Value {
    json!({
        "target_service": "target", "action": action,
        "retry": {"attempts": 2, "backoff": BACKOFF, "max_backoff": BACKOFF},
    })
}

async fn in_state(fleet: &Fleet, run: &str, state: RunState) -> RunRecord {
    eventually(&format!("{run} is {state}"), async || match fleet.record(run).await {
        Some(record) if record.status == state => Ok(record),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Waits until so many runs wait with the planners, and none in the queue.
async fn parked(fleet: &Fleet, count: u64) {
    eventually(&format!("{count} wait outside the queue"), async || {
        let outside = fleet.streams.delayed().count().await.map_err(|error| error.to_string())?;
        let depth = fleet.streams.queue_depth(&"default".parse().expect("queue")).await;
        let depth = depth.map_err(|error| error.to_string())?;
        let seen = (outside, depth.waiting, depth.in_flight);
        if seen == (count, 0, 0) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

/// The second attempt of a run was made, once, and not before it was due.
async fn ends_well_at_its_second_attempt(fleet: &Fleet, run: &str) {
    let record = fleet.end_of(run).await;
    assert_eq!((record.status, record.attempt), (Success, 2), "{record:?}");
    let history = fleet.streams.ledger().history(&record.id).await.expect("history");
    let next = history.iter().find_map(|stored| stored.value.next_attempt_at).expect("it was to wait");
    let calls = fleet.target.calls_of(run);
    assert_eq!(calls.len(), 2, "{run}");
    // The target's clock and the worker's are one; the claim may come a tenth of a second early.
    assert!(calls[1].began_ms >= next.timestamp_millis() - 100, "{run} came too early");
    eventually("nothing is left behind", async || {
        let left = fleet.streams.delayed().count().await.map_err(|error| error.to_string())?;
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
}

#[tokio::test]
async fn runs_that_wait_long_for_their_next_attempt_hold_no_place_of_their_queue() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {max_in_flight: 2}}");
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.members("planner", 1).await;
    for number in 0..5 {
        fleet.submit(&format!("flaky.{number}"), &task("flaky")).await.expect("submitted");
    }
    parked(&fleet, 5).await;
    fleet.submit("good.1", &task("ok")).await.expect("submitted");
    assert_eq!(fleet.end_of("good.1").await.status, Success);
    for number in 0..5 {
        let run = format!("flaky.{number}");
        assert_eq!(fleet.record(&run).await.map(|record| record.status), Some(Retry), "it waits meanwhile");
    }
    for number in 0..5 {
        ends_well_at_its_second_attempt(&fleet, &format!("flaky.{number}")).await;
    }
}

/// A worker that dies after one of its effects, and its successor.
async fn killed_worker(ack_wait: &str, point: &str) {
    let fleet = Fleet::start().await;
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: {ack_wait}}}}}"
    ));
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let mut dies = fleet.spawn_with("worker", &["worker"], &[(CRASH_AT, format!("{point}:1"))]);
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    assert!(!dies.ended().await.success(), "it died after {point}: {}", dies.said());
    let _successor = fleet.worker(&[]);
    ends_well_at_its_second_attempt(&fleet, "flaky.1").await;
}

#[tokio::test]
async fn a_worker_that_died_after_it_recorded_the_wait_leaves_a_run_that_waits_all_the_same() {
    killed_worker("2s", "runs.create").await;
}

#[tokio::test]
async fn a_worker_that_died_before_its_ack_delays_the_next_attempt_by_nothing() {
    // Its message would come again after two minutes.
    killed_worker("120s", "parked").await;
}

#[tokio::test]
async fn a_worker_that_died_before_its_ack_leaves_two_messages_and_one_next_attempt() {
    killed_worker("2s", "parked").await;
}

/// A planner that dies after one of its effects, and its successor.
async fn killed_planner(point: &str) {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let start =
        |at: &str| -> Process { fleet.spawn_with("planner", &["planner"], &[(CRASH_AT, format!("{at}:1"))]) };
    let mut dies = start(point);
    fleet.members("planner", 1).await;
    let _worker = fleet.worker(&[]);
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    assert!(!dies.ended().await.success(), "it died after {point}: {}", dies.said());
    let _successor = fleet.planner();
    ends_well_at_its_second_attempt(&fleet, "flaky.1").await;
}

#[tokio::test]
async fn a_planner_that_died_after_it_put_a_run_back_is_followed_by_one_that_does_not_double_it() {
    killed_planner("tasks").await;
}

#[tokio::test]
async fn a_planner_that_died_after_it_deleted_what_waited_has_done_its_work() {
    killed_planner("remove.DELAYED").await;
}

#[tokio::test]
async fn a_run_that_waits_outside_its_queue_is_cancelled_at_once_and_leaves_nothing() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.members("planner", 1).await;
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    parked(&fleet, 1).await;
    let cancelled = fleet.cronfleet_json(&["cancel", "flaky.1"]);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
    parked(&fleet, 0).await;
    assert_eq!(fleet.life("flaky.1").await, [Retry, Cancelled]);
    assert_eq!(fleet.target.calls().len(), 1);
}

#[tokio::test]
async fn while_a_run_waits_for_its_next_attempt_its_key_is_not_run_by_another_submission() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.members("planner", 1).await;
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    parked(&fleet, 1).await;
    fleet.submit("flaky.1", &task("flaky")).await.expect("its subject is free, so this is accepted");
    ends_well_at_its_second_attempt(&fleet, "flaky.1").await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_behind_takes_a_run_that_was_put_back_when_its_own_time_has_come() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    // The wait is counted by a worker whose clock is right, and its end is met by one whose clock is not.
    let mut first = fleet.worker(&[]);
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    parked(&fleet, 1).await;
    first.stop().await;
    let file = fleet.folder().join("clock");
    harness::clock::shift(&file, chrono::TimeDelta::seconds(-8));
    let _behind =
        fleet.spawn_with("worker", &["worker"], &[(harness::clock::CLOCK_FILE, file.display().to_string())]);
    let record = fleet.end_of("flaky.1").await;
    assert_eq!((record.status, record.attempt), (Success, 2), "{record:?}");
    assert_eq!(fleet.target.calls_of("flaky.1").len(), 2);
    let lives = fleet.life("flaky.1").await;
    assert_eq!(lives, [Retry, Running, Success], "it was not put back and forth");
}

#[tokio::test]
async fn a_run_that_holds_its_schedules_lock_keeps_it_while_it_waits_also_when_the_lock_is_new() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    let apply = |overlap: &str, action: &str| {
        fleet.apply(&format!(
            "targets: {{target: {{http: TARGET}}}}\nschedules: {{yearly: {{cron: '0 0 1 1 *', overlap: {overlap}, task: \
             {{target_service: target, action: {action}, retry: {{attempts: 2, backoff: {BACKOFF}}}}}}}}}"
        ));
    };
    let skipped = async || {
        let second = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
        assert_eq!(fleet.end_of(&second).await.reason, Some(Reason::SkippedOverlap));
    };
    apply("skip", "flaky");
    fleet.members("planner", 1).await;
    let first = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
    in_state(&fleet, &first, Retry).await;
    skipped().await;
    assert_eq!(fleet.end_of(&first).await.attempt, 2);

    // One that had no lock waits outside its queue. Now its schedule gets one: nobody may take it before it has ended.
    apply("allow", "flaky");
    let first = eventually("one without the lock waits", async || {
        let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
        in_state(&fleet, &run, Retry).await;
        match fleet.streams.delayed().count().await {
            Ok(1..) => Ok(run),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    apply("skip", "ok");
    skipped().await;
    assert_eq!(fleet.end_of(&first).await.attempt, 2);
}

#[tokio::test]
async fn in_a_fleet_without_a_planner_runs_wait_in_their_queue_and_are_tried_again() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.submit("flaky.1", &task("flaky")).await.expect("submitted");
    in_state(&fleet, "flaky.1", Retry).await;
    assert_eq!(fleet.streams.delayed().count().await.expect("count"), 0);
    ends_well_at_its_second_attempt(&fleet, "flaky.1").await;
}

#[tokio::test]
async fn what_is_submitted_once_more_while_its_run_waits_outside_the_queue_is_dropped_and_holds_no_place() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {max_in_flight: 2}}");
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.members("planner", 1).await;
    for number in 0..4 {
        fleet.submit(&format!("flaky.{number}"), &task("flaky")).await.expect("submitted");
    }
    parked(&fleet, 4).await;
    for number in 0..4 {
        fleet.submit(&format!("flaky.{number}"), &task("flaky")).await.expect("submitted once more");
    }
    fleet.submit("good.1", &task("ok")).await.expect("submitted");
    assert_eq!(fleet.end_of("good.1").await.status, Success);
    for number in 0..4 {
        let run = format!("flaky.{number}");
        assert_eq!(fleet.record(&run).await.map(|record| record.status), Some(Retry), "it waits meanwhile");
    }
    for number in 0..4 {
        ends_well_at_its_second_attempt(&fleet, &format!("flaky.{number}")).await;
    }
}
