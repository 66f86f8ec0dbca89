//! What the record says of a run that asks whether it may begin, or was refused. Pure.

use std::time::Duration;

use shared::{Timestamp, names::MemberId, run_record::RunRecord, run_state::RunState};

use super::HANDED_BACK_MAX;

/// Whether an attempt of this very run is executed by this worker, as a record has it.
pub(super) fn is_executed_by(worker: &MemberId, found: &RunRecord, wanted: &RunRecord) -> bool {
    found.status == RunState::Running
        && found.callback.is_none()
        && found.queue == wanted.queue
        && found.worker.as_ref() == Some(worker)
}

/// What a record says of a run that was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It waits for its turn.
    Waits,
    /// Somebody may be at it, or its next attempt is not due: it is looked at again then.
    NotNow(Duration),
    /// It has ended, or is another's.
    Ended,
}

pub(super) fn stands(record: &RunRecord, wanted: &RunRecord, now: Timestamp) -> Noted {
    if record.status.is_final() || record.queue != wanted.queue {
        return Noted::Ended;
    }
    match record.status {
        // Its target has it. Whether that has answered its record says, and no gate keeps from looking.
        RunState::Running if record.callback.is_some() => Noted::Ended,
        RunState::Running => Noted::NotNow(HANDED_BACK_MAX),
        RunState::Retry => match record.next_attempt_at.and_then(|next| (next - now).to_std().ok()) {
            Some(early) if !early.is_zero() => Noted::NotNow(early),
            _ => Noted::Waits,
        },
        _ => Noted::Waits,
    }
}

#[cfg(test)]
mod tests {
    use shared::{names::QueueName, run_state::RunEvent};

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn pending() -> RunRecord {
        RunRecord::pending("again.1".parse().expect("id"), QueueName::default_queue(), at("02:00:00"))
    }

    fn running(worker: &str) -> RunRecord {
        let started = pending().apply(RunEvent::Started, at("02:00:00")).expect("starts");
        RunRecord { worker: Some(worker.parse().expect("id")), ..started }
    }

    fn retry() -> RunRecord {
        let failed = running("worker-a").apply(RunEvent::FailedWithRetry, at("02:01:00")).expect("fails");
        RunRecord { next_attempt_at: Some(at("02:01:00")), ..failed }
    }

    #[test]
    fn only_what_this_worker_executes_now_has_passed_already() {
        let me = "worker-a".parse().expect("id");
        let elsewhere = RunRecord { queue: "other".parse().expect("queue"), ..running("worker-a") };
        for (found, expected, words) in [
            (running("worker-a"), true, "its attempt is under way here"),
            (running("worker-b"), false, "somebody took it over"),
            (retry(), false, "its attempt is over, and the next one passes for itself"),
            (pending(), false, "it was handed back"),
            (elsewhere, false, "a copy in another queue"),
        ] {
            assert_eq!(is_executed_by(&me, &found, &pending()), expected, "{words}");
        }
    }

    #[test]
    fn what_is_refused_waits_only_if_it_is_its_turn() {
        let ended = running("worker-a").apply(RunEvent::Succeeded, at("02:01:00")).expect("ends");
        let later = RunRecord { next_attempt_at: Some(at("02:03:00")), ..retry() };
        for (found, expected) in [
            (pending(), Noted::Waits),
            (retry(), Noted::Waits),
            (later, Noted::NotNow(Duration::from_mins(1))),
            (running("worker-b"), Noted::NotNow(HANDED_BACK_MAX)),
            (ended, Noted::Ended),
        ] {
            assert_eq!(stands(&found, &pending(), at("02:02:00")), expected, "{found:?}");
        }
    }
}
