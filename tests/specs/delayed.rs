//! What waits for its instant runs then, not before, and once; whoever dies meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use harness::{Fleet, PlainClient, eventually, wait::for_a_while, within};
use serde_json::{Value, json};
use shared::{
    Timestamp,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::{
    WriteError,
    cancel::{CancelRequest, Cancelling},
    delayed::Wanted,
};

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action})
}

fn id(text: &str) -> RunId {
    text.parse().expect("a run id")
}

async fn submit(fleet: &Fleet, run: &str, at: Timestamp) -> Result<u64, WriteError> {
    let queue = "default".parse().expect("queue");
    fleet.streams.delayed().submit(&queue, &id(run), at, task("ok").to_string().as_bytes(), None).await
}

/// Waits until nothing waits any more.
async fn all_gone(fleet: &Fleet) {
    within(Duration::from_mins(5), "nothing that waits", async || {
        match fleet.streams.delayed().count().await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Waits until so many runs have ended, and checks that each went well, reached its target once, and not too early.
async fn each_ran_once_and_not_before_its_instant(fleet: &Fleet, due: &BTreeMap<String, Timestamp>) {
    all_gone(fleet).await;
    within(Duration::from_mins(5), "the end of all", async || {
        let depth =
            fleet.streams.queue_depth(&"default".parse().expect("queue")).await.map_err(|e| e.to_string())?;
        if depth.waiting + depth.in_flight == 0 { Ok(()) } else { Err(format!("{depth:?}")) }
    })
    .await;
    let records = fleet.records().await;
    assert_eq!(records.len(), due.len());
    for stored in records {
        let record = stored.value;
        let at = due[&record.id.to_string()];
        assert_eq!((record.status, record.not_before), (RunState::Success, Some(at)), "{record:?}");
        assert!(record.created_at >= at, "{record:?}");
    }
    let mut seen = BTreeSet::new();
    for call in fleet.target.calls() {
        assert!(call.began_ms >= due[&call.run].timestamp_millis(), "{} came too early", call.run);
        assert!(seen.insert(call.run.clone()), "{} came twice", call.run);
    }
    assert_eq!(seen.len(), due.len());
}

#[tokio::test]
async fn what_was_submitted_for_an_instant_runs_then_and_not_before() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let at = fleet.now() + TimeDelta::milliseconds(2_500);
    let written = at.with_timezone(&chrono_tz::Asia::Shanghai).to_rfc3339();
    let header = ("Cronfleet-Not-Before", written.as_str());
    let body = task("echo").to_string();
    let answer = client.request_with("cronfleet.delayed.default.plain.1", header, body.as_bytes()).await;
    assert!(answer.payload.contains("\"seq\":"), "any client may: {answer:?}");
    let data = task("echo").to_string();
    let said = fleet.cronfleet(&["submit", "verb", "-d", &data, "--in", "2s", "--key", "1", "--wait"]);
    assert!(said.contains("SUCCESS"), "{said}");
    let plain = fleet.end_of("plain.1").await;
    assert_eq!((plain.status, plain.not_before), (RunState::Success, Some(at)));
    let verb = fleet.record("verb.1").await.expect("a record");
    for record in [&plain, &verb] {
        let calls = fleet.target.calls_of(&record.id.to_string());
        let not_before = record.not_before.expect("an instant");
        assert_eq!(calls.len(), 1);
        assert!(calls[0].began_ms >= not_before.timestamp_millis(), "{record:?}");
        assert!(record.created_at >= not_before && record.started_at >= record.not_before);
        assert!(calls[0].headers["traceparent"].contains(record.trace_id.as_deref().expect("a trace")));
        let life = fleet.life(&record.id.to_string()).await;
        assert_eq!(life, [RunState::Pending, RunState::Success]);
    }
    all_gone(&fleet).await;
}

#[tokio::test]
async fn a_run_that_waits_is_listed_and_refused_a_second_time_and_may_be_cancelled() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let data = task("ok").to_string();
    let submit = |key: &str, after: &str| {
        fleet.try_cronfleet(&["submit", "reminder", "-d", &data, "--key", key, "--in", after])
    };
    assert!(submit("b", "2h").status.success());
    assert!(submit("a", "1h").status.success());
    let refused = submit("a", "3h");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("waits for its instant already"), "{said}");
    let undeclared = ["submit", "reminder", "-d", &data, "--in", "1h", "--queue", "nowhere"];
    assert_eq!(fleet.try_cronfleet(&undeclared).status.code(), Some(1));
    let too_far = fleet.try_cronfleet(&["submit", "reminder", "-d", &data, "--in", "400days"]);
    assert!(String::from_utf8_lossy(&too_far.stderr).contains("more than 366 days"));

    let listed = fleet.cronfleet_json(&["get", "delayed"]);
    let ids: Vec<&str> =
        listed.as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["reminder.a", "reminder.b"], "the first due first");
    assert_eq!(fleet.cronfleet_json(&["get", "delayed", "--limit", "1"])[0]["id"], "reminder.a");
    assert_eq!(fleet.cronfleet_json(&["get", "delayed", "other"]), json!([]));
    assert_eq!(fleet.cronfleet_json(&["get", "delayed", "reminder.b"])["queue"], "default");

    let cancelled = fleet.cronfleet_json(&["cancel", "reminder.a"]);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
    let record = fleet.record("reminder.a").await.expect("a record");
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    assert!(record.not_before.is_some());
    fleet.cronfleet(&["cancel", "reminder.a"]);
    assert_eq!(fleet.try_cronfleet(&["cancel", "reminder.nobody"]).status.code(), Some(1));
    let left = fleet.streams.delayed().list(&Wanted { limit: 9, ..Wanted::default() }).await.expect("a list");
    assert_eq!(left.iter().map(|one| one.id.to_string()).collect::<Vec<_>>(), ["reminder.b"]);
}

