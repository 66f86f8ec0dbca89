//! `replay`: many runs that failed, again, each as `retry` does it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use shared::{
    Timestamp,
    names::{Name, QueueName},
    run::RunId,
};
use streams::{
    Streams,
    dead::{RetryError, Retrying, Wanted},
};
use tokio_util::sync::CancellationToken;

use super::{
    dead::{FilterArgs, none_match},
    machine::person,
    retry::in_short,
    runs,
    when::ago,
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Output, talk},
    signals,
    table::Table,
};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Before those are tried again whose schedules were occupied.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Runs that are named when they were left alone; of more it says how many.
const NAMED_MAX: usize = 10;

const EXAMPLES: &str = "\
It counts first what is meant. Those that fail again meanwhile are not taken a second time. A run of a schedule whose runs may \
not overlap waits until the one before has ended; they go in the order in which they failed.

Ctrl-C ends it after the run it is at. What was replayed is gone from the dead letters, so the same command goes on with the \
rest; with the --until that it says then, also without those that failed again.

Exit code 1: some were left alone, and why is said.

Examples:
  cronfleet replay --target data-storage-service --since 2h --dry-run
  cronfleet replay --schedule reindex --where region=eu --rate 10/s
  cronfleet replay --queue reports --error 'connection refused' --limit 100";

/// The arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// At most so many, from 1: those that failed first [default: all]
    #[arg(long, value_name = "N", value_parser = super::get::parse_limit)]
    pub limit: Option<usize>,

    /// How many at most in a second, or a minute: `10/s`, `30/m`
    #[arg(long, value_name = "N/s", default_value = "50/s")]
    pub rate: Rate,

    /// Only list what would be replayed
    #[arg(long)]
    pub dry_run: bool,
}

/// So many in a second or a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Duration);

impl std::str::FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate; write 10/s or 30/m, with a number from 1 to 10000");
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let whole = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            _ => return Err(wrong()),
        };
        if !(1..=10_000).contains(&number) {
            return Err(wrong());
        }
        Ok(Self(whole / number))
    }
}

/// What came of a replay.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    matched: usize,
    replayed: usize,
    /// Those that were left alone, and why.
    left: BTreeMap<RunId, String>,
    /// Those that are still to be replayed, because it was interrupted.
    remaining: usize,
}

/// Replays dead letters.
pub async fn run(args: ReplayArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let begun_at = streams.clock().now();
    let wanted = args.filter.wanted(begun_at);
    // What fails from now on is another failure.
    let wanted = Wanted { until: Some(wanted.until.map_or(begun_at, |until| until.min(begun_at))), ..wanted };
    let mut matched: Vec<Meant> = Vec::new();
    streams
        .each_dead_letter(&wanted, |found| {
            let because = if args.dry_run { runs::because(&found.letter.run) } else { String::new() };
            let is_readable = found.letter.task.is_some();
            let failed_at = found.failed_at();
            let (id, queue) = (found.letter.run.id, found.letter.run.queue);
            matched.push(Meant { failed_at, id, because, left: None, queue, is_readable });
        })
        .await?;
    matched.sort();
    matched.truncate(args.limit.unwrap_or(usize::MAX));
    let output = global.output();
    if matched.is_empty() {
        talk(none_match(&streams, &args.filter).await?);
    }
    if args.dry_run {
        let queues = streams.catalog().queues().await?;
        for meant in &mut matched {
            meant.left = left_alone(meant, |queue| queues.contains_key(queue));
        }
        return dry_run(&matched, begun_at, output);
    }
    talk(match matched.len() {
        1 => "1 dead letter is meant".to_owned(),
        count => format!("{count} dead letters are meant"),
    });
    // The first signal lets it come to a clean end.
    let stop = signals::listen()?.drain;
    let replay = Replay { streams, by: person(), rate: args.rate, stop, outcome: Outcome::default() };
    let outcome = replay.all(matched.into_iter().map(|meant| meant.id).collect()).await;
    report(&outcome, begun_at, output)
}

/// A run that is to be replayed. Ordered by when it failed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Meant {
    failed_at: Timestamp,
    id: RunId,
    #[serde(skip_serializing_if = "String::is_empty")]
    because: String,
    /// Why it would be left alone; absent if it would be replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    #[serde(skip)]
    queue: QueueName,
    #[serde(skip)]
    is_readable: bool,
}

/// Why a replay would leave this one alone, as far as that can be told before; nothing if it would not. Pure.
fn left_alone(meant: &Meant, is_declared: impl Fn(&QueueName) -> bool) -> Option<String> {
    if !meant.is_readable {
        return Some("its task cannot be understood".to_owned());
    }
    (!is_declared(&meant.queue)).then(|| format!("queue {} is not declared", meant.queue))
}

fn dry_run(matched: &[Meant], now: Timestamp, output: Output) -> anyhow::Result<ExitCode> {
    let table = || {
        let mut table = Table::new(&["RUN", "FAILED", "REPLAYED", "REASON"]);
        for meant in matched {
            let failed = format!("{} ago", ago(meant.failed_at, now));
            let replayed = meant.left.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            table.row(vec![
                meant.id.to_string().into(),
                failed.into(),
                replayed.into(),
                meant.because.as_str().into(),
            ]);
        }
        table
    };
    output.list(matched, |meant| meant.id.to_string(), table, "nothing to replay")?;
    let replayed = matched.iter().filter(|meant| meant.left.is_none()).count();
    talk(format!("{replayed} of {} would be replayed; nothing was changed", matched.len()));
    // As the replay itself would end.
    Ok(if replayed == matched.len() { Exit::Done } else { Exit::Error }.into())
}

