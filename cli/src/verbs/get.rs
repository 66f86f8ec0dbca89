//! `get`: lists.

use std::{collections::HashSet, process::ExitCode};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;
use shared::{
    names::{Name, QueueName},
    run::RunId,
    run_record::RunRecord,
    run_state::RunState,
    schedule::{CronLines, Schedule, ScheduleFields},
};
use streams::Streams;
pub use streams::operate::schedules::{ScheduleItem, mark_cycles, paused_now};

use super::{
    dead::{self, DeadArgs},
    delayed::{self, DelayedArgs},
    known::{slip, unknown},
    lists,
    progress::{RunItem, with_progress},
    runs, targets, unbegun, watch,
    when::utc,
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::Output,
    table::{Cell, Colour, Table},
};

/// Runs that are listed when nothing else is said.
const RUNS_DEFAULT: usize = 50;

const EXAMPLES: &str = "\
Lists are arrays in JSON and YAML; with a NAME it is that one object.

Examples:
  cronfleet get schedules
  cronfleet get runs --watch --status FAILED
  cronfleet get runs --schedule daily_data_archive --status FAILED
  cronfleet get dead --target data-storage-service --since 2h --where region=eu --error timeout
  cronfleet get workers -o json | jq -r '.[].id'";

/// The arguments of `get`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    /// What to list.
    #[command(subcommand)]
    pub what: What,
}

/// What can be listed.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Schedules, with their next slot
    #[command(alias = "schedule")]
    Schedules(OneOrAll),
    /// Runs, the newest first
    #[command(alias = "run")]
    Runs(RunsArgs),
    /// Submissions that wait for their instant, the first due first
    Delayed(DelayedArgs),
    /// Dead letters: runs that failed for good, with their tasks, the latest first
    Dead(DeadArgs),
    /// Queues, with how full they are
    #[command(alias = "queue")]
    Queues(OneOrAll),
    /// Workers that are alive
    #[command(alias = "worker")]
    Workers(OneOrAll),
    /// Planners that are alive: what they hold, how late they run, how right their clocks are
    #[command(alias = "planner")]
    Planners(OneOrAll),
    /// Targets: the services that tasks act on, with how full their limits are
    #[command(alias = "target")]
    Targets(OneOrAll),
}

/// One by its name, or all.
#[derive(Debug, Args)]
pub struct OneOrAll {
    /// Only this one
    pub name: Option<String>,
}

/// Which runs.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Only this run (`name.key`), or only runs of this schedule or task name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Only runs of this schedule, or of ad-hoc tasks submitted under this name
    #[arg(long, visible_alias = "name", value_name = "NAME", conflicts_with = "name")]
    pub schedule: Option<Name>,

    /// Only runs in this state. May be given several times
    #[arg(long, value_name = "STATE", value_parser = parse_state, ignore_case = true)]
    pub status: Vec<RunState>,

    /// Only runs of this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,

    /// At most so many, from 1
    #[arg(long, value_name = "N", default_value_t = RUNS_DEFAULT, value_parser = parse_limit)]
    pub limit: usize,

    /// Then go on with a line for each change, until ctrl-C. As JSON it is one run per line
    #[arg(long, short = 'w')]
    pub watch: bool,
}

/// Reads a state, in any case.
pub fn parse_state(text: &str) -> Result<RunState, String> {
    let found = RunState::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("it is one of {}", RunState::ALL.map(RunState::as_str).join(", ")))
}

/// Reads how many are to be listed.
pub fn parse_limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "it is a number from 1".to_owned())
}

/// Lists.
pub async fn run(args: GetArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let output = global.output();
    match args.what {
        What::Schedules(args) => schedules(&streams, output, args.name.as_deref()).await?,
        What::Runs(args) if args.watch => watch::runs(&streams, output, args).await?,
        What::Runs(args) => list_runs(&streams, output, args).await?,
        What::Delayed(args) => delayed::list(&streams, output, args).await?,
        What::Dead(args) => dead::list(&streams, output, args).await?,
        What::Queues(args) => lists::queues(&streams, output, args.name.as_deref()).await?,
        What::Workers(args) => lists::workers(&streams, output, args.name.as_deref()).await?,
        What::Planners(args) => lists::planners(&streams, output, args.name.as_deref()).await?,
        What::Targets(args) => targets::targets(&streams, output, args.name.as_deref()).await?,
    }
    Ok(Exit::Done.into())
}

