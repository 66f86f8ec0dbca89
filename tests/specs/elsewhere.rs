//! Workers of one queue that may not run the same commands, and queues that `up` leaves to others.

use harness::{Fleet, eventually, scripts::Scripts};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason},
    run_state::RunState,
};

use crate::up::Up;

fn task() -> Value {
    json!({"command": ["greet"], "retry": {"attempts": 1}})
}

#[tokio::test]
async fn a_command_that_a_worker_may_not_run_goes_to_one_of_its_queue_that_may_and_nothing_of_it_is_spent() {
    let fleet = Fleet::start().await;
    let file = Scripts::of(&fleet).with("greet", "echo '{\"hello\": true}'", "").file();
    let _without = [fleet.worker(&[]), fleet.worker(&[])];
    let _with = fleet.worker(&["--commands", &file, "--places", "2"]);
    fleet.members("worker", 3).await;
    let runs: Vec<String> = (1..=12).map(|number| format!("greet.{number}")).collect();
    for run in &runs {
        fleet.submit(run, &task()).await.expect("submitted");
    }
    for run in &runs {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.attempt), (RunState::Success, 1), "{record:?}");
        assert_eq!(record.output, Some(json!({"hello": true})));
    }
}

#[tokio::test]
async fn a_command_that_no_living_worker_of_its_queue_may_run_ends_its_run_at_once() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {other: {}}");
    let file = Scripts::of(&fleet).with("greet", "true", "").file();
    let _without = fleet.worker(&[]);
    let _elsewhere = fleet.worker(&["--queue", "other", "--commands", &file]);
    fleet.members("worker", 2).await;
    fleet.submit("greet.1", &task()).await.expect("submitted");
    let record = fleet.end_of("greet.1").await;
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Permanent)));
    assert_eq!(record.error.map(|error| error.kind), Some(ErrorKind::CommandNotAllowed));
}

#[tokio::test]
async fn up_leaves_a_queue_to_the_workers_of_others_if_it_is_told_to() {
    let up = Up::new();
    let _up = up.start(&["--except", "archive"]);
    up.address().await;
    let file = up.data().join("queues.yaml");
    std::fs::write(&file, "queues: {archive: {}, reports: {}}").expect("written");
    eventually("the queues are declared", async || {
        let applied = up.cronfleet(&["apply", "-f", file.to_str().expect("a path")]);
        if applied.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&applied.stderr).into_owned())
        }
    })
    .await;
    let served = eventually("its workers", async || {
        let listed = up.cronfleet(&["get", "workers", "-o", "json"]);
        let workers: Vec<Value> =
            serde_json::from_slice(&listed.stdout).map_err(|error| error.to_string())?;
        let queues =
            workers.iter().flat_map(|worker| worker["queues"].as_array().cloned().unwrap_or_default());
        let served: Vec<String> = queues.filter_map(|queue| queue.as_str().map(str::to_owned)).collect();
        if served.iter().any(|queue| queue == "reports") { Ok(served) } else { Err(format!("{served:?}")) }
    })
    .await;
    assert!(served.iter().any(|queue| queue == "default"), "{served:?}");
    assert!(!served.iter().any(|queue| queue == "archive"), "{served:?}");
}
