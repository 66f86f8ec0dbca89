//! `latency`: a hundred submissions a second to a worker that has nothing else to do. How long from the publish until its
//! handler begins?

use std::{collections::HashMap, time::Duration};

use shared::{names::QueueName, run::RunId};

use crate::{Bench, Report, STAMP, load};

const BETWEEN: Duration = Duration::from_millis(10);
const END_WAIT: Duration = Duration::from_secs(30);
/// Submissions before those that count: the worker has made its connections then.
const FIRST: usize = 100;

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let queue = QueueName::default_queue();
    let _worker = bench.idle_worker(&queue)?;
    bench.pulls(&queue).await?;
    let task = load::task(STAMP).to_string();
    (bench.say)(&format!("{} submissions, 100 a second", bench.n));
    let mut published_us = HashMap::new();
    let mut at = bench.clock().elapsed();
    for n in 0..FIRST + bench.n {
        let run: RunId = format!("latency.{n}").parse()?;
        published_us.insert(run.clone(), (n, bench.clock().elapsed().as_micros() as f64));
        bench.streams.submit(&queue, &run, task.as_bytes(), None).await?;
        at += BETWEEN;
        bench.clock().sleep(at.saturating_sub(bench.clock().elapsed())).await;
    }
    let ended = async || {
        let records = bench.streams.ledger().list("latency.*").await?;
        let began: HashMap<RunId, f64> = records
            .into_iter()
            .filter_map(|stored| Some((stored.value.id, stored.value.output?["began_us"].as_f64()?)))
            .collect();
        Ok((began.len() == published_us.len()).then_some(began))
    };
    let began = bench.wait_for("the end of all runs", END_WAIT, ended).await?;
    let ms = published_us
        .iter()
        .filter(|(_, (n, _))| *n >= FIRST)
        .filter_map(|(run, (_, published))| Some((began.get(run)? - published) / 1_000.0))
        .collect();
    Ok(Report::default().with_latencies(ms))
}
