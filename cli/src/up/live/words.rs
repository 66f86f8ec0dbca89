//! A run in words: its state, how long it took, what came of it.

use std::time::Duration;

use serde_json::Value;
use shared::{Timestamp, run_record::RunRecord, run_state::RunState};

use super::{
    table::Style,
    text::{clip, coarse, short},
};
use crate::{output::printable, table::Colour, verbs::runs::word};

/// What is said of one result, at most: a line in a terminal is no place for more.
const RESULT_COLUMNS_MAX: usize = 400;

/// A state's symbol and colour; the word goes with it, so nobody has to know them.
pub(super) fn look(state: RunState) -> (char, Style) {
    let symbol = match state {
        RunState::Pending => '○',
        RunState::Running => '●',
        RunState::Success => '✓',
        RunState::Failed => '✗',
        RunState::Retry => '↻',
        RunState::Cancelled => '−',
    };
    (symbol, Colour::of(state).map_or(Style::Plain, Style::Coloured))
}

/// How long the latest attempt took, or has taken until now.
pub(super) fn duration(run: &RunRecord, now: Timestamp) -> String {
    match (run.status, run.duration_ms, run.started_at) {
        (RunState::Running, _, Some(since)) => coarse((now - since).to_std().unwrap_or_default()),
        (_, Some(millis), _) => short(Duration::from_millis(millis)),
        _ => String::new(),
    }
}

/// What came of it, or what it waits for, in one line.
pub(super) fn result(run: &RunRecord, now: Timestamp) -> String {
    let error = || run.error.as_ref().map(|error| format!("{}: {}", word(&error.kind), error.message));
    let reason = || run.reason.map(|reason| word(&reason));
    let text = match run.status {
        RunState::Pending => {
            reason().map_or_else(|| "waits for a worker".to_owned(), |why| format!("waits ({why})"))
        }
        RunState::Running => run.action.as_ref().map(|action| format!("{action} …")).unwrap_or_default(),
        RunState::Success => run.output.as_ref().map(output).unwrap_or_default(),
        RunState::Retry => {
            let why = error().or_else(reason).unwrap_or_default();
            let wait =
                run.next_attempt_at.and_then(|at| (at - now).to_std().ok()).filter(|wait| !wait.is_zero());
            wait.map(|wait| format!("again in {}: {why}", coarse(wait))).unwrap_or(why)
        }
        RunState::Failed => error().or_else(reason).unwrap_or_default(),
        RunState::Cancelled => reason().or_else(error).unwrap_or_default(),
    };
    let late = if run.late && !run.status.is_final() { "late; " } else { "" };
    clip(&printable(&format!("{late}{text}")), RESULT_COLUMNS_MAX)
}

/// An answer in short, what can be read at a glance first: `rows=4032 note=done files=[3] table={…}`.
fn output(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(_, value)| (value.is_object(), value.is_array()));
            let fields = fields.into_iter().map(|(name, value)| format!("{name}={}", scalar(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
        Value::Null => String::new(),
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.len()),
        Value::Object(_) => "{…}".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        names::QueueName,
        run_record::{ErrorKind, Reason, RunError},
    };

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("instant")
    }

    fn run(status: RunState) -> RunRecord {
        let at = at("2026-11-24T02:00:00Z");
        let pending = RunRecord::pending("a.b".parse().expect("id"), QueueName::default_queue(), at);
        RunRecord { status, started_at: Some(at), ..pending }
    }

    #[test]
    fn a_result_is_one_short_line() {
        let now = at("2026-11-24T02:00:09.500Z");
        let output = serde_json::json!({"rows": 4032, "files": ["a", "b"], "by": {"x": 1}, "note": "a\nb", "none": null});
        let success = RunRecord { output: Some(output), ..run(RunState::Success) };
        let text = result(&success, now);
        let (first, rest) = text.split_at(text.find(" files").expect("files"));
        assert_eq!(rest, " files=[2] by={…}");
        assert!(["note=a␊b rows=4032", "rows=4032 note=a␊b"].contains(&first), "{first}");
        let retry = RunRecord { next_attempt_at: Some(at("2026-11-24T02:00:20Z")), ..run(RunState::Retry) }
            .with_error(RunError::new(ErrorKind::Unreachable, "nobody\x1b[31m listens"));
        assert_eq!(result(&retry, now), "again in 10s: unreachable: nobody␛[31m listens");
        let skipped = run(RunState::Cancelled).because(Reason::SkippedOverlap);
        assert_eq!(result(&skipped, now), "skipped_overlap");
        let long = RunRecord { output: Some("x".repeat(9_999).into()), ..run(RunState::Success) };
        assert!(result(&long, now).chars().count() <= RESULT_COLUMNS_MAX);
    }

    #[test]
    fn a_running_attempt_counts_on() {
        assert_eq!(duration(&run(RunState::Running), at("2026-11-24T02:00:09.500Z")), "9s");
        let done = RunRecord { duration_ms: Some(2_500), ..run(RunState::Success) };
        assert_eq!(duration(&done, at("2026-11-24T03:00:00Z")), "2.5s");
    }
}
