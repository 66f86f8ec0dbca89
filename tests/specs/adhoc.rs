//! Ad-hoc tasks: any NATS client's publish runs, once; nothing that was acknowledged is lost.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use harness::{Fleet, PlainClient, eventually, within};
use serde_json::json;
use shared::{run_record::Reason, run_state::RunState};
use std::time::Duration;
use streams::WriteError;

#[tokio::test]
async fn a_publish_of_any_nats_client_runs_and_its_target_is_told_which_attempt_it_is() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let task = r#"{"target_service":"target","action":"echo","parameters":{"tables":["trade_history"]}}"#;
    let answer = client.request("cronfleet.tasks.default.reindex.4711", task.as_bytes()).await;
    assert!(answer.payload.contains(r#""stream":"cronfleet_TASKS""#), "{answer:?}");
    let record = fleet.end_of("reindex.4711").await;
    assert_eq!(record.status, RunState::Success);
    assert_eq!(record.output.expect("output")["parameters"]["tables"][0], "trade_history");
    let calls = fleet.target.calls_of("reindex.4711");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].headers["idempotency-key"], "reindex.4711");
    assert_eq!(calls[0].headers["cronfleet-attempt"], "1");
    assert_eq!(calls[0].headers["cronfleet-fence"], calls[0].fence.to_string());
    assert_eq!(record.fence, Some(calls[0].fence));
    assert!(calls[0].headers["traceparent"].contains(&record.trace_id.expect("a trace")));
}

#[tokio::test]
async fn the_record_of_a_submission_begins_when_the_server_took_it_however_long_it_waited() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let task =
        json!({"target_service": "target", "action": "flaky", "retry": {"attempts": 2, "backoff": "100ms"}});
    fleet.submit("waits.1", &task).await.expect("submitted");
    let taken_by = fleet.now();
    let _worker = fleet.worker(&[]);
    fleet.end_of("waits.1").await;
    let run = "waits.1".parse().expect("a run id");
    for stored in fleet.streams.ledger().history(&run).await.expect("the history") {
        let record = stored.value;
        assert!(record.created_at <= taken_by, "{record:?}");
    }
}