fn report(outcome: &Outcome, begun_at: Timestamp, output: Output) -> anyhow::Result<ExitCode> {
    for (run, why) in outcome.left.iter().take(NAMED_MAX) {
        talk(format!("{run} was left alone: {why}"));
    }
    if outcome.left.len() > NAMED_MAX {
        talk(format!("and {} others were", outcome.left.len() - NAMED_MAX));
    }
    if outcome.remaining > 0 {
        talk(format!(
            "interrupted: {} are left; the same command goes on with them: add --until {} to leave out what fails again",
            outcome.remaining,
            begun_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        ));
    }
    output.one(
        outcome,
        || outcome.replayed.to_string(),
        || {
            let verb = if outcome.matched == 1 { "was" } else { "were" };
            format!("{} of {} {verb} replayed\n", outcome.replayed, outcome.matched)
        },
    )?;
    let is_done = outcome.left.is_empty() && outcome.remaining == 0;
    Ok(if is_done { Exit::Done } else { Exit::Error }.into())
}

/// A replay under way.
struct Replay {
    streams: Streams,
    by: String,
    rate: Rate,
    stop: CancellationToken,
    outcome: Outcome,
}

impl Replay {
    /// Replays all of these, in their order. Those that find their schedule occupied are tried again until they went.
    async fn all(mut self, runs: VecDeque<RunId>) -> Outcome {
        self.outcome.matched = runs.len();
        let clock = self.streams.clock().clone();
        let mut waiting = runs;
        let mut said_at = clock.elapsed();
        let mut next_at = clock.elapsed();
        while !waiting.is_empty() && !self.stop.is_cancelled() {
            // Of a schedule that is occupied the others need not be tried.
            let mut occupied: HashSet<Name> = HashSet::new();
            let mut again = VecDeque::new();
            while let Some(run) = waiting.pop_front() {
                if self.stop.is_cancelled() || occupied.contains(&run.name) {
                    again.push_back(run);
                    continue;
                }
                // At a low rate that is long: who has enough does not wait for it, nor for the run behind it.
                tokio::select! {
                    () = self.stop.cancelled() => {
                        again.push_back(run);
                        continue;
                    }
                    () = clock.sleep(next_at.saturating_sub(clock.elapsed())) => {}
                }
                next_at = clock.elapsed() + self.rate.0;
                match self.one(&run).await {
                    Ok(Went::Over) => {}
                    Ok(Went::Occupied) => {
                        occupied.insert(run.name.clone());
                        again.push_back(run);
                    }
                    // The server is away, or does not let us: so it would be with the others.
                    Err(error) => {
                        talk(format!("{run} cannot be retried just now: {error}"));
                        again.push_back(run);
                        self.stop.cancel();
                    }
                }
                if clock.elapsed() >= said_at + PROGRESS {
                    said_at = clock.elapsed();
                    let left = waiting.len() + again.len();
                    talk(format!(
                        "{} of {} replayed, {left} to go",
                        self.outcome.replayed, self.outcome.matched
                    ));
                }
            }
            waiting = again;
            if !waiting.is_empty() {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = clock.sleep(LOOK_AGAIN) => {}
                }
            }
        }
        self.outcome.remaining = waiting.len();
        self.outcome
    }

    async fn one(&mut self, run: &RunId) -> Result<Went, RetryError> {
        let refused = match self.streams.retry(run, &self.by).await? {
            Retrying::Queued(_) => {
                self.outcome.replayed += 1;
                return Ok(Went::Over);
            }
            Retrying::Occupied(_) => return Ok(Went::Occupied),
            refused => refused,
        };
        self.outcome.left.insert(run.clone(), in_short(&refused).unwrap_or_default());
        Ok(Went::Over)
    }
}

/// What came of one.
#[derive(PartialEq, Eq)]
enum Went {
    Over,
    Occupied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_left_alone_is_known_before() {
        let meant = |is_readable| Meant {
            failed_at: Timestamp::UNIX_EPOCH,
            id: "a.1".parse().expect("id"),
            because: String::new(),
            left: None,
            queue: QueueName::default_queue(),
            is_readable,
        };
        assert_eq!(left_alone(&meant(true), |_| true), None);
        assert!(left_alone(&meant(false), |_| true).is_some_and(|why| why.contains("cannot be understood")));
        assert_eq!(left_alone(&meant(true), |_| false).as_deref(), Some("queue default is not declared"));
    }

    #[test]
    fn a_rate_is_so_many_in_a_second_or_a_minute() {
        for (text, wait) in [("10/s", 100), ("30/m", 2_000), ("4", 250)] {
            assert_eq!(text.parse(), Ok(Rate(Duration::from_millis(wait))), "{text}");
        }
        for text in ["0/s", "10/h", "fast", "-1/s", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
