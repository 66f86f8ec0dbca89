//! What the end of an attempt means for the run. Pure: record, task and ending in, new record and answer out.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use shared::{
    Timestamp,
    callback::Awaited,
    limits::BACKOFF_MAX,
    run_record::{ErrorKind, Reason, RunError, RunRecord, bounded_output},
    run_state::{IllegalTransition, RunEvent},
    task::{Delivery, Task},
};

use streams::cancel::CancelRequest;

use crate::executors::Failure;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// Well, with this output.
    Output(Value),
    /// With an error.
    Failed(Failure),
    /// It took longer than it may, and was stopped.
    TimedOut,
    /// The worker is stopping, and stopped it.
    Interrupted {
        /// Whether anything was sent: before that nothing can have been done.
        begun: bool,
    },
    /// Before anything was sent it was found, in these words, that its turn at a limit is past.
    NotBegun(String),
    /// The target has taken it on, and will say later how it ended.
    TakenOn(Awaited),
    /// Somebody asked for its end, and it was stopped.
    Cancelled(CancelRequest),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the server is told once the record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Ack,
    /// It comes out again after this wait.
    HandBack(Duration),
    /// It goes among the dead letters.
    Bury,
}

/// What the end of an attempt means.
pub(crate) fn verdict(
    record: &RunRecord,
    task: &Task,
    ending: Ending,
    now: Timestamp,
) -> Result<(RunRecord, Answer), IllegalTransition> {
    let failure = match ending {
        Ending::Output(output) => {
            let done = record.apply(RunEvent::Succeeded, now)?;
            return Ok((RunRecord { output: Some(bounded_output(output)), ..done }, Answer::Ack));
        }
        Ending::TakenOn(awaited) => {
            let waits = record.apply(RunEvent::Accepted, now)?;
            // Its target may take as long as it was told, but not longer than the run may as a whole.
            let deadline = task.deadline_of(record).map_or(awaited.deadline, |end| end.min(awaited.deadline));
            let awaited = Awaited { deadline, ..awaited };
            // Nobody holds it from here on. It is looked at at once: an answer may have come before this was written.
            return Ok((RunRecord { callback: Some(awaited), ..waits }, Answer::HandBack(Duration::ZERO)));
        }
        Ending::Cancelled(request) => return Ok((request.end(record, now)?, Answer::Ack)),
        // It may have acted already, and may not act twice.
        Ending::Interrupted { begun: true } if task.delivery == Delivery::AtMostOnce => {
            let words = "the worker was stopping, and a task of at_most_once is not begun a second time";
            let failed = record.apply(RunEvent::LostForGood, now)?.because(Reason::Lost);
            return Ok((failed.with_error(RunError::new(ErrorKind::Lost, words)), Answer::Bury));
        }
        Ending::Interrupted { .. } => {
            return Ok((record.apply(RunEvent::Interrupted, now)?, Answer::HandBack(Duration::ZERO)));
        }
        // It comes out at once, asks to pass anew, and waits outside its queue if it may not.
        Ending::NotBegun(words) => {
            let back = record.apply(RunEvent::Interrupted, now)?.because(Reason::Limited).noting(words);
            return Ok((back, Answer::HandBack(Duration::ZERO)));
        }
        Ending::TimedOut => Failure::retryable(ErrorKind::Timeout, task.out_of_time(record, now).message),
        Ending::Failed(failure) => failure,
    };
    if failure.skips {
        let skipped = record.apply(RunEvent::Skipped, now)?.because(Reason::Precheck);
        return Ok((skipped.with_error(failure.error), Answer::Ack));
    }
    let is_out_of_all_time = failure.error.kind == ErrorKind::Timeout
        && task.deadline_of(record).is_some_and(|deadline| now >= deadline);
    // Not the attempt's own time, the run's: so it is called, whether or not another attempt was left.
    let reason = if is_out_of_all_time { Some(Reason::Deadline) } else { reason_of(&failure) };
    let permanent = failure.permanent || (task.delivery == Delivery::AtMostOnce && may_have_acted(&failure));
    if permanent || !task.retry.allows_after(record.attempt_of_policy()) {
        let last = if permanent { Reason::Permanent } else { Reason::AttemptsExhausted };
        let reason = if failure.permanent { Reason::Permanent } else { reason.unwrap_or(last) };
        let failed = record.apply(RunEvent::FailedForGood, now)?.because(reason);
        return Ok((failed.with_error(failure.error), Answer::Bury));
    }
    let wait = wait_before_next(record, task, failure.retry_after);
    let next_attempt_at = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::zero());
    if let Some(reason) = task.too_late_for_attempt(record, next_attempt_at) {
        let failed = record.apply(RunEvent::FailedForGood, now)?.because(reason);
        return Ok((failed.with_error(failure.error), Answer::Bury));
    }
    let retry = record.apply(RunEvent::FailedWithRetry, now)?;
    let retry = RunRecord { reason, next_attempt_at: Some(next_attempt_at), ..retry };
    Ok((retry.with_error(failure.error), Answer::HandBack(wait)))
}