#[tokio::test]
async fn a_run_that_is_cancelled_at_its_very_instant_either_runs_or_is_cancelled() {
    const RUNS: i64 = 200;
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    fleet.members("planner", 1).await;
    // Before the planner has found its partitions nothing is dispatched, and every cancelling would win.
    submit(&fleet, "first.1", fleet.now()).await.expect("submitted");
    fleet.end_of("first.1").await;
    let begin = fleet.now() + TimeDelta::seconds(2);
    for n in 0..RUNS {
        submit(&fleet, &format!("race.{n}"), begin + TimeDelta::milliseconds(5 * n))
            .await
            .expect("submitted");
    }
    let mut won = BTreeSet::new();
    for n in 0..RUNS {
        let wait = begin + TimeDelta::milliseconds(5 * n) - fleet.now();
        for_a_while(wait.to_std().unwrap_or_default()).await;
        let request = CancelRequest {
            run: id(&format!("race.{n}")),
            reason: Reason::ByOperator,
            by: "spec".to_owned(),
            at: fleet.now(),
        };
        if let Cancelling::Cancelled(record) = fleet.streams.cancel(&request).await.expect("an answer") {
            assert_eq!(record.note.as_deref(), Some("cancelled by spec"));
            assert!(won.insert(format!("race.{n}")));
        }
    }
    all_gone(&fleet).await;
    for n in 0..RUNS {
        let run = format!("race.{n}");
        let record = fleet.end_of(&run).await;
        let calls = fleet.target.calls_of(&run).len();
        match record.status {
            // It was waiting. One that has a fence was at a worker, which heard the request at once and stopped its attempt.
            RunState::Cancelled if won.contains(&run) && record.fence.is_none() => {
                assert_eq!(calls, 0, "{record:?}");
            }
            RunState::Cancelled => assert!(calls <= 1 && record.note.is_some(), "{record:?}"),
            RunState::Success => assert!(calls == 1 && !won.contains(&run), "{record:?}"),
            _ => panic!("{record:?}"),
        }
    }
}

