//! What waits, on three replicas: a server may die while instants come.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use chrono::TimeDelta;
use harness::{Cluster, Process, TargetService, process, within};
use serde_json::json;
use shared::{
    Timestamp,
    clock::{Clock, SystemClock},
    run::RunId,
    run_state::RunState,
};
use streams::{Streams, WriteError};

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");
const RUNS: i64 = 400;

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(cluster.folder()).env("NATS_URL", cluster.url());
    Process::start(name, command, cluster.folder())
}

#[tokio::test]
async fn with_three_replicas_what_waits_runs_at_its_instant_though_a_server_is_killed_meanwhile() {
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let text =
        format!("targets: {{target: {{http: '{}'}}}}\nqueues: {{default: {{ack_wait: 5s}}}}", target.url());
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("a path");
    let variables = [("NATS_URL", cluster.url())];
    let applied = process::run(Path::new(BINARY), ["apply", "-f", path], cluster.folder(), &variables);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let _planners = [start(&cluster, "planner-a", &["planner"]), start(&cluster, "planner-b", &["planner"])];
    let _worker = start(&cluster, "worker", &["worker"]);
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    let begin = SystemClock.now() + TimeDelta::seconds(5);
    let mut due = BTreeMap::new();
    for n in 0..RUNS {
        let run: RunId = format!("wait.{n}").parse().expect("a run id");
        let at = begin + TimeDelta::milliseconds(25 * n);
        submit_until_acknowledged(&streams, &run, at).await;
        due.insert(run, at);
    }
    within(Duration::from_mins(1), "some of the calls", async || {
        let calls = target.calls().len();
        if calls > 40 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    cluster.kill(1);
    harness::wait::for_a_while(Duration::from_secs(4)).await;
    cluster.restart(1).await;
    within(Duration::from_mins(2), "the end of every run", async || {
        let records = streams.ledger().list("wait.*").await.map_err(|error| error.to_string())?;
        let done = records.iter().filter(|stored| stored.value.status == RunState::Success).count();
        let waiting = streams.delayed().count().await.map_err(|error| error.to_string())?;
        if done == due.len() && waiting == 0 {
            Ok(())
        } else {
            Err(format!("{done} done, {waiting} waiting"))
        }
    })
    .await;
    let mut attempts = BTreeSet::new();
    for call in target.calls() {
        let at = due[&call.run.parse::<RunId>().expect("a run id")];
        assert!(call.began_ms >= at.timestamp_millis(), "{} came too early", call.run);
        assert!(attempts.insert((call.run.clone(), call.attempt)), "{} came twice", call.run);
    }
}

/// As a careful client does: again, until the server has said that it has it.
async fn submit_until_acknowledged(streams: &Streams, run: &RunId, at: Timestamp) {
    let task = json!({"target_service": "target", "action": "ok"}).to_string();
    let queue = "default".parse().expect("queue");
    within(Duration::from_mins(1), "the server's word that it has the run", async || {
        match streams.delayed().submit(&queue, run, at, task.as_bytes(), None).await {
            Ok(_) | Err(WriteError::Occupied { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
