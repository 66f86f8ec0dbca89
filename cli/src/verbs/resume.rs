//! `resume`: the end of a pause.

use std::process::ExitCode;

use clap::Args;
use shared::{names::Name, pause::PauseState};
use streams::operate::pausing::change;

use super::{machine::person, trigger::check_known, when::utc};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{line, talk},
};

const EXAMPLES: &str = "\
Slots from now on run again. Those that passed in the pause stay as they are recorded: CANCELLED, `paused`. What runs \
already is no error.

Examples:
  cronfleet resume daily_data_archive
  cronfleet backfill daily_data_archive --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z --dry-run";

/// The arguments of `resume`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ResumeArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    pub name: Name,
}

/// Resumes a schedule.
pub async fn run(args: ResumeArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let now = streams.clock().now();
    check_known(&streams, &args.name).await?;
    let (was, written) = change(&streams, &args.name, |found| {
        found.standing(now).map(|_| PauseState::Resumed { by: person() })
    })
    .await?;
    line(format!("schedule/{}", args.name))?;
    match (was.standing(now), written) {
        (Some(was), Some(_)) => talk(format!(
            "schedule {} runs again; it was {} since {}",
            args.name,
            was.pause.words(),
            utc(was.since)
        )),
        _ => talk(format!("schedule {} is not paused; nothing was changed", args.name)),
    }
    Ok(Exit::Done.into())
}
