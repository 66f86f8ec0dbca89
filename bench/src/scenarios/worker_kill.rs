//! `worker-kill`: two workers under load, of which one is killed again and again and another put in its place. How long after the
//! kill is each run that it interrupted begun again? None may be lost, none recorded twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use shared::{names::QueueName, queue::QueueSettings, run_state::RunState};
use streams::Bytes;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{Bench, Report, load, target};

/// Longer than until a silent worker is known to be gone, so that it is what a run waits for.
const ACK_WAIT: Duration = Duration::from_secs(10);
const BETWEEN_KILLS: Duration = Duration::from_secs(2);
/// Calls take this long: a tenth of them less than until a late claim.
const CALL_MS: std::ops::Range<u64> = 200..700;
const PLACES: &str = "6";
const RUNS_PER_SECOND: u64 = 15;
const END_WAIT: Duration = Duration::from_mins(3);

#[derive(Deserialize)]
struct Request {
    run: String,
}

/// When each run was begun, each time; in elapsed time.
type Seen = Arc<Mutex<HashMap<String, Vec<Duration>>>>;

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let queue = QueueName::default_queue();
    let settings = QueueSettings { ack_wait: ACK_WAIT.into(), ..QueueSettings::default() };
    bench.streams.declare_queue(&queue, &settings).await?;
    let (seen, _answering) = service(bench).await?;
    let mut workers = [bench.worker_with(PLACES)?, bench.worker_with(PLACES)?];
    bench.pulls(&queue).await?;
    let stop = CancellationToken::new();
    let loading = tokio::spawn(submit(bench.streams.clone(), queue.clone(), stop.clone()));
    let mut killed_at = Vec::new();
    for kill in 0..bench.n {
        bench.clock().sleep(BETWEEN_KILLS).await;
        workers[kill % 2].kill();
        killed_at.push(bench.clock().elapsed());
        workers[kill % 2] = bench.worker_with(PLACES)?;
    }
    stop.cancel();
    let submitted = loading.await??;
    let ended = async || Ok((bench.streams.tasks_stored().await?.0 == 0).then_some(()));
    let _ = bench.wait_for("the end of all runs", END_WAIT, ended).await;

    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut restarted_ms: Vec<f64> = Vec::new();
    for pair in seen.values().flat_map(|begun| begun.windows(2)) {
        // Interrupted by the first kill after it was begun.
        if let Some(killed) = killed_at.iter().find(|killed| **killed > pair[0]) {
            restarted_ms.push(pair[1].saturating_sub(*killed).as_secs_f64() * 1_000.0);
        }
    }
    let mut double = 0;
    let mut good = 0;
    for record in bench.streams.ledger().list("kill.*").await? {
        let life = bench.streams.ledger().history(&record.value.id).await?;
        double += usize::from(life.iter().filter(|version| version.value.status.is_final()).count() > 1);
        good += usize::from(record.value.status == RunState::Success);
    }
    let report = Report {
        lost: Some(submitted.saturating_sub(good)),
        double: Some(double),
        interrupted: Some(restarted_ms.len()),
        ..Report::default()
    };
    Ok(report.with_latencies(restarted_ms))
}

/// A target that takes its time and notes each call itself.
async fn service(bench: &Bench) -> anyhow::Result<(Seen, AbortOnDropHandle<()>)> {
    let declared = serde_json::from_value(serde_json::json!({ "message": target::PREFIX }))?;
    bench.streams.catalog().apply_target(&target::NAME.parse()?, &declared).await?;
    let seen = Seen::default();
    let (noted, clock) = (Arc::clone(&seen), bench.streams.clock().clone());
    let answer = move |_action: String, payload: Bytes| {
        let (noted, clock) = (Arc::clone(&noted), clock.clone());
        async move {
            let run = serde_json::from_slice::<Request>(&payload)
                .map_or_else(|_| String::new(), |request| request.run);
            let number = run.rsplit('.').next().and_then(|key| key.parse::<u64>().ok()).unwrap_or_default();
            let began = clock.elapsed();
            noted.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default().push(began);
            let spread = CALL_MS.end - CALL_MS.start;
            clock.sleep(Duration::from_millis(CALL_MS.start + number * 37 % spread)).await;
            Ok(Bytes::from_static(b"{}"))
        }
    };
    let streams = bench.streams.clone();
    let answering = tokio::spawn(async move {
        let _ = streams.respond(target::NAME, target::PREFIX, answer, CancellationToken::new()).await;
    });
    Ok((seen, AbortOnDropHandle::new(answering)))
}

/// Submits a few runs a second until it is told to stop; how many.
async fn submit(
    streams: streams::Streams,
    queue: QueueName,
    stop: CancellationToken,
) -> anyhow::Result<usize> {
    let task = load::task("run").to_string();
    let mut submitted = 0;
    while !stop.is_cancelled() {
        let run = format!("kill.{submitted}").parse()?;
        streams.submit(&queue, &run, task.as_bytes(), None).await?;
        submitted += 1;
        streams.clock().sleep(Duration::from_millis(1_000 / RUNS_PER_SECOND)).await;
    }
    Ok(submitted)
}