#[tokio::test]
async fn what_can_never_be_a_run_goes_to_the_dead_letters_and_the_others_run() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let (good, when) = (task("ok").to_string(), "Cronfleet-Not-Before");
    let soon = (fleet.now() + TimeDelta::seconds(1)).to_rfc3339();
    let far = (fleet.now() + TimeDelta::days(400)).to_rfc3339();
    // A run of the name of one of them, which must keep its record.
    submit(&fleet, "taken.1", fleet.now()).await.expect("submitted");
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    assert_eq!(fleet.end_of("taken.1").await.status, RunState::Success);
    let cases = [
        ("default.garbage.unsaid", ("X-Other", "1"), good.as_str(), "garbage.unsaid", "no header"),
        ("default.garbage.words", (when, "tomorrow"), &good, "garbage.words", "is no instant"),
        ("default.garbage.far", (when, far.as_str()), &good, "garbage.far", "more than 366 days"),
        ("default.garbage.task", (when, &soon), "{\"target_ser", "garbage.task", "EOF"),
        ("nowhere.garbage.queue", (when, &soon), &good, "garbage.queue", "queue nowhere is not declared"),
        ("default.daily.20261124T020000Z", (when, &soon), &good, "", "reserved for planners"),
        ("default.da$ly.1", (when, &soon), &good, "", "its subject"),
        ("default.taken.1", (when, "tomorrow"), &good, "", "is no instant"),
    ];
    for (tail, header, body, run, words) in cases {
        let answer = client.request_with(&format!("cronfleet.delayed.{tail}"), header, body.as_bytes()).await;
        let sequence = serde_json::from_str::<Value>(&answer.payload).expect("JSON")["seq"].clone();
        let run = if run.is_empty() { format!("rejected.delayed-{sequence}") } else { run.to_owned() };
        let record = fleet.end_of(&run).await;
        assert_eq!((record.status, record.attempt), (RunState::Failed, 0), "{tail}");
        let message = record.error.clone().expect("an error").message;
        assert!(message.contains(words), "{tail}: {message}");
        let letter = fleet.dead_letter(&record).await;
        assert_eq!(letter.subject, format!("cronfleet.delayed.{tail}"));
        assert!(letter.task.is_some() || letter.raw.as_deref() == Some(body), "{letter:?}");
    }
    all_gone(&fleet).await;
    assert_eq!(fleet.record("taken.1").await.expect("a record").status, RunState::Success);
    assert_eq!(fleet.record("daily.20261124T020000Z").await, None, "the slot is free");
    submit(&fleet, "after.garbage", fleet.now()).await.expect("submitted");
    assert_eq!(fleet.end_of("after.garbage").await.status, RunState::Success);
}

#[tokio::test]
async fn what_a_planner_leaves_that_dies_between_two_of_its_writes_runs_once() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let queue = || "default".parse().expect("queue");
    let at = fleet.now() - TimeDelta::seconds(60);
    // Recorded, and not in the queue.
    submit(&fleet, "left.recorded", at).await.expect("submitted");
    let record = RunRecord::delayed(id("left.recorded"), at, queue(), fleet.now());
    fleet.streams.ledger().create(&record).await.expect("created");
    // Recorded and in the queue, and not deleted from what waits.
    submit(&fleet, "left.queued", at).await.expect("submitted");
    let record = RunRecord::delayed(id("left.queued"), at, queue(), fleet.now());
    fleet.streams.ledger().create(&record).await.expect("created");
    fleet.submit("left.queued", &task("ok")).await.expect("queued");
    // The same, and it has run meanwhile.
    let worker = fleet.worker(&[]);
    fleet.submit("left.ended", &task("ok")).await.expect("queued");
    fleet.end_of("left.ended").await;
    submit(&fleet, "left.ended", at).await.expect("submitted");
    let _planner = fleet.planner();
    all_gone(&fleet).await;
    for run in ["left.recorded", "left.queued", "left.ended"] {
        assert_eq!(fleet.end_of(run).await.status, RunState::Success, "{run}");
        assert_eq!(fleet.target.calls_of(run).len(), 1, "{run}");
    }
    drop(worker);
}

