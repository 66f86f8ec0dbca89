//! The overlap policies on three replicas, where a message that was acknowledged is removed a moment later.

use std::{path::Path, process::Command, time::Duration};

use harness::{Cluster, Process, TargetService, process, within};
use shared::{
    clock::SystemClock,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::Streams;

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(cluster.folder()).env("NATS_URL", cluster.url());
    Process::start(name, command, cluster.folder())
}

async fn so_many(streams: &Streams, schedule: &str, count: usize, counts: impl Fn(&RunRecord) -> bool) {
    within(Duration::from_mins(1), &format!("{count} runs of {schedule}"), async || {
        let runs =
            streams.ledger().list(&format!("{schedule}.*")).await.map_err(|error| error.to_string())?;
        let found = runs.iter().filter(|stored| counts(&stored.value)).count();
        if found >= count { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn with_three_replicas_slots_wait_and_replace_and_never_two_run_at_once() {
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let text = format!(
        "targets: {{target: {{http: '{}'}}}}\nqueues: {{default: {{ack_wait: 5s}}}}\nschedules:\n  \
         waits: {{every: 1s, overlap: buffer_one, task: {{target_service: target, action: slow, parameters: {{ms: 1500}}}}}}\n  \
         newest: {{every: 2s, overlap: replace, task: {{target_service: target, action: hang}}}}\n",
        target.url()
    );
    std::fs::write(&file, text).expect("written");
    let variables = [("NATS_URL", cluster.url())];
    let apply = ["apply", "-f", file.to_str().expect("a path")];
    let applied = process::run(Path::new(BINARY), apply, cluster.folder(), &variables);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let _planners = [start(&cluster, "planner-a", &["planner"]), start(&cluster, "planner-b", &["planner"])];
    let _workers = [start(&cluster, "worker-a", &["worker"]), start(&cluster, "worker-b", &["worker"])];
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    let succeeded = |run: &RunRecord| run.status == RunState::Success;
    let replaced = |run: &RunRecord| run.reason == Some(Reason::Replaced);
    so_many(&streams, "waits", 2, succeeded).await;
    so_many(&streams, "newest", 2, replaced).await;
    cluster.kill(1);
    so_many(&streams, "waits", 4, succeeded).await;
    so_many(&streams, "newest", 3, replaced).await;
    target.assert_never_two_at_once("waits");
    target.assert_never_two_at_once("newest");
}
