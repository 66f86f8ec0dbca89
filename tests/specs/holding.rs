//! A worker that cannot renew its hold on a run has stopped its attempt before another may begin, also one that never got a
//! single renewal through.

use std::{path::Path, process::Command, time::Duration};

use harness::{Cluster, Fleet, PlainClient, Process, Proxy, TargetService, eventually, process, within};
use serde_json::{Value, json};
use shared::{clock::SystemClock, run_state::RunState};
use streams::Streams;

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");
const PATIENCE: Duration = Duration::from_mins(2);

fn hanging() -> Value {
    json!({"target_service": "target", "action": "hang"})
}

/// Longer than two requests that get no answer take together, so that asking alone never finds the hold lost.
#[tokio::test]
async fn a_worker_that_is_cut_off_before_its_first_renewal_stops_although_its_acknowledge_wait_is_long() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 40s}}");
    let way = Proxy::to(&fleet.nats.url());
    let _cut_off = fleet.spawn_with("worker", &["worker"], &[("NATS_URL", way.url())]);
    fleet.submit_until_called("held.1", &hanging()).await;
    eventually("its claim", async || match fleet.record("held.1").await {
        Some(record) if record.status == RunState::Running => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    way.cut();
    let _next = fleet.worker(&[]);
    within(PATIENCE, "the next attempt, by the other worker", async || {
        if fleet.target.calls_of("held.1").len() == 2 { Ok(()) } else { Err("one call".to_owned()) }
    })
    .await;
    fleet.target.assert_never_two_at_once("held");
}

#[tokio::test]
async fn a_worker_whose_server_has_lost_the_others_stops_although_every_renewal_is_refused_at_once() {
    let ack_wait = Duration::from_secs(9);
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let text = format!(
        "targets: {{target: {{http: '{}'}}}}\nqueues: {{default: {{ack_wait: {}s}}}}\n",
        target.url(),
        ack_wait.as_secs()
    );
    std::fs::write(&file, text).expect("written");
    let arguments = ["apply", "-f", file.to_str().expect("a path")];
    let applied =
        process::run(Path::new(BINARY), arguments, cluster.folder(), &[("NATS_URL", cluster.url())]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    let alone = follower(&cluster).await;
    let mut command = Command::new(BINARY);
    command.arg("worker").current_dir(cluster.folder()).env("NATS_URL", cluster.url_of(alone));
    let _worker = Process::start("worker", command, cluster.folder());
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    let (queue, run) = ("default".parse().expect("queue"), "held.1".parse().expect("run"));
    within(PATIENCE, "the server's word that it has the run", async || {
        let submitted = streams.submit(&queue, &run, hanging().to_string().as_bytes(), None).await;
        submitted.map_err(|error| error.to_string())
    })
    .await;
    within(
        PATIENCE,
        "the call",
        async || {
            if target.calls().len() == 1 { Ok(()) } else { Err("none".to_owned()) }
        },
    )
    .await;

    let others: Vec<usize> = (0..3).filter(|number| *number != alone).collect();
    for other in &others {
        cluster.kill(*other);
    }
    let cut_off_ms = streams.clock().now().timestamp_millis();
    let dropped_ms = within(PATIENCE, "its request to be dropped", async || {
        target.calls()[0].dropped_ms.ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let held = dropped_ms - cut_off_ms;
    assert!(
        held < ack_wait.as_millis() as i64,
        "another may begin after {ack_wait:?}; it held on for {held} ms"
    );

    for other in others {
        cluster.restart(other).await;
    }
    within(PATIENCE, "the next attempt", async || {
        if target.calls().len() > 1 { Ok(()) } else { Err("one call".to_owned()) }
    })
    .await;
    target.assert_never_two_at_once("held");
}

/// One of three servers that does not lead the queue's consumer.
async fn follower(cluster: &Cluster) -> usize {
    within(PATIENCE, "a leader of the queue", async || {
        let mut client = PlainClient::connect(&cluster.url_of(0)).await;
        let answer = client.request("$JS.API.CONSUMER.INFO.cronfleet_TASKS.default", b"").await;
        let info: Value = serde_json::from_str(&answer.payload).map_err(|error| error.to_string())?;
        let leader = info["cluster"]["leader"].as_str().ok_or("none")?.to_owned();
        (0..3).find(|number| cluster.name_of(*number) != leader).ok_or(leader)
    })
    .await
}
