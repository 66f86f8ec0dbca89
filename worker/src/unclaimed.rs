//! Which runs are begun without a claim: their end, or RUNNING after a quarter of a second, is the first word of their
//! attempt. Pure.
//!
//! That is for runs which nobody else can have: handed out for the first time, and never begun, as the ledger says at that
//! moment. What a claim is for besides must not be missed either: a schedule's lock (never two at once), `at_most_once`, a
//! last attempt. And a run that is delivered again although nobody claimed it has spent an attempt: its worker was lost with it.

use shared::{
    Timestamp,
    queue::Claiming,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{IllegalTransition, RunEvent, RunState},
    task::{Delivery as DeliveryMode, Task, Work},
};

/// What decides about a claim, apart from how often the run was delivered.
pub(crate) struct Case<'a> {
    pub(crate) task: &'a Task,
    pub(crate) record: &'a RunRecord,
    /// Whether its subject is its own, and not the lock of its schedule.
    pub(crate) is_on_its_own_subject: bool,
    pub(crate) claiming: Claiming,
    /// Whether a limit lets only some of its kind begin.
    pub(crate) is_limited: bool,
}

impl Case<'_> {
    /// Whether a first delivery of this run is begun without a claim. Every worker must come to the same answer whenever it is
    /// asked: the next one concludes from it what a delivery before its own was.
    pub(crate) fn is_begun_unclaimed(&self) -> bool {
        self.claiming == Claiming::Late
            && self.is_on_its_own_subject
            // Its whole has a lock of its own.
            && self.record.shard.is_none()
            && self.task.delivery == DeliveryMode::AtLeastOnce
            // The only attempt is spent when its worker is lost, so it must be known whether it began.
            && self.task.retry.allows_after(1)
            // One that has waited too long must be known not to have begun.
            && !self.task.has_time_limits()
            // Its worker is lost with its permit, and then it may wait: its record must say that an attempt was spent.
            && !self.is_limited
            // To start a process takes longer than a claim.
            && !matches!(self.task.work, Work::Command { .. })
    }
}

/// Whether a run waits in this queue and no worker has begun it before, or handed it back.
pub(crate) fn is_untouched(found: &RunRecord, wanted: &RunRecord) -> bool {
    found.status == RunState::Pending
        && found.started_at.is_none()
        // One that is run again by hand has spent attempts.
        && found.attempt == 0
        && !matches!(found.reason, Some(Reason::Drained | Reason::Limited))
        && found.queue == wanted.queue
}

/// The record of a run whose first attempt was begun without a claim and lost with its worker. Who that was and when it began
/// nobody knows.
pub(crate) fn lost(record: &RunRecord, now: Timestamp) -> Result<RunRecord, IllegalTransition> {
    let lost = record.apply(RunEvent::Started, now)?.apply(RunEvent::Lost, now)?.because(Reason::Lost);
    let words = "attempt 1 was lost with its worker: the run was handed out, and handed out again without a word of it";
    let lost = RunRecord { started_at: None, duration_ms: None, worker: None, ..lost };
    Ok(lost.with_error(RunError::new(ErrorKind::Lost, words)))
}

/// The record of a run that was handed out and is handed back without having been begun. It must be written, because otherwise
/// its next worker would take that for a lost attempt.
pub(crate) fn handed_back(record: &RunRecord) -> RunRecord {
    record.clone().because(Reason::Drained)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{names::QueueName, shard::Shard};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn pending() -> RunRecord {
        RunRecord::pending("reindex.4711".parse().expect("id"), QueueName::default_queue(), at("02:00:00"))
    }

    fn task(fields: &str) -> Task {
        Task::from_json(format!("{{{fields}}}").as_bytes()).expect("task")
    }

    const SERVICE: &str = r#""target_service":"a","action":"b""#;

    #[test]
    fn only_what_nobody_else_can_have_and_may_be_tried_again_is_begun_without_a_claim() {
        let shard = Shard { parent: "whole.1".parse().expect("id"), index: 0, total: 2 };
        let part = RunRecord { shard: Some(shard), ..pending() };
        let usual = || (task(SERVICE), pending(), true, Claiming::Late);
        let is_unclaimed = |(task, record, own, claiming): (Task, RunRecord, bool, Claiming)| {
            let case = Case {
                task: &task,
                record: &record,
                is_on_its_own_subject: own,
                claiming,
                is_limited: false,
            };
            case.is_begun_unclaimed()
        };
        assert!(is_unclaimed(usual()));
        let (task_, record, own, _) = usual();
        assert!(!is_unclaimed((task_, record, own, Claiming::Each)));
        let (task_, record, _, claiming) = usual();
        assert!(!is_unclaimed((task_, record, false, claiming)), "under its schedule's lock");
        let (task_, _, own, claiming) = usual();
        assert!(!is_unclaimed((task_, part, own, claiming)), "a part of a whole");
        for fields in [
            format!(r#"{SERVICE},"delivery":"at_most_once""#),
            format!(r#"{SERVICE},"retry":{{"attempts":1}}"#),
            r#""command":["tree"]"#.to_owned(),
        ] {
            let (_, record, own, claiming) = usual();
            assert!(!is_unclaimed((task(&fields), record, own, claiming)), "{fields}");
        }
    }

    #[test]
    fn only_what_waits_and_was_neither_begun_nor_handed_back_is_untouched() {
        let running = pending().apply(RunEvent::Started, at("02:00:00")).expect("starts");
        let given_back = running.apply(RunEvent::Interrupted, at("02:01:00")).expect("given back");
        let ended = running.apply(RunEvent::Succeeded, at("02:01:00")).expect("ends");
        let elsewhere = RunRecord { queue: "other".parse().expect("queue"), ..pending() };
        for (found, expected) in [
            (pending(), true),
            (handed_back(&pending()), false),
            (given_back, false),
            (running, false),
            (ended, false),
            (elsewhere, false),
        ] {
            assert_eq!(is_untouched(&found, &pending()), expected, "{found:?}");
        }
    }

    #[test]
    fn a_lost_attempt_that_nobody_claimed_is_counted_and_the_next_is_the_second() {
        let lost = lost(&pending(), at("02:00:30")).expect("legal");
        assert_eq!((lost.status, lost.attempt, lost.reason), (RunState::Retry, 1, Some(Reason::Lost)));
        assert_eq!((&lost.worker, lost.started_at, lost.next_attempt_at), (&None, None, None));
        assert_eq!(lost.apply(RunEvent::Started, at("02:00:31")).expect("starts").attempt, 2);
    }
}
