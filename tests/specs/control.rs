//! What operators ask for: run now, and the lists they look at.

use harness::{Fleet, PlainClient, eventually};
use serde_json::{Map, json};
use shared::{
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::control::Trigger;

const SCHEDULES: &str = "targets: {target: {http: TARGET}}\nschedules:\n  \
    yearly: {cron: '0 0 1 1 *', task: {target_service: target, action: echo, parameters: {a: 1, b: 2}}}\n  \
    slow: {cron: '0 0 1 1 *', task: {target_service: target, action: slow, parameters: {ms: 3000}}}\n";

#[tokio::test]
async fn a_schedule_is_run_now_with_parameters_of_the_moment() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let record =
        fleet.cronfleet_json(&["trigger", "yearly", "--wait", "--param", "b=3", "--param", "c=\"x y\""]);
    assert_eq!(record["status"], "SUCCESS");
    assert_eq!(record["schedule"], "yearly");
    assert!(record["by"].as_str().is_some_and(|by| by.contains('@')), "who asked is in the record: {record}");
    assert_eq!(record["output"]["parameters"], json!({"a": 1, "b": 3, "c": "x y"}));
    let shown = fleet.cronfleet_json(&["describe", "run", record["id"].as_str().expect("an id")]);
    assert!(shown.to_string().contains("SUCCESS"), "{shown}");
}

#[tokio::test]
async fn a_run_asked_for_by_hand_respects_the_lock_of_its_schedule() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let first = fleet.cronfleet(&["trigger", "slow"]).trim().to_owned();
    eventually("the first runs", async || {
        if fleet.target.calls().is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    let output = fleet.try_cronfleet(&["trigger", "slow", "--wait", "-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&record["status"], &record["reason"]), (&json!("CANCELLED"), &json!("skipped_overlap")));
    assert_eq!(fleet.end_of(&first).await.status, RunState::Success);
}

#[tokio::test]
async fn a_run_asked_for_while_no_planner_lives_is_done_when_one_does() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    assert_eq!(fleet.end_of(&run).await.status, RunState::Success);
}

#[tokio::test]
async fn a_trigger_that_names_a_slot_or_nothing_known_does_no_harm() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let _planner = fleet.planner();
    let trigger = |run: &str| streams::control::Trigger {
        run: run.parse().expect("run"),
        parameters: serde_json::Map::new(),
        by: "spec".to_owned(),
        at: fleet.now(),
    };
    fleet.streams.trigger(&trigger("yearly.20270101T000000Z")).await.expect("stored");
    fleet.streams.trigger(&trigger("nobody.manual-1")).await.expect("stored");
    let record = fleet.end_of("nobody.manual-1").await;
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Unknown)));
    assert_eq!(record.by.as_deref(), Some("spec"));
    assert_eq!(fleet.record("yearly.20270101T000000Z").await, None);
}

#[tokio::test]
async fn the_next_slots_are_told_before_and_after_a_file_is_applied() {
    let fleet = Fleet::start().await;
    let file = fleet.folder().join("weekly.yaml");
    let text = format!(
        "targets: {{target: {{http: '{}'}}}}\nschedules: {{weekly: {{cron: '0 1 * * 1', timezone: Asia/Shanghai, \
         task: {{target_service: target, action: ok}}}}}}",
        fleet.target.url()
    );
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("a path");
    let wanted = json!({"weekly": ["2026-11-29T17:00:00Z", "2026-12-06T17:00:00Z"]});
    let from = ["--from", "2026-11-24T00:00:00Z", "--count", "2"];
    assert_eq!(fleet.cronfleet_json(&[&["next", "-f", path][..], &from].concat()), wanted);
    let dry = fleet.cronfleet(&["apply", "-f", path, "--dry-run"]);
    assert!(dry.contains("weekly"), "{dry}");
    assert!(
        fleet.streams.schedules().list().await.expect("schedules").is_empty(),
        "a dry run writes nothing"
    );
    fleet.cronfleet(&["apply", "-f", path]);
    assert_eq!(fleet.cronfleet_json(&[&["next", "weekly"][..], &from].concat()), wanted);
    let listed = fleet.cronfleet_json(&["get", "schedules"]);
    assert_eq!(listed.as_array().expect("an array").len(), 1);
    assert!(fleet.cronfleet(&["apply", "-f", path]).contains("unchanged"));
}

#[tokio::test]
async fn a_task_submitted_on_the_command_line_runs_and_its_end_is_the_exit_code() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let task = r#"{"target_service":"target","action":"ok"}"#;
    let record = fleet.cronfleet_json(&["submit", "reindex", "-d", task, "--key", "4711", "--wait"]);
    assert_eq!((&record["id"], &record["status"]), (&json!("reindex.4711"), &json!("SUCCESS")));
    let refused = r#"{"target_service":"target","action":"refuse"}"#;
    let output = fleet.try_cronfleet(&["submit", "reindex", "-d", refused, "--key", "4712", "--wait"]);
    assert_eq!(output.status.code(), Some(3));
    let hanging = r#"{"target_service":"target","action":"hang"}"#;
    let output = fleet.try_cronfleet(&["submit", "reindex", "-d", hanging, "--wait", "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(124));
    let tail = fleet.try_cronfleet(&["get", "runs", "-o", "json"]);
    let runs: serde_json::Value = serde_json::from_slice(&tail.stdout).expect("JSON");
    assert!(runs.as_array().expect("an array").len() >= 2);
}

#[tokio::test]
async fn a_run_asked_for_whose_planner_died_before_the_publish_ends_even_if_its_schedule_is_gone() {
    let fleet = Fleet::start().await;
    let run = "gone.manual-1".parse().expect("run");
    let left = RunRecord::pending(run, "default".parse().expect("queue"), fleet.now());
    fleet.streams.ledger().create(&left).await.expect("created");
    let trigger = Trigger { run: left.id, parameters: Map::new(), by: "spec".to_owned(), at: fleet.now() };
    fleet.streams.trigger(&trigger).await.expect("stored");
    let _planner = fleet.planner();
    let record = fleet.end_of("gone.manual-1").await;
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Unknown)));
}

#[tokio::test]
async fn who_may_ask_for_one_schedule_cannot_name_another_in_the_body() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let (_worker, planner) = (fleet.worker(&[]), fleet.planner());
    let body = json!({"run": "yearly.manual-9", "by": "somebody", "at": fleet.now()}).to_string();
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let answer = client.request("cronfleet.control.trigger.harmless.manual-9", body.as_bytes()).await;
    assert!(!answer.payload.contains("error"), "{}", answer.payload);
    eventually("the planner says that it drops it", async || {
        if planner.said().contains("its subject is") { Ok(()) } else { Err("nothing".to_owned()) }
    })
    .await;
    assert_eq!(fleet.record("yearly.manual-9").await, None);
}
