//! The dead letters: which of them are meant, their list, and one of them whole.

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write as _};

use anyhow::bail;
use chrono::TimeDelta;
use clap::Args;
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use shared::{
    Timestamp,
    human_duration::HumanDuration,
    names::{Name, QueueName, TargetName},
    past_attempts::PastAttempt,
    run::RunId,
    run_state::RunState,
};
use streams::{
    Streams,
    dead::{DeadLetter, Found, Wanted},
};

use super::{
    known::slip,
    runs::{self, word},
    when::{ago, parse_instant, utc},
};
use crate::{
    output::{Output, printable},
    table::{Cell, Table},
};

/// So many are listed when nothing else is said.
const LIMIT_DEFAULT: usize = 50;
/// Records that are read at once, to say what became of a run since.
const READS_AT_ONCE: usize = 16;

/// Which dead letters are meant: those for which all of it holds.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only those of this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<QueueName>,

    /// Only those of this schedule, or of ad-hoc tasks submitted under this name
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub schedule: Option<Name>,

    /// Only those that act on this target
    #[arg(long, value_name = "TARGET")]
    pub target: Option<TargetName>,

    /// Only those that failed at this instant or later: RFC 3339, or how long ago, such as 2h
    #[arg(long, value_name = "WHEN", value_parser = parse_moment)]
    pub since: Option<Moment>,

    /// Only those that failed before this instant: RFC 3339, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = parse_moment)]
    pub until: Option<Moment>,

    /// Only those whose task has this parameter. A dot leads into an object: `--where order.region=eu`. May be given several
    /// times
    #[arg(long = "where", value_name = "KEY=VALUE", value_parser = super::trigger::parse_parameter)]
    pub parameters: Vec<(String, Value)>,

    /// Only those whose error, its kind or the reason has this text in it
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
}

/// An instant, or a length of time before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This instant.
    At(Timestamp),
    /// So long ago.
    Ago(HumanDuration),
}

fn parse_moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = text.parse() {
        return Ok(Moment::Ago(ago));
    }
    parse_instant(text).map(Moment::At).map_err(|error| format!("{error}, or how long ago: 2h"))
}

impl Moment {
    /// The instant that is meant.
    pub fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ago) => {
                let ago = TimeDelta::from_std(ago.0).unwrap_or(TimeDelta::MAX);
                now.checked_sub_signed(ago).unwrap_or(Timestamp::MIN_UTC)
            }
        }
    }
}

impl FilterArgs {
    /// What is meant, now.
    pub fn wanted(&self, now: Timestamp) -> Wanted {
        Wanted {
            queue: self.queue.clone(),
            name: self.schedule.clone(),
            target: self.target.clone(),
            since: self.since.map(|moment| moment.instant(now)),
            until: self.until.map(|moment| moment.instant(now)),
            parameters: self.parameters.clone(),
            error: self.error.clone(),
        }
    }
}

/// Which dead letters are listed.
#[derive(Debug, Args)]
pub struct DeadArgs {
    /// Only this run's (`name.key`)
    #[arg(value_name = "RUN")]
    pub run: Option<RunId>,

    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// At most so many, from 1
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT, value_parser = super::get::parse_limit)]
    pub limit: usize,
}

/// A dead letter as `get` and `describe` write it.
#[derive(Debug, Serialize)]
struct Item {
    id: RunId,
    /// Its run's state now; absent if the ledger does not know it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<RunState>,
    failed_at: Timestamp,
    #[serde(flatten)]
    letter: DeadLetter,
}

impl Item {
    async fn of(streams: &Streams, found: Found) -> Self {
        let id = found.letter.run.id.clone();
        // What cannot be read just now is left out: the letter says that it had failed.
        let status = streams.ledger().get(&id).await.ok().flatten().map(|stored| stored.value.status);
        Self { id, status, failed_at: found.failed_at(), letter: found.letter }
    }
}

/// Lists dead letters, those first that failed last.
pub async fn list(streams: &Streams, output: Output, args: DeadArgs) -> anyhow::Result<()> {
    let now = streams.clock().now();
    if let Some(run) = args.run {
        let item = find(streams, &run).await?;
        let text = || table(std::slice::from_ref(&item), now).render(output.colours);
        return output.one(&item, || run.to_string(), text);
    }
    // Those that failed last, with the one that goes first on top.
    let mut latest: BinaryHeap<Reverse<(Timestamp, u64, Boxed)>> = BinaryHeap::new();
    let mut count = 0_usize;
    streams
        .each_dead_letter(&args.filter.wanted(now), |found| {
            count += 1;
            latest.push(Reverse((found.failed_at(), found.sequence, Boxed(Box::new(found)))));
            if latest.len() > args.limit {
                latest.pop();
            }
        })
        .await?;
    let latest = latest.into_sorted_vec().into_iter().map(|Reverse((_, _, Boxed(found)))| *found);
    let items: Vec<Item> =
        stream::iter(latest).map(|found| Item::of(streams, found)).buffered(READS_AT_ONCE).collect().await;
    if count > items.len() {
        crate::output::talk(format!("{} of {count} are shown; more with --limit", items.len()));
    }
    let when_empty = if items.is_empty() { none_match(streams, &args.filter).await? } else { String::new() };
    output.list(&items, |item| item.id.to_string(), || table(&items, now), &when_empty)
}

