//! The record of a run: what the ledger keeps, the result subjects carry and `describe run -o json` shows.
//!
//! Absent means not applicable. Every change goes through [`RunRecord::apply`], which asks the one transition table.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::bounded::{bounded_output, is_deeper_than};
use crate::{
    Timestamp,
    after::{Upstream, run_after_retries},
    callback::Awaited,
    limits,
    names::{ActionName, BackfillId, MemberId, Name, QueueName, TargetName},
    retried::Retried,
    run::RunId,
    run_state::{IllegalTransition, RunEvent, RunState},
    shard::{Shard, Shards},
    slot::Slot,
};

/// Why a run is in its state, where the state alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The schedule's previous run had not ended.
    SkippedOverlap,
    /// It waits for the schedule's previous run to end.
    Buffered,
    /// A newer run of its schedule took its place.
    Replaced,
    /// Its schedule was deleted while it waited.
    ScheduleDeleted,
    /// The slot passed while nobody could dispatch it, and the schedule's policy does not run it late.
    SkippedMissed,
    /// The schedule's calendar leaves this day out.
    SkippedCalendar,
    /// The schedule was paused at this slot; the record's note says by whom and why.
    Paused,
    /// The task or its subject cannot be understood.
    Malformed,
    /// There is no such schedule, target or command.
    Unknown,
    /// The target was disabled, or its health check failed, before the attempt.
    Precheck,
    /// All attempts were used up.
    AttemptsExhausted,
    /// Another attempt would not mend the error, or may not be made (`at_most_once`).
    Permanent,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The worker was lost in the middle of the attempt.
    Lost,
    /// The worker was stopping and handed the run back.
    Drained,
    /// A limit of its target, or of its key, lets no more attempts begin just now.
    Limited,
    /// The run waited longer than it may.
    Expired,
    /// The run took longer than its deadline.
    Deadline,
    /// Another attempt would have begun at a greater age than its policy allows.
    MaxAge,
    /// An operator stopped it.
    ByOperator,
    /// One of its shards failed, or was cancelled.
    Shards,
    /// Its target has taken it on, and will say later how it ended. No worker is at it.
    AwaitsCallback,
    /// A reason of a newer version, which this one has no word for: the rest of the record still counts.
    #[serde(other)]
    Other,
}

/// What kind of thing went wrong in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The task cannot be understood.
    Malformed,
    /// The target is not known to the fleet, or not of the execution the task asks for.
    UnknownTarget,
    /// The target is disabled, or its health check failed.
    Precheck,
    /// The request could not be made out of the task, or with what the worker has: nothing was sent.
    Request,
    /// The target could not be reached.
    Unreachable,
    /// The target answered with an error.
    Target,
    /// The attempt ran out of time.
    Timeout,
    /// The answer was larger than is read.
    ResponseTooLarge,
    /// The command is not on the worker's allow-list.
    CommandNotAllowed,
    /// The command could not be started, or ended with an error.
    Command,
    /// The worker was lost.
    Lost,
    /// As many runs of the schedule wait as may.
    Overlap,
    /// One of its shards failed.
    Shards,
    /// Something in the worker itself.
    Internal,
    /// A kind of a newer version, which this one has no word for.
    #[serde(other)]
    Other,
}

/// What went wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// What kind of thing.
    pub kind: ErrorKind,
    /// The value, the rule and the repair.
    pub message: String,
}

impl RunError {
    /// An error; its message is cut to what a record keeps.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: cut(message.into(), limits::ERROR_BYTES_MAX) }
    }
}

