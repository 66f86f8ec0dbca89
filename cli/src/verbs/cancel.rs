//! `cancel`: so that a run never runs.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use shared::{run::RunId, run_record::RunRecord, run_state::RunState};
use streams::{Streams, delayed::Cancelling};

use super::runs;
use crate::{GlobalArgs, exit::Exit, output::talk};

/// How often a cancelling whose answer was lost is repeated.
const ATTEMPTS_MAX: u32 = 4;
const AGAIN: std::time::Duration = std::time::Duration::from_millis(300);

const EXAMPLES: &str = "\
A run that waits for its instant (`submit --at`, `--in`) is removed, and recorded as CANCELLED, by_operator. If a planner \
dispatches it at the same moment, one of the two wins, and this says which.

Examples:
  cronfleet cancel reminder.4711";

/// The arguments of `cancel`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CancelArgs {
    /// The run: `name.key`
    pub run: RunId,
}

/// Cancels a run.
pub async fn run(args: CancelArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let run = args.run;
    let record = match cancel_delayed(&streams, &run).await? {
        Cancelling::Cancelled(record) => *record,
        Cancelling::TooLate(record) => bail!(too_late(&record)),
        // It may be cancelled already, by us or by somebody else.
        Cancelling::NotWaiting => match streams.ledger().get(&run).await? {
            Some(stored) if stored.value.status == RunState::Cancelled => {
                talk(format!("{run} was CANCELLED already"));
                stored.value
            }
            Some(stored) => bail!(too_late(&stored.value)),
            None => bail!(
                "there is no run {run} that waits for its instant; `cronfleet get delayed` lists those there are"
            ),
        },
    };
    global.output().one(&record, || run.to_string(), || runs::text(&record))?;
    Ok(Exit::Done.into())
}

async fn cancel_delayed(streams: &Streams, run: &RunId) -> anyhow::Result<Cancelling> {
    let mut attempt = 1;
    loop {
        // Repeating it is harmless: the record is created once.
        match streams.delayed().cancel(run).await {
            Err(error) if attempt < ATTEMPTS_MAX => {
                tracing::debug!(%error, "Cancelling again: {error}");
                streams.clock().sleep(AGAIN * attempt).await;
                attempt += 1;
            }
            result => return Ok(result?),
        }
    }
}

fn too_late(record: &RunRecord) -> String {
    format!(
        "{} does not wait for its instant any more, it is {}; nothing was cancelled",
        record.id, record.status
    )
}
