//! Places and queues: shared by weight, lent, and asked for again when a pull was lost.

use std::time::Duration;

use harness::{Fleet, PlainClient, eventually, within};
use serde_json::{Value, json};
use shared::run_state::RunState;

const PATIENCE: Duration = Duration::from_mins(2);

fn slow(ms: u64) -> Value {
    json!({"target_service": "target", "action": "slow", "parameters": {"ms": ms}})
}

async fn submit(fleet: &Fleet, queue: &str, run: &str, task: &Value) {
    let (queue, run) = (queue.parse().expect("queue"), run.parse().expect("run"));
    fleet.streams.submit(&queue, &run, task.to_string().as_bytes(), None).await.expect("submitted");
}

async fn all_succeed(fleet: &Fleet, name: &str, count: usize) {
    within(PATIENCE, &format!("the end of all runs of {name}"), async || {
        let records =
            fleet.streams.ledger().list(&format!("{name}.*")).await.map_err(|error| error.to_string())?;
        let done = records.iter().filter(|stored| stored.value.status == RunState::Success).count();
        if done == count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
}

#[tokio::test]
async fn a_light_queue_is_served_beside_a_flooded_one_and_places_are_shared_by_weight() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {heavy: {}, light: {}, idle: {}}");
    for n in 0..300 {
        submit(&fleet, "heavy", &format!("heavy.{n}"), &slow(40)).await;
        if n < 100 {
            submit(&fleet, "light", &format!("light.{n}"), &slow(40)).await;
        }
    }
    let _worker = fleet.worker(&["--queue", "heavy=3,light", "--queue", "idle", "--places", "4"]);
    let weights = eventually("the worker", async || {
        let workers = fleet.cronfleet_json(&["get", "workers"]);
        workers.get(0).cloned().ok_or("none".to_owned())
    })
    .await;
    assert_eq!(
        (&weights["weights"]["heavy"], &weights["weights"]["light"]),
        (&json!(3), &json!(1)),
        "{weights}"
    );
    all_succeed(&fleet, "light", 100).await;
    let mut calls = fleet.target.calls();
    calls.sort_by_key(|call| call.began_ms);
    let first: Vec<_> = calls.iter().take(200).collect();
    let heavy = first.iter().filter(|call| call.run.starts_with("heavy.")).count();
    assert!((130..170).contains(&heavy), "{heavy} of 200 are of the queue that has three parts of four");
    all_succeed(&fleet, "heavy", 300).await;
    assert_eq!(
        fleet.target.most_at_once(|_| true),
        4,
        "places are never exceeded, and a queue without work lends its own"
    );
}

#[tokio::test]
async fn one_place_serves_three_queues_and_one_that_is_declared_later() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {one: {}, two: {}}");
    let _worker = fleet.worker(&[
        "--queue", "one", "--queue", "two", "--queue", "later", "--queue", "default", "--places", "1",
    ]);
    for n in 0..10 {
        for queue in ["one", "two", "default"] {
            submit(&fleet, queue, &format!("{queue}.{n}"), &slow(10)).await;
        }
    }
    for queue in ["one", "two", "default"] {
        all_succeed(&fleet, queue, 10).await;
    }
    fleet.apply("queues: {later: {}}");
    submit(&fleet, "later", "later.1", &slow(10)).await;
    all_succeed(&fleet, "later", 1).await;
    assert_eq!(fleet.target.most_at_once(|_| true), 1);
}

#[tokio::test]
async fn a_consumer_that_is_deleted_while_runs_wait_is_noticed_and_no_place_is_lost() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&["--places", "2"]);
    submit(&fleet, "default", "before.1", &slow(10)).await;
    all_succeed(&fleet, "before", 1).await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    for round in 0..3 {
        let answer = client.request("$JS.API.CONSUMER.DELETE.cronfleet_TASKS.default", b"").await;
        assert!(answer.payload.contains("\"success\":true"), "{answer:?}");
        for n in 0..6 {
            submit(&fleet, "default", &format!("during{round}.{n}"), &slow(200)).await;
        }
        fleet.cronfleet(&["init"]);
        all_succeed(&fleet, &format!("during{round}"), 6).await;
    }
    assert_eq!(fleet.target.most_at_once(|_| true), 2, "all places are used, none is used twice");
}

#[tokio::test]
async fn limits_of_a_queue_that_are_changed_count_for_what_comes_next() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {max_in_flight: 1, ack_wait: 30s}}");
    let _workers: Vec<_> = (0..2).map(|_| fleet.worker(&["--places", "4"])).collect();
    for n in 0..4 {
        submit(&fleet, "default", &format!("one.{n}"), &slow(100)).await;
    }
    all_succeed(&fleet, "one", 4).await;
    assert_eq!(fleet.target.most_at_once(|_| true), 1, "the server hands out one at a time");
    fleet.apply("queues: {default: {max_in_flight: 100, ack_wait: 2s}}");
    for n in 0..8 {
        submit(&fleet, "default", &format!("many.{n}"), &slow(5_000)).await;
    }
    all_succeed(&fleet, "many", 8).await;
    assert_eq!(fleet.target.most_at_once(|call| call.run.starts_with("many.")), 8);
    let calls = fleet.target.calls().iter().filter(|call| call.run.starts_with("many.")).count();
    assert_eq!(calls, 8, "nobody is thought silent who has not heard of the shorter wait");
}
