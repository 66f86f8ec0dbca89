//! `delete`: a schedule goes; what it did stays.

use std::process::ExitCode;

use clap::Args;
use shared::names::Name;

use super::{apply::patiently, changes::Fleet, known::unknown};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{line, talk},
};

const EXAMPLES: &str = "\
A run that is queued or running still comes to its end. The records of its runs and the history of its definition stay.

Examples:
  cronfleet delete nightly_vacuum";

/// The arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeleteArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    pub name: Name,
}

/// Deletes a schedule.
pub async fn run(args: DeleteArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let schedules = streams.schedules();
    let clock = streams.clock().as_ref();
    if !patiently(clock, || schedules.delete(&args.name)).await? {
        let fleet = Fleet::read(&streams).await?;
        return Err(unknown("schedule", args.name.as_str(), fleet.schedule_names().map(Name::as_str)));
    }
    line(format!("schedule/{}", args.name))?;
    talk(format!("schedule {} is deleted; its runs stay", args.name));
    Ok(Exit::Done.into())
}