/// The record of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// `<name>.<key>`.
    pub id: RunId,
    /// The schedule it is a run of; absent for ad-hoc runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<Name>,
    /// The queue it travels on.
    pub queue: QueueName,
    /// Its state.
    pub status: RunState,
    /// Why it is in that state, where the state does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// The reason in words, where there is more to say: by whom a schedule was paused, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// Who asked for it by hand: with `trigger` or `backfill`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
    /// The backfill it was run by, if it was not run at its slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backfill: Option<BackfillId>,
    /// That it failed and was retried by hand; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retried: Option<Retried>,
    /// The instant it was due; absent for ad-hoc runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
    /// The instant before which it was not to run; absent if it was submitted to run at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_before: Option<Timestamp>,
    /// The run whose end it follows; absent unless its schedule is due `after` another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<Upstream>,
    /// Which part of a sharded run it is; absent if it is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<Shard>,
    /// What it waits for while its target, which has taken it on, is at work; stays when it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub callback: Option<Awaited>,
    /// How far its parts are; absent unless its schedule has `shards`. No worker has such a run: its parts are runs themselves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shards: Option<Shards>,
    /// Whether it was dispatched noticeably after its slot, after the instant it waited for, or after the end it follows.
    #[serde(default)]
    pub late: bool,
    /// The attempt it is in or ended with, from 1; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// The attempt's fencing number: grows with every claim, so that a target can refuse a stale one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<u64>,
    /// The worker of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worker: Option<MemberId>,
    /// The service it acts on; absent for commands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_service: Option<TargetName>,
    /// What the service is asked to do, or the command's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionName>,
    /// When the record was made; of a slot that was skipped and is run after all, when that was decided.
    pub created_at: Timestamp,
    /// When the latest attempt began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
    /// When it came to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<Timestamp>,
    /// Not before this moment will the next attempt be made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_attempt_at: Option<Timestamp>,
    /// How long the latest attempt took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// What the target answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<serde_json::Value>,
    /// What went wrong in the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<RunError>,
    /// The trace that follows the run through all services: 32 hex digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    /// The revision of the schedule's definition it was made from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub definition_revision: Option<u64>,
}

impl RunRecord {
    /// A record of a run that waits for a worker.
    pub fn pending(id: RunId, queue: QueueName, at: Timestamp) -> Self {
        Self {
            id,
            schedule: None,
            queue,
            status: RunState::Pending,
            reason: None,
            note: None,
            by: None,
            backfill: None,
            retried: None,
            slot: None,
            not_before: None,
            upstream: None,
            shard: None,
            callback: None,
            shards: None,
            late: false,
            attempt: 0,
            fence: None,
            worker: None,
            target_service: None,
            action: None,
            created_at: at,
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            duration_ms: None,
            output: None,
            error: None,
            trace_id: None,
            definition_revision: None,
        }
    }

    /// A record of a schedule's run at a slot.
    pub fn planned(schedule: &Name, slot: Slot, queue: QueueName, at: Timestamp) -> Self {
        let late = at - slot.instant() > chrono_duration(limits::LATE_AFTER);
        Self {
            schedule: Some(schedule.clone()),
            slot: Some(slot.instant()),
            late,
            ..Self::pending(RunId::planned(schedule, slot), queue, at)
        }
    }

    /// A record of an ad-hoc run that waited for an instant.
    pub fn delayed(id: RunId, not_before: Timestamp, queue: QueueName, at: Timestamp) -> Self {
        let late = at - not_before > chrono_duration(limits::LATE_AFTER);
        Self { not_before: Some(not_before), late, ..Self::pending(id, queue, at) }
    }

    /// A record of a schedule's run that follows the end of another.
    pub fn chained(schedule: &Name, upstream: Upstream, queue: QueueName, at: Timestamp) -> Self {
        let late = at - upstream.ended_at > chrono_duration(limits::LATE_AFTER);
        let id = run_after_retries(schedule, &upstream.run, upstream.retried);
        Self {
            schedule: Some(schedule.clone()),
            upstream: Some(upstream),
            late,
            ..Self::pending(id, queue, at)
        }
    }