/// Writes all items, or the one with this name; then it is an object, and it must be there.
pub fn show<T: Serialize>(
    output: Output,
    kind: &str,
    items: &[T],
    name_of: impl Fn(&T) -> String,
    wanted: Option<&str>,
    table: impl Fn(&[T]) -> Table,
    when_empty: &str,
) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return output.list(items, name_of, || table(items), when_empty) };
    let Some(at) = items.iter().position(|item| name_of(item) == wanted) else {
        let names: Vec<String> = items.iter().map(name_of).collect();
        return Err(unknown(kind, wanted, names.iter().map(String::as_str)));
    };
    let item = &items[at];
    output.one(item, || wanted.to_owned(), || table(&items[at..=at]).render(output.colours))
}

/// When a schedule is due, as it was written.
pub fn written(schedule: &Schedule) -> String {
    let fields = ScheduleFields::from(schedule.clone());
    match (fields.cron, fields.every, fields.at, fields.after) {
        (Some(CronLines::One(line)), ..) => line,
        (Some(CronLines::Several(lines)), ..) => lines.join(" | "),
        (_, Some(every), ..) => format!("every {every}"),
        (_, _, Some(at), _) => format!("at {}", utc(at)),
        (.., Some(after)) => format!("after {} ({})", after.schedule, runs::word(&after.on)),
        _ => String::new(),
    }
}

async fn schedules(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let now = streams.clock().now();
    let versions = streams.schedules().list().await?;
    let mut items: Vec<ScheduleItem> =
        versions.into_iter().filter_map(|version| ScheduleItem::of(version, now)).collect();
    items.sort_by(|a, b| a.name.cmp(&b.name));
    mark_cycles(&mut items);
    let pauses = paused_now(streams).await?;
    for item in &mut items {
        item.paused = pauses.get(&item.name).cloned();
    }
    let table = |items: &[ScheduleItem]| {
        let mut table = Table::new(&["NAME", "WHEN", "ZONE", "NEXT", "QUEUE", "ACTS ON"]);
        for item in items {
            let Some(schedule) = item.definition.as_ref().filter(|_| item.invalid.is_none()) else {
                let reason = item.invalid.as_deref().unwrap_or_default();
                let invalid = Cell::coloured(format!("invalid: {reason}"), Some(Colour::Red));
                table.row(vec![item.name.as_str().into(), invalid]);
                continue;
            };
            let action = schedule.task.action();
            let acts_on = schedule
                .task
                .target()
                .map_or_else(|| format!("command {action}"), |target| format!("{target}: {action}"));
            table.row(vec![
                item.name.as_str().into(),
                written(schedule).into(),
                schedule.timezone.name().into(),
                match &item.paused {
                    Some(found) => Cell::coloured(found.pause.words(), Some(Colour::Yellow)),
                    None => Cell::optional(item.next.map(utc)),
                },
                schedule.queue.as_str().into(),
                acts_on.into(),
            ]);
        }
        table
    };
    let when_empty = "no schedules; add some with `cronfleet apply -f FILE`";
    show(output, "schedule", &items, |item| item.name.to_string(), wanted, table, when_empty)
}

async fn list_runs(streams: &Streams, output: Output, args: RunsArgs) -> anyhow::Result<()> {
    let now = streams.clock().now();
    match found(streams, &args).await? {
        Found::One(item) => {
            let table = || runs::table_with_progress(std::slice::from_ref(&item), now).render(output.colours);
            output.one(&item, || item.run.id.to_string(), table)
        }
        Found::List(items, when_empty) => {
            let table = || runs::table_with_progress(&items, now);
            output.list(&items, |item| item.run.id.to_string(), table, &when_empty)
        }
    }
}

/// What was asked for.
pub(super) enum Found {
    /// A run by its id.
    One(Box<RunItem>),
    /// Those that are as was asked for; and what to say if there are none.
    List(Vec<RunItem>, String),
}

