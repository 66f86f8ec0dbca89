//! What other schedulers were told, as definitions of ours: `cronfleet import`.
//!
//! One file for each source ([`crontab`], [`kubernetes`], [`xxl_job`]), each a pure function from a text to [`Item`]s in the
//! order of the text; [`print`](mod@print) makes a file of them. What cannot be carried over is never dropped without a word: it
//! is a note at its place. What is carried over does not do more than it did: what was suspended is printed commented out, and
//! a shell line becomes an entry of the worker's allow-list, which belongs to the worker's operator, word for word.

pub mod crontab;
pub mod kubernetes;
mod names;
pub mod print;
mod quartz;
pub mod xxl_job;

#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono_tz::Tz;
pub use names::Names;
use serde_json::Value;
use shared::{
    cron::{DstPolicy, parse_zone},
    human_duration::HumanDuration,
    limits::{ATTEMPTS_MAX, TIMEOUT_MAX},
    names::{ActionName, Name, QueueName, TargetName},
    schedule::{CronLines, Missed, Overlap, Schedule, ScheduleFields},
    task::{Task, TaskFields},
};
use worker::executors::local::allow_list::CommandSettings;

/// Something at a place of the source: a schedule, notes, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Item {
    /// Its line, from 1.
    pub line: usize,
    /// What could not be carried over, and what to do about it.
    pub notes: Vec<String>,
    /// What could.
    pub entry: Option<Entry>,
}

/// A schedule that can be planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// The schedule.
    pub fields: ScheduleFields,
    /// Whether it ran there. What did not is printed commented out: nothing begins to run by being moved.
    pub is_active: bool,
    /// The command it runs, if it runs one.
    pub command: Option<Allowed>,
}

/// A command as it goes on a worker's allow-list.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    /// Its name there.
    pub name: ActionName,
    /// How it is run; if the source does not say, why it does not.
    pub settings: Result<CommandSettings, String>,
}

impl Item {
    /// A note, and nothing else.
    fn note(line: usize, note: impl Into<String>) -> Self {
        Self { line, notes: vec![note.into()], entry: None }
    }

    /// A schedule with its notes; or why there is none.
    fn of(line: usize, mut notes: Vec<String>, entry: Result<Entry, String>) -> Self {
        match entry {
            Ok(entry) => Self { line, notes, entry: Some(entry) },
            Err(reason) => {
                notes.insert(0, format!("not carried over: {reason}"));
                Self { line, notes, entry: None }
            }
        }
    }
}

/// A schedule that says no more than that it has a task.
fn blank(task: TaskFields) -> Result<ScheduleFields, String> {
    Ok(ScheduleFields {
        description: None,
        cron: None,
        every: None,
        phase: None,
        at: None,
        after: None,
        timezone: None,
        dst: DstPolicy::default(),
        start: None,
        end: None,
        max_runs: None,
        exclude: std::collections::BTreeSet::new(),
        jitter: None,
        overlap: Overlap::default(),
        shards: None,
        missed: Missed::default(),
        catch_up: None,
        calendar: None,
        on_closed_day: shared::closed_day::OnClosedDay::default(),
        queue: QueueName::default_queue(),
        task: Task::try_from(task).map_err(|error| error.to_string())?,
    })
}

/// The task that runs a command of the allow-list, and asks for it by name only: what it is handed stands on the allow-list,
/// so that a schedule of the same name could not run something else.
fn command_task(name: &ActionName, timeout: Option<Duration>, attempts: u32) -> TaskFields {
    let mut task = TaskFields {
        command: vec![name.to_string()],
        timeout: Some(HumanDuration(timeout.unwrap_or(TIMEOUT_MAX))),
        ..TaskFields::default()
    };
    task.retry.attempts = attempts;
    task
}

/// Refuses what `apply` would refuse.
fn checked(fields: ScheduleFields) -> Result<ScheduleFields, String> {
    Schedule::try_from(fields.clone()).map_err(|error| error.to_string())?;
    Ok(fields)
}

/// When a schedule is due, as most write it: cron fields, or `@every` with an interval; with or without `TZ=` in front.
fn set_when(fields: &mut ScheduleFields, text: &str, zone: Option<Tz>) -> Result<(), String> {
    let (zone, text) = match text.trim().split_once(char::is_whitespace) {
        Some((first, rest)) => match first.strip_prefix("CRON_TZ=").or_else(|| first.strip_prefix("TZ=")) {
            Some(named) => (Some(parse_zone(named).map_err(|error| error.to_string())?), rest),
            None => (zone, text),
        },
        None => (zone, text),
    };
    let text = text.trim();
    match text.strip_prefix("@every").filter(|rest| rest.starts_with(char::is_whitespace)) {
        Some(interval) => {
            fields.every = Some(interval.trim().parse().map_err(|error| format!("@every: {error}"))?);
        }
        None => fields.cron = Some(CronLines::One(text.to_owned())),
    }
    fields.timezone = zone.filter(|zone| *zone != Tz::UTC).map(|zone| zone.name().to_owned());
    Ok(())
}

/// A number of seconds as the timeout of an attempt; what is more than is allowed is cut, with a note.
fn timeout_of(seconds: Option<u64>, field: &str, notes: &mut Vec<String>) -> Option<Duration> {
    let asked = Duration::from_secs(seconds.filter(|seconds| *seconds > 0)?);
    if asked > TIMEOUT_MAX {
        notes.push(format!(
            "{field} is {}; an attempt may take {} at most",
            HumanDuration(asked),
            HumanDuration(TIMEOUT_MAX)
        ));
    }
    Some(asked.min(TIMEOUT_MAX))
}

/// A number of retries as attempts; what is more than is allowed is cut, with a note.
fn attempts_of(retries: u64, field: &str, notes: &mut Vec<String>) -> u32 {
    let attempts = u32::try_from(retries.saturating_add(1)).unwrap_or(u32::MAX);
    if attempts > ATTEMPTS_MAX {
        notes.push(format!("{field} is {retries}; a run has {ATTEMPTS_MAX} attempts at most"));
    }
    attempts.min(ATTEMPTS_MAX)
}

/// The target of an entry, if it acts on one.
fn target_of(entry: &Entry) -> Option<&TargetName> {
    entry.fields.task.target()
}

/// A text without control characters, on one line and not too long: for notes.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    let cut: String = text.chars().take(CHARS_MAX).collect();
    format!("{cut}…")
}

/// A number, also if it is written as a text.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
