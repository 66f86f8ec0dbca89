//! The server dies and comes back: nothing that was acknowledged is lost.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use harness::{Fleet, wait::for_a_while, within};
use serde_json::json;
use shared::run_state::RunState;

#[tokio::test]
async fn a_server_killed_and_restarted_in_mid_load_loses_nothing_that_was_acknowledged() {
    const RUNS: usize = 3_000;
    let mut fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 5s}}");
    let _worker = fleet.worker(&["--places", "16"]);
    let _other = fleet.worker(&["--places", "16"]);
    fleet.members("worker", 2).await;
    let task = json!({"target_service": "target", "action": "ok"});
    let answered = AtomicUsize::new(0);
    let streams = fleet.streams.clone();
    let submit_one = |n: usize| {
        let (streams, task, answered) = (&streams, &task, &answered);
        async move {
            let run: shared::run::RunId = format!("load.{n}").parse().expect("run");
            let queue = "default".parse().expect("queue");
            let result = streams.submit(&queue, &run, task.to_string().as_bytes(), None).await;
            answered.fetch_add(1, Ordering::Relaxed);
            (n, result.is_ok())
        }
    };
    let submitting = stream::iter(0..RUNS).map(submit_one).buffer_unordered(16).collect::<Vec<_>>();
    let breaking = async {
        for part in 1..=2 {
            within(Duration::from_mins(2), "some answers", async || {
                let count = answered.load(Ordering::Relaxed);
                if count > RUNS / 4 * part { Ok(()) } else { Err(count.to_string()) }
            })
            .await;
            fleet.nats.restart().await;
        }
    };
    let (submitted, ()) = futures::join!(submitting, breaking);
    let acknowledged: Vec<usize> = submitted.iter().filter(|(_, ok)| *ok).map(|(n, _)| *n).collect();
    assert!(acknowledged.len() > RUNS / 2, "{} of {RUNS} were acknowledged", acknowledged.len());
    within(Duration::from_mins(3), "the end of every acknowledged run", async || {
        let records = fleet.streams.ledger().list(">").await.map_err(|error| error.to_string())?;
        let done = |n: &usize| {
            let id = format!("load.{n}");
            records
                .iter()
                .any(|stored| stored.value.status == RunState::Success && stored.value.id.to_string() == id)
        };
        let missing = acknowledged.iter().filter(|n| !done(n)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} missing")) }
    })
    .await;
    let mut attempts = std::collections::BTreeSet::new();
    for call in fleet.target.calls() {
        // A server that was killed forgets what it handed out last. Another worker may then begin it as the same attempt: by a
        // higher fence the target can tell.
        let attempt = (call.run.clone(), call.attempt, call.fence);
        assert!(attempts.insert(attempt), "{}: attempt {} reached the target twice", call.run, call.attempt);
    }
}

#[tokio::test]
async fn a_planner_and_a_worker_go_on_when_their_server_is_back() {
    let mut fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply(
        "targets: {target: {http: TARGET}}\n\
         schedules: {steady: {every: 1s, overlap: allow, missed: all, task: {target_service: target, action: ok}}}",
    );
    within(Duration::from_mins(1), "a call before", async || {
        if fleet.target.calls().is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    fleet.nats.kill();
    for_a_while(Duration::from_secs(3)).await;
    fleet.nats.restart().await;
    let back_at = fleet.now().timestamp_millis();
    within(Duration::from_mins(1), "calls after", async || {
        let after = fleet.target.calls().iter().filter(|call| call.began_ms > back_at).count();
        if after >= 5 { Ok(()) } else { Err(after.to_string()) }
    })
    .await;
    let mut slots: Vec<_> =
        fleet.records().await.into_iter().filter_map(|stored| stored.value.slot).collect();
    slots.sort();
    let gaps: Vec<_> = slots.windows(2).filter(|pair| (pair[1] - pair[0]).num_seconds() != 1).collect();
    assert!(gaps.is_empty(), "slots without a record, or twice: {gaps:?}");
}
