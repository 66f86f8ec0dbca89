//! What every worker must do, in whatever language: each scenario is passed by ours and by the one in `examples/python`.
//!
//! Only the ledger, the queue and the dead letters are looked at, so nothing here depends on how a worker does its work. Ours asks
//! the target of the specs; the other has the same actions as functions.

use std::time::Duration;

use harness::{Fleet, PlainClient, Process, eventually, python, wait::for_a_while};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState::{self, Cancelled, Failed, Pending, Retry, Running, Success},
};

/// Every attempt is claimed before it begins: what may be left out is no part of what every worker must do.
const CLAIMED: &str = "targets: {target: {http: TARGET}}\nqueues: {default: {claim: each, ack_wait: 3s}}";

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ours,
    Python,
}

impl Kind {
    fn can_run(self) -> bool {
        self == Kind::Ours || python().is_some()
    }

    fn start(self, fleet: &Fleet) -> Process {
        match self {
            Kind::Ours => fleet.worker(&["--drain", "0s"]),
            Kind::Python => {
                fleet.python_worker(&python().expect("a Python"), "tests/specs/any_worker_actions.py")
            }
        }
    }
}

macro_rules! every_worker_passes {
    ($($scenario:ident,)*) => {
        mod ours {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(super::Kind::Ours).await;
            })*
        }
        mod in_python {
            $(#[tokio::test]
            async fn $scenario() {
                if super::Kind::Python.can_run() {
                    super::$scenario(super::Kind::Python).await;
                }
            })*
        }
    };
}

every_worker_passes! {
    a_success_is_recorded_with_its_attempt_fence_worker_times_and_output,
    a_planned_run_is_claimed_over_its_planners_record,
    a_run_that_fails_is_tried_again_with_growing_fences,
    an_error_that_another_attempt_would_not_mend_ends_the_run_in_a_dead_letter,
    a_run_whose_attempts_are_used_up_ends_in_a_dead_letter,
    an_attempt_that_takes_too_long_is_stopped,
    what_nobody_can_read_ends_in_a_dead_letter_and_the_queue_goes_on,
    a_task_under_the_key_of_a_run_that_has_ended_is_dropped,
    a_run_is_kept_for_longer_than_the_acknowledge_wait,
    a_run_is_taken_over_from_a_worker_that_died,
    a_worker_that_stood_still_for_too_long_has_lost_its_run,
    a_running_run_is_cancelled,
    what_runs_is_handed_back_when_the_worker_stops,
    a_worker_is_drained_from_afar,
    what_was_not_begun_in_time_is_not_begun,
}

async fn fleet() -> Fleet {
    let fleet = Fleet::start().await;
    fleet.apply(CLAIMED);
    fleet
}

fn task(action: &str, attempts: u32) -> Value {
    let retry = json!({"attempts": attempts, "backoff": "100ms", "max_backoff": "100ms"});
    json!({"target_service": "target", "action": action, "retry": retry})
}

/// All versions of a run's record, with their revisions.
async fn versions(fleet: &Fleet, run: &str) -> Vec<(u64, RunRecord)> {
    let history = fleet.streams.ledger().history(&run.parse().expect("run")).await.expect("the history");
    history.into_iter().map(|stored| (stored.revision, stored.value)).collect()
}

async fn running(fleet: &Fleet, run: &str) -> RunRecord {
    eventually(&format!("{run} runs"), async || match fleet.record(run).await {
        Some(record) if record.status == Running => Ok(record),
        other => Err(format!("{other:?}")),
    })
    .await
}

