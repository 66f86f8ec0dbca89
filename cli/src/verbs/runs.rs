//! Runs for people: as a table, as a text, as one line.

use std::fmt::Write as _;

use serde::Serialize;
use shared::{
    Timestamp,
    limits::LATE_AFTER,
    run_log::Progress,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    shard::Shards,
};

use super::{
    progress::RunItem,
    when::{ago, milliseconds, utc},
};
use crate::{
    output::printable,
    table::{Cell, Table},
};

/// Characters of an error in a table; `describe run` shows it whole.
const ERROR_CHARS_MAX: usize = 100;

/// Runs as a table.
pub fn table(runs: &[RunRecord], now: Timestamp) -> Table {
    table_of(runs.iter().map(|run| (run, None)), now)
}

/// Runs as a table, with how far they are.
pub fn table_with_progress(items: &[RunItem], now: Timestamp) -> Table {
    table_of(items.iter().map(|item| (&item.run, item.progress.as_ref())), now)
}

fn table_of<'a>(runs: impl Iterator<Item = (&'a RunRecord, Option<&'a Progress>)>, now: Timestamp) -> Table {
    let mut table = Table::new(&["RUN", "STATUS", "ATTEMPT", "QUEUE", "AGE", "DURATION", "REASON"]);
    for (run, progress) in runs {
        let progress = progress.map(|progress| cut(&progress.words()));
        let because = [progress.unwrap_or_default(), next_attempt(run, now), because(run)];
        let because = because.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(": ");
        table.row(vec![
            run.id.to_string().into(),
            Cell::state(run.status),
            run.attempt.to_string().into(),
            run.queue.as_str().into(),
            ago(run.created_at, now).into(),
            Cell::optional(run.duration_ms.map(milliseconds)),
            because.into(),
        ]);
    }
    table
}

/// When the next attempt of a run begins that waits for it; nothing for any other.
pub fn next_attempt(run: &RunRecord, now: Timestamp) -> String {
    let Some(at) = run.next_attempt_at.filter(|_| run.status == RunState::Retry) else {
        return String::new();
    };
    if at <= now { "again now".to_owned() } else { format!("again in {}", ago(now, at)) }
}

/// Why a run is as it is, in one line: `attempts_exhausted: the target answered 503`.
pub fn because(run: &RunRecord) -> String {
    let mut parts = Vec::new();
    if run.late {
        parts.push("late".to_owned());
    }
    if run.backfill.is_some() {
        parts.push("backfill".to_owned());
    }
    if let Some(shards) = run.shards.filter(|_| run.attempt > 0) {
        parts.push(format!("{}/{} shards", shards.ended(), shards.total));
    }
    parts.extend(run.reason.map(|reason| word(&reason)));
    parts.extend(run.note.as_deref().map(cut));
    // Of one that somebody stopped while it waited to be tried again, the last error is not the reason.
    let was_stopped = run.status == RunState::Cancelled
        && matches!(run.reason, Some(Reason::ByOperator | Reason::Replaced | Reason::ScheduleDeleted));
    if let Some(error) = run.error.as_ref().filter(|_| !was_stopped) {
        parts.push(cut(&error.message));
    }
    parts.join(": ")
}

/// The first line of a text, as far as a table has room for it.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(ERROR_CHARS_MAX).collect();
    if line.chars().count() > ERROR_CHARS_MAX { format!("{shown}…") } else { shown }
}