/// Looks for the runs that were asked for.
pub(super) async fn found(streams: &Streams, args: &RunsArgs) -> anyhow::Result<Found> {
    let name = match args.name.as_deref() {
        Some(text) if text.contains('.') => {
            let id: RunId = text.parse()?;
            let record = match streams.ledger().get(&id).await? {
                Some(stored) => Some(stored.value),
                None => unbegun::record_of(streams, &id).await?,
            };
            let Some(record) = record else {
                bail!(
                    "there is no record of run {id}; `cronfleet get runs {}` lists those of that name",
                    id.name
                );
            };
            let items = with_progress(streams, vec![record.clone()]).await?;
            let item = items.into_iter().next().unwrap_or(RunItem { run: record, progress: None });
            return Ok(Found::One(Box::new(item)));
        }
        Some(text) => Some(text.parse::<Name>()?),
        None => args.schedule.clone(),
    };
    let filter = name.as_ref().map_or_else(|| ">".to_owned(), |name| format!("{name}.*"));
    let stored = streams.ledger().list(&filter).await?;
    let mut all: Vec<RunRecord> = stored.into_iter().map(|stored| stored.value).collect();
    if all.len() < args.limit {
        let known: HashSet<&RunId> = all.iter().map(|run| &run.id).collect();
        let room = args.limit - all.len();
        let unbegun = unbegun::records(streams, name.as_ref(), |run| known.contains(run), room).await?;
        all.extend(unbegun);
    }
    let found = with_progress(streams, newest(all, args)).await?;
    let mut when_empty = no_runs(name.as_ref(), args);
    if found.is_empty()
        && let Some(slip) = slip(streams, args.queue.as_ref(), None).await?
    {
        when_empty = format!("{when_empty}; {slip}");
    }
    Ok(Found::List(found, when_empty))
}

/// What to say when no run is as it was asked for: others there may be.
fn no_runs(name: Option<&Name>, args: &RunsArgs) -> String {
    let states: Vec<&str> = args.status.iter().map(|state| state.as_str()).collect();
    let which: String = [
        name.map(|name| format!(" of {name}")),
        args.queue.as_ref().map(|queue| format!(" on queue {queue}")),
        (!states.is_empty()).then(|| format!(" that are {}", states.join(" or "))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if which.is_empty() {
        "no runs; `cronfleet trigger SCHEDULE` makes one".to_owned()
    } else {
        format!("no runs{which}; `cronfleet get runs` lists those there are")
    }
}

/// Whether a run of the right name is in a state and on a queue that were asked for.
pub(super) fn is_wanted(run: &RunRecord, args: &RunsArgs) -> bool {
    (args.status.is_empty() || args.status.contains(&run.status))
        && args.queue.as_ref().is_none_or(|queue| run.queue == *queue)
}

/// The runs that were asked for, the newest first.
fn newest(mut runs: Vec<RunRecord>, args: &RunsArgs) -> Vec<RunRecord> {
    runs.retain(|run| is_wanted(run, args));
    runs.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    runs.truncate(args.limit);
    runs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: RunsArgs,
    }

    fn args(line: &str) -> RunsArgs {
        Line::try_parse_from(std::iter::once("runs").chain(line.split_whitespace())).expect(line).args
    }

    #[test]
    fn the_newest_runs_come_first_and_filters_hold_together() {
        let at = |second: u32| format!("2026-11-24T02:00:{second:02}Z").parse().expect("instant");
        let runs: Vec<RunRecord> = (0..9)
            .map(|n| {
                let queue = if n % 2 == 0 { "default" } else { "reports" };
                let mut run = RunRecord::pending(
                    format!("a.{n}").parse().expect("id"),
                    queue.parse().expect("queue"),
                    at(n),
                );
                run.status = RunState::ALL[n as usize % 3];
                run
            })
            .collect();
        let ids = |line: &str| {
            let found = newest(runs.clone(), &args(line));
            found.iter().map(|run| run.id.key.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ids("--limit 3"), "8 7 6");
        assert_eq!(ids("--status pending --queue default"), "6 0");
        assert_eq!(ids("--status PENDING --status RUNNING --limit 2"), "7 6");
    }

    #[test]
    fn an_empty_list_says_what_there_is_none_of() {
        let said = |line: &str| {
            let args = args(line);
            no_runs(args.name.as_deref().map(|name| name.parse().expect("name")).as_ref(), &args)
        };
        assert_eq!(said(""), "no runs; `cronfleet trigger SCHEDULE` makes one");
        assert!(said("nope").starts_with("no runs of nope; "));
        let filtered = said("nope --queue reports --status failed --status running");
        assert!(filtered.starts_with("no runs of nope on queue reports that are FAILED or RUNNING; "));
    }

    #[test]
    fn a_state_nobody_knows_is_refused_with_those_there_are() {
        assert!(parse_state("done").expect_err("done").contains("SUCCESS"));
    }
}
