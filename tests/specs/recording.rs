//! Queues that keep only failures: a success that comes at once leaves nothing, everything else is recorded as ever.

use std::time::Duration;

use harness::{Fleet, PlainClient, crash::CRASH_AT, eventually, within};
use serde_json::{Value, json};
use shared::{run_record::Reason, run_state::RunState};

const FLOOD: &str = "targets: {target: {http: TARGET}}\nqueues: {default: {record: failures, ack_wait: 2s}}";

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action, "retry": {"attempts": 2, "backoff": "100ms"}})
}

fn slow(ms: u32) -> Value {
    json!({"target_service": "target", "action": "slow", "parameters": {"ms": ms}})
}

async fn its_queue_is_empty(fleet: &Fleet) {
    eventually("an empty queue", async || match fleet.streams.tasks_stored().await {
        Ok((0, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_success_at_once_leaves_no_record_and_what_is_more_than_that_is_recorded() {
    let fleet = Fleet::start().await;
    fleet.apply(FLOOD);
    let _worker = fleet.worker(&[]);
    for round in 1..=2 {
        fleet.submit("quick.1", &task("ok")).await.expect("submitted");
        its_queue_is_empty(&fleet).await;
        assert_eq!(fleet.target.calls_of("quick.1").len(), round, "its key is not remembered");
    }
    assert_eq!(fleet.record("quick.1").await, None);

    fleet.submit("fails.1", &task("fail")).await.expect("submitted");
    let failed = fleet.end_of("fails.1").await;
    assert_eq!((failed.status, failed.reason), (RunState::Failed, Some(Reason::AttemptsExhausted)));
    fleet.dead_letter(&failed).await;
    fleet.submit("mends.1", &task("flaky")).await.expect("submitted");
    assert_eq!(fleet.end_of("mends.1").await.attempt, 2);
    fleet.submit("longer.1", &slow(1_000)).await.expect("submitted");
    fleet.end_of("longer.1").await;
    assert_eq!(fleet.life("longer.1").await, [RunState::Running, RunState::Success]);
}

#[tokio::test]
async fn a_consumer_that_is_made_anew_takes_no_run_for_new_that_was_begun() {
    let fleet = Fleet::start().await;
    fleet.apply(FLOOD);
    let _worker = fleet.worker(&[]);
    let waits = |ms: u32| {
        json!({"target_service": "target", "action": "flaky",
            "retry": {"attempts": 2, "backoff": format!("{ms}ms")}})
    };
    for n in 0..5 {
        fleet.submit(&format!("waits.{n}"), &waits(1_500)).await.expect("submitted");
    }
    for n in 0..5 {
        eventually("a run that waits for its second attempt", async || {
            let record = fleet.record(&format!("waits.{n}")).await;
            if record.as_ref().is_some_and(|record| record.status == RunState::Retry) {
                return Ok(());
            }
            Err(format!("{record:?}"))
        })
        .await;
    }
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request("$JS.API.CONSUMER.DELETE.cronfleet_TASKS.default", b"").await;
    fleet.cronfleet(&["init"]);
    for n in 0..5 {
        let run = format!("waits.{n}");
        let ended = fleet.end_of(&run).await;
        assert_eq!((ended.status, ended.attempt), (RunState::Success, 2), "{ended:?}");
        let attempts: Vec<_> = fleet.target.calls_of(&run).iter().map(|call| call.attempt).collect();
        assert_eq!(attempts, [1, 2], "{run}");
    }
    its_queue_is_empty(&fleet).await;
}

#[tokio::test]
async fn planned_runs_and_those_that_waited_for_their_instant_are_recorded_in_any_queue() {
    let fleet = Fleet::start().await;
    fleet.apply(FLOOD);
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(
        "schedules: {free: {cron: '0 0 1 1 *', overlap: allow, task: {target_service: target, action: ok}}}",
    );
    let planned = fleet.cronfleet(&["trigger", "free"]).trim().to_owned();
    assert_eq!(fleet.end_of(&planned).await.status, RunState::Success);
    let data = task("ok").to_string();
    fleet.cronfleet(&["submit", "waits", "--key", "1", "-d", &data, "--in", "500ms"]);
    let waited = within(Duration::from_secs(30), "the end of what waited", async || {
        match fleet.record("waits.1").await {
            Some(record) if record.status == RunState::Success => Ok(record),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(waited.attempt, 1);
}

#[tokio::test]
async fn a_success_whose_worker_died_before_its_ack_runs_again_and_is_recorded() {
    let fleet = Fleet::start().await;
    fleet.apply(FLOOD);
    let died = [(CRASH_AT, "attempt.ended:1".to_owned())];
    let mut worker = fleet.spawn_with("doomed", &["worker"], &died);
    fleet.submit("again.1", &task("ok")).await.expect("submitted");
    worker.ended().await;
    let _heir = fleet.worker(&[]);
    let record = fleet.end_of("again.1").await;
    assert_eq!((record.status, record.attempt), (RunState::Success, 2));
}

#[tokio::test]
async fn nobody_waits_for_a_run_that_leaves_no_record_and_a_claim_for_each_attempt_is_refused_beside_it() {
    let fleet = Fleet::start().await;
    fleet.apply(FLOOD);
    let data = task("ok").to_string();
    let refused = fleet.try_cronfleet(&["submit", "quick", "-d", &data, "--wait"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("record: failures"), "{said}");
    let both = fleet.try_apply("queues: {default: {record: failures, claim: each}}");
    let said = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(!both.status.success() && said.contains("leave out one of them"), "{said}");
}

#[tokio::test]
async fn what_has_a_record_already_is_recorded_to_its_end_in_any_queue() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET}, narrow: {http: TARGET, max_concurrent: 1}}\n\
         queues: {default: {record: failures, ack_wait: 5s}}",
    );
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());

    let once = json!({"target_service": "target", "action": "flaky", "retry": {"attempts": 1}});
    fleet.submit("by-hand.1", &once).await.expect("submitted");
    let failed = fleet.end_of("by-hand.1").await;
    fleet.dead_letter(&failed).await;
    fleet.cronfleet(&["retry", "by-hand.1"]);

    let patient =
        json!({"target_service": "target", "action": "flaky", "retry": {"attempts": 2, "backoff": "6s"}});
    fleet.submit("parked.1", &patient).await.expect("submitted");

    let narrow = json!({"target_service": "narrow", "action": "slow", "parameters": {"ms": 100}});
    for n in 0..8 {
        fleet.submit(&format!("narrow.{n}"), &narrow).await.expect("submitted");
    }
    its_queue_is_empty(&fleet).await;
    within(Duration::from_mins(2), "the ends of all that has a record", async || {
        let records = fleet.streams.ledger().list(">").await.map_err(|error| error.to_string())?;
        let open = records.iter().find(|stored| stored.value.status != RunState::Success);
        match open {
            None if fleet.target.calls().len() == 2 + 2 + 8 => Ok(()),
            open => Err(format!("{open:?}, {} calls", fleet.target.calls().len())),
        }
    })
    .await;
    for run in ["by-hand.1", "parked.1"] {
        assert_eq!(fleet.record(run).await.expect("a record").attempt, 2, "{run}");
    }
}