    /// The record after an event, or that the event cannot happen. Fields of the past are cleared, dates are set.
    pub fn apply(&self, event: RunEvent, at: Timestamp) -> Result<RunRecord, IllegalTransition> {
        let status = self.status.next(event)?;
        if event == RunEvent::Backfilled && self.skipped_because().is_none() {
            return Err(IllegalTransition { from: self.status, event });
        }
        let mut next = RunRecord { status, reason: None, note: None, next_attempt_at: None, ..self.clone() };
        if event == RunEvent::Started {
            next.attempt += 1;
            next.started_at = Some(at);
            next.finished_at = None;
            next.duration_ms = None;
            next.error = None;
            next.output = None;
            next.fence = None;
            next.callback = None;
        } else if self.status == RunState::Running {
            next.duration_ms =
                self.started_at.map(|started| (at - started).num_milliseconds().max(0).unsigned_abs());
        }
        if event == RunEvent::Accepted {
            next.reason = Some(Reason::AwaitsCallback);
            next.duration_ms = None;
        }
        if event == RunEvent::Interrupted {
            next.attempt = next.attempt.saturating_sub(1);
            next.reason = Some(Reason::Drained);
            next.worker = None;
        }
        if event == RunEvent::Backfilled {
            next.created_at = at;
            next.late = true;
            next.finished_at = None;
            next.error = None;
            next.trace_id = None;
        }
        if status.is_final() {
            next.finished_at = Some(at);
        }
        Ok(next)
    }

    /// What it waits for, if its target has it and no worker is at it.
    pub fn awaits(&self) -> Option<&Awaited> {
        self.callback.as_ref().filter(|_| self.status == RunState::Running)
    }

    /// The same record with a reason.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Why this slot was skipped, if it was: no worker ever had it, so it may be run after all. What somebody cancelled,
    /// or what waited too long in its queue, was decided on and is left so.
    pub fn skipped_because(&self) -> Option<Reason> {
        let was_skipped = |reason: &Reason| {
            let skips =
                [Reason::SkippedMissed, Reason::SkippedOverlap, Reason::SkippedCalendar, Reason::Paused];
            skips.contains(reason)
        };
        let is_open = self.status == RunState::Cancelled && self.attempt == 0 && self.slot.is_some();
        self.reason.filter(was_skipped).filter(|_| is_open)
    }

    /// The same record with the reason in words.
    #[must_use]
    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = Some(cut(note.into(), limits::NOTE_BYTES_MAX));
        self
    }

    /// The same record with an error.
    #[must_use]
    pub fn with_error(mut self, error: RunError) -> Self {
        self.error = Some(error);
        self
    }

    /// How long after its slot, the instant it waited for or the end it follows, the run was dispatched or will be.
    pub fn lateness(&self) -> Option<Duration> {
        let ended_at = || self.upstream.as_ref().map(|upstream| upstream.ended_at);
        (self.created_at - self.slot.or(self.not_before).or_else(ended_at)?).to_std().ok()
    }
}

pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
    text
}