/// Our own backoff, or longer if the target asks for it; never longer than a run may hold its place.
fn wait_before_next(record: &RunRecord, task: &Task, retry_after: Option<Duration>) -> Duration {
    let ours = task.retry.wait_after(record.attempt_of_policy(), &record.id);
    ours.max(retry_after.unwrap_or_default()).min(BACKOFF_MAX)
}

/// Whether the target may have seen the attempt: it was not found wanting before anything was sent.
fn may_have_acted(failure: &Failure) -> bool {
    !matches!(
        failure.error.kind,
        ErrorKind::Precheck | ErrorKind::UnknownTarget | ErrorKind::Request | ErrorKind::CommandNotAllowed
    )
}

fn reason_of(failure: &Failure) -> Option<Reason> {
    match failure.error.kind {
        ErrorKind::Timeout => Some(Reason::Timeout),
        ErrorKind::Precheck => Some(Reason::Precheck),
        ErrorKind::UnknownTarget => Some(Reason::Unknown),
        _ => None,
    }
}

/// What an attempt left its run as, for the log: `RETRY (timeout: the attempt took longer than its timeout of 5m)`.
pub(crate) fn in_words(record: &RunRecord) -> String {
    let reason = record.reason.and_then(|reason| serde_json::to_value(reason).ok());
    let reason = reason.and_then(|reason| reason.as_str().map(str::to_owned));
    let error =
        record.error.as_ref().map(|error| error.message.lines().next().unwrap_or_default().to_owned());
    let why: Vec<String> = reason.into_iter().chain(error).collect();
    if why.is_empty() { record.status.to_string() } else { format!("{} ({})", record.status, why.join(": ")) }
}

