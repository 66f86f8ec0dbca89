//! Cancelled runs, by a newer one of their schedule (overlap `replace`) or by a person: what waits does not begin, and
//! what runs is stopped.

use std::time::Duration;

use harness::{Fleet, PlainClient, eventually, within};
use serde_json::json;
use shared::{
    limits::{CANCEL_LOOK_AGAIN, CLOCK_OFFSET_MAX},
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

fn definitions(when: &str, task: &str) -> String {
    format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: 4s}}}}\nschedules: {{newest: {{{when}, \
         overlap: replace, task: {{{task}}}}}}}"
    )
}

const HANG: &str = "target_service: target, action: hang";

async fn replaced(fleet: &Fleet, count: usize) -> Vec<RunRecord> {
    within(Duration::from_secs(40), &format!("{count} runs that were replaced"), async || {
        let runs: Vec<_> = fleet.records().await.into_iter().map(|stored| stored.value).collect();
        let replaced: Vec<_> = runs.into_iter().filter(|run| run.reason == Some(Reason::Replaced)).collect();
        if replaced.len() >= count { Ok(replaced) } else { Err(format!("{}", replaced.len())) }
    })
    .await
}

async fn a_call_of(fleet: &Fleet, run: &str) {
    eventually(&format!("a call for {run}"), async || {
        if fleet.target.calls_of(run).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn with_replace_the_live_run_is_stopped_before_the_new_one_begins() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(&definitions("every: 2s", HANG));
    for run in replaced(&fleet, 3).await {
        assert_eq!((run.status, run.attempt), (RunState::Cancelled, 1), "{run:?}");
        let calls = || fleet.target.calls_of(&run.id.to_string());
        assert_eq!(calls().len(), 1, "{} was begun once", run.id);
        eventually("its request is dropped", async || {
            calls()[0].dropped_ms.map(|_| ()).ok_or_else(|| "not yet".to_owned())
        })
        .await;
    }
    fleet.target.assert_never_two_at_once("newest");
    let skipped =
        fleet.records().await.into_iter().filter(|run| run.value.status == RunState::Failed).count();
    assert_eq!(skipped, 0);
}

#[tokio::test]
async fn with_replace_a_run_that_waits_in_its_queue_or_for_its_retry_makes_room_at_once() {
    let fleet = Fleet::start().await;
    let _planner = fleet.planner();
    // No worker lives: every run waits in its queue until the next takes its place.
    let retried = "target_service: target, action: fail, retry: {attempts: 9, backoff: 1h, max_backoff: 1h}";
    fleet.apply(&definitions("every: 1s", retried));
    for run in replaced(&fleet, 2).await {
        assert_eq!((run.status, run.attempt), (RunState::Cancelled, 0));
    }
    let _worker = fleet.worker(&[]);
    let retrying =
        within(Duration::from_secs(30), "one that was cancelled while it waited to be retried", async || {
            let runs = replaced(&fleet, 2).await;
            let found = runs.iter().find(|run| run.attempt == 1).cloned();
            found.ok_or_else(|| format!("{}", runs.len()))
        })
        .await;
    let life = fleet.life(&retrying.id.to_string()).await;
    assert_eq!(life[life.len() - 3..], [RunState::Running, RunState::Retry, RunState::Cancelled]);
    fleet.target.assert_never_two_at_once("newest");
}

#[tokio::test]
async fn a_run_whose_worker_was_killed_before_it_could_stop_it_is_cancelled_and_not_begun_again() {
    let fleet = Fleet::start().await;
    let mut worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply(&definitions("cron: '0 0 1 1 *'", HANG));
    let first = fleet.cronfleet(&["trigger", "newest"]).trim().to_owned();
    a_call_of(&fleet, &first).await;
    worker.pause();
    let second = fleet.cronfleet(&["trigger", "newest"]).trim().to_owned();
    eventually("the request to stop the first", async || {
        let record = fleet.record(&first).await.ok_or("no record")?;
        match fleet.streams.cancel_asked(&record).await.map_err(|error| error.to_string())? {
            Some(request) if request.reason == Reason::Replaced => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    worker.kill();
    let _second_worker = fleet.worker(&[]);
    let ended = fleet.end_of(&first).await;
    assert_eq!((ended.status, ended.reason), (RunState::Cancelled, Some(Reason::Replaced)));
    a_call_of(&fleet, &second).await;
    assert_eq!(fleet.target.calls_of(&first).len(), 1, "it was not begun again");
}

#[tokio::test]
async fn a_request_that_its_worker_never_heard_is_found_at_the_next_renewal() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 4s}}");
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let asked_at = fleet.now();
    let request = json!({"run": "reindex.1", "reason": "by_operator", "by": "spec", "at": asked_at});
    let answer = client.request("cronfleet.control.cancel.reindex.1", request.to_string().as_bytes()).await;
    assert!(answer.payload.contains("cronfleet_CONTROL"), "{}", answer.payload);
    // Only now does a worker begin to listen, too late to ask for what was said a moment ago.
    let moment = CANCEL_LOOK_AGAIN + CLOCK_OFFSET_MAX;
    eventually("the request is older than that", async || match (fleet.now() - asked_at).to_std() {
        Ok(age) if age > moment => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let _worker = fleet.worker(&[]);
    fleet.submit_until_called("reindex.1", &json!({"target_service": "target", "action": "hang"})).await;
    let record = fleet.end_of("reindex.1").await;
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
}

#[tokio::test]
async fn a_run_is_cancelled_by_hand_wherever_it_is_and_what_cannot_be_is_said_why() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let task = |action: &str| json!({"target_service": "target", "action": action});
    fleet.submit("waits.1", &task("ok")).await.expect("submitted");
    let cancelled = fleet.cronfleet_json(&["cancel", "waits.1"]);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
    let (queue, run) = ("default".parse().expect("queue"), "waits.1".parse().expect("run"));
    assert_eq!(fleet.streams.queued(&queue, &run).await.expect("read"), None, "it left the queue");

    let _worker = fleet.worker(&[]);
    fleet.submit_until_called("hangs.1", &task("hang")).await;
    let cancelled = fleet.cronfleet_json(&["cancel", "hangs.1"]);
    assert_eq!((&cancelled["status"], &cancelled["attempt"]), (&json!("CANCELLED"), &json!(1)));
    assert!(fleet.target.calls_of("waits.1").is_empty(), "what was cancelled in its queue did not begin");

    let again = fleet.try_cronfleet(&["cancel", "hangs.1"]);
    assert!(again.status.success(), "twice is no error");
    assert!(String::from_utf8_lossy(&again.stderr).contains("was cancelled before"));
    fleet.submit("done.1", &task("ok")).await.expect("submitted");
    fleet.end_of("done.1").await;
    for (run, words) in [("done.1", "SUCCESS already"), ("nobody.1", "there is no run nobody.1")] {
        let refused = fleet.try_cronfleet(&["cancel", run]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{run}: {said}");
        assert!(said.contains(words), "{run}: {said}");
    }
}

#[tokio::test]
async fn a_command_that_is_cancelled_is_ended_with_all_it_began() {
    let fleet = Fleet::start().await;
    let pids = fleet.folder().join("pids");
    let script = format!("sleep 300 & echo $$ $! > {}; wait", pids.display());
    let commands = fleet.folder().join("commands.yaml");
    std::fs::write(&commands, format!("commands:\n  tree: {{program: /bin/sh, args: [-c, '{script}']}}\n"))
        .expect("written");
    let _worker = fleet.worker(&["--commands", commands.to_str().expect("a path")]);
    fleet.submit("tree.1", &json!({"command": ["tree"]})).await.expect("submitted");
    let pids = eventually("the command and its child", async || {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        let pids: Vec<u32> = text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.len() == 2 { Ok(pids) } else { Err(text) }
    })
    .await;
    fleet.cronfleet(&["cancel", "tree.1"]);
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} lives: {stat}");
    }
}
