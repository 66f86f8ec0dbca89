//! `import`: definitions out of what other schedulers were told.

use std::{io::Write as _, process::ExitCode};

use anyhow::{Context, bail};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use shared::{cron::parse_zone, limits::DEFINITIONS_BYTES_MAX};

use super::{files::read_text, runs::counted};
use crate::{
    GlobalArgs,
    exit::Exit,
    import::{
        Names, crontab, kubernetes,
        print::{self, Source},
        xxl_job,
    },
    output::{Format, line, talk, write},
};

const EXAMPLES: &str = "\
What is printed is for `apply`. What could not be carried over is said in comments at its place, and on stderr with its line. What \
was suspended is printed commented out. Commands become entries of a worker's allow-list, which --commands writes; without it they \
stand as comments at the end.

Examples:
  crontab -l | cronfleet import crontab - > schedules.yaml
  cronfleet import crontab --system /etc/crontab --timezone Europe/Berlin --commands commands.yaml
  kubectl get cronjobs -A -o yaml | cronfleet import k8s-cronjob -
  cronfleet import xxl-job xxl_job_info.csv --timezone Asia/Shanghai | cronfleet apply -f - --dry-run";

/// The arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// What the files are of
    #[arg(value_enum, value_name = "SOURCE")]
    pub source: Kind,

    /// The files; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,

    /// The zone of what names none: that of the machine or cluster it is from [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub timezone: Option<Tz>,

    /// The crontab has a user in each line, as /etc/crontab and the files in /etc/cron.d have
    #[arg(long)]
    pub system: bool,

    /// Write the allow-list to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub commands: Option<String>,
}

/// Where schedules come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A crontab
    Crontab,
    /// Resources of kind `CronJob` of Kubernetes, YAML or JSON
    #[value(name = "k8s-cronjob")]
    Kubernetes,
    /// The rows of XXL-JOB's table `xxl_job_info`, JSON or CSV with a header
    XxlJob,
}

fn zone(text: &str) -> Result<Tz, String> {
    parse_zone(text).map_err(|error| error.to_string())
}

/// Reads the files and prints the definitions.
pub fn run(args: &ImportArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if args.system && args.source != Kind::Crontab {
        bail!("--system is about crontabs; leave it out");
    }
    if args.files.iter().filter(|file| *file == "-").count() > 1 {
        bail!("`-` is given more than once; stdin can be read once");
    }
    let mut names = Names::default();
    let sources =
        args.files.iter().map(|file| read(args, file, &mut names)).collect::<anyhow::Result<Vec<_>>>()?;
    for note in print::notes(&sources) {
        talk(format!("note: {note}"));
    }
    let items = || sources.iter().flat_map(|source| &source.items);
    if items().next().is_none() {
        bail!("nothing was found in {} that could be a schedule", args.files.join(", "));
    }
    let (text, allow_list) = (print::definitions(&sources, &remarks(args))?, print::allow_list(&sources)?);
    let has_commands = items().filter_map(|item| item.entry.as_ref()).any(|entry| entry.command.is_some());
    // First, so that what is said about it is true.
    if let Some(file) = args.commands.as_ref().filter(|_| has_commands) {
        write_new(file, &allow_list)?;
        talk(format!("the allow-list is in {file}; look at it, then start workers with --commands {file}"));
    }
    show(&text, &sources, global.output().format)?;
    if has_commands
        && args.commands.is_none()
        && matches!(global.output().format, Format::Table | Format::Yaml)
    {
        write(&format!("\n{}", print::commented(&allow_list)))?;
    }
    if text.len() > DEFINITIONS_BYTES_MAX {
        talk(format!(
            "the definitions have {} bytes; `apply` reads at most {DEFINITIONS_BYTES_MAX} from a file: split them",
            text.len()
        ));
    }
    let read = items().filter(|item| item.entry.is_some()).count() as u64;
    talk(format!("{}, {}", counted(read, "schedule"), counted(print::notes(&sources).len() as u64, "note")));
    Ok(Exit::Done.into())
}

fn read(args: &ImportArgs, file: &str, names: &mut Names) -> anyhow::Result<Source> {
    let shown = if file == "-" { "stdin" } else { file };
    let text = read_text(file).with_context(|| format!("cannot read {shown}"))?;
    if text.len() > DEFINITIONS_BYTES_MAX {
        bail!("{shown} has more than {DEFINITIONS_BYTES_MAX} bytes: split it");
    }
    let zone = args.timezone;
    let items = match args.source {
        Kind::Crontab => crontab::read(&text, crontab::Options { has_users: args.system, zone }, names),
        Kind::Kubernetes => kubernetes::read(&text, zone, names),
        Kind::XxlJob => {
            xxl_job::read(&text, zone, names).map_err(|reason| anyhow::anyhow!("{shown}: {reason}"))?
        }
    };
    Ok(Source { shown: shown.to_owned(), items })
}

/// What holds for the whole file.
fn remarks(args: &ImportArgs) -> Vec<String> {
    let zone = match args.timezone {
        Some(zone) => format!("What names no zone is read in {}.", zone.name()),
        None => "What names no zone is read in UTC; if the machine or cluster it is from has another, import it with --timezone.".to_owned(),
    };
    let of_source = match args.source {
        Kind::Crontab => "Cron never tries again, starts a line while it still runs, and leaves out what a machine slept through: so it is here, \
             until you write `retry`, `overlap` and `missed` as you would have them. Its commands begin in the user's home; here in /, unless \
             `cwd` on the allow-list says else."
            .to_owned(),
        Kind::Kubernetes => "A Job's pods are gone here: a worker runs the command on its own machine, from its allow-list.".to_owned(),
        Kind::XxlJob => "Executors speak XXL-JOB's own protocol; a target here is asked over HTTP: POST <http>/actions/<action>.".to_owned(),
    };
    vec![
        "Read the notes, then: cronfleet apply -f FILE --dry-run".to_owned(),
        zone,
        of_source,
        "What had no time limit gets the longest there is for an attempt, 24h.".to_owned(),
    ]
}

fn show(text: &str, sources: &[Source], format: Format) -> anyhow::Result<()> {
    let entries = || {
        let all = sources.iter().flat_map(|source| &source.items).filter_map(|item| item.entry.as_ref());
        all.filter(|entry| entry.is_active)
    };
    match format {
        Format::Table | Format::Yaml => write(text),
        Format::Name => entries().try_for_each(|entry| line(&entry.name)),
        Format::Json => line(serde_json::to_string_pretty(&print::value(sources)?)?),
    }
}

/// Writes a file that is not there yet: an allow-list in use is nothing to be written over by the way.
fn write_new(file: &str, text: &str) -> anyhow::Result<()> {
    let mut opened = std::fs::File::create_new(file)
        .with_context(|| format!("cannot write {file}; name a file that is not there yet"))?;
    opened.write_all(text.as_bytes()).with_context(|| format!("cannot write {file}"))
}