#[tokio::test]
async fn the_same_key_is_refused_while_it_is_queued_or_running_and_dropped_once_it_is_done() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": 1500}});
    fleet.submit("reindex.once", &task).await.expect("the first");
    assert!(matches!(fleet.submit("reindex.once", &task).await, Err(WriteError::Occupied { .. })), "queued");
    let _worker = fleet.worker(&[]);
    eventually("the call", async || {
        if fleet.target.calls_of("reindex.once").is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(matches!(fleet.submit("reindex.once", &task).await, Err(WriteError::Occupied { .. })), "running");
    assert_eq!(fleet.end_of("reindex.once").await.status, RunState::Success);
    let queue = "default".parse().expect("queue");
    let run = "reindex.once".parse().expect("run");
    eventually("its place in the queue is free", async || match fleet.streams.queued(&queue, &run).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    fleet.submit("reindex.once", &task).await.expect("accepted, and dropped by the claim");
    eventually("the copy is dropped", async || match fleet.streams.queued(&queue, &run).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(fleet.target.calls_of("reindex.once").len(), 1, "it ran once");
    assert_eq!(fleet.life("reindex.once").await, [RunState::Running, RunState::Success]);
}

#[tokio::test]
async fn garbage_goes_to_the_dead_letters_with_a_reason_and_the_queue_goes_on() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    for (key, garbage, reason) in [
        ("truncated", "{\"target_service\":\"target\",\"act".as_bytes(), "EOF"),
        ("empty", b"".as_slice(), "EOF"),
        ("no-json", b"\xff\xfe\x00".as_slice(), "expected value"),
        ("no-work", b"{}".as_slice(), "neither"),
        (
            "unknown-field",
            br#"{"target_service":"a","action":"b","timeot":"5m"}"#.as_slice(),
            "did you mean `timeout`",
        ),
    ] {
        client.request(&format!("cronfleet.tasks.default.garbage.{key}"), garbage).await;
        let record = fleet.end_of(&format!("garbage.{key}")).await;
        assert_eq!((record.status, record.attempt), (RunState::Failed, 0), "{key}");
        let message = record.error.clone().expect("an error").message;
        assert!(message.contains(reason), "{key}: {message}");
        let letter = fleet.dead_letter(&record).await;
        assert_eq!(letter.raw.expect("as it came"), String::from_utf8_lossy(garbage), "{key}");
    }
    let task = json!({"target_service": "target", "action": "ok"});
    fleet.submit("after.garbage", &task).await.expect("submitted");
    assert_eq!(fleet.end_of("after.garbage").await.status, RunState::Success);
}

#[tokio::test]
async fn a_stranger_cannot_squat_on_a_slot() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let task = br#"{"target_service":"target","action":"ok"}"#;
    let answer = client.request("cronfleet.tasks.default.daily.20261124T020000Z", task).await;
    let sequence = serde_json::from_str::<serde_json::Value>(&answer.payload).expect("JSON")["seq"].clone();
    let record = fleet.end_of(&format!("rejected.seq-{sequence}")).await;
    assert!(record.error.expect("an error").message.contains("reserved for planners"));
    assert_eq!(fleet.record("daily.20261124T020000Z").await, None, "the slot is free");
    assert!(fleet.target.calls().is_empty());
}

#[tokio::test]
async fn a_submission_to_a_queue_nobody_declared_is_refused_at_once() {
    let fleet = Fleet::start().await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    for subject in [
        "cronfleet.tasks.nowhere.reindex.1",
        "cronfleet.tasks.default.reindex",
        "cronfleet.tasks.default.a.b.c",
    ] {
        let answer = client.request(subject, b"{}").await;
        assert!(answer.headers.contains("503"), "{subject}: no responders, {answer:?}");
    }
}

#[tokio::test]
async fn ten_thousand_runs_on_two_workers_one_of_them_killed_all_end_and_none_is_recorded_twice() {
    const RUNS: usize = 10_000;
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 5s}}");
    let mut first = fleet.worker(&["--places", "32"]);
    let _second = fleet.worker(&["--places", "32"]);
    fleet.members("worker", 2).await;
    let task = json!({"target_service": "target", "action": "ok"});
    let submitting = stream::iter(0..RUNS)
        .map(|n| {
            let (fleet, task) = (&fleet, &task);
            async move { fleet.submit(&format!("load.{n}"), task).await.map(|_| ()) }
        })
        .buffer_unordered(256)
        .collect::<Vec<_>>();
    let killing = async {
        within(Duration::from_mins(2), "a fifth of the calls", async || {
            let calls = fleet.target.calls().len();
            if calls > RUNS / 5 { Ok(()) } else { Err(calls.to_string()) }
        })
        .await;
        first.kill();
    };
    let (submitted, ()) = futures::join!(submitting, killing);
    assert!(submitted.iter().all(Result::is_ok), "every submission was acknowledged");
    within(Duration::from_mins(4), "the end of all runs", async || {
        let depth =
            fleet.streams.queue_depth(&"default".parse().expect("queue")).await.map_err(|e| e.to_string())?;
        if depth.waiting + depth.in_flight == 0 { Ok(()) } else { Err(format!("{depth:?}")) }
    })
    .await;
    let records = fleet.records().await;
    assert_eq!(records.len(), RUNS);
    let unfinished: Vec<_> =
        records.iter().filter(|stored| stored.value.status != RunState::Success).collect();
    assert!(unfinished.is_empty(), "{:?}", unfinished.first());
    // The target's own memory: what ran more than once ran as another attempt, with a higher fence.
    let mut calls: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
    for call in fleet.target.calls() {
        calls.entry(call.run).or_default().push((call.attempt, call.fence));
    }
    assert_eq!(calls.len(), RUNS, "every run reached the target");
    let mut repeated = 0;
    for (run, attempts) in calls.iter().filter(|(_, attempts)| attempts.len() > 1) {
        repeated += 1;
        let mut sorted = attempts.clone();
        sorted.sort_unstable();
        assert!(
            sorted.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1),
            "{run}: {attempts:?}"
        );
    }
    assert!(repeated <= 32, "only what the killed worker had in hand was repeated: {repeated}");
    // Recorded once: each run's life has exactly one end.
    for stored in records.iter().filter(|stored| stored.value.attempt > 1) {
        let life = fleet.life(&stored.value.id.to_string()).await;
        assert_eq!(life.iter().filter(|state| state.is_final()).count(), 1, "{life:?}");
    }
}

#[tokio::test]
async fn garbage_under_the_key_of_a_task_in_another_queue_does_not_make_it_vanish() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {other: {}}");
    let run = "cross.k1".parse().expect("run");
    let task = json!({"target_service": "target", "action": "ok"}).to_string();
    let submit = async |queue: &str, bytes: &[u8]| {
        fleet.streams.submit(&queue.parse().expect("queue"), &run, bytes, None).await.expect("acknowledged");
    };
    submit("other", task.as_bytes()).await;
    submit("default", b"{garbage").await;
    let _worker = fleet.worker(&[]);
    assert_eq!(fleet.end_of("cross.k1").await.reason, Some(Reason::Malformed));
    let _worker = fleet.worker(&["--queue", "other"]);
    let record = eventually("a record that says what became of the good task", async || {
        let records = fleet.records().await.into_iter().map(|stored| stored.value);
        records.into_iter().find(|record| record.id.name.as_str() == "rejected").ok_or("none".to_owned())
    })
    .await;
    assert!(record.error.as_ref().expect("an error").message.contains("cross.k1 has ended already"));
    assert!(
        fleet.dead_letter(&record).await.raw.expect("the task").contains("target_service"),
        "nothing is lost"
    );
}
