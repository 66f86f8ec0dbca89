//! The attempts that were made at a run, out of the versions of its record. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    names::MemberId,
    run_record::{Reason, RunError, RunRecord},
    run_state::RunState,
};

/// An attempt that is over, as a dead letter keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PastAttempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// The worker that made it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worker: Option<MemberId>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
    /// When its end was stored, by the server's clock.
    pub ended_at: Timestamp,
    /// Why the run was then in its state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RunError>,
    /// Its fencing number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<u64>,
}

impl PastAttempt {
    /// The attempt that a record is the end of, if it is one, stored then.
    pub fn ended_by(record: &RunRecord, stored_at: Timestamp) -> Option<Self> {
        let is_end = matches!(record.status, RunState::Retry | RunState::Success | RunState::Failed);
        (is_end && record.attempt > 0).then(|| Self {
            attempt: record.attempt,
            worker: record.worker.clone(),
            started_at: record.started_at,
            ended_at: stored_at,
            reason: record.reason,
            error: record.error.clone(),
            fence: record.fence,
        })
    }
}

/// The attempts whose ends are among these versions of a record, the earliest first, each once. One that was handed back is
/// none: it was not spent.
pub fn attempts_of<'a>(versions: impl IntoIterator<Item = (&'a RunRecord, Timestamp)>) -> Vec<PastAttempt> {
    let mut attempts: Vec<PastAttempt> = Vec::new();
    for (record, stored_at) in versions {
        let Some(attempt) = PastAttempt::ended_by(record, stored_at) else { continue };
        // A later version of the same state, or the end of a run that waited for its retry, is no attempt of its own.
        if attempts.last().is_none_or(|last| last.attempt < attempt.attempt) {
            attempts.push(attempt);
        }
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::QueueName, run_record::ErrorKind, run_state::RunEvent};

    #[test]
    fn each_attempt_that_was_spent_is_kept_once_with_its_error() {
        let at =
            |second: u32| -> Timestamp { format!("2026-11-24T02:00:{second:02}Z").parse().expect("instant") };
        let id = "reindex.4711".parse().expect("id");
        let mut versions = vec![RunRecord::pending(id, QueueName::default_queue(), at(0))];
        let mut next = |event, words: Option<&str>| {
            let record = versions.last().expect("one").apply(event, at(1)).expect("legal");
            let error = words.map(|words| RunError::new(ErrorKind::Target, words));
            versions.push(RunRecord { error, ..record });
        };
        next(RunEvent::Started, None);
        next(RunEvent::Interrupted, None);
        next(RunEvent::Started, None);
        next(RunEvent::FailedWithRetry, Some("first"));
        next(RunEvent::Started, None);
        next(RunEvent::Lost, Some("second"));
        next(RunEvent::Started, None);
        next(RunEvent::FailedForGood, Some("third"));
        let stored: Vec<_> = versions.iter().zip((10..).map(at)).collect();
        let attempts = attempts_of(stored.iter().copied());
        let told: Vec<_> = attempts
            .iter()
            .map(|one| (one.attempt, one.error.as_ref().map(|error| error.message.as_str()), one.ended_at))
            .collect();
        assert_eq!(
            told,
            [(1, Some("first"), at(14)), (2, Some("second"), at(16)), (3, Some("third"), at(18))]
        );
        // A history that reaches back to the middle only.
        assert_eq!(attempts_of(stored[6..].iter().copied()).len(), 2);
    }
}
