//! `apply`: the fleet becomes as the files say.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use shared::definitions::Definitions;
pub use streams::operate::patiently;
use streams::{
    Streams,
    operate::apply::{Done, write_all},
};

use super::{
    changes::{Change, Fleet, Outcome, summary},
    files::FileArgs,
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::talk,
    table::{Cell, Colour, Table},
};

const EXAMPLES: &str = "\
A file is applied as a whole or not at all if something in it cannot be understood. Applying the same file again changes \
nothing. A change takes effect at once; runs that are queued or running keep the task they were made with.

Examples:
  cronfleet apply -f schedules.yaml
  cronfleet apply -f schedules.yaml --dry-run
  cronfleet apply -f targets.yaml -f schedules.yaml --prune
  generate | cronfleet apply -f - --target-url storage=http://10.0.0.7:9101";

/// The arguments of `apply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApplyArgs {
    /// What to apply.
    #[command(flatten)]
    pub files: FileArgs,

    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Delete schedules that are in the fleet and not in the files; targets, queues and calendars stay
    #[arg(long)]
    pub prune: bool,
}

/// Applies the files.
pub async fn run(args: ApplyArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let files = args.files.read()?;
    let streams = global.connect().await?;
    let fleet = Fleet::read(&streams).await?;
    let mut stays = fleet.definitions.clone();
    if args.prune {
        // What will be gone cannot be followed.
        stays.schedules.clear();
    }
    files.check_references(&stays)?;
    let files = files.definitions;
    if args.prune && files.schedules.is_empty() && fleet.schedule_names().next().is_some() {
        bail!(
            "the files hold no schedule, so --prune would delete all {}; delete them one by one with `cronfleet delete` if that is meant",
            fleet.schedule_names().count()
        );
    }
    let planned = fleet.changes(&files, args.prune);
    let done = if args.dry_run { planned } else { apply(&streams, &files, planned, global).await? };
    show(&done, global)?;
    let now = global.clock().now();
    for (name, schedule) in &files.schedules {
        if schedule.after().is_none() && schedule.next_after(now).is_none() {
            talk(format!("warning: schedule {name} has no slot left: it never runs again"));
        }
    }
    talk(format!("{}{}", summary(&done), if args.dry_run { " (dry run: nothing was written)" } else { "" }));
    Ok(Exit::Done.into())
}

fn show(changes: &[Change], global: &GlobalArgs) -> anyhow::Result<()> {
    let table = || {
        let mut table = Table::new(&["DEFINITION", "CHANGE"]);
        for change in changes {
            let colour = match change.change {
                Outcome::Created => Some(Colour::Green),
                Outcome::Changed => Some(Colour::Yellow),
                Outcome::Unchanged => Some(Colour::Dim),
                Outcome::Deleted => Some(Colour::Red),
            };
            table.row(vec![change.path().into(), Cell::coloured(change.change.as_str(), colour)]);
        }
        table
    };
    global.output().list(changes, Change::path, table, "the files hold no definitions")
}

/// Writes one definition after the other. An error ends it, after saying what was done before.
async fn apply(
    streams: &Streams,
    files: &Definitions,
    planned: Vec<Change>,
    global: &GlobalArgs,
) -> anyhow::Result<Vec<Change>> {
    let Done { changes, failed } = write_all(streams, files, planned).await;
    let Some((change, error)) = failed else { return Ok(changes) };
    show(&changes, global)?;
    Err(anyhow::Error::new(error).context(format!(
        "{} could not be applied, nor was what follows it; apply the files again",
        change.path()
    )))
}
