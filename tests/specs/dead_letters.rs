//! Dead letters, and runs that failed and are retried by hand.

use harness::{Fleet, PlainClient, eventually};
use serde_json::{Value, json};
use shared::{
    after::run_after_retries,
    run_record::{Reason, RunRecord},
    run_state::RunState::{Failed, Pending, Running, Success},
};

/// One attempt more for each of `attempts`, quickly.
pub(crate) fn task(action: &str, attempts: u32) -> Value {
    json!({
        "target_service": "target", "action": action, "parameters": {"region": "eu"},
        "retry": {"attempts": attempts, "backoff": "50ms", "max_backoff": "50ms"},
    })
}

/// A run that has failed, with its dead letter stored.
async fn failed(fleet: &Fleet, run: &str, task: &Value) -> RunRecord {
    fleet.submit(run, task).await.expect("submitted");
    let record = fleet.end_of(run).await;
    assert_eq!(record.status, Failed, "{record:?}");
    fleet.dead_letter(&record).await;
    record
}

/// What a verb that must fail said.
fn refusal(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.try_cronfleet(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

async fn has_no_letter(fleet: &Fleet, record: &RunRecord) {
    assert_eq!(fleet.streams.dead_letter(record).await.expect("read"), None, "its dead letter is gone");
}

#[tokio::test]
async fn a_dead_letter_keeps_the_whole_task_and_each_attempt_with_its_error() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    failed(&fleet, "bad.1", &task("fail", 3)).await;
    let letter = &fleet.cronfleet_json(&["get", "dead"])[0];
    assert_eq!((&letter["id"], &letter["status"]), (&json!("bad.1"), &json!("FAILED")));
    assert_eq!(letter["task"]["parameters"], json!({"region": "eu"}));
    let attempts = letter["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 3);
    for (attempt, number) in attempts.iter().zip(1..) {
        assert_eq!(attempt["attempt"], number);
        assert!(attempt["error"]["message"].as_str().is_some_and(|words| words.contains("500")), "{attempt}");
        assert!(attempt["worker"].is_string() && attempt["started_at"].is_string(), "{attempt}");
    }
    for (filter, count) in [
        (&["--error", "500"][..], 1),
        (&["--error", "tooth"], 0),
        (&["--where", "region=eu", "--target", "target", "--since", "1h"], 1),
        (&["--where", "region=us"], 0),
        (&["--until", "1h"], 0),
        (&["--schedule", "bad", "--queue", "default"], 1),
        (&["--schedule", "good"], 0),
    ] {
        let found = fleet.cronfleet_json(&[&["get", "dead"], filter].concat());
        assert_eq!(found.as_array().expect("a list").len(), count, "{filter:?}");
    }
    let told = fleet.cronfleet(&["describe", "dead", "bad.1"]);
    assert!(told.contains("cronfleet retry bad.1") && told.contains("\"region\": \"eu\""), "{told}");
}

#[tokio::test]
async fn a_run_that_failed_is_retried_under_its_own_id_and_its_letter_goes() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let record = failed(&fleet, "once.1", &task("flaky", 1)).await;
    let ended = fleet.cronfleet_json(&["retry", "once.1", "--wait"]);
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("SUCCESS"), &json!(2)), "{ended}");
    assert!(ended["retried"]["by"].as_str().is_some_and(|by| by.contains('@')), "{ended}");
    assert_eq!(fleet.life("once.1").await, [Running, Failed, Pending, Running, Success]);
    let calls = fleet.target.calls_of("once.1");
    assert!(calls[1].fence > calls[0].fence && calls[1].attempt == 2, "the target can tell the two apart");
    has_no_letter(&fleet, &record).await;
    assert!(refusal(&fleet, &["retry", "once.1"]).contains("is SUCCESS; it is retried only if it failed"));
}

#[tokio::test]
async fn a_retried_run_has_all_attempts_of_its_policy_anew_and_counts_on() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    failed(&fleet, "bad.1", &task("fail", 2)).await;
    let ended = fleet.try_cronfleet(&["retry", "bad.1", "--wait"]);
    assert_eq!(ended.status.code(), Some(3), "it failed again");
    let record = fleet.record("bad.1").await.expect("a record");
    assert_eq!((record.status, record.attempt), (Failed, 4));
    let letter = fleet.dead_letter(&record).await;
    assert_eq!(letter.attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let numbers: Vec<u64> = fleet.target.calls_of("bad.1").iter().map(|call| call.attempt).collect();
    assert_eq!(numbers, [1, 2, 3, 4], "no two attempts have one number");
}

