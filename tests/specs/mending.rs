//! Half-done things and nonsense left behind by crashes and strangers: they are mended, and stop nothing else.

use std::time::Duration;

use chrono::TimeDelta;
use harness::{Fleet, PlainClient, eventually, wait::for_a_while};
use serde_json::json;
use shared::{hash::partition_of, names::Name, run_record::RunRecord, run_state::RunState, slot::Slot};

const STEADY: &str = "targets: {target: {http: TARGET}}\n\
    schedules: {steady: {every: 1s, overlap: allow, task: {target_service: target, action: ok}}}";

async fn a_call(fleet: &Fleet, after_ms: i64) {
    eventually("a call", async || {
        let found = fleet.target.calls().iter().any(|call| call.began_ms > after_ms);
        if found { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
}

/// A planner dies between the two writes of a dispatch: a record, and no task. Made here by hand while none lives.
#[tokio::test]
async fn a_record_whose_task_was_never_published_is_published_however_late() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET}}\n\
         schedules: {rare: {every: 5s, missed: skip, overlap: allow, task: {target_service: target, action: ok}}}",
    );
    let name: Name = "rare".parse().expect("name");
    let stored = fleet.streams.schedules().get(&name).await.expect("read").expect("there");
    let slot: Slot = stored.value.next_after(stored.stored_at).expect("a slot");
    let record = RunRecord::planned(&name, slot, "default".parse().expect("queue"), slot.instant());
    fleet.streams.ledger().create(&record).await.expect("created");
    // By now the slot is one that the policy would skip: but it was decided to run.
    for_a_while(shared::limits::MISSED_AFTER + Duration::from_secs(6)).await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    assert_eq!(fleet.end_of(&record.id.to_string()).await.status, RunState::Success);
    assert_eq!(fleet.target.calls_of(&record.id.to_string()).len(), 1);
}

#[tokio::test]
async fn nonsense_in_a_cursor_a_lease_a_record_or_under_a_strange_key_stops_no_schedule() {
    let fleet = Fleet::start().await;
    fleet.apply(STEADY);
    let partition = partition_of("steady");
    let name: Name = "steady".parse().expect("name");
    let soon = Slot::at(fleet.now() + TimeDelta::seconds(8));
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let future = r#"{"accounted_to":"2099-01-01T00:00:00Z","by":"planner-x-1","tzdb":"2025b"}"#;
    let ancient = r#"{"accounted_to":"-262143-01-01T00:00:00Z","by":"planner-x-1","tzdb":"2025b"}"#;
    let forged = r#"{"holder":"planner-evil-1","term":18446744073709551615,"since":"2026-01-01T00:00:00Z"}"#;
    for (key, value) in [
        (format!("$KV.cronfleet_planner.cursor.{partition}"), future),
        (format!("$KV.cronfleet_planner.lease.{partition}"), forged),
        (format!("$KV.cronfleet_planner.cursor.{}", (partition + 1) % 64), "no json"),
        (format!("$KV.cronfleet_planner.cursor.{}", (partition + 2) % 64), ancient),
        (format!("$KV.cronfleet_runs.steady.{soon}"), "no record"),
        ("$KV.cronfleet_schedules.foo".to_owned(), "x"),
    ] {
        let answer = client.request(&key, value.as_bytes()).await;
        assert!(!answer.payload.contains("error"), "{key}: {}", answer.payload);
    }
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    a_call(&fleet, (soon.instant() + TimeDelta::seconds(2)).timestamp_millis()).await;
    let record = fleet.end_of(&format!("{name}.{soon}")).await;
    assert_eq!(record.status, RunState::Success, "the strange record was replaced: {:?}", record.error);
}

