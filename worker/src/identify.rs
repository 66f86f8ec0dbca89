//! Reads a delivery: which run it is, and which task. Pure.
//!
//! On `due` subjects a planner's headers are trusted. On `tasks` subjects everything is a stranger's word: only the
//! subject names the run, and keys that planners use are refused, so that nobody can squat on a slot.

use std::sync::Arc;

use shared::{
    Timestamp, names::QueueName, run::RunId, run_record::RunRecord, task::Task, trace::TraceContext,
};
use streams::{Names, names::Origin, tasks::DueTask};

/// A run that can be claimed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identified {
    /// The record to claim over, as its planner made it or as it begins here.
    pub(crate) record: RunRecord,
    /// The record's revision, if a planner made it: then the first claim needs no read.
    pub(crate) revision: Option<u64>,
    /// What is to be done.
    pub(crate) task: Arc<Task>,
    /// Where in which trace this happens.
    pub(crate) trace: TraceContext,
}

/// A message that is no run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unreadable {
    /// The run it would be, if its subject names one that callers may use.
    pub(crate) run: Option<RunId>,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// The parts of a delivery that say what it is.
pub(crate) struct Parts<'a> {
    pub(crate) origin: Origin,
    pub(crate) tokens: (&'a str, &'a str),
    pub(crate) run_header: Option<&'a str>,
    pub(crate) revision: Option<u64>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) payload: &'a [u8],
}

/// Says which run a delivery is, and which task. A submission's record begins when the server took it: the same for every delivery
/// of it, and the time it waits in its queue is its own.
pub(crate) fn identify(
    parts: &Parts<'_>,
    queue: &QueueName,
    taken_at: Timestamp,
) -> Result<Identified, Unreadable> {
    let trace = parts.traceparent.and_then(TraceContext::parse);
    match parts.origin {
        Origin::Due => due(parts, trace),
        Origin::AdHoc => ad_hoc(parts, queue, taken_at, trace.unwrap_or_else(TraceContext::root)),
    }
}

fn due(parts: &Parts<'_>, trace: Option<TraceContext>) -> Result<Identified, Unreadable> {
    // The header is a planner's, so the run is known even if its task cannot be read (by an older worker, say).
    let run = parts.run_header.and_then(|header| header.parse().ok());
    let unreadable = |why: String| Unreadable { run: run.clone(), why };
    let due: DueTask =
        serde_json::from_slice(parts.payload).map_err(|error| unreadable(error.to_string()))?;
    if parts.run_header != Some(due.run.id.to_string().as_str()) {
        return Err(unreadable(format!(
            "its header names run {:?}, its body {}",
            parts.run_header, due.run.id
        )));
    }
    let trace = trace.unwrap_or_else(TraceContext::root);
    let record = Arc::unwrap_or_clone(due.run);
    Ok(Identified { record, revision: parts.revision, task: due.task, trace })
}

fn ad_hoc(
    parts: &Parts<'_>,
    queue: &QueueName,
    taken_at: Timestamp,
    trace: TraceContext,
) -> Result<Identified, Unreadable> {
    let (name, key) = parts.tokens;
    let no_run = |error| Unreadable { run: None, why: format!("its subject: {error}") };
    let run = RunId { name: name.parse().map_err(no_run)?, key: key.parse().map_err(no_run)? };
    if Names::is_reserved(&run) {
        let why = format!(
            "its key {key:?} is reserved for planners; choose one that is no slot, begins with no _, and is none of \
             `rejected`'s"
        );
        return Err(Unreadable { run: None, why });
    }
    let task = Task::from_json(parts.payload)
        .map_err(|error| Unreadable { run: Some(run.clone()), why: error.to_string() })?;
    let record = RunRecord {
        target_service: task.target().cloned(),
        action: Some(task.action().clone()),
        trace_id: Some(trace.trace_id_text()),
        ..RunRecord::pending(run, queue.clone(), taken_at)
    };
    Ok(Identified { record, revision: None, task: task.into(), trace })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &[u8] = br#"{"target_service":"a","action":"b"}"#;

    fn read(origin: Origin, tokens: (&str, &str), payload: &[u8]) -> Result<Identified, Unreadable> {
        let parts = Parts { origin, tokens, run_header: None, revision: None, traceparent: None, payload };
        identify(&parts, &QueueName::default_queue(), "2026-11-24T02:00:00Z".parse().expect("instant"))
    }

    #[test]
    fn a_strangers_task_is_the_run_its_subject_names() {
        let found = read(Origin::AdHoc, ("reindex", "4711"), TASK).expect("a run");
        assert_eq!(found.record.id.to_string(), "reindex.4711");
        assert_eq!(found.revision, None);
    }

    #[test]
    fn a_stranger_cannot_squat_on_a_slot_or_a_lock() {
        for (name, key) in [
            ("daily", "20261124T020000Z"),
            ("daily", "_"),
            ("daily", "_mine"),
            ("rejected", "seq-7"),
            ("rejected", "delayed-7"),
        ] {
            let refused = read(Origin::AdHoc, (name, key), TASK).expect_err(key);
            assert_eq!(refused.run, None, "no record may be written under {key}");
            assert!(refused.why.contains("reserved"), "{}", refused.why);
        }
    }

    #[test]
    fn garbage_is_told_from_a_subject_that_is_no_run() {
        let garbage = read(Origin::AdHoc, ("reindex", "4711"), b"{\"target_service\":").expect_err("garbage");
        assert_eq!(garbage.run.map(|run| run.to_string()).as_deref(), Some("reindex.4711"));
        let strange = read(Origin::AdHoc, ("reindex", "47$11"), TASK).expect_err("strange");
        assert_eq!(strange.run, None);
    }

    #[test]
    fn a_planners_message_must_agree_with_itself() {
        assert!(read(Origin::Due, ("daily", "_"), TASK).is_err());
    }
}