/// A number with its noun: `1 attempt`, `3 attempts`.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A reason or an error's kind as records write it.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A run as a text: one field per line, absent ones left out.
pub fn text(run: &RunRecord) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let value = value.lines().map(printable).collect::<Vec<_>>().join("\n              ");
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    let lateness = run
        .lateness()
        .filter(|late| run.late && *late > LATE_AFTER)
        .map(|late| format!(", dispatched {} s late", late.as_secs()));
    field("run", Some(run.id.to_string()));
    field("status", Some(run.status.to_string()));
    field("reason", run.reason.map(|reason| word(&reason)));
    field("note", run.note.clone());
    field("asked by", run.by.clone());
    field(
        "retried",
        run.retried.as_ref().map(|retried| {
            let times = counted(u64::from(retried.times), "time");
            format!("{times}, the last by {} at {}", retried.by, utc(retried.at))
        }),
    );
    field("backfill", run.backfill.as_ref().map(ToString::to_string));
    field("schedule", run.schedule.as_ref().map(ToString::to_string));
    field("queue", Some(run.queue.to_string()));
    field("target", run.target_service.as_ref().map(ToString::to_string));
    field("action", run.action.as_ref().map(ToString::to_string));
    let lateness = lateness.unwrap_or_default();
    field("slot", run.slot.map(|slot| format!("{}{lateness}", utc(slot))));
    field("not before", run.not_before.map(|at| format!("{}{lateness}", utc(at))));
    field(
        "follows",
        run.upstream.as_ref().map(|upstream| {
            format!(
                "{}, which ended {} at {}{lateness}",
                upstream.run,
                upstream.status,
                utc(upstream.ended_at)
            )
        }),
    );
    field(
        "shard",
        run.shard
            .as_ref()
            .map(|shard| format!("{} of {} ({} is the whole)", shard.index, shard.total, shard.parent)),
    );
    field("shards", run.shards.map(|shards| {
        let Shards { total, succeeded, failed, cancelled } = shards;
        let ids = format!("`cronfleet get runs {}` lists them", run.id.name);
        format!("{} of {total} have ended: {succeeded} SUCCESS, {failed} FAILED, {cancelled} CANCELLED; {ids}", shards.ended())
    }));
    field("attempt", Some(run.attempt.to_string()));
    field("fence", run.fence.map(|fence| fence.to_string()));
    field("worker", run.worker.as_ref().map(ToString::to_string));
    field("created", Some(utc(run.created_at)));
    field("started", run.started_at.map(utc));
    field("finished", run.finished_at.map(utc));
    field("next attempt", run.next_attempt_at.map(utc));
    field("duration", run.duration_ms.map(milliseconds));
    field("error", run.error.as_ref().map(|error| format!("{}: {}", word(&error.kind), error.message)));
    field(
        "output",
        run.output.as_ref().map(|output| serde_json::to_string_pretty(output).unwrap_or_default()),
    );
    field("trace", run.trace_id.clone());
    field("definition", run.definition_revision.map(|revision| format!("revision {revision}")));
    text
}

#[cfg(test)]
mod tests {
    use shared::run_record::{ErrorKind, RunError};

    use super::*;

    fn run(message: &str) -> RunRecord {
        let at = "2026-11-24T02:00:00Z".parse().expect("instant");
        let run =
            RunRecord::pending("reindex.4711".parse().expect("id"), "default".parse().expect("queue"), at);
        run.because(Reason::AttemptsExhausted).with_error(RunError::new(ErrorKind::Target, message))
    }

    #[test]
    fn a_run_is_one_line_whatever_its_error_says() {
        let long = "x".repeat(500);
        let shown = table(&[run("first\nsecond"), run(&long)], "2026-11-24T02:01:00Z".parse().expect("now"))
            .render(false);
        assert_eq!(shown.lines().count(), 3);
        assert!(shown.contains("attempts_exhausted: first\n") && shown.contains("x…\n"), "{shown}");
    }

    #[test]
    fn a_run_that_waits_for_its_next_attempt_says_when_that_is() {
        let now = "2026-11-24T02:00:30Z".parse().expect("now");
        let next_attempt_at = Some("2026-11-24T02:00:42Z".parse().expect("instant"));
        let waits = RunRecord { status: RunState::Retry, reason: None, next_attempt_at, ..run("503") };
        assert!(table(std::slice::from_ref(&waits), now).render(false).contains("again in 12s: 503"));
        let stopped = RunRecord { status: RunState::Cancelled, ..waits }.because(Reason::ByOperator);
        assert_eq!(because(&stopped), "by_operator");
    }

    #[test]
    fn a_runs_text_leaves_out_what_does_not_apply() {
        let text = text(&run("first\nsecond"));
        assert!(text.contains("error         target: first\n              second\n"), "{text}");
        assert!(!text.contains("slot") && !text.contains("finished"), "{text}");
    }
}
