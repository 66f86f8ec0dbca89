//! A run that failed and is run again by hand, under its own id.
//!
//! Attempts are counted on, so that no two attempts of a run have one number; but the task's own number of attempts is
//! granted anew, and its waits begin anew.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    run_record::RunRecord,
    run_state::{IllegalTransition, RunEvent, RunState},
};

/// That a run was retried by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retried {
    /// How often, this time included.
    pub times: u32,
    /// Who asked the last time.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Attempts that were made before, and do not count against the task's own number.
    pub attempts_before: u32,
    /// The instant of the last request to cancel that lay there then: it was about the life before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancel_before: Option<Timestamp>,
}

impl RunRecord {
    /// The record of a run that failed, as it waits to run again; what its last attempt left is in the history.
    /// `cancel_before` is the instant of the last request to cancel it.
    pub fn retried_by_hand(
        &self,
        by: &str,
        cancel_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<RunRecord, IllegalTransition> {
        let waits = self.apply(RunEvent::Retried, now)?;
        let retried = Retried {
            times: self.times_retried().saturating_add(1),
            by: by.to_owned(),
            at: now,
            attempts_before: self.attempt,
            cancel_before,
        };
        Ok(RunRecord {
            retried: Some(retried),
            fence: None,
            worker: None,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            output: None,
            error: None,
            ..waits
        })
    }

    /// The record of a run whose retry found its schedule occupied: just as it had `failed` before.
    pub fn retry_withdrawn(
        &self,
        failed: &RunRecord,
        now: Timestamp,
    ) -> Result<RunRecord, IllegalTransition> {
        let status = self.apply(RunEvent::RetryWithdrawn, now)?.status;
        Ok(RunRecord { status, ..failed.clone() })
    }

    /// Whether nothing was done about it since it was retried by hand: nobody began it, and no limit made it wait.
    pub fn is_just_retried(&self) -> bool {
        let before = self.retried.as_ref().map(|retried| retried.attempts_before);
        self.status == RunState::Pending && self.reason.is_none() && before == Some(self.attempt)
    }

    /// How often it was retried by hand.
    pub fn times_retried(&self) -> u32 {
        self.retried.as_ref().map_or(0, |retried| retried.times)
    }

    /// The attempt, counted from the last retry by hand: what a task's retry policy is asked about.
    pub fn attempt_of_policy(&self) -> u32 {
        let before = self.retried.as_ref().map_or(0, |retried| retried.attempts_before);
        self.attempt.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::QueueName,
        run_record::{ErrorKind, Reason, RunError},
    };

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn failed() -> RunRecord {
        let id = "reindex.4711".parse().expect("id");
        let pending = RunRecord::pending(id, QueueName::default_queue(), at("02:00:00"));
        let started = RunRecord { attempt: 2, ..pending }.apply(RunEvent::Started, at("02:00:01"));
        let failed = started.and_then(|started| started.apply(RunEvent::FailedForGood, at("02:00:02")));
        let failed = failed.expect("fails").because(Reason::AttemptsExhausted);
        RunRecord { fence: Some(7), ..failed.with_error(RunError::new(ErrorKind::Target, "500")) }
    }

    #[test]
    fn a_retried_run_counts_its_attempts_on_and_has_all_of_its_policys_anew() {
        let waits = failed().retried_by_hand("ann@laptop", None, at("03:00:00")).expect("retried");
        assert_eq!((waits.status, waits.attempt, waits.attempt_of_policy()), (RunState::Pending, 3, 0));
        assert_eq!(
            (&waits.error, waits.started_at, waits.finished_at, waits.fence),
            (&None, None, None, None)
        );
        assert!(waits.is_just_retried());
        let limited = waits.apply(RunEvent::Limited, at("03:00:01")).expect("waits");
        assert!(!limited.because(Reason::Limited).is_just_retried(), "somebody has had it");
        let started = waits.apply(RunEvent::Started, at("03:00:01")).expect("starts");
        assert!(!started.is_just_retried());
        assert_eq!((started.attempt, started.attempt_of_policy()), (4, 1));
        let again = started.apply(RunEvent::FailedForGood, at("03:00:02")).expect("fails");
        let again = again.retried_by_hand("zoe@desk", None, at("04:00:00")).expect("retried");
        assert_eq!((again.times_retried(), again.attempt_of_policy()), (2, 0));
    }

    #[test]
    fn a_retry_that_is_withdrawn_leaves_the_record_as_it_was() {
        let waits = failed().retried_by_hand("ann@laptop", None, at("03:00:00")).expect("retried");
        assert_eq!(waits.retry_withdrawn(&failed(), at("03:00:01")), Ok(failed()));
        assert!(failed().retry_withdrawn(&failed(), at("03:00:01")).is_err(), "it was not retried");
    }
}
