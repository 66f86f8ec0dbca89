//! Three servers, three replicas of every stream: the same code, and one server may die.

use std::{collections::BTreeSet, process::Command, time::Duration};

use futures::{StreamExt, stream};
use harness::{Cluster, Process, TargetService, process, within};
use serde_json::json;
use shared::{clock::SystemClock, run::RunId, run_state::RunState};
use streams::{Streams, WriteError};

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");
const RUNS: usize = 400;

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(cluster.folder()).env("NATS_URL", cluster.url());
    Process::start(name, command, cluster.folder())
}

#[tokio::test]
async fn with_three_replicas_one_server_may_be_killed_and_come_back_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::start().await;
    let target = TargetService::start();
    let file = cluster.folder().join("definitions.yaml");
    let text = format!(
        "targets: {{target: {{http: '{}'}}}}\nqueues: {{default: {{ack_wait: 5s}}}}\nschedules:\n  \
         locked: {{every: 1s, task: {{target_service: target, action: slow, parameters: {{ms: 300}}}}}}\n  \
         free: {{every: 1s, overlap: allow, missed: all, task: {{target_service: target, action: ok}}}}\n",
        target.url()
    );
    std::fs::write(&file, text).expect("written");
    let variables = [("NATS_URL", cluster.url())];
    let applied = process::run(
        std::path::Path::new(BINARY),
        ["apply", "-f", file.to_str().expect("a path")],
        cluster.folder(),
        &variables,
    );
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let _planners = [start(&cluster, "planner-a", &["planner"]), start(&cluster, "planner-b", &["planner"])];
    let _workers = [start(&cluster, "worker-a", &["worker"]), start(&cluster, "worker-b", &["worker"])];
    let streams = Streams::connect(&cluster.settings(), SystemClock::shared()).await.expect("a connection");
    within(Duration::from_mins(1), "runs of both schedules", async || {
        let names: BTreeSet<String> = target.calls().into_iter().map(|call| call.action).collect();
        if names.len() == 2 { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;

    let submitting = stream::iter(0..RUNS)
        .map(|n| submit_until_acknowledged(&streams, n))
        .buffer_unordered(8)
        .collect::<Vec<RunId>>();
    let breaking = async {
        within(Duration::from_mins(1), "some of the load", async || {
            let calls = target.calls().iter().filter(|call| call.run.starts_with("load.")).count();
            if calls > RUNS / 10 { Ok(()) } else { Err(calls.to_string()) }
        })
        .await;
        cluster.kill(1);
        harness::wait::for_a_while(Duration::from_secs(4)).await;
        cluster.restart(1).await;
    };
    let (acknowledged, ()) = futures::join!(submitting, breaking);

    within(Duration::from_mins(2), "the end of every acknowledged run", async || {
        let records = streams.ledger().list("load.*").await.map_err(|error| error.to_string())?;
        let done: BTreeSet<RunId> = records
            .into_iter()
            .filter(|stored| stored.value.status == RunState::Success)
            .map(|stored| stored.value.id)
            .collect();
        let missing = acknowledged.iter().filter(|run| !done.contains(*run)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} missing")) }
    })
    .await;
    within(Duration::from_mins(1), "some slots of both schedules", async || {
        let mut fewest = usize::MAX;
        for schedule in ["locked.*", "free.*"] {
            let records = streams.ledger().list(schedule).await.map_err(|error| error.to_string())?;
            fewest = fewest.min(records.len());
        }
        if fewest > 10 { Ok(()) } else { Err(fewest.to_string()) }
    })
    .await;
    assert_slots_complete(&streams, &target).await;
}

/// Submits one run as a careful client does: again, with the same key, until the server has said that it has it. While
/// a stream has no leader there are refusals and no answers; a refusal because it is there already is an answer too.
async fn submit_until_acknowledged(streams: &Streams, n: usize) -> RunId {
    let run: RunId = format!("load.{n}").parse().expect("run");
    let task = json!({"target_service": "target", "action": "ok"}).to_string();
    let queue = "default".parse().expect("queue");
    within(Duration::from_mins(2), "the server's word that it has the run", async || {
        match streams.submit(&queue, &run, task.as_bytes(), None).await {
            Ok(_) | Err(WriteError::Occupied { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    run
}

/// Every slot of both schedules has one record; the locked one never ran twice at once.
async fn assert_slots_complete(streams: &Streams, target: &TargetService) {
    for schedule in ["locked", "free"] {
        let records = streams.ledger().list(&format!("{schedule}.*")).await.expect("records");
        let mut slots: Vec<_> = records.iter().filter_map(|stored| stored.value.slot).collect();
        slots.sort();
        let gaps: Vec<_> = slots.windows(2).filter(|pair| (pair[1] - pair[0]).num_seconds() != 1).collect();
        assert!(gaps.is_empty(), "{schedule}: slots without a record, or twice: {gaps:?}");
    }
    let mut locked: Vec<_> = target.calls().into_iter().filter(|call| call.action == "slow").collect();
    locked.sort_by_key(|call| call.began_ms);
    for pair in locked.windows(2) {
        let other_attempt = pair[0].run == pair[1].run && pair[0].fence < pair[1].fence;
        let in_turn = pair[0].ended_ms.is_some_and(|ended| ended <= pair[1].began_ms);
        assert!(in_turn || other_attempt, "{} overlaps {}", pair[0].run, pair[1].run);
    }
}
