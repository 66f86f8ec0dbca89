//! `retry`: a run that failed, again, under its own id.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use shared::run::RunId;
pub use streams::operate::refusals::in_short;
use streams::{dead::Retrying, operate::refusals::refusal};

use super::{
    machine::person,
    runs,
    wait::{self, WaitArgs},
};
use crate::{GlobalArgs, exit::Exit, output::talk};

const EXAMPLES: &str = "\
The run goes back to its queue under its own id: its record becomes PENDING, its task is the one in its dead letter, and the \
letter goes when it is queued. Attempts are counted on; the task's own number of attempts is granted anew. Nothing is run \
twice: of two people who ask at once one is told that it is queued already, and asking again after an interruption goes on \
where that was.

A run of a schedule whose runs may not overlap is refused while another one is queued or running. What ended SUCCESS or \
CANCELLED is not retried: `trigger` makes a run of a schedule, `submit` an ad-hoc one.

Examples:
  cronfleet get dead
  cronfleet retry daily_data_archive.20261124T180000Z
  cronfleet retry reindex.4711 --wait --timeout 5m";

/// The arguments of `retry`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RetryArgs {
    /// The run, as `get dead` writes it
    pub run: RunId,

    /// Whether its end is waited for.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Retries a run.
pub async fn run(args: RetryArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let (run, output) = (args.run, global.output());
    // Listen before asking, so that not even the first change is missed.
    let results = if args.wait.wait { Some(streams.results_of(&run).await?) } else { None };
    let record = match streams.retry(&run, &person()).await? {
        Retrying::Queued(record) => record,
        Retrying::Lives(record) if record.retried.is_some() => {
            talk(format!("{run} was retried before, and is {}", record.status));
            record
        }
        refused => return Err(anyhow!(refusal(&run, &refused))),
    };
    if let Some(results) = results {
        return wait::for_end(&streams, &run, results, args.wait.timeout(), output).await;
    }
    output.one(&record, || run.to_string(), || runs::text(&record))?;
    Ok(Exit::Done.into())
}
