//! `bench-worker`: a worker whose handlers do nothing, so that `bench` measures the fleet and no target.

use std::process::ExitCode;

use serde_json::{Value, json};
use shared::clock::SharedClock;
use worker::executors::in_process::InProcess;

use super::worker::{WorkerArgs, run_with};
use crate::GlobalArgs;

/// Works until it is asked to stop.
pub async fn run(args: WorkerArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    run_with(args, handlers(global.clock())?, global).await
}

fn handlers(clock: SharedClock) -> anyhow::Result<InProcess> {
    Ok(InProcess::default()
        .with(bench::NOTHING.parse()?, |_, _| std::future::ready(Ok(Value::Null)))
        // Says when it was begun.
        .with(bench::STAMP.parse()?, move |_, _| {
            let began = u64::try_from(clock.elapsed().as_micros()).unwrap_or_default();
            std::future::ready(Ok(json!({ "began_us": began })))
        }))
}
