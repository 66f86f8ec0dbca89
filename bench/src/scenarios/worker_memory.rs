//! `worker-memory`: very many runs through one worker, never more than a few thousand in its queue. How much memory does it take
//! early on, and at the end?

use shared::names::QueueName;

use crate::{Bench, NOTHING, Report, load};

/// Runs that are submitted before the queue is looked at again.
const PORTIONS: usize = 200;
/// What may be in the queue when more is submitted.
const QUEUED_MAX: u64 = 5_000;
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let queue = QueueName::default_queue();
    let worker = bench.idle_worker(&queue)?;
    bench.pulls(&queue).await?;
    let mut rss = Vec::with_capacity(PORTIONS);
    let mut submitted = 0;
    for portion in 1..=PORTIONS {
        let runs = bench.n * portion / PORTIONS - submitted;
        load::submit(&bench.streams, &queue, &format!("memory-{portion}"), NOTHING, runs).await?;
        submitted += runs;
        let left = if portion == PORTIONS { 0 } else { QUEUED_MAX };
        while bench.streams.tasks_stored().await?.0 > left {
            bench.clock().sleep(LOOK).await;
        }
        rss.push(worker.rss_mb()?);
        if portion % (PORTIONS / 10) == 0 {
            (bench.say)(&format!("{submitted} runs, {:.1} MB", worker.rss_mb()?));
        }
    }
    let mean = |tenth: usize| {
        let samples = &rss[PORTIONS * tenth / 10..PORTIONS * (tenth + 1) / 10];
        samples.iter().sum::<f64>() / samples.len() as f64
    };
    let (early, late) = (mean(1), mean(9));
    Ok(Report {
        rss_mb: Some(late),
        rss_early_mb: Some(early),
        rss_growth_pct: Some((late - early) / early * 100.0),
        ..Report::default()
    })
}
