//! `diff`: what `apply` would change, line by line.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use shared::{definitions::Definitions, text_diff::unified};

use super::{
    changes::{Change, Fleet, Outcome},
    files::FileArgs,
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Format, line, printable, talk, write},
    table::Colour,
};

const EXAMPLES: &str = "\
Exit code 0: no difference. 1: there is one (or an error, which is on stderr). What is in the fleet and not in the files \
is left out, as `apply` without --prune leaves it alone.

Examples:
  cronfleet diff -f schedules.yaml
  cronfleet diff -f schedules.yaml -o name    only which definitions differ";

/// The arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// What to compare with the fleet.
    #[command(flatten)]
    pub files: FileArgs,
}

#[derive(Debug, Serialize)]
struct Difference {
    #[serde(flatten)]
    change: Change,
    diff: String,
}

/// Shows the differences.
pub async fn run(args: DiffArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let files = args.files.read()?;
    let streams = global.connect().await?;
    let fleet = Fleet::read(&streams).await?;
    files.check_references(&fleet.definitions)?;
    let files = files.definitions;
    let changes =
        fleet.changes(&files, false).into_iter().filter(|change| change.change != Outcome::Unchanged);
    let differences = changes
        .map(|change| {
            let before = match fleet
                .unreadable
                .iter()
                .find(|(name, _)| change.kind == "schedule" && name.as_str() == change.name)
            {
                Some((_, reason)) => format!("# cannot be understood: {reason}\n"),
                None => as_yaml(&fleet.definitions, &change)?,
            };
            Ok(Difference { diff: unified(&before, &as_yaml(&files, &change)?), change })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let output = global.output();
    match output.format {
        Format::Table => differences.iter().try_for_each(|difference| show(difference, output.colours))?,
        Format::Name => differences.iter().try_for_each(|difference| line(difference.change.path()))?,
        Format::Json | Format::Yaml => {
            output.list(
                &differences,
                |difference| difference.change.path(),
                || crate::table::Table::new(&[]),
                "",
            )?;
        }
    }
    if differences.is_empty() {
        talk("no difference");
        return Ok(Exit::Done.into());
    }
    Ok(Exit::Error.into())
}

fn show(difference: &Difference, colours: bool) -> anyhow::Result<()> {
    let path = difference.change.path();
    let mut text = format!("--- fleet/{path}\n+++ files/{path}\n");
    for line in difference.diff.lines().map(printable) {
        let colour = match line.as_bytes().first() {
            Some(b'-') => Some(Colour::Red),
            Some(b'+') => Some(Colour::Green),
            Some(b'@') => Some(Colour::Cyan),
            _ => None,
        };
        text.push_str(&colour.filter(|_| colours).map_or_else(|| line.clone(), |colour| colour.paint(&line)));
        text.push('\n');
    }
    write(&text)
}

/// One definition as it stands in a file; empty if it is not there.
fn as_yaml(definitions: &Definitions, change: &Change) -> anyhow::Result<String> {
    let name = &change.name;
    let yaml = match change.kind {
        "queue" => definitions.queues.get(&name.parse()?).map(serde_saphyr::to_string),
        "target" => definitions.targets.get(&name.parse()?).map(serde_saphyr::to_string),
        "calendar" => definitions.calendars.get(&name.parse()?).map(serde_saphyr::to_string),
        _ => definitions.schedules.get(&name.parse()?).map(serde_saphyr::to_string),
    };
    Ok(yaml.transpose()?.unwrap_or_default())
}
