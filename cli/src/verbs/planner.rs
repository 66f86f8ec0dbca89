//! `planner`: the process that dispatches what is due.

use std::process::ExitCode;

use clap::Args;
use planner::{Planner, PlannerSettings};

use super::machine::host;
use crate::{GlobalArgs, exit::Exit, signals};

const EXAMPLES: &str = "\
Run two or more on different machines: they share the schedules, and take over from one that stops or dies. SIGTERM or \
SIGINT stops it: it gives up its share, and the others take it at once.

Examples:
  cronfleet planner
  NATS_URL=nats://n1,nats://n2,nats://n3 cronfleet planner --log info,planner=debug";

/// The arguments of `planner`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlannerArgs {}

/// Plans until it is asked to stop.
pub async fn run(_: PlannerArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let stages = signals::listen()?;
    let streams = tokio::select! {
        streams = global.connect_patiently("cronfleet-planner") => streams?,
        () = stages.drain.cancelled() => return Ok(Exit::Done.into()),
    };
    let namespace = streams.names().namespace().clone();
    tracing::info!(%namespace, version = env!("CARGO_PKG_VERSION"), "Planning the schedules of `{namespace}`");
    let planner = Planner::new(&PlannerSettings { host: host() }, streams.clone());
    // On the pool, not on this thread; asked twice, it is not waited for: its leases run out by themselves.
    let mut running = tokio::spawn(planner.run(stages.drain.clone()));
    tokio::select! {
        ended = &mut running => ended??,
        () = stages.abort.cancelled() => {
            running.abort();
            return Ok(Exit::Error.into());
        }
    }
    streams.close().await;
    tracing::info!("Stopped planning");
    Ok(Exit::Done.into())
}