/// What to say when no dead letter is as it was asked for: how many others there are, and which name was a slip.
pub async fn none_match(streams: &Streams, filter: &FilterArgs) -> anyhow::Result<String> {
    let mut count = 0_usize;
    streams.each_dead_letter(&Wanted::default(), |_| count += 1).await?;
    if count == 0 {
        return Ok("no dead letters; every run that was not cancelled goes on or went well".to_owned());
    }
    let words = match count {
        1 => "no dead letter matches; there is 1".to_owned(),
        count => format!("no dead letter matches; there are {count}"),
    };
    let slip = slip(streams, filter.queue.as_ref(), filter.target.as_ref()).await?;
    Ok(slip.map_or_else(|| words.clone(), |slip| format!("{words}; {slip}")))
}

/// A letter in a heap, where its place decides and not its content.
struct Boxed(Box<Found>);

impl PartialEq for Boxed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Boxed {}

impl PartialOrd for Boxed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Boxed {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

async fn find(streams: &Streams, run: &RunId) -> anyhow::Result<Item> {
    match streams.find_dead_letter(run).await? {
        Some(found) => Ok(Item::of(streams, found).await),
        None => bail!("{run} has no dead letter; `cronfleet describe run {run}` says how it is"),
    }
}

fn table(items: &[Item], now: Timestamp) -> Table {
    let mut table = Table::new(&["RUN", "STATUS", "ATTEMPTS", "QUEUE", "TARGET", "FAILED", "REASON"]);
    for item in items {
        let run = &item.letter.run;
        table.row(vec![
            item.id.to_string().into(),
            item.status.map_or_else(|| "".into(), Cell::state),
            run.attempt.to_string().into(),
            run.queue.as_str().into(),
            Cell::optional(run.target_service.as_ref()),
            format!("{} ago", ago(item.failed_at, now)).into(),
            runs::because(run).into(),
        ]);
    }
    table
}

/// Shows one dead letter whole.
pub async fn describe(streams: &Streams, output: Output, run: &RunId) -> anyhow::Result<()> {
    let item = find(streams, run).await?;
    output.one(&item, || run.to_string(), || text(&item, output.colours))
}

fn text(item: &Item, colours: bool) -> String {
    let mut text = runs::text(&item.letter.run);
    let _ = write!(text, "\n{}", letter_text(&item.letter, colours));
    let next = match item.status {
        Some(RunState::Failed) if item.letter.task.is_some() => {
            format!("`cronfleet retry {}` runs it again", item.id)
        }
        Some(RunState::Failed) => {
            "it cannot be run again: submit a task that can be understood, under another key".to_owned()
        }
        Some(status) => format!("its run is {status} now: `cronfleet describe run {}`", item.id),
        None => "the ledger does not know its run any more".to_owned(),
    };
    let _ = writeln!(text, "\n{next}");
    text
}

/// What a dead letter keeps, for people: the attempts that were made, and the task.
pub fn letter_text(letter: &DeadLetter, colours: bool) -> String {
    let mut text = String::new();
    if !letter.attempts.is_empty() {
        let mut table = Table::new(&["ATTEMPT", "BEGAN", "ENDED", "WORKER", "ERROR"]);
        for attempt in &letter.attempts {
            table.row(attempt_row(attempt));
        }
        text = table.render(colours);
        // Of one that took many, the record's history does not reach back to the first.
        let earlier = letter.attempts.first().map_or(0, |first| first.attempt.saturating_sub(1));
        if earlier > 0 {
            let _ = writeln!(text, "of {earlier} earlier attempts the history was not kept");
        }
        text.push('\n');
    }
    let subject = printable(&letter.subject);
    let _ = match letter.task {
        Some(_) => writeln!(text, "dead letter: the task, with its defaults, as it was read on {subject}:"),
        None => writeln!(text, "dead letter: what came on {subject}:"),
    };
    let task = letter.task.as_ref().map(|task| serde_json::to_string_pretty(task).unwrap_or_default());
    for line in task.or_else(|| letter.raw.clone()).unwrap_or_default().lines() {
        let _ = writeln!(text, "  {}", printable(line));
    }
    text
}

fn attempt_row(attempt: &PastAttempt) -> Vec<Cell> {
    let error = attempt.error.as_ref().map(|error| format!("{}: {}", word(&error.kind), error.message));
    vec![
        attempt.attempt.to_string().into(),
        Cell::optional(attempt.started_at.map(utc)),
        utc(attempt.ended_at).into(),
        Cell::optional(attempt.worker.as_ref()),
        Cell::optional(error.or_else(|| attempt.reason.map(|reason| word(&reason)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_instant_or_how_long_ago() {
        let now: Timestamp = "2026-11-24T02:00:00Z".parse().expect("instant");
        let read = |text: &str| parse_moment(text).map(|moment| utc(moment.instant(now)));
        assert_eq!(read("90m").as_deref(), Ok("2026-11-24T00:30:00Z"));
        assert_eq!(read("2026-11-24T10:00:00+08:00").as_deref(), Ok("2026-11-24T02:00:00Z"));
        assert!(read("yesterday").expect_err("no").contains("how long ago"));
    }
}
