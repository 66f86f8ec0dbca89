//! How long a run may take as a whole: until it begins, until it ends, and until its last attempt begins. Pure.
//!
//! All of them count from the same moment: when the run was made, or its submission was stored, or it was retried by hand.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    Timestamp,
    human_duration::HumanDuration,
    limits::RUN_TIME_MAX,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    task::Task,
};

/// How long a run may take until it begins, and until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeLimits {
    /// Until its first attempt begins.
    pub start_deadline: Option<Duration>,
    /// Until it ends.
    pub deadline: Option<Duration>,
}

/// Time limits that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeLimitError {
    /// No time at all, or more than anybody waits for.
    #[error("{field} is {value}; it is more than 0s and at most {max}", max = HumanDuration(RUN_TIME_MAX))]
    Range {
        /// Which of them.
        field: &'static str,
        /// What was given.
        value: HumanDuration,
    },
    /// It would have to end before it has to begin.
    #[error("start_deadline ({start}) exceeds deadline ({end}); lower the first or raise the second")]
    Order {
        /// Until it begins.
        start: HumanDuration,
        /// Until it ends.
        end: HumanDuration,
    },
}

impl TimeLimits {
    /// Reads limits as they are written.
    pub fn read(
        start_deadline: Option<HumanDuration>,
        deadline: Option<HumanDuration>,
    ) -> Result<Self, TimeLimitError> {
        for (field, value) in [("start_deadline", start_deadline), ("deadline", deadline)] {
            if let Some(value) = value {
                check_range(field, value)?;
            }
        }
        if let (Some(start), Some(end)) = (start_deadline, deadline)
            && start > end
        {
            return Err(TimeLimitError::Order { start, end });
        }
        let length = |limit: Option<HumanDuration>| limit.map(|limit| limit.0);
        Ok(Self { start_deadline: length(start_deadline), deadline: length(deadline) })
    }
}

/// Refuses a limit of no time at all, and one that nobody would wait for.
pub(crate) fn check_range(field: &'static str, value: HumanDuration) -> Result<(), TimeLimitError> {
    if value.0.is_zero() || value.0 > RUN_TIME_MAX {
        return Err(TimeLimitError::Range { field, value });
    }
    Ok(())
}

fn after(since: Timestamp, length: Duration) -> Timestamp {
    let length = TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX);
    since.checked_add_signed(length).unwrap_or(Timestamp::MAX_UTC)
}

impl Task {
    /// Whether its run may end by the clock alone.
    pub fn has_time_limits(&self) -> bool {
        self.time_limits != TimeLimits::default() || self.retry.max_age.is_some()
    }

    /// When its run has to end; none if it has all the time.
    pub fn deadline_of(&self, record: &RunRecord) -> Option<Timestamp> {
        Some(after(record.counts_since(), self.time_limits.deadline?))
    }

    /// Why no attempt of a run may begin at this moment any more; none if one may.
    pub fn too_late_for_attempt(&self, record: &RunRecord, at: Timestamp) -> Option<Reason> {
        if self.deadline_of(record).is_some_and(|deadline| at >= deadline) {
            return Some(Reason::Deadline);
        }
        let max_age = self.retry.max_age?;
        (at > after(record.counts_since(), max_age.0)).then_some(Reason::MaxAge)
    }

    /// The record of a run that waits and has waited longer than it may, as it ends; none if it may begin now.
    pub fn expired(&self, record: &RunRecord, now: Timestamp) -> Option<RunRecord> {
        let since = record.counts_since();
        let is_begun = record.started_at.is_some() || record.status == RunState::Retry;
        let too_late_to_start =
            self.time_limits.start_deadline.filter(|limit| !is_begun && now > after(since, *limit)).map(
                |limit| format!("it was not begun within its start_deadline of {}", HumanDuration(limit)),
            );
        let is_over = || {
            let deadline = self.time_limits.deadline?;
            (now >= after(since, deadline))
                .then(|| format!("it had not ended within its deadline of {}", HumanDuration(deadline)))
        };
        let is_old = || {
            let max_age = self.retry.max_age?;
            let is_retry = record.status == RunState::Retry;
            (is_retry && now > after(since, max_age.0))
                .then(|| format!("no attempt begins after its retry.max_age of {max_age}"))
        };
        let why = too_late_to_start.or_else(is_over).or_else(is_old)?;
        let expired = record.apply(RunEvent::Expired, now).ok()?;
        Some(expired.because(Reason::Expired).noting(why))
    }

