//! Workers that are told to stop from afar, twice, or one after another under load.

use std::time::Duration;

use harness::{Fleet, Process, eventually, within};
use rustix::process::Signal;
use serde_json::json;
use shared::{run_record::Reason, run_state::RunState};

async fn id_of_the_only_worker(fleet: &Fleet) -> String {
    fleet.members("worker", 1).await;
    fleet.cronfleet(&["get", "workers", "-o", "name"]).trim().to_owned()
}

#[tokio::test]
async fn a_worker_is_drained_from_afar_and_it_is_seen_who_asked() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&["--drain", "40s"]);
    let id = id_of_the_only_worker(&fleet).await;
    let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": 5000}});
    fleet.submit_until_called("slow.1", &task).await;
    let asked = fleet.try_cronfleet(&["drain", &id]);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(asked.status.success() && said.contains("no other worker serves queue default"), "{said}");
    within(Duration::from_secs(10), "it is seen to drain", async || {
        let worker = &fleet.cronfleet_json(&["get", "workers"])[0];
        match (worker["draining"].as_bool(), worker["drained_by"].as_str()) {
            (Some(true), Some(by)) if by.contains('@') => Ok(()),
            _ => Err(worker.to_string()),
        }
    })
    .await;
    let again = fleet.cronfleet_json(&["drain", &id, "--wait"]);
    assert_eq!((&again["id"], &again["gone"]), (&json!(id), &json!(true)), "twice is no error");
    assert!(worker.ended().await.success());
    let record = fleet.record("slow.1").await.expect("a record");
    assert_eq!((record.status, record.attempt), (RunState::Success, 1), "what ran was let finish");
    let gone = fleet.try_cronfleet(&["drain", &id]);
    assert!(gone.status.success() && String::from_utf8_lossy(&gone.stderr).contains("is gone"));
}

#[tokio::test]
async fn a_worker_that_is_not_there_is_said_with_the_one_that_may_be_meant() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let id = id_of_the_only_worker(&fleet).await;
    for (written, words) in [
        (&id[..id.len() - 1], format!("did you mean {id}?")),
        ("worker-x", "has ended, or never was".to_owned()),
    ] {
        let refused = fleet.try_cronfleet(&["drain", written]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(&words), "{written}: {said}");
    }
}

#[tokio::test]
async fn a_request_to_drain_that_was_not_heard_is_found_at_a_heartbeat() {
    let mut fleet = Fleet::start().await;
    let mut worker = fleet.worker(&[]);
    let id = id_of_the_only_worker(&fleet).await;
    // It stands still while its connection is lost and it is asked: nobody hears that.
    worker.pause();
    fleet.nats.kill();
    fleet.nats.restart().await;
    let request = json!({"worker": id, "by": "spec", "at": fleet.now()});
    let mut client = harness::PlainClient::connect(&fleet.nats.url()).await;
    client.request(&format!("cronfleet.control.drain.{id}"), request.to_string().as_bytes()).await;
    worker.resume();
    assert!(worker.ended().await.success());
    assert!(worker.said().contains("spec asked for it"), "{}", worker.said());
}

#[tokio::test]
async fn a_second_signal_and_a_second_request_hand_back_at_once_what_a_first_lets_finish() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let task = json!({"target_service": "target", "action": "hang"});
    for (run, by_signal) in [("hang.signal", true), ("hang.request", false)] {
        let mut worker = fleet.worker(&["--drain", "10m"]);
        let id = id_of_the_only_worker(&fleet).await;
        fleet.submit_until_called(run, &task).await;
        worker.signal(Signal::TERM);
        eventually("it drains", async || {
            let said = worker.said();
            if said.contains("SIGTERM was received") { Ok(()) } else { Err(said) }
        })
        .await;
        assert!(worker.is_running(), "its run is let finish");
        if by_signal {
            worker.signal(Signal::TERM);
        } else {
            fleet.cronfleet(&["drain", &id, "--now"]);
        }
        assert!(worker.ended().await.success());
        let record = fleet.record(run).await.expect("a record");
        assert_eq!(
            (record.status, record.attempt, record.reason),
            (RunState::Pending, 0, Some(Reason::Drained))
        );
        fleet.cronfleet(&["cancel", run]);
        fleet.members("worker", 0).await;
    }
}

const RUNS: usize = 1_200;
/// Much longer than the whole restart takes: a run that waited for it would be seen.
const ACK_WAIT_MS: i64 = 120_000;

#[tokio::test]
async fn a_rolling_restart_of_all_workers_under_load_loses_nothing_and_delays_no_run() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 120s}}");
    let start = || fleet.worker(&["--drain", "300ms", "--places", "8"]);
    let mut workers: Vec<Process> = (0..3).map(|_| start()).collect();
    fleet.members("worker", 3).await;
    let submitted_ms = fleet.now().timestamp_millis();
    for number in 0..RUNS {
        // Some end within the drain, some do not.
        let ms = if number % 7 == 0 { 1_500 } else { 20 };
        let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": ms}});
        fleet.submit(&format!("load.{number}"), &task).await.expect("submitted");
    }
    for worker in &mut workers {
        // The new one is there before the old one goes, as an orchestrator does it.
        let mut old = std::mem::replace(worker, start());
        fleet.members("worker", 4).await;
        assert!(old.stop().await.success());
        fleet.members("worker", 3).await;
    }
    for number in 0..RUNS {
        let record = fleet.end_of(&format!("load.{number}")).await;
        assert_eq!((record.status, record.attempt), (RunState::Success, 1), "{record:?}");
    }
    let calls = fleet.target.calls();
    let handed_back = calls.iter().filter(|call| call.dropped_ms.is_some()).count();
    assert!(handed_back > 0, "the drain cut something short, or this shows nothing");
    for call in &calls {
        assert_eq!(call.attempt, 1, "{}: no attempt was spent", call.run);
    }
    let last = calls.iter().filter_map(|call| call.ended_ms).max().expect("calls");
    assert!(last - submitted_ms < ACK_WAIT_MS, "no run waited for the acknowledge wait");
}
