//! `retry`: a run that failed, again, under its own id.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use shared::{
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::dead::Retrying;

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
        refused => return Err(refusal(&run, &refused)),
    };
    if let Some(results) = results {
        return wait::for_end(&streams, &run, results, args.wait.timeout(), output).await;
    }
    output.one(&record, || run.to_string(), || runs::text(&record))?;
    Ok(Exit::Done.into())
}

/// Why a run is not retried, and what to do instead.
pub fn refusal(run: &RunId, refused: &Retrying) -> anyhow::Error {
    match refused {
        Retrying::Queued(record) | Retrying::Lives(record) => {
            anyhow!("{run} is {}: it has not failed, so there is nothing to retry", record.status)
        }
        Retrying::Unknown => {
            anyhow!("there is no run {run}; `cronfleet get dead` lists those that can be retried")
        }
        Retrying::Ended(record) => anyhow!("{run} is {}; {}", record.status, instead(record)),
        Retrying::NoLetter(record) => no_letter(record),
        Retrying::Unreadable(letter) => {
            let why = letter.run.error.as_ref().map_or("", |error| error.message.as_str());
            anyhow!(
                "the task of {run} cannot be understood, so it cannot be run again ({why}); `cronfleet describe dead {run}` \
                 shows what came: mend it and submit it under another key, `cronfleet submit {} -d @FILE`",
                run.name
            )
        }
        Retrying::NoQueue(queue) => {
            anyhow!("queue {queue} of {run} is not declared; add it under `queues:`, apply, and retry then")
        }
        Retrying::Occupied(Some(holder)) => anyhow!(
            "{holder} is queued or running, and runs of {} may not overlap; retry {run} when that has ended, or cancel it: \
             `cronfleet cancel {holder}`",
            run.name
        ),
        Retrying::Occupied(None) => {
            anyhow!(
                "another run of {} is queued or running, and they may not overlap; retry {run} when it has ended",
                run.name
            )
        }
        Retrying::WholeLives(whole) => anyhow!(
            "{run} is a part of {}, which is {}; retry it when the whole has ended",
            whole.id,
            whole.status
        ),
    }
}

fn instead(record: &RunRecord) -> String {
    let again = match &record.schedule {
        Some(schedule) => format!("`cronfleet trigger {schedule}` makes another run of its schedule"),
        None => format!("`cronfleet submit {} -d JSON` submits it anew, under another key", record.id.name),
    };
    let skipped = record.skipped_because().and(record.schedule.as_ref());
    match (record.status, skipped) {
        (RunState::Cancelled, Some(schedule)) => {
            format!("it was skipped: `cronfleet backfill {schedule}` runs slots that were")
        }
        (RunState::Cancelled, None) => format!("what was cancelled is not kept to be retried: {again}"),
        _ => format!("it is retried only if it failed: {again}"),
    }
}

fn no_letter(record: &RunRecord) -> anyhow::Error {
    let run = &record.id;
    if record.reason == Some(Reason::Shards) {
        return anyhow!(
            "{run} failed because parts of it did, and those have the dead letters: `cronfleet get dead --schedule {}`, then \
             retry them",
            run.name
        );
    }
    if record.attempt == 0 && record.schedule.is_some() {
        let why = record.error.as_ref().map_or("", |error| error.message.as_str());
        return anyhow!(
            "{run} failed before it was dispatched ({why}), so no task was kept; {}",
            instead(record)
        );
    }
    anyhow!(
        "{run} failed and its dead letter is not there: its worker is about to store it (try again in a moment), or it made \
         room for newer ones; {}",
        instead(record)
    )
}

/// Says in a few words why a run was left alone.
pub fn in_short(refused: &Retrying) -> Option<String> {
    Some(match refused {
        Retrying::Queued(_) => return None,
        Retrying::Unknown => "the ledger does not know it any more".to_owned(),
        Retrying::Lives(record) | Retrying::Ended(record) => format!("it is {}", record.status),
        Retrying::NoLetter(_) => "its dead letter is not there".to_owned(),
        Retrying::Unreadable(_) => "its task cannot be understood".to_owned(),
        Retrying::NoQueue(queue) => format!("queue {queue} is not declared"),
        Retrying::Occupied(Some(holder)) => format!("{holder} has not ended"),
        Retrying::Occupied(None) => "another run of its schedule has not ended".to_owned(),
        Retrying::WholeLives(whole) => format!("{} has not ended", whole.id),
    })
}