#[tokio::test]
async fn two_who_retry_at_once_make_one_attempt() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    for number in 0..10 {
        failed(&fleet, &format!("once.{number}"), &task("flaky", 1)).await;
    }
    for number in 0..10 {
        let run = format!("once.{number}").parse().expect("run");
        let by = ["ann", "zoe", "bob", "eve"];
        let retries = by.map(|by| fleet.streams.retry(&run, by));
        for retried in futures::future::join_all(retries).await {
            retried.expect("an answer");
        }
        let record = fleet.end_of(&run.to_string()).await;
        assert_eq!((record.status, record.attempt), (Success, 2), "{record:?}");
    }
    assert_eq!(fleet.target.calls().len(), 20, "each ran twice: before, and after");
}

/// Has `retry` die after one of its effects, and another go on.
async fn retried_after_a_crash(point: &str) {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let record = failed(&fleet, "once.1", &task("flaky", 1)).await;
    let crash = [(harness::crash::CRASH_AT, format!("{point}:1"))];
    let mut dies = fleet.spawn_with("retry", &["retry", "once.1"], &crash);
    assert!(!dies.ended().await.success(), "it died after {point}: {}", dies.said());
    // It may be done, or half done, or not seen to be done: asking again is never wrong.
    let again = fleet.try_cronfleet(&["retry", "once.1"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() || said.contains("is SUCCESS"), "{point}: {said}");
    let ended = fleet.end_of("once.1").await;
    assert_eq!((ended.status, ended.attempt), (Success, 2), "{point}");
    // Whatever was left behind is cleared away by who comes next.
    fleet.try_cronfleet(&["retry", "once.1"]);
    has_no_letter(&fleet, &record).await;
    assert_eq!(fleet.target.calls_of("once.1").len(), 2, "{point}: once before, and once after");
}

#[tokio::test]
async fn a_retry_that_died_after_its_record_goes_on_where_it_was() {
    retried_after_a_crash("runs.update").await;
}

#[tokio::test]
async fn a_retry_that_died_after_its_task_was_queued_is_not_run_twice() {
    retried_after_a_crash("tasks").await;
}

#[tokio::test]
async fn a_retry_that_died_after_its_letter_was_deleted_is_done() {
    retried_after_a_crash("remove.DEAD").await;
}

#[tokio::test]
async fn a_retried_run_takes_the_lock_of_its_schedule_or_is_refused() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let schedule = |action: &str| {
        format!(
            "targets: {{target: {{http: TARGET}}}}\nschedules: {{yearly: {{cron: '0 0 1 1 *', task: {{target_service: \
             target, action: {action}, parameters: {{ms: 1500}}, retry: {{attempts: 1}}}}}}}}"
        )
    };
    fleet.apply(&schedule("flaky"));
    fleet.members("planner", 1).await;
    let first = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
    let record = fleet.end_of(&first).await;
    fleet.dead_letter(&record).await;
    fleet.apply(&schedule("hang"));
    let second = eventually("another run of it", async || {
        let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
        eventually("its record", async || fleet.record(&run).await.ok_or("none".to_owned())).await;
        // One that came while the first one's task was on its way out may be skipped.
        match fleet.record(&run).await.expect("a record").reason {
            Some(Reason::SkippedOverlap) => Err("skipped".to_owned()),
            _ => Ok(run),
        }
    })
    .await;
    eventually("it runs", async || match fleet.record(&second).await.map(|record| record.status) {
        Some(Running) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let said = refusal(&fleet, &["retry", &first]);
    assert!(said.contains(&format!("{second} is queued or running")), "{said}");
    assert_eq!(fleet.record(&first).await, Some(record.clone()), "nothing was changed");
    assert!(fleet.streams.dead_letter(&record).await.expect("read").is_some());
    fleet.cronfleet(&["cancel", &second]);
    fleet.cronfleet(&["retry", &first, "--wait"]);
    // While it runs it holds the lock, as every run of its schedule.
    fleet.target.assert_never_two_at_once("yearly");
    assert_eq!(fleet.record(&first).await.map(|record| record.status), Some(Success));
}

#[tokio::test]
async fn what_cannot_be_retried_is_refused_with_what_to_do_instead() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {}, later: {}}");
    fleet.submit("waits.1", &task("ok", 1)).await.expect("submitted");
    assert!(refusal(&fleet, &["retry", "waits.1"]).contains("there is no run waits.1"), "not begun yet");
    fleet.cronfleet(&["cancel", "waits.1"]);
    let said = refusal(&fleet, &["retry", "waits.1"]);
    assert!(said.contains("is CANCELLED") && said.contains("cronfleet submit waits"), "{said}");
    let _worker = fleet.worker(&[]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    client.request("cronfleet.tasks.default.garbage.1", b"{\"target_service\":").await;
    let record = fleet.end_of("garbage.1").await;
    fleet.dead_letter(&record).await;
    let said = refusal(&fleet, &["retry", "garbage.1"]);
    assert!(
        said.contains("cannot be understood") && said.contains("cronfleet submit garbage -d @FILE"),
        "{said}"
    );
    fleet.submit_until_called("hangs.1", &task("hang", 1)).await;
    assert!(refusal(&fleet, &["retry", "hangs.1"]).contains("is RUNNING: it has not failed"));
}

#[tokio::test]
async fn a_retried_run_is_cancelled_by_who_asks_then_and_not_by_who_asked_before() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    failed(&fleet, "once.1", &task("flaky", 1)).await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let request = json!({"run": "once.1", "reason": "by_operator", "by": "spec", "at": fleet.now()});
    client.request("cronfleet.control.cancel.once.1", request.to_string().as_bytes()).await;
    fleet.cronfleet(&["retry", "once.1"]);
    assert_eq!(fleet.end_of("once.1").await.status, Success, "that request was about its life before");

    failed(&fleet, "bad.1", &task("fail", 1)).await;
    fleet.cronfleet(&["retry", "bad.1"]);
    let record = eventually("it failed once more", async || match fleet.record("bad.1").await {
        Some(record) if record.status == Failed && record.attempt == 2 => Ok(record),
        other => Err(format!("{other:?}")),
    })
    .await;
    fleet.dead_letter(&record).await;
    let said = refusal(&fleet, &["cancel", "bad.1"]);
    assert!(said.contains("is FAILED already"), "{said}");
    assert_eq!(fleet.life("bad.1").await, [Running, Failed, Pending, Running, Failed]);
}

