//! `describe`: all that is known of a schedule or a run.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;
use shared::{
    Timestamp,
    names::Name,
    run::RunId,
    run_log::{LogBatch, LogLine, Progress},
    run_record::RunRecord,
};
use streams::{
    ReadError, Streams,
    backfills::{BackfillProgress, BackfillRequest},
    bucket::Stored,
    dead::DeadLetter,
};

use super::{
    backfill::progress_line,
    dead::{self, letter_text},
    get::{ScheduleItem, mark_cycles, written},
    known::unknown,
    logs,
    progress::{RunItem, with_progress},
    reader, runs, unbegun,
    when::{in_zone, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Output, printable},
    table::{Cell, Table},
};

/// Slots that are shown ahead.
const SLOTS: usize = 5;
/// Backfills that are shown back.
const BACKFILLS: usize = 3;
/// Lines of a run's log that are shown back.
const LINES: usize = 10;
/// Runs that are shown back.
const RUNS: usize = 10;

const EXAMPLES: &str = "\
Examples:
  cronfleet describe schedule daily_data_archive
  cronfleet describe run daily_data_archive.20261124T020000Z
  cronfleet describe dead reindex.4711
  cronfleet describe run reindex.4711 -o json | jq .output";

/// The arguments of `describe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DescribeArgs {
    /// What to describe.
    #[command(subcommand)]
    pub what: What,
}

/// What can be described.
#[derive(Debug, Subcommand)]
pub enum What {
    /// A schedule: its definition, its next slots, its latest runs
    Schedule {
        /// The schedule
        #[arg(value_name = "NAME")]
        name: Name,
    },
    /// A run: its record, its history, its dead letter, the last it said
    Run {
        /// The run, as `name.key`
        #[arg(value_name = "RUN")]
        id: RunId,
    },
    /// A dead letter: the whole task, and all attempts with their errors
    Dead {
        /// The run, as `name.key`
        #[arg(value_name = "RUN")]
        id: RunId,
    },
}

/// Describes.
pub async fn run(args: DescribeArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    match args.what {
        What::Schedule { name } => schedule(&streams, global.output(), &name).await?,
        What::Run { id } => describe_run(&streams, global.output(), &id).await?,
        What::Dead { id } => dead::describe(&streams, global.output(), &id).await?,
    }
    Ok(Exit::Done.into())
}

#[derive(Debug, Serialize)]
struct ScheduleDescription {
    #[serde(flatten)]
    item: ScheduleItem,
    slots: Vec<Timestamp>,
    runs: Vec<RunRecord>,
    /// The latest, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backfills: Vec<BackfillProgress>,
}

async fn schedule(streams: &Streams, output: Output, name: &Name) -> anyhow::Result<()> {
    let now = streams.clock().now();
    let versions = streams.schedules().list().await?;
    let names: Vec<Name> = versions.iter().map(|version| version.name.clone()).collect();
    let mut items: Vec<ScheduleItem> =
        versions.into_iter().filter_map(|version| ScheduleItem::of(version, now)).collect();
    mark_cycles(&mut items);
    let Some(mut item) = items.into_iter().find(|item| item.name == *name) else {
        return Err(unknown("schedule", name.as_str(), names.iter().map(Name::as_str)));
    };
    item.paused = streams.schedules().pause(name).await?.standing(now);
    let mut backfills = streams.backfills().of(name).await?;
    backfills.drain(..backfills.len().saturating_sub(BACKFILLS));
    let calendar = match item.definition.as_ref().and_then(|schedule| schedule.calendar.as_ref()) {
        Some(calendar) => streams.catalog().calendar(calendar).await?,
        None => None,
    };
    let slots = item.definition.iter().flat_map(|schedule| schedule.slots_on(calendar.as_ref(), now));
    let slots = slots.take(SLOTS).map(|(slot, _)| slot.instant()).collect();
    let stored = streams.ledger().list(&format!("{name}.*")).await?;
    let mut runs: Vec<RunRecord> = stored.into_iter().map(|stored| stored.value).collect();
    runs.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    runs.truncate(RUNS);
    let description = ScheduleDescription { item, slots, runs, backfills };
    let text = || schedule_text(&description, now, output.colours);
    output.one(&description, || name.to_string(), text)
}