fn chrono_duration(duration: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("instant")
    }

    fn pending() -> RunRecord {
        RunRecord::pending(
            "reindex.4711".parse().expect("id"),
            QueueName::default_queue(),
            at("2026-11-24T02:00:00Z"),
        )
    }

    #[test]
    fn a_handed_back_run_keeps_its_attempts_and_a_failed_one_spends_them() {
        let started = pending().apply(RunEvent::Started, at("2026-11-24T02:00:01Z")).expect("starts");
        assert_eq!(started.attempt, 1);
        let drained = started.apply(RunEvent::Interrupted, at("2026-11-24T02:00:02Z")).expect("interrupted");
        assert_eq!(
            (drained.attempt, drained.status, drained.reason),
            (0, RunState::Pending, Some(Reason::Drained))
        );
        let failed = started.apply(RunEvent::FailedWithRetry, at("2026-11-24T02:00:03.500Z")).expect("fails");
        assert_eq!((failed.attempt, failed.duration_ms, failed.finished_at), (1, Some(2500), None));
        let second = failed.apply(RunEvent::Started, at("2026-11-24T02:00:09Z")).expect("starts again");
        assert_eq!((second.attempt, second.duration_ms), (2, None));
    }

    #[test]
    fn only_a_slot_that_was_skipped_is_run_after_all() {
        let name: Name = "nightly".parse().expect("name");
        let slot = Slot::at(at("2026-11-24T02:00:00Z"));
        let planned = RunRecord::planned(&name, slot, QueueName::default_queue(), slot.instant());
        let skipped = planned.apply(RunEvent::Skipped, slot.instant()).expect("skipped");
        let skipped = skipped.because(Reason::Paused).noting("paused by ann");
        let later = at("2026-11-25T02:00:00Z");
        let again = skipped.apply(RunEvent::Backfilled, later).expect("run after all");
        assert_eq!((again.status, again.late, again.created_at), (RunState::Pending, true, later));
        assert_eq!((again.reason, again.note, again.finished_at, again.attempt), (None, None, None, 0));
        let stopped = planned.apply(RunEvent::Cancelled, later).expect("stopped").because(Reason::ByOperator);
        assert!(stopped.apply(RunEvent::Backfilled, later).is_err());
        let by_hand =
            pending().apply(RunEvent::Skipped, later).expect("skipped").because(Reason::SkippedOverlap);
        assert!(by_hand.apply(RunEvent::Backfilled, later).is_err(), "a run by hand is no slot");
    }

    #[test]
    fn absent_means_not_applicable() {
        let json = serde_json::to_value(pending()).expect("json");
        let keys: Vec<&str> = json.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 6, "{keys:?}");
        assert_eq!(json["created_at"], "2026-11-24T02:00:00Z");
        assert_eq!(serde_json::from_value::<RunRecord>(json).expect("reads"), pending());
    }

    #[test]
    fn a_record_of_a_newer_version_is_read_with_what_this_one_understands_of_it() {
        let json = r#"{"id":"nightly.20261124T020000Z","queue":"default","status":"FAILED","reason":"eaten_by_a_dog",
            "created_at":"2026-11-24T02:00:00Z","error":{"kind":"canine","message":"gone"},"mood":"sad"}"#;
        let record: RunRecord = serde_json::from_str(json).expect("reads");
        assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Other)));
        assert_eq!(record.error.map(|error| error.kind), Some(ErrorKind::Other));
    }

    #[test]
    fn a_planned_run_that_comes_late_says_so() {
        let name: Name = "nightly".parse().expect("name");
        let slot = Slot::at(at("2026-11-24T02:00:00Z"));
        let queue = QueueName::default_queue;
        assert!(!RunRecord::planned(&name, slot, queue(), at("2026-11-24T02:00:05Z")).late);
        assert!(RunRecord::planned(&name, slot, queue(), at("2026-11-24T02:00:06Z")).late);
    }

    #[test]
    fn an_output_that_is_too_long_is_cut_and_says_so() {
        let long = bounded_output(serde_json::json!("é".repeat(limits::OUTPUT_BYTES_MAX)));
        assert_eq!(long["truncated"], true);
        assert!(long.to_string().len() <= limits::OUTPUT_BYTES_MAX);
        let deep = |levels: usize| -> serde_json::Value {
            serde_json::from_str(&format!("{}{}", "[".repeat(levels), "]".repeat(levels))).expect("JSON")
        };
        assert_eq!(bounded_output(deep(limits::JSON_DEPTH_MAX)), deep(limits::JSON_DEPTH_MAX));
        assert_eq!(bounded_output(deep(limits::JSON_DEPTH_MAX + 1))["truncated"], true);
        assert!(RunError::new(ErrorKind::Target, "é".repeat(9_999)).message.len() <= limits::ERROR_BYTES_MAX);
    }
}
