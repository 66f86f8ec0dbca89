//! Writes to the ledger that share their answers: each is stored or refused by itself, and none is lost with its answer.

use std::time::Duration;

use futures::{StreamExt, stream};
use harness::{Cluster, Nats, PlainClient, within};
use serde_json::{Value, json};
use shared::{
    clock::{Clock, SystemClock},
    names::QueueName,
    run::RunId,
    run_record::RunRecord,
    run_state::RunEvent,
};
use streams::{
    Streams,
    ledger::{Creation, Overwritten},
    topology::Replicas,
};

/// Many times as many as have answers of their own.
const WRITES: usize = 300;
const AT_ONCE: usize = 200;

fn record(n: usize) -> RunRecord {
    let id: RunId = format!("together.{n}").parse().expect("a run id");
    RunRecord::pending(id, QueueName::default_queue(), SystemClock.now())
}

fn ended(record: &RunRecord) -> RunRecord {
    let now = SystemClock.now();
    let started = record.apply(RunEvent::Started, now).expect("starts");
    started.apply(RunEvent::Succeeded, now).expect("ends")
}

/// Of every three one is written over nothing, one over what is there, and one over what is there no more.
async fn each_by_itself(streams: &Streams) {
    let ledger = streams.ledger();
    let mut over = vec![0; WRITES];
    for n in (0..WRITES).filter(|n| n % 3 != 0) {
        let Creation::Created(revision) = ledger.create(&record(n)).await.expect("created") else {
            panic!("{n} was there")
        };
        over[n] = revision;
    }
    for n in (0..WRITES).filter(|n| n % 3 == 2) {
        ledger.update(&record(n).noting("by somebody else"), over[n]).await.expect("updated");
    }
    let shared = streams.shared_writes();
    let (ledger, shared, over) = (&ledger, &shared, &over);
    let writes = stream::iter(0..WRITES).map(|n| async move {
        (n, ledger.write_shared(shared, &ended(&record(n)), over[n]).await.expect("an answer"))
    });
    let written: Vec<(usize, Overwritten)> = writes.buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(written.len(), WRITES);
    for (n, overwritten) in written {
        let stored = ledger.get(&record(n).id).await.expect("readable").expect("a record").value;
        let is_stale = n % 3 == 2;
        let expected = if is_stale { Overwritten::Stale } else { Overwritten::Stored };
        assert_eq!((overwritten, stored.status.is_final()), (expected, !is_stale), "{n}: {stored:?}");
    }
}

#[tokio::test]
async fn each_is_stored_or_refused_by_itself() {
    let nats = Nats::start().await;
    let streams = nats.connect().await;
    streams.init(Replicas::One).await.expect("made");
    each_by_itself(&streams).await;
}

#[tokio::test]
async fn each_is_stored_or_refused_by_itself_on_three_replicas() {
    let cluster = Cluster::start().await;
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    streams.init(Replicas::Three).await.expect("made");
    each_by_itself(&streams).await;
}

#[tokio::test]
async fn a_ledger_that_takes_no_batches_is_written_all_the_same() {
    let nats = Nats::start().await;
    let streams = nats.connect().await;
    streams.init(Replicas::One).await.expect("made");
    let mut client = PlainClient::connect(&nats.url()).await;
    let stream = "KV_cronfleet_runs";
    let info = client.request(&format!("$JS.API.STREAM.INFO.{stream}"), b"").await;
    let info: Value = serde_json::from_str(&info.payload).expect("JSON");
    let mut config = info["config"].clone();
    assert_eq!(config["allow_batched"], json!(true), "{config}");
    config["allow_batched"] = json!(false);
    let answer =
        client.request(&format!("$JS.API.STREAM.UPDATE.{stream}"), config.to_string().as_bytes()).await;
    assert!(!answer.payload.contains("\"error\""), "{}", answer.payload);
    each_by_itself(&streams).await;
}

#[tokio::test]
async fn what_was_under_way_when_a_server_died_is_found_out_and_written_once() {
    let mut cluster = Cluster::start().await;
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    streams.init(Replicas::Three).await.expect("made");
    let (ledger, shared) = (streams.ledger(), streams.shared_writes());
    let writes = |from: usize| {
        let (ledger, shared) = (ledger.clone(), shared.clone());
        stream::iter(from..from + 10 * WRITES)
            .map(move |n| {
                let (ledger, shared) = (ledger.clone(), shared.clone());
                async move {
                    let end = ended(&record(n));
                    let written = within(Duration::from_mins(1), "a write that goes through", async || {
                        let written = ledger.write_shared(&shared, &end, 0).await;
                        written.map_err(|error| error.to_string())
                    })
                    .await;
                    assert_eq!(written, Overwritten::Stored, "{end:?} over {:?}", ledger.get(&end.id).await);
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
    };
    let under_way = tokio::spawn(writes(0));
    within(Duration::from_mins(1), "some that are written", async || {
        let found = ledger.get(&record(WRITES).id).await.map_err(|error| error.to_string())?;
        found.map(|_| ()).ok_or_else(|| "none".to_owned())
    })
    .await;
    cluster.kill(0);
    under_way.await.expect("all are stored");
    for n in [0, WRITES, 10 * WRITES - 1] {
        let versions = within(Duration::from_mins(1), "a history", async || {
            ledger.history(&record(n).id).await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(versions.len(), 1, "{n} was written more than once: {versions:?}");
    }
}
