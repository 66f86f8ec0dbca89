//! Limits on three servers with three replicas, one of which dies.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use harness::{Cluster, Process, TargetService, process, within};
use serde_json::json;
use shared::{clock::SystemClock, run::RunId, run_state::RunState};
use streams::{Streams, WriteError};

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");
const RUNS: usize = 60;
const PATIENCE: Duration = Duration::from_mins(2);

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(cluster.folder()).env("NATS_URL", cluster.url());
    Process::start(name, command, cluster.folder())
}

#[tokio::test]
async fn with_three_replicas_a_key_never_runs_twice_at_once_while_a_server_is_killed_and_comes_back() {
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let text = format!(
        "targets: {{target: {{http: '{}', limit: {{key: parameters.symbol, max: 1}}}}}}\n\
         queues: {{default: {{ack_wait: 5s}}}}\n",
        target.url()
    );
    std::fs::write(&file, text).expect("written");
    let variables = [("NATS_URL", cluster.url())];
    let arguments = ["apply", "-f", file.to_str().expect("a path")];
    let applied = process::run(Path::new(BINARY), arguments, cluster.folder(), &variables);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let _workers: Vec<_> =
        (0..3).map(|n| start(&cluster, &format!("worker-{n}"), &["worker", "--places", "4"])).collect();
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    let queue = "default".parse().expect("queue");
    for n in 0..RUNS {
        let run: RunId = format!("load.{n}").parse().expect("run");
        let symbol = ["BTC", "ETH"][n % 2];
        let task = json!({"target_service": "target", "action": "slow", "parameters": {"ms": 150, "symbol": symbol}});
        within(PATIENCE, "the server's word that it has the run", async || {
            match streams.submit(&queue, &run, task.to_string().as_bytes(), None).await {
                Ok(_) | Err(WriteError::Occupied { .. }) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
    within(PATIENCE, "some calls", async || {
        let calls = target.calls().len();
        if calls > RUNS / 4 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    cluster.kill(1);
    harness::wait::for_a_while(Duration::from_secs(4)).await;
    cluster.restart(1).await;
    within(PATIENCE, "the end of every run", async || {
        let records = streams.ledger().list("load.*").await.map_err(|error| error.to_string())?;
        let open: Vec<_> = records
            .iter()
            .filter(|stored| !stored.value.status.is_final())
            .map(|stored| (stored.value.id.to_string(), stored.value.status, stored.value.reason))
            .collect();
        let is_done = |status: RunState| status == RunState::Success;
        let done: BTreeSet<RunId> = records
            .into_iter()
            .filter(|stored| is_done(stored.value.status))
            .map(|stored| stored.value.id)
            .collect();
        if done.len() == RUNS { Ok(()) } else { Err(format!("{} of {RUNS}: {open:?}", done.len())) }
    })
    .await;
    for symbol in ["BTC", "ETH"] {
        let most = target.most_at_once(|call| call.body["parameters"]["symbol"] == symbol);
        assert_eq!(most, 1, "{symbol}");
    }
}
