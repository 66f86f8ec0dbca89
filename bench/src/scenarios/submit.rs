//! `submit`: ad-hoc tasks published as fast as one client can, as `cronfleet submit` does it, against as many raw messages to a
//! stream with the same settings.

use shared::names::QueueName;

use crate::{Bench, NOTHING, Report, load};

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let raw = async || bench.streams.raw_publish(bench.n, load::MESSAGE_BYTES).await;
    (bench.say)("the raw rate of the server");
    let before = raw().await?;
    (bench.say)(&format!("{} submissions", bench.n));
    let began = bench.clock().elapsed();
    load::submit(&bench.streams, &QueueName::default_queue(), "submit", NOTHING, bench.n).await?;
    let took = bench.clock().elapsed().saturating_sub(began);
    let after = raw().await?;
    let rate = |seconds: f64| bench.n as f64 / seconds;
    let raw = f64::midpoint(rate(before.as_secs_f64()), rate(after.as_secs_f64()));
    Ok(Report::default().with_rates(rate(took.as_secs_f64()), raw))
}
