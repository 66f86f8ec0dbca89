//! Which dead letters are meant. Pure.

use serde::Serialize;
use serde_json::Value;
use shared::{
    Timestamp,
    names::{Name, QueueName, TargetName},
    task::Task,
};

use super::Found;

/// Which dead letters are meant: those for which all of it holds.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those of this queue.
    pub queue: Option<QueueName>,
    /// Only those of this schedule, or submitted under this name.
    pub name: Option<Name>,
    /// Only those that act on this target.
    pub target: Option<TargetName>,
    /// Only those that failed at this instant or later.
    pub since: Option<Timestamp>,
    /// Only those that failed before this instant.
    pub until: Option<Timestamp>,
    /// Only those whose task has these parameters; a dot in the name leads into an object.
    pub parameters: Vec<(String, Value)>,
    /// Only those whose error, its kind or the reason has this text in it, in whatever case.
    pub error: Option<String>,
}

impl Wanted {
    /// Whether this one is meant.
    pub fn matches(&self, found: &Found) -> bool {
        let run = &found.letter.run;
        let failed_at = found.failed_at();
        let is_target = |target: &TargetName| run.target_service.as_ref() == Some(target);
        self.queue.as_ref().is_none_or(|queue| run.queue == *queue)
            && self.name.as_ref().is_none_or(|name| run.id.name == *name)
            && self.target.as_ref().is_none_or(is_target)
            && self.since.is_none_or(|since| failed_at >= since)
            && self.until.is_none_or(|until| failed_at < until)
            && self.parameters.iter().all(|(path, value)| has(found.letter.task.as_ref(), path, value))
            && self.error.as_ref().is_none_or(|text| says(found, text))
    }
}

fn has(task: Option<&Task>, path: &str, wanted: &Value) -> bool {
    let Some(task) = task else { return false };
    // A parameter whose own name has a dot goes before a way into an object.
    let found = task.parameters.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        rest.split('.').try_fold(task.parameters.get(first)?, |value, step| match value {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            value => value.get(step),
        })
    });
    // Who writes 4711 may mean the text "4711".
    let written = wanted.to_string();
    found.is_some_and(|found| found == wanted || found.as_str() == Some(written.as_str()))
}

fn says(found: &Found, text: &str) -> bool {
    let text = text.to_lowercase();
    let run = &found.letter.run;
    let error = run.error.as_ref().map(|error| format!("{} {}", word(&error.kind), error.message));
    let reason = run.reason.map(|reason| word(&reason));
    [error, reason].into_iter().flatten().any(|said| said.to_lowercase().contains(&text))
}

/// A kind or reason as records write it.
fn word(value: &impl Serialize) -> String {
    let written = serde_json::to_value(value).ok();
    written.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::DeadLetter;
    use serde_json::json;
    use shared::{
        run_record::{ErrorKind, Reason, RunError, RunRecord},
        run_state::RunEvent,
    };

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn found() -> Found {
        let task = Task::from_json(
            br#"{"target_service":"storage","action":"sweep","parameters":{"day":"4711","n":7,"deep":{"list":[1,{"a":true}]},"a.b":1}}"#,
        )
        .expect("a task");
        let queue = "reports".parse().expect("queue");
        let run = RunRecord::pending("sweep.1".parse().expect("id"), queue, at("02:00:00"));
        let run = run
            .apply(RunEvent::Started, at("02:00:01"))
            .and_then(|run| run.apply(RunEvent::FailedForGood, at("02:00:02")));
        let run = RunRecord { target_service: task.target().cloned(), ..run.expect("fails") }
            .because(Reason::AttemptsExhausted)
            .with_error(RunError::new(ErrorKind::Target, "the target answered 503 Out Of Disk"));
        let letter = DeadLetter::of(run, task, "cronfleet.tasks.reports.sweep.1".to_owned());
        Found { letter, sequence: 1, stored_at: at("02:00:03") }
    }

    #[test]
    fn all_that_is_asked_of_a_letter_must_hold() {
        let name = |text: &str| Some(text.parse().expect("name"));
        let parameter =
            |path: &str, value| Wanted { parameters: vec![(path.to_owned(), value)], ..Wanted::default() };
        let error = |text: &str| Wanted { error: Some(text.to_owned()), ..Wanted::default() };
        for (wanted, is_meant) in [
            (Wanted::default(), true),
            (
                Wanted {
                    queue: Some("reports".parse().expect("queue")),
                    name: name("sweep"),
                    ..Wanted::default()
                },
                true,
            ),
            (
                Wanted {
                    queue: Some("default".parse().expect("queue")),
                    name: name("sweep"),
                    ..Wanted::default()
                },
                false,
            ),
            (Wanted { name: name("sweeper"), ..Wanted::default() }, false),
            (Wanted { target: Some("storage".parse().expect("target")), ..Wanted::default() }, true),
            (Wanted { target: Some("other".parse().expect("target")), ..Wanted::default() }, false),
            (Wanted { since: Some(at("02:00:02")), until: Some(at("02:00:03")), ..Wanted::default() }, true),
            (Wanted { since: Some(at("02:00:03")), ..Wanted::default() }, false),
            (Wanted { until: Some(at("02:00:02")), ..Wanted::default() }, false),
            (parameter("n", json!(7)), true),
            (parameter("day", json!(4711)), true),
            (parameter("day", json!(4712)), false),
            (parameter("deep.list.1.a", json!(true)), true),
            (parameter("deep.list.9", json!(true)), false),
            (parameter("a.b", json!(1)), true),
            (parameter("nothing", json!(null)), false),
            (error("out of disk"), true),
            (error("attempts_exhausted"), true),
            (error("timeout"), false),
        ] {
            assert_eq!(wanted.matches(&found()), is_meant, "{wanted:?}");
        }
    }
}
