//! `dispatch`: schedules that are all due in the same second, and no worker. How many runs a second does one planner
//! record and publish, and how many messages a second does the server take at all?

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::second_after;
use crate::{Bench, Report, load};

const WRITTEN_PER_SECOND: i64 = 1_500;
const DISPATCH_WAIT: Duration = Duration::from_mins(2);

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    bench.target().await?;
    let _planner = bench.planner()?;
    bench.planners_share(1).await?;
    let writing = TimeDelta::seconds(5 + i64::try_from(bench.n)? / WRITTEN_PER_SECOND);
    let slot = second_after(bench.clock().now(), writing)?;
    let fields = || json!({ "at": slot, "overlap": "allow" });
    let schedules = (0..bench.n).map(|n| load::schedule(&format!("dispatch-{n}"), fields()));
    bench.schedules(schedules).await?;
    (bench.say)(&format!("{} schedules are due at {slot}", bench.n));
    anyhow::ensure!(bench.clock().now() < slot, "writing the schedules took longer than until their slot");
    let stored = async || {
        let (count, last) = bench.streams.tasks_stored().await?;
        Ok((count >= bench.n as u64).then_some(last))
    };
    let last = bench.wait_for("the last task", DISPATCH_WAIT, stored).await?;
    let took = (last - slot).to_std()?;
    (bench.say)("the raw rate of the server");
    let raw = bench.streams.raw_publish(bench.n, load::MESSAGE_BYTES).await?;
    let rate = |took: Duration| bench.n as f64 / took.as_secs_f64();
    Ok(Report { last_ms: Some(took.as_secs_f64() * 1_000.0), ..Report::default() }
        .with_rates(rate(took), rate(raw)))
}