#[tokio::test]
async fn each_end_of_a_run_that_is_retried_is_followed_by_a_run_of_its_own() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(
        "targets: {target: {http: TARGET}}\nschedules:\n  \
         up: {cron: '0 0 1 1 *', task: {target_service: target, action: flaky, retry: {attempts: 1}}}\n  \
         well: {after: {schedule: up}, task: {target_service: target, action: ok}}\n  \
         ever: {after: {schedule: up, on: always}, task: {target_service: target, action: ok}}\n",
    );
    fleet.members("planner", 1).await;
    let up = fleet.cronfleet(&["trigger", "up"]).trim().to_owned();
    let record = fleet.end_of(&up).await;
    assert_eq!(record.status, Failed);
    fleet.dead_letter(&record).await;
    let follower = |name: &str, retries: u32| {
        run_after_retries(&name.parse().expect("name"), &record.id, retries).to_string()
    };
    assert_eq!(fleet.end_of(&follower("ever", 0)).await.status, Success);
    fleet.cronfleet(&["retry", &up, "--wait"]);
    for name in ["well", "ever"] {
        let next = fleet.end_of(&follower(name, 1)).await;
        let upstream = next.upstream.expect("it follows one");
        assert_eq!((upstream.status, upstream.retried), (Success, 1), "{name}");
    }
    assert_eq!(fleet.record(&follower("well", 0)).await, None, "its first end was no success");
}

#[tokio::test]
async fn the_failed_part_of_a_run_is_retried_when_the_whole_has_ended_and_the_whole_stays_as_it_ended() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(
        "targets: {target: {http: TARGET}}\nschedules:\n  \
         wide: {cron: '0 0 1 1 *', shards: 2, task: {target_service: target, action: flaky, retry: {attempts: 1}}}\n",
    );
    fleet.members("planner", 1).await;
    let whole = fleet.cronfleet(&["trigger", "wide"]).trim().to_owned();
    let ended = fleet.end_of(&whole).await;
    assert_eq!((ended.status, ended.reason), (Failed, Some(Reason::Shards)));
    let said = refusal(&fleet, &["retry", &whole]);
    assert!(said.contains("parts of it did") && said.contains("get dead --schedule wide"), "{said}");
    let parts = fleet.cronfleet(&["get", "dead", "--schedule", "wide", "-o", "name"]);
    let parts: Vec<&str> = parts.lines().collect();
    assert_eq!(parts.len(), 2);
    for part in parts {
        fleet.cronfleet(&["retry", part, "--wait"]);
        assert_eq!(fleet.record(part).await.map(|record| record.status), Some(Success));
    }
    assert_eq!(fleet.record(&whole).await, Some(ended));
}