async fn its_queue_is_empty(fleet: &Fleet) {
    eventually("an empty queue", async || match fleet.streams.tasks_stored().await {
        Ok((0, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn a_success_is_recorded_with_its_attempt_fence_worker_times_and_output(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    let mut task = task("echo", 3);
    task["parameters"] = json!({"tables": ["trade_history"]});
    fleet.submit("good.1", &task).await.expect("submitted");
    let record = fleet.end_of("good.1").await;
    let versions = versions(&fleet, "good.1").await;
    assert_eq!(versions.iter().map(|(_, record)| record.status).collect::<Vec<_>>(), [Running, Success]);
    assert_eq!(
        (record.attempt, record.fence),
        (1, Some(versions[0].0)),
        "the fence is the revision of the claim"
    );
    assert!(record.worker.as_ref().is_some_and(|worker| worker.as_str().starts_with("worker-")));
    assert!(
        record.created_at <= record.started_at.expect("begun") && record.started_at <= record.finished_at
    );
    assert!(record.duration_ms.is_some() && record.reason.is_none() && record.error.is_none());
    let output = record.output.expect("an output");
    assert_eq!(output["parameters"], json!({"tables": ["trade_history"]}));
    assert_eq!(
        (&output["attempt"], output["fence"].as_u64()),
        (&json!(1), record.fence),
        "as the action was told"
    );
    its_queue_is_empty(&fleet).await;
}

async fn a_planned_run_is_claimed_over_its_planners_record(kind: Kind) {
    let fleet = fleet().await;
    let (_worker, _planner) = (kind.start(&fleet), fleet.planner());
    fleet.apply("schedules: {yearly: {cron: '0 0 1 1 *', task: {target_service: target, action: echo}}}");
    fleet.members("planner", 1).await;
    let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
    let record = fleet.end_of(&run).await;
    let versions = versions(&fleet, &run).await;
    let states: Vec<RunState> = versions.iter().map(|(_, record)| record.status).collect();
    assert_eq!(states, [Pending, Running, Success]);
    assert_eq!(record.fence, Some(versions[1].0));
    let made = &versions[0].1;
    assert_eq!(
        (&record.schedule, &record.by, record.created_at),
        (&made.schedule, &made.by, made.created_at)
    );
    its_queue_is_empty(&fleet).await;
}

async fn a_run_that_fails_is_tried_again_with_growing_fences(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    fleet.submit("flaky.1", &task("third_time", 3)).await.expect("submitted");
    let record = fleet.end_of("flaky.1").await;
    assert_eq!((record.status, record.attempt), (Success, 3), "{record:?}");
    let versions = versions(&fleet, "flaky.1").await;
    let states: Vec<RunState> = versions.iter().map(|(_, record)| record.status).collect();
    assert_eq!(states, [Running, Retry, Running, Retry, Running, Success]);
    let fences: Vec<u64> = versions.iter().filter_map(|(_, record)| record.fence).collect();
    assert!(
        fences.is_sorted() && fences[0] == versions[0].0 && record.fence == Some(versions[4].0),
        "{fences:?}"
    );
    assert!(versions[1].1.next_attempt_at.is_some() && versions[1].1.error.is_some());
    assert!(
        versions[4].1.started_at >= versions[3].1.next_attempt_at.map(|at| at - EARLY),
        "not before its time"
    );
}

/// An attempt may begin so much early, which is not worth another delivery.
const EARLY: chrono::TimeDelta = chrono::TimeDelta::milliseconds(100);

/// A run of this action that fails: how often it was tried, and why it was given up.
async fn failure(kind: Kind, action: &str) -> (u32, Option<Reason>) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    let task = task(action, 2);
    fleet.submit("bad.1", &task).await.expect("submitted");
    let record = fleet.end_of("bad.1").await;
    assert_eq!(record.status, Failed);
    assert_eq!(record.error.as_ref().map(|error| error.kind), Some(ErrorKind::Target));
    let letter = fleet.dead_letter(&record).await;
    assert_eq!((&letter.run, letter.subject.as_str()), (&record, "cronfleet.tasks.default.bad.1"));
    let kept = serde_json::to_value(letter.task.expect("the task")).expect("JSON");
    assert_eq!((&kept["action"], &kept["retry"]["attempts"]), (&json!(action), &json!(2)));
    its_queue_is_empty(&fleet).await;
    (record.attempt, record.reason)
}

async fn an_error_that_another_attempt_would_not_mend_ends_the_run_in_a_dead_letter(kind: Kind) {
    assert_eq!(failure(kind, "refuse").await, (1, Some(Reason::Permanent)));
}

async fn a_run_whose_attempts_are_used_up_ends_in_a_dead_letter(kind: Kind) {
    assert_eq!(failure(kind, "fail").await, (2, Some(Reason::AttemptsExhausted)));
}

async fn an_attempt_that_takes_too_long_is_stopped(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    let mut task = task("hang", 1);
    task["timeout"] = json!("300ms");
    fleet.submit("hangs.1", &task).await.expect("submitted");
    let record = fleet.end_of("hangs.1").await;
    assert_eq!((record.status, record.reason), (Failed, Some(Reason::Timeout)));
    assert_eq!(record.error.expect("an error").kind, ErrorKind::Timeout);
}

async fn what_nobody_can_read_ends_in_a_dead_letter_and_the_queue_goes_on(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let garbage: [&[u8]; 9] = [
        b"",
        b"{\"target_service\":",
        b"[]",
        b"{\"target_service\":\"target\",\"action\":\"echo\",\"colour\":1}",
        b"{\"target_service\":\"target\",\"action\":\"echo\",\"action\":\"fail\"}",
        b"{\"target_service\":\"target\",\"action\":\"echo\",\"timeout\":\"soon\"}",
        b"{\"target_service\":\"target\",\"action\":\"echo\",\"retry\":{\"attempts\":0}}",
        b"{\"target_service\":\"target\"}",
        b"{\"target_service\":\"target\",\"action\":\"echo\",\"delivery\":\"twice\"}",
    ];
    for (number, payload) in garbage.iter().enumerate() {
        client.request(&format!("cronfleet.tasks.default.garbage.{number}"), payload).await;
    }
    client
        .request("cronfleet.tasks.default.daily.20261124T020000Z", task("echo", 1).to_string().as_bytes())
        .await;
    fleet.submit("good.1", &task("echo", 1)).await.expect("submitted");
    for (number, payload) in garbage.iter().enumerate() {
        let record = fleet.end_of(&format!("garbage.{number}")).await;
        assert_eq!((record.status, record.reason), (Failed, Some(Reason::Malformed)), "{number}");
        let letter = fleet.dead_letter(&record).await;
        assert_eq!(letter.raw.as_deref().map(str::as_bytes), Some(*payload));
    }
    assert_eq!(fleet.end_of("good.1").await.status, Success);
    its_queue_is_empty(&fleet).await;
    assert_eq!(fleet.record("daily.20261124T020000Z").await, None, "nobody can squat on a slot");
    let ids = fleet.records().await.into_iter().map(|stored| stored.value.id.to_string());
    assert_eq!(ids.filter(|id| id.starts_with("rejected.seq-")).count(), 1, "it has a record of its own");
}

async fn a_task_under_the_key_of_a_run_that_has_ended_is_dropped(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    for (run, action) in [("done.1", "echo"), ("dead.1", "refuse")] {
        fleet.submit(run, &task(action, 1)).await.expect("submitted");
        let record = fleet.end_of(run).await;
        its_queue_is_empty(&fleet).await;
        fleet.submit(run, &task("echo", 1)).await.expect("accepted");
        its_queue_is_empty(&fleet).await;
        assert_eq!(fleet.record(run).await, Some(record.clone()), "and nothing was written");
        if record.status == Failed {
            let letter = fleet.dead_letter(&record).await.task.expect("a task");
            assert_eq!(letter.action().as_str(), "refuse", "its letter is still that of the run that failed");
        }
    }
}

async fn a_run_is_kept_for_longer_than_the_acknowledge_wait(kind: Kind) {
    let fleet = fleet().await;
    let (_worker, _other) = (kind.start(&fleet), kind.start(&fleet));
    let mut task = task("slow", 3);
    task["parameters"] = json!({"ms": 7_000});
    fleet.submit("long.1", &task).await.expect("submitted");
    let record = fleet.end_of("long.1").await;
    assert_eq!((record.status, record.attempt), (Success, 1));
    assert_eq!(fleet.life("long.1").await, [Running, Success]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let info = client.request("$JS.API.CONSUMER.INFO.cronfleet_TASKS.default", b"").await.payload;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["delivered"]["consumer_seq"], 1, "it was handed out once: {info}");
}

async fn a_run_is_taken_over_from_a_worker_that_died(kind: Kind) {
    for heir in [Kind::Ours, Kind::Python] {
        if !heir.can_run() {
            continue;
        }
        let fleet = fleet().await;
        let mut worker = kind.start(&fleet);
        fleet.members("worker", 1).await;
        let mut task = task("slow", 2);
        task["parameters"] = json!({"ms": 2_000});
        fleet.submit("taken.1", &task).await.expect("submitted");
        let lost = running(&fleet, "taken.1").await;
        worker.kill();
        let _heir = heir.start(&fleet);
        let record = fleet.end_of("taken.1").await;
        assert_eq!((record.status, record.attempt), (Success, 2), "{record:?}");
        assert_ne!(record.worker, lost.worker);
        let versions = versions(&fleet, "taken.1").await;
        let states: Vec<RunState> = versions.iter().map(|(_, record)| record.status).collect();
        assert_eq!(states, [Running, Retry, Running, Success]);
        assert_eq!((versions[1].1.reason, versions[1].1.fence), (Some(Reason::Lost), Some(versions[0].0)));
        assert_eq!(record.fence, Some(versions[2].0));
    }
}

async fn a_worker_that_stood_still_for_too_long_has_lost_its_run(kind: Kind) {
    let fleet = fleet().await;
    let worker = kind.start(&fleet);
    fleet.members("worker", 1).await;
    let mut task = task("slow", 3);
    task["parameters"] = json!({"ms": 2_500});
    fleet.submit("stale.1", &task).await.expect("submitted");
    let first = running(&fleet, "stale.1").await;
    worker.pause();
    let _heir = kind.start(&fleet);
    eventually("it is taken over", async || match fleet.record("stale.1").await {
        Some(record) if record.status == Running && record.attempt == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    worker.resume();
    let record = fleet.end_of("stale.1").await;
    assert_eq!((record.status, record.attempt), (Success, 2));
    // The first one's end would have come by now, and would stand in the history.
    for_a_while(Duration::from_secs(3)).await;
    assert_eq!(fleet.life("stale.1").await, [Running, Retry, Running, Success]);
    assert!(record.worker != first.worker && fleet.record("stale.1").await == Some(record));
    its_queue_is_empty(&fleet).await;
}

async fn a_running_run_is_cancelled(kind: Kind) {
    let fleet = fleet().await;
    let _worker = kind.start(&fleet);
    fleet.submit("hangs.1", &task("hang", 3)).await.expect("submitted");
    running(&fleet, "hangs.1").await;
    fleet.cronfleet(&["cancel", "hangs.1"]);
    let record = fleet.end_of("hangs.1").await;
    assert_eq!((record.status, record.reason), (Cancelled, Some(Reason::ByOperator)));
    assert!(record.finished_at.is_some() && record.note.is_some_and(|note| note.contains('@')));
    its_queue_is_empty(&fleet).await;
}

async fn what_runs_is_handed_back_when_the_worker_stops(kind: Kind) {
    let fleet = fleet().await;
    let mut worker = kind.start(&fleet);
    fleet.members("worker", 1).await;
    let mut task = task("slow", 1);
    task["parameters"] = json!({"ms": 4_000});
    fleet.submit("back.1", &task).await.expect("submitted");
    running(&fleet, "back.1").await;
    assert!(worker.stop().await.success());
    let record = fleet.record("back.1").await.expect("a record");
    assert_eq!((record.status, record.reason, record.attempt), (Pending, Some(Reason::Drained), 0));
    assert_eq!(record.worker, None);
    fleet.members("worker", 0).await;
    let _heir = kind.start(&fleet);
    let record = fleet.end_of("back.1").await;
    assert_eq!((record.status, record.attempt), (Success, 1), "it had one attempt, and it was not spent");
}

async fn a_worker_is_drained_from_afar(kind: Kind) {
    let fleet = fleet().await;
    let mut worker = kind.start(&fleet);
    fleet.members("worker", 1).await;
    let id = fleet.cronfleet(&["get", "workers", "-o", "name"]).trim().to_owned();
    fleet.cronfleet(&["drain", &id]);
    assert!(worker.ended().await.success());
    fleet.members("worker", 0).await;
}

async fn what_was_not_begun_in_time_is_not_begun(kind: Kind) {
    let fleet = fleet().await;
    let mut late = task("echo", 3);
    late["start_deadline"] = json!("500ms");
    let mut in_time = task("echo", 3);
    in_time["start_deadline"] = json!("10m");
    fleet.submit("late.1", &late).await.expect("submitted");
    fleet.submit("early.1", &in_time).await.expect("submitted");
    for_a_while(Duration::from_secs(1)).await;
    let _worker = kind.start(&fleet);
    let record = fleet.end_of("late.1").await;
    assert_eq!((record.status, record.reason), (Cancelled, Some(Reason::Expired)));
    assert_eq!(fleet.end_of("early.1").await.status, Success);
    its_queue_is_empty(&fleet).await;
}

#[tokio::test]
async fn workers_of_both_kinds_share_a_queue_of_short_runs() {
    if !Kind::Python.can_run() {
        return;
    }
    // Here ours may begin runs without a claim.
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 3s}}");
    let (_ours, _other) = (Kind::Ours.start(&fleet), Kind::Python.start(&fleet));
    fleet.members("worker", 2).await;
    for number in 0..200 {
        fleet.submit(&format!("short.{number}"), &task("echo", 3)).await.expect("submitted");
    }
    let mut workers = std::collections::BTreeSet::new();
    for number in 0..200 {
        let record = fleet.end_of(&format!("short.{number}")).await;
        assert_eq!((record.status, record.attempt), (Success, 1), "{record:?}");
        workers.extend(record.worker);
    }
    its_queue_is_empty(&fleet).await;
    assert_eq!(workers.len(), 2, "both had some");
}

#[tokio::test]
async fn the_actions_of_the_example_in_python_are_served() {
    let Some(python) = python() else { return };
    let fleet = fleet().await;
    let _worker = fleet.python_worker(&python, "examples/python/actions.py");
    let mut task = task("optimize_tables", 3);
    for (run, tables, end) in [("good.1", json!(["trade_history"]), Success), ("bad.1", json!([]), Failed)] {
        task["parameters"] = json!({"tables": tables});
        fleet.submit(run, &task).await.expect("submitted");
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.attempt), (end, 1), "{record:?}");
    }
}