fn schedule_text(description: &ScheduleDescription, now: Timestamp, colours: bool) -> String {
    let ScheduleDescription { item, slots, runs, backfills } = description;
    let mut text =
        format!("schedule {}, revision {}, in force since {}\n", item.name, item.revision, utc(item.since));
    if let Some(paused) = &item.paused {
        let words = printable(&paused.pause.words());
        let _ = writeln!(text, "{words} (since {}): its slots are recorded and not run", utc(paused.since));
    }
    for backfill in backfills {
        let BackfillRequest { id, from, to, by, .. } = &backfill.request;
        let (range, how) = (format!("{} to {}", utc(*from), utc(*to)), progress_line(backfill));
        let _ = writeln!(text, "{id}, {range}, asked by {}: {}", printable(by), printable(&how));
    }
    if let Some(reason) = &item.invalid {
        let _ = writeln!(
            text,
            "\nits definition cannot be understood or followed, so it is not planned: {}",
            printable(reason)
        );
    }
    if let Some(schedule) = &item.definition {
        let words = schedule.in_words(reader::language(None));
        let _ = writeln!(text, "due: {} ({}): {words}\n", written(schedule), schedule.timezone.name());
        for line in serde_saphyr::to_string(schedule).unwrap_or_default().lines() {
            let _ = writeln!(text, "  {}", printable(line));
        }
        let mut table = Table::new(&["NEXT SLOTS", "UTC"]);
        for slot in slots {
            table.row(vec![in_zone(*slot, schedule.timezone).into(), utc(*slot).into()]);
        }
        let coming = match schedule.after() {
            Some(after) => format!("it has no slots: it follows the runs of {}\n", after.schedule),
            None if slots.is_empty() => "no slot is left\n".to_owned(),
            None => table.render(colours),
        };
        let _ = write!(text, "\n{coming}");
    }
    let _ = write!(
        text,
        "\n{}",
        if runs.is_empty() { "no runs yet\n".to_owned() } else { runs::table(runs, now).render(colours) }
    );
    text
}

#[derive(Debug, Serialize)]
struct RunDescription {
    #[serde(flatten)]
    run: RunRecord,
    /// Oldest first.
    history: Vec<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
    /// How far it is, or was when it last said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// The last lines of its log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<Said>,
}

/// A line of a run's log.
#[derive(Debug, Serialize)]
struct Said {
    attempt: u32,
    #[serde(flatten)]
    line: LogLine,
}

/// One version of a run's record.
#[derive(Debug, Serialize)]
struct Version {
    at: Timestamp,
    revision: u64,
    #[serde(flatten)]
    run: RunRecord,
}

impl From<Stored<RunRecord>> for Version {
    fn from(stored: Stored<RunRecord>) -> Self {
        Self { at: stored.stored_at, revision: stored.revision, run: stored.value }
    }
}

async fn describe_run(streams: &Streams, output: Output, id: &RunId) -> anyhow::Result<()> {
    let found = match streams.ledger().get(id).await? {
        Some(stored) => Some(stored.value),
        None => unbegun::record_of(streams, id).await?,
    };
    let Some(run) = found else {
        if let Some(Ok(appointment)) = streams.delayed().find(id).await?.map(|waiting| waiting.read) {
            let until = utc(appointment.not_before);
            bail!(
                "run {id} waits until {until} and has no record before; `cronfleet cancel {id}` takes it back"
            );
        }
        bail!("there is no record of run {id}; `cronfleet get runs {}` lists those of that name", id.name);
    };
    let history = streams.ledger().history(id).await?.into_iter().map(Version::from).collect();
    let dead_letter = streams.dead_letter(&run).await?;
    let (mut log, said_so) = last_words(streams, id).await?;
    log.drain(..log.len().saturating_sub(LINES));
    let item = with_progress(streams, vec![run]).await?.into_iter().next();
    let Some(RunItem { run, progress }) = item else { bail!("run {id} is lost") };
    let progress = progress.or(said_so);
    let description = RunDescription { run, history, dead_letter, progress, log };
    output.one(&description, || id.to_string(), || run_text(&description, output.colours))
}

/// What a run said, and how far it said to be. A fleet that has no logs yet has said nothing.
async fn last_words(streams: &Streams, id: &RunId) -> anyhow::Result<(Vec<Said>, Option<Progress>)> {
    let batches = match streams.log_of(id).rest().await {
        Err(ReadError::Missing { .. }) => Vec::new(),
        batches => batches?,
    };
    let of_batch = |batch: LogBatch| {
        let attempt = batch.attempt;
        batch.lines.into_iter().map(move |line| Said { attempt, line })
    };
    let log: Vec<Said> = batches.into_iter().flat_map(of_batch).collect();
    let latest = log.iter().rev().find_map(|said| Some((said.line.progress?, said.line.text.as_str())));
    let progress =
        latest.map(|(progress, text)| Progress::new(progress, text.split_once(": ").map(|(_, note)| note)));
    Ok((log, progress))
}

fn run_text(description: &RunDescription, colours: bool) -> String {
    let mut table = Table::new(&["AT", "STATUS", "ATTEMPT", "WORKER", "REASON"]);
    for version in &description.history {
        table.row(vec![
            utc(version.at).into(),
            Cell::state(version.run.status),
            version.run.attempt.to_string().into(),
            Cell::optional(version.run.worker.as_ref()),
            runs::because(&version.run).into(),
        ]);
    }
    let mut text = runs::text(&description.run);
    if let Some(progress) = &description.progress {
        let _ = writeln!(text, "{:<14}{}", "progress", printable(&progress.words()));
    }
    // One that no worker has taken has no history.
    if !description.history.is_empty() {
        let _ = write!(text, "\n{}", table.render(colours));
    }
    if !description.log.is_empty() {
        let id = &description.run.id;
        let _ = writeln!(text, "\nthe last of its log; `cronfleet logs {id}` has all that is kept:");
        for said in &description.log {
            let _ = writeln!(text, "  {}", logs::in_words(said.attempt, &said.line, colours));
        }
    }
    if let Some(letter) = &description.dead_letter {
        let _ = write!(text, "\n{}", letter_text(letter, colours));
    }
    text
}