/// The record of a message that is no run.
pub(crate) fn rejected(record: &RunRecord, why: &str) -> Result<RunRecord, IllegalTransition> {
    let failed = record.apply(RunEvent::Rejected, record.created_at)?.because(Reason::Malformed);
    Ok(failed.with_error(RunError::new(ErrorKind::Malformed, why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{names::QueueName, run_state::RunState};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn running(attempt: u32) -> RunRecord {
        let id = "reindex.4711".parse().expect("id");
        let record = RunRecord::pending(id, QueueName::default_queue(), at("02:00:00"));
        RunRecord { attempt, ..record.apply(RunEvent::Started, at("02:00:00")).expect("starts") }
    }

    fn task() -> Task {
        let json = r#"{"target_service":"a","action":"b","retry":{"attempts":3,"backoff":"10s"}}"#;
        Task::from_json(json.as_bytes()).expect("task")
    }

    fn end(attempt: u32, ending: Ending) -> (RunRecord, Answer) {
        verdict(&running(attempt), &task(), ending, at("02:00:05")).expect("legal")
    }

    #[test]
    fn a_good_end_is_recorded_with_its_output_and_acknowledged() {
        let (record, answer) = end(1, Ending::Output(serde_json::json!({"rows": 7})));
        assert_eq!((record.status, answer), (RunState::Success, Answer::Ack));
        assert_eq!((record.output, record.duration_ms), (Some(serde_json::json!({"rows": 7})), Some(5_000)));
    }

    #[test]
    fn a_failed_attempt_is_followed_by_another_after_the_backoff_until_none_is_left() {
        let failed = || Ending::Failed(Failure::retryable(ErrorKind::Target, "500"));
        let (record, answer) = end(1, failed());
        assert_eq!(record.status, RunState::Retry);
        let Answer::HandBack(wait) = answer else { panic!("{answer:?}") };
        assert!((8.0..=10.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(record.next_attempt_at.is_some_and(|next| next > at("02:00:13")));
        let (record, answer) = end(3, failed());
        assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::AttemptsExhausted)));
        assert_eq!(answer, Answer::Bury);
    }

    #[test]
    fn an_error_that_another_attempt_would_not_mend_ends_the_run_at_once() {
        let (record, answer) = end(1, Ending::Failed(Failure::permanent(ErrorKind::Target, "404")));
        assert_eq!(
            (record.status, record.reason, answer),
            (RunState::Failed, Some(Reason::Permanent), Answer::Bury)
        );
    }

    #[test]
    fn a_run_whose_target_is_found_wanting_is_skipped_if_it_is_so_declared() {
        let failure = Failure { skips: true, ..Failure::retryable(ErrorKind::Precheck, "disabled") };
        let (record, answer) = end(1, Ending::Failed(failure));
        assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::Precheck)));
        assert_eq!(
            (record.error.map(|error| error.message).as_deref(), answer),
            (Some("disabled"), Answer::Ack)
        );
    }

    #[test]
    fn a_target_that_asks_for_time_gets_it_within_bounds() {
        for (asked, at_least, at_most) in [(60, 60, 60), (1, 8, 10), (86_400, 3_600, 3_600)] {
            let failure = Failure {
                retry_after: Some(Duration::from_secs(asked)),
                ..Failure::retryable(ErrorKind::Target, "429")
            };
            let (_, answer) = end(1, Ending::Failed(failure));
            let Answer::HandBack(wait) = answer else { panic!("{answer:?}") };
            assert!((at_least..=at_most).contains(&wait.as_secs()), "asked {asked}: {wait:?}");
        }
    }

    #[test]
    fn a_run_that_is_handed_back_has_not_spent_its_attempt() {
        let (record, answer) = end(2, Ending::Interrupted { begun: true });
        assert_eq!(
            (record.status, record.attempt, answer),
            (RunState::Pending, 1, Answer::HandBack(Duration::ZERO))
        );
    }

    #[test]
    fn a_task_that_may_run_at_most_once_is_never_begun_a_second_time_once_it_may_have_acted() {
        let once = Task { delivery: Delivery::AtMostOnce, ..task() };
        let end = |ending| verdict(&running(1), &once, ending, at("02:00:05")).expect("legal");
        for ending in [
            Ending::Interrupted { begun: true },
            Ending::TimedOut,
            Ending::Failed(Failure::retryable(ErrorKind::Target, "500")),
            Ending::Failed(Failure::retryable(ErrorKind::Unreachable, "reset")),
        ] {
            let (record, answer) = end(ending.clone());
            assert_eq!((record.status, answer), (RunState::Failed, Answer::Bury), "{ending:?}");
            assert_ne!(record.reason, Some(Reason::AttemptsExhausted), "{ending:?}: two were left");
        }
        let (record, _) = end(Ending::Failed(Failure::retryable(ErrorKind::Precheck, "sick")));
        assert_eq!(record.status, RunState::Retry, "nothing was sent");
        let (record, answer) = end(Ending::Interrupted { begun: false });
        assert_eq!(
            (record.status, record.attempt),
            (RunState::Pending, 0),
            "it waited for a place at its target"
        );
        assert_eq!(answer, Answer::HandBack(Duration::ZERO));
    }

    #[test]
    fn a_run_that_lost_its_turn_before_anything_was_sent_has_not_spent_its_attempt_however_few_it_has() {
        let once = Task { delivery: Delivery::AtMostOnce, ..task() };
        let ending = Ending::NotBegun("its turn is past".to_owned());
        let (record, answer) = verdict(&running(1), &once, ending, at("02:00:05")).expect("legal");
        assert_eq!(
            (record.status, record.attempt, record.reason),
            (RunState::Pending, 0, Some(Reason::Limited))
        );
        assert_eq!(
            (record.note.as_deref(), answer),
            (Some("its turn is past"), Answer::HandBack(Duration::ZERO))
        );
    }

    #[test]
    fn a_run_that_was_cancelled_has_ended_says_why_and_leaves_its_queue() {
        let request = CancelRequest {
            run: running(1).id,
            reason: Reason::Replaced,
            by: "planner-a-1".to_owned(),
            at: at("02:00:04"),
        };
        let (record, answer) = end(1, Ending::Cancelled(request));
        assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::Replaced)));
        assert_eq!(record.note.as_deref(), Some("replaced by planner-a-1"));
        assert_eq!((record.duration_ms, answer), (Some(5_000), Answer::Ack));
    }

    #[test]
    fn a_target_that_answers_later_has_no_longer_than_its_run_has() {
        for (limits, deadline) in [(r#""timeout":"1m""#, "03:00:00"), (r#""deadline":"10m""#, "02:10:00")] {
            let json = format!(r#"{{"target_service":"a","action":"b",{limits}}}"#);
            let task = Task::from_json(json.as_bytes()).expect("task");
            let awaited = Awaited {
                accepted_at: at("02:00:05"),
                deadline: at("03:00:00"),
                heartbeat: None,
                token_hash: "of a token".to_owned(),
            };
            let (record, _) =
                verdict(&running(1), &task, Ending::TakenOn(awaited), at("02:00:05")).expect("legal");
            assert_eq!(record.callback.expect("it waits").deadline, at(deadline), "{limits}");
        }
    }

    #[test]
    fn an_attempt_that_would_come_too_late_is_not_waited_for() {
        for (limits, reason) in [
            (r#""deadline":"12s","retry":{"attempts":3,"backoff":"10s"}"#, Reason::Deadline),
            (r#""retry":{"attempts":3,"backoff":"10s","max_age":"12s"}"#, Reason::MaxAge),
        ] {
            let json = format!(r#"{{"target_service":"a","action":"b",{limits}}}"#);
            let task = Task::from_json(json.as_bytes()).expect("task");
            let failed = Ending::Failed(Failure::retryable(ErrorKind::Target, "500"));
            let (record, answer) = verdict(&running(1), &task, failed, at("02:00:05")).expect("legal");
            assert_eq!(
                (record.status, record.reason, answer),
                (RunState::Failed, Some(reason), Answer::Bury)
            );
        }
    }

    #[test]
    fn a_deadline_is_called_one_also_in_the_last_attempt() {
        for fields in
            [r#""retry":{"attempts":1}"#, r#""retry":{"attempts":3}"#, r#""delivery":"at_most_once""#]
        {
            let json = format!(r#"{{"target_service":"a","action":"b","deadline":"5s",{fields}}}"#);
            let task = Task::from_json(json.as_bytes()).expect("task");
            let (record, answer) =
                verdict(&running(1), &task, Ending::TimedOut, at("02:00:05")).expect("legal");
            assert_eq!(
                (record.status, record.reason, answer),
                (RunState::Failed, Some(Reason::Deadline), Answer::Bury),
                "{fields}"
            );
        }
    }

    #[test]
    fn the_log_says_why_an_attempt_left_its_run_so() {
        let (record, _) = end(1, Ending::Failed(Failure::permanent(ErrorKind::Target, "404\nmore")));
        assert_eq!(in_words(&record), "FAILED (permanent: 404)");
        assert_eq!(in_words(&end(1, Ending::Output(Value::Null)).0), "SUCCESS");
    }

    #[test]
    fn a_timeout_says_so() {
        let (record, _) = end(1, Ending::TimedOut);
        assert_eq!((record.status, record.reason), (RunState::Retry, Some(Reason::Timeout)));
        assert!(record.error.is_some_and(|error| error.message.contains("5m")));
    }
}
