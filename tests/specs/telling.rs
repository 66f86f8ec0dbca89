//! What people are told of runs that wait, of names that are slips, and of what would be done.

use harness::{Fleet, PlainClient, eventually, scripts::Scripts};
use serde_json::{Value, json};
use shared::run_state::RunState;

use crate::{dead_letters::task, up::Up};

/// What a verb said on stderr, and its exit code.
fn said(fleet: &Fleet, arguments: &[&str]) -> (String, Option<i32>) {
    let output = fleet.try_cronfleet(arguments);
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[tokio::test]
async fn a_submission_that_no_worker_has_taken_exists_and_says_what_it_waits_for() {
    let fleet = Fleet::start().await;
    let file = Scripts::of(&fleet).with("greet", "echo hello", "").file();
    let task = r#"{"command": ["greet"]}"#;
    let (words, code) = said(&fleet, &["submit", "greet", "--key", "1", "-d", task]);
    assert!(code == Some(0) && words.contains("no worker serves queue default"), "{code:?} {words}");
    let (words, code) =
        said(&fleet, &["submit", "greet", "--key", "2", "--wait", "--timeout", "500ms", "-d", task]);
    assert!(code == Some(124) && words.contains("lies in queue default"), "{code:?} {words}");
    for shown in [
        fleet.cronfleet_json(&["describe", "run", "greet.1"]),
        fleet.cronfleet_json(&["get", "runs", "greet.1"]),
    ] {
        assert_eq!((&shown["id"], &shown["status"]), (&json!("greet.1"), &json!("PENDING")));
    }
    let listed = fleet.cronfleet(&["get", "runs", "greet", "-o", "name"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["greet.1", "greet.2"]);
    let mut followed = fleet.spawn("logs", &["logs", "--follow", "greet.1"]);
    eventually("it waits", async || {
        let said = followed.said();
        if said.contains("lies in queue default") { Ok(()) } else { Err(said) }
    })
    .await;
    let _worker = fleet.worker(&["--commands", &file]);
    assert_eq!(followed.ended().await.code(), Some(0));
    assert!(followed.said().contains("hello"), "{}", followed.said());
    for run in ["greet.1", "greet.2"] {
        assert_eq!(fleet.end_of(run).await.status, RunState::Success);
    }
    assert_eq!(fleet.cronfleet(&["get", "runs", "greet", "-o", "name"]).lines().count(), 2, "each once");
}

#[tokio::test]
async fn a_filter_that_matches_no_dead_letter_says_how_many_there_are_and_which_name_was_a_slip() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (words, _) = said(&fleet, &["get", "dead", "--target", "target"]);
    assert!(words.contains("every run that was not cancelled goes on or went well"), "{words}");
    let _worker = fleet.worker(&[]);
    fleet.submit("bad.1", &task("fail", 1)).await.expect("submitted");
    fleet.dead_letter(&fleet.end_of("bad.1").await).await;
    for (arguments, slip) in [
        (
            &["get", "dead", "--target", "tagret"][..],
            "there is 1; there is no target \"tagret\"; did you mean \"target\"?",
        ),
        (&["get", "dead", "--queue", "defualt"], "did you mean \"default\"?"),
        (&["replay", "--queue", "defualt"], "did you mean \"default\"?"),
        (&["get", "runs", "--queue", "defualt"], "did you mean \"default\"?"),
    ] {
        let (words, _) = said(&fleet, arguments);
        assert!(words.contains(slip), "{arguments:?}: {words}");
    }
}

#[tokio::test]
async fn a_dry_run_of_a_replay_counts_what_cannot_be_replayed_and_ends_as_the_replay_would() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request("cronfleet.tasks.default.bad.1", b"garbage").await;
    fleet.submit("bad.2", &task("fail", 1)).await.expect("submitted");
    for run in ["bad.1", "bad.2"] {
        fleet.dead_letter(&fleet.end_of(run).await).await;
    }
    let (words, code) = said(&fleet, &["replay", "--dry-run"]);
    assert!(words.contains("1 of 2 would be replayed") && code == Some(1), "{code:?} {words}");
    let (words, code) = said(&fleet, &["replay", "--dry-run", "--error", "500"]);
    assert!(words.contains("1 of 1 would be replayed") && code == Some(0), "{code:?} {words}");
    let (_, code) = said(&fleet, &["replay"]);
    assert_eq!(code, Some(1), "one was left alone");
}

#[tokio::test]
async fn a_worker_of_a_queue_that_nobody_declared_says_so_and_which_one_was_meant() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {local: {}}");
    let worker = fleet.worker(&["--queue", "loocal"]);
    eventually("the words", async || {
        let said = worker.said();
        let is_told =
            said.contains("it is not declared (did you mean local?)") && !said.contains("cronfleet init");
        if is_told { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test]
async fn a_worker_of_up_that_somebody_drains_is_not_called_broken_nor_started_again() {
    let up = Up::new();
    let process = up.start(&[]);
    up.address().await;
    let worker = eventually("its worker", async || {
        let listed = up.cronfleet(&["get", "workers", "-o", "json"]);
        let workers: Vec<Value> =
            serde_json::from_slice(&listed.stdout).map_err(|error| error.to_string())?;
        workers.first().and_then(|worker| worker["id"].as_str().map(str::to_owned)).ok_or("none".to_owned())
    })
    .await;
    let drained = up.cronfleet(&["drain", &worker]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    eventually("it is said", async || {
        let said = process.said();
        if said.contains("as somebody asked it to") { Ok(()) } else { Err(said) }
    })
    .await;
    assert!(!process.said().contains("without being told to"), "{}", process.said());
}