    /// What is said of an attempt that ran out of time at this moment.
    pub fn out_of_time(&self, record: &RunRecord, now: Timestamp) -> RunError {
        let words = match self.time_limits.deadline {
            Some(deadline) if self.deadline_of(record).is_some_and(|at| now >= at) => {
                format!("the run took longer than its deadline of {}", HumanDuration(deadline))
            }
            _ => format!("the attempt took longer than its timeout of {}", HumanDuration(self.timeout)),
        };
        RunError::new(ErrorKind::Timeout, words)
    }
}

impl RunRecord {
    /// The moment from which its time limits count.
    pub fn counts_since(&self) -> Timestamp {
        self.retried.as_ref().map_or(self.created_at, |retried| retried.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::QueueName;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn task(limits: &str) -> Task {
        let json = format!(r#"{{"target_service":"a","action":"b",{limits}}}"#);
        Task::from_json(json.as_bytes()).expect("task")
    }

    fn pending() -> RunRecord {
        RunRecord::pending("reindex.4711".parse().expect("id"), QueueName::default_queue(), at("02:00:00"))
    }

    fn waits_for_retry() -> RunRecord {
        let started = pending().apply(RunEvent::Started, at("02:00:01")).expect("starts");
        started.apply(RunEvent::FailedWithRetry, at("02:00:02")).expect("fails")
    }

    #[test]
    fn what_has_waited_longer_than_it_may_expires_and_nothing_else_does() {
        let start = r#""start_deadline":"10m""#;
        let end = r#""deadline":"1h""#;
        let age = r#""retry":{"max_age":"10m"}"#;
        let retried = || {
            let failed = RunRecord { status: RunState::Failed, ..waits_for_retry() };
            failed.retried_by_hand("ann", None, at("03:00:00")).expect("retried")
        };
        for (limits, record, now, expires) in [
            (start, pending(), "02:10:00", None),
            (start, pending(), "02:10:01", Some("start_deadline of 10m")),
            // It was begun in time.
            (start, waits_for_retry(), "02:10:01", None),
            (end, pending(), "02:59:59", None),
            (end, pending(), "03:00:00", Some("deadline of 1h")),
            (end, waits_for_retry(), "03:00:00", Some("deadline of 1h")),
            (age, pending(), "02:10:01", None),
            (age, waits_for_retry(), "02:10:00", None),
            (age, waits_for_retry(), "02:10:01", Some("max_age of 10m")),
            // Time counts anew for who is retried by hand.
            (end, retried(), "03:59:59", None),
            (end, retried(), "04:00:00", Some("deadline of 1h")),
        ] {
            let expired = task(limits).expired(&record, at(now));
            assert_eq!(expired.is_some(), expires.is_some(), "{limits} at {now}");
            if let (Some(expired), Some(words)) = (expired, expires) {
                assert_eq!((expired.status, expired.reason), (RunState::Cancelled, Some(Reason::Expired)));
                assert!(expired.note.is_some_and(|note| note.contains(words)), "{words}");
            }
        }
        assert_eq!(
            task(end).expired(
                &pending().apply(RunEvent::Started, at("02:00:01")).expect("starts"),
                at("09:00:00")
            ),
            None
        );
    }

    #[test]
    fn no_attempt_begins_after_the_deadline_or_beyond_the_maximum_age() {
        let both = task(r#""deadline":"1h","retry":{"max_age":"10m"}"#);
        for (moment, reason) in
            [("02:10:00", None), ("02:10:01", Some(Reason::MaxAge)), ("03:00:00", Some(Reason::Deadline))]
        {
            assert_eq!(both.too_late_for_attempt(&pending(), at(moment)), reason, "{moment}");
        }
        assert_eq!(task(r#""timeout":"1m""#).too_late_for_attempt(&pending(), at("23:00:00")), None);
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused_with_the_repair() {
        for (limits, words) in [
            (r#""deadline":"0s""#, "deadline is 0s"),
            (r#""start_deadline":"31days""#, "at most 30days"),
            (r#""start_deadline":"2h","deadline":"1h""#, "lower the first or raise the second"),
            (r#""retry":{"max_age":"0s"}"#, "retry.max_age is 0s"),
        ] {
            let json = format!(r#"{{"target_service":"a","action":"b",{limits}}}"#);
            let message = Task::from_json(json.as_bytes()).expect_err(limits).to_string();
            assert!(message.contains(words), "{limits}: {message}");
        }
        let limits = r#""start_deadline":"10m","deadline":"1h","retry":{"max_age":"10m"}"#;
        let written = serde_json::to_string(&task(limits)).expect("JSON");
        assert_eq!(Task::from_json(written.as_bytes()), Ok(task(limits)));
    }
}