#[tokio::test]
async fn an_acknowledged_submission_whose_record_is_nonsense_still_comes_to_an_end() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request("$KV.cronfleet_runs.reindex.odd", b"no record").await;
    let _worker = fleet.worker(&[]);
    let task = json!({"target_service": "target", "action": "ok"});
    fleet.submit("reindex.odd", &task).await.expect("acknowledged");
    eventually("the end of the run", async || {
        match fleet.streams.ledger().get(&"reindex.odd".parse().expect("run")).await {
            Ok(Some(stored)) if stored.value.status == RunState::Success => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_not_written_over_and_its_slot_not_dispatched_again() {
    let fleet = Fleet::start().await;
    fleet.apply(STEADY);
    let soon = Slot::at(fleet.now() + TimeDelta::seconds(6));
    let record = json!({"id": format!("steady.{soon}"), "schedule": "steady", "queue": "default", "status": "SUCCESS",
        "reason": "by_a_newer_version", "slot": soon.instant(), "created_at": soon.instant()});
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request(&format!("$KV.cronfleet_runs.steady.{soon}"), record.to_string().as_bytes()).await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    a_call(&fleet, (soon.instant() + TimeDelta::seconds(2)).timestamp_millis()).await;
    assert_eq!(fleet.life(&format!("steady.{soon}")).await, [RunState::Success], "as it was");
    assert!(fleet.target.calls_of(&format!("steady.{soon}")).is_empty());
}

#[tokio::test]
async fn a_record_that_turns_into_nonsense_while_its_run_is_under_way_does_not_stop_its_schedule() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 3s}}\n\
         schedules: {locked: {every: 2s, task: {target_service: target, action: slow, parameters: {ms: 1000}}}}",
    );
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    a_call(&fleet, 0).await;
    let run = fleet.target.calls()[0].run.clone();
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request(&format!("$KV.cronfleet_runs.{run}"), b"nonsense").await;
    eventually("a run of a later slot", async || {
        let ended = fleet.records().await.into_iter().map(|stored| stored.value);
        let found =
            ended.filter(|record| record.status == RunState::Success && record.id.to_string() != run).count();
        if found > 0 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_nested_too_deeply_does_not_make_its_run_unreadable() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let task = json!({"target_service": "target", "action": "nested", "parameters": {"levels": 127}});
    fleet.submit("deep.1", &task).await.expect("submitted");
    let record = fleet.end_of("deep.1").await;
    assert_eq!(
        (record.status, record.output.expect("an output")["truncated"].clone()),
        (RunState::Success, json!(true))
    );
}

#[tokio::test]
async fn a_queues_consumer_that_was_deleted_is_made_again_by_init_and_nothing_is_lost() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.members("worker", 1).await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let deleted = client.request("$JS.API.CONSUMER.DELETE.cronfleet_TASKS.default", b"").await;
    assert!(deleted.payload.contains("\"success\":true"), "{}", deleted.payload);
    fleet
        .submit("after.delete", &json!({"target_service": "target", "action": "ok"}))
        .await
        .expect("submitted");
    let output = fleet.try_cronfleet(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "doctor says so");
    assert!(fleet.cronfleet(&["init"]).contains("cronfleet_TASKS/default"));
    assert_eq!(fleet.end_of("after.delete").await.status, RunState::Success);
}

#[tokio::test]
async fn a_schedule_whose_queue_is_changed_while_it_runs_still_never_runs_twice_at_once() {
    let fleet = Fleet::start().await;
    let with = |queue: &str| {
        format!(
            "targets: {{target: {{http: TARGET}}}}\nqueues: {{other: {{}}}}\nschedules: {{moving: {{every: 1s, queue: \
             {queue}, task: {{target_service: target, action: slow, parameters: {{ms: 5000}}}}}}}}"
        )
    };
    fleet.apply(&with("default"));
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&["--queue", "default", "--queue", "other"]));
    a_call(&fleet, 0).await;
    fleet.apply(&with("other"));
    eventually("a run in the other queue", async || {
        let records = fleet.records().await;
        let found = records
            .iter()
            .any(|stored| stored.value.queue.as_str() == "other" && stored.value.status == RunState::Running);
        if found { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let mut calls = fleet.target.calls();
    calls.sort_by_key(|call| call.began_ms);
    for pair in calls.windows(2) {
        assert!(
            pair[0].ended_ms.is_some_and(|ended| ended <= pair[1].began_ms),
            "{} overlaps {}",
            pair[0].run,
            pair[1].run
        );
    }
}

#[tokio::test]
async fn a_task_that_grows_too_large_with_its_parameters_fails_its_run_and_is_not_tried_for_ever() {
    let fleet = Fleet::start().await;
    fleet.apply(STEADY);
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    let mut parameters = serde_json::Map::new();
    parameters.insert("large".to_owned(), json!("x".repeat(300 * 1024)));
    let run = "steady.manual-large".parse().expect("run");
    let trigger = streams::control::Trigger { run, parameters, by: "spec".to_owned(), at: fleet.now() };
    fleet.streams.trigger(&trigger).await.expect("stored");
    let record = fleet.end_of("steady.manual-large").await;
    assert_eq!(record.status, RunState::Failed);
    assert!(record.error.expect("an error").message.contains("pass a reference"));
    let many = vec!["1e15"; 30_000].join(",");
    let output = fleet.try_apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nschedules: {{large: {{every: 1m, task: {{target_service: target, \
         action: ok, parameters: {{n: [{many}]}}}}}}}}"
    ));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("pass a reference"),
        "as it travels it is larger than as it was written: {said:.400}"
    );
}

#[tokio::test]
async fn a_planner_and_a_worker_end_in_time_when_their_server_is_gone() {
    let mut fleet = Fleet::start().await;
    fleet.apply(STEADY);
    let (mut worker, mut planner) = (fleet.worker(&["--drain", "2s"]), fleet.planner());
    a_call(&fleet, 0).await;
    fleet.nats.kill();
    assert!(worker.stop().await.success(), "{}", worker.said());
    assert!(planner.stop().await.success(), "{}", planner.said());
}
