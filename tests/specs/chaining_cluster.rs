//! Chains and shards on three replicas, where the consumer that reads the ledger dies with its server.

use std::{path::Path, process::Command, time::Duration};

use harness::{Cluster, Process, TargetService, process, within};
use shared::{after::run_after, clock::SystemClock, run::RunId, run_record::RunRecord, run_state::RunState};
use streams::Streams;

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(cluster.folder()).env("NATS_URL", cluster.url());
    Process::start(name, command, cluster.folder())
}

fn cronfleet(cluster: &Cluster, arguments: &[&str]) {
    let done = process::run(Path::new(BINARY), arguments, cluster.folder(), &[("NATS_URL", cluster.url())]);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

async fn records(streams: &Streams) -> Result<Vec<RunRecord>, String> {
    let stored = streams.ledger().list(">").await.map_err(|error| error.to_string())?;
    Ok(stored.into_iter().map(|stored| stored.value).collect())
}

fn whole_and_good<'a>(records: &'a [RunRecord], name: &'a str) -> impl Iterator<Item = &'a RunRecord> {
    let of_name = records.iter().filter(move |run| run.id.name.as_str() == name && run.shard.is_none());
    of_name.filter(|run| run.status == RunState::Success)
}

#[tokio::test]
async fn with_three_replicas_chains_and_shards_lose_nothing_though_a_server_is_killed_meanwhile() {
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let task = "task: {target_service: target, action: ok}";
    let text = format!(
        "targets: {{target: {{http: '{}'}}}}\nqueues: {{default: {{ack_wait: 5s}}}}\nschedules:\n  \
         first: {{every: 1s, overlap: allow, missed: all, {task}}}\n  \
         second: {{after: {{schedule: first}}, overlap: allow, {task}}}\n  \
         third: {{after: {{schedule: second}}, overlap: allow, shards: 3, {task}}}\n",
        target.url()
    );
    std::fs::write(&file, text).expect("written");
    cronfleet(&cluster, &["apply", "-f", file.to_str().expect("a path")]);
    let _planners = [start(&cluster, "planner-a", &["planner"]), start(&cluster, "planner-b", &["planner"])];
    let _workers = [start(&cluster, "worker-a", &["worker"]), start(&cluster, "worker-b", &["worker"])];
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    let progress = async |count: usize| {
        within(Duration::from_mins(1), &format!("{count} ends of chains"), async || {
            let records = records(&streams).await?;
            let found = whole_and_good(&records, "third").count();
            if found >= count { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    };
    progress(3).await;
    cluster.kill(1);
    progress(8).await;
    cronfleet(&cluster, &["delete", "first"]);
    let records = within(Duration::from_mins(1), "the end of every chain", async || {
        let records = records(&streams).await?;
        let open = records.iter().filter(|run| !run.status.is_final()).count();
        let counts = ["first", "second", "third"].map(|name| whole_and_good(&records, name).count());
        if open == 0 && counts[0] == counts[1] && counts[1] == counts[2] {
            Ok(records)
        } else {
            Err(format!("{open} open, {counts:?}"))
        }
    })
    .await;
    let is_good =
        |run: &RunId| records.iter().any(|record| record.id == *run && record.status == RunState::Success);
    for first in whole_and_good(&records, "first") {
        let second = run_after(&"second".parse().expect("name"), &first.id);
        let third = run_after(&"third".parse().expect("name"), &second);
        assert!(is_good(&second) && is_good(&third), "{}", first.id);
        let parts =
            records.iter().filter(|run| run.shard.as_ref().is_some_and(|shard| shard.parent == third));
        assert_eq!(parts.count(), 3, "{third}");
    }
}