#[tokio::test]
async fn what_waits_survives_a_planner_and_a_server_that_are_killed() {
    const RUNS: i64 = 400;
    let mut fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 5s}}");
    let _worker = fleet.worker(&["--places", "16"]);
    let mut first = fleet.planner();
    let begin = fleet.now() + TimeDelta::seconds(2);
    let mut due = BTreeMap::new();
    for n in 0..RUNS {
        let at = begin + TimeDelta::milliseconds(20 * n);
        submit(&fleet, &format!("wait.{n}"), at).await.expect("submitted");
        due.insert(format!("wait.{n}"), at);
    }
    within(Duration::from_mins(1), "a tenth of the calls", async || {
        let calls = fleet.target.calls().len();
        if calls > 40 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    first.kill();
    let _second = fleet.planner();
    fleet.nats.restart().await;
    eventually("the rest of them", async || {
        let count = fleet.streams.delayed().count().await.map_err(|error| error.to_string())?;
        if count < 200 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    fleet.nats.restart().await;
    // What is submitted when the server is back is heard of by a planner that followed before.
    let at = fleet.now() + TimeDelta::seconds(1);
    submit(&fleet, "wait.after", at).await.expect("submitted");
    due.insert("wait.after".to_owned(), at);
    each_ran_once_and_not_before_its_instant(&fleet, &due).await;
}

#[tokio::test]
async fn twenty_thousand_that_are_due_within_seconds_are_queued_once_though_one_of_two_planners_is_killed() {
    const RUNS: i64 = 20_000;
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let begin = fleet.now() + TimeDelta::seconds(15);
    let due: BTreeMap<String, Timestamp> =
        (0..RUNS).map(|n| (format!("burst.{n}"), begin + TimeDelta::microseconds(250 * n))).collect();
    // Whole milliseconds, as they are kept.
    let due: BTreeMap<String, Timestamp> = due
        .into_iter()
        .map(|(run, at)| (run, Timestamp::from_timestamp_millis(at.timestamp_millis()).expect("an instant")))
        .collect();
    let submitted = stream::iter(&due)
        .map(|(run, at)| submit(&fleet, run, *at))
        .buffer_unordered(256)
        .filter(|result| std::future::ready(result.is_ok()))
        .count()
        .await;
    assert_eq!(submitted, due.len());
    let mut first = fleet.planner();
    let _second = fleet.planner();
    fleet.members("planner", 2).await;
    within(Duration::from_mins(3), "a part of them gone", async || {
        let count = fleet.streams.delayed().count().await.map_err(|error| error.to_string())?;
        if count < 16_000 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    first.kill();
    all_gone(&fleet).await;
    // Nobody has fetched any yet: each is in the queue, and in it once.
    let depth = fleet.streams.queue_depth(&"default".parse().expect("queue")).await.expect("the queue");
    assert_eq!(depth.waiting, due.len() as u64);
    let records = fleet.records().await;
    assert_eq!(records.len(), due.len());
    for stored in records {
        let record = stored.value;
        assert_eq!(
            (record.status, record.not_before),
            (RunState::Pending, Some(due[&record.id.to_string()]))
        );
        assert!(record.not_before.is_some_and(|at| record.created_at >= at), "{record:?}");
    }
    // That a worker runs each of so many is shown elsewhere; here, that these are tasks like any other.
    let _worker = fleet.worker(&["--places", "64"]);
    within(Duration::from_mins(1), "a thousand calls", async || {
        let calls = fleet.target.calls().len();
        if calls > 1_000 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    let calls: Vec<String> = fleet.target.calls().into_iter().map(|call| call.run).collect();
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), calls.len(), "none came twice");
}

#[tokio::test]
async fn a_fleet_that_was_made_before_goes_on_without_the_stream_and_init_adds_it() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    submit(&fleet, "forgotten.1", fleet.now() + TimeDelta::hours(1)).await.expect("submitted");
    let (mut planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    submit(&fleet, "before.1", fleet.now()).await.expect("submitted");
    assert_eq!(fleet.end_of("before.1").await.status, RunState::Success);
    let deleted = client.request("$JS.API.STREAM.DELETE.cronfleet_DELAYED", b"").await;
    assert!(deleted.payload.contains("\"success\":true"), "{deleted:?}");
    eventually("the planner says so", async || {
        if planner.said().contains("cronfleet_DELAYED does not exist") { Ok(()) } else { Err(planner.said()) }
    })
    .await;
    assert!(planner.is_running());
    let data = task("ok").to_string();
    let refused = fleet.try_cronfleet(&["submit", "later", "-d", &data, "--in", "1s"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cronfleet init"), "{refused:?}");
    let doctor = fleet.try_cronfleet(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("cronfleet_DELAYED"), "{doctor:?}");
    fleet.cronfleet(&["init"]);
    // Its sequences begin anew, below those the planner has seen.
    fleet.cronfleet(&["submit", "later", "-d", &data, "--in", "1s", "--key", "1"]);
    assert_eq!(fleet.end_of("later.1").await.status, RunState::Success);
    all_gone(&fleet).await;
}
