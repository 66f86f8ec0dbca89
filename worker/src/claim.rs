//! The claim: PENDING or RETRY to RUNNING, by compare-and-set. Whoever writes it owns the attempt; its revision is the
//! attempt's fencing number.

use std::{borrow::Cow, sync::Arc, time::Duration};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    limits::{MEMBER_GONE, MEMBER_HEARTBEAT},
    names::MemberId,
    queue::QueueSettings,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    task::{Delivery as DeliveryMode, Task},
};
use streams::{
    ReadError, Streams, WriteError, bucket::Stored, delivery::Delivery, ledger::Update, lookups::Lookups,
};

use crate::{callback, identify::Identified, member::Status, running::Running, unclaimed::is_untouched};

/// A retry that comes this much early is not worth handing back.
const EARLY_BY_MAX: TimeDelta = TimeDelta::milliseconds(100);
/// When to look again at a run whose owner may be alive.
const LOOK_AGAIN: Duration = MEMBER_GONE;
/// Claims of one delivery, each over a newer record, before it is handed back.
const CLAIMS_MAX: u32 = 5;

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The attempt is ours. The revision is its fence.
    Ours(Box<Stored<RunRecord>>),
    /// Nobody else can have it: it may be begun without a claim. The record as a claim would make it; nothing of that is
    /// written. The revision is what its end is written over (0: over nothing), and its fence.
    Unclaimed(Box<Stored<RunRecord>>),
    /// The run has ended; nothing is to be done but the ack. A failed one may still lack its dead letter.
    Ended(Box<RunRecord>),
    /// Not now: hand it back for this long.
    NotNow(Duration),
    /// The attempt is under way here, and has taken this delivery over.
    UnderWayHere,
    /// The same run travels in another queue: this copy is superfluous.
    Superfluous,
}

/// What to do about the record that was found. Pure.
#[derive(Debug, PartialEq)]
enum Finding {
    Start,
    Ended,
    NotNow(Duration),
    /// Its target has it, and nobody is at it here.
    Awaits,
    /// Somebody was at it: whether they still are decides.
    Owned(Option<MemberId>),
    Superfluous,
}

fn judge(found: &RunRecord, wanted: &RunRecord, now: Timestamp) -> Finding {
    if found.status.is_final() {
        return Finding::Ended;
    }
    if found.queue != wanted.queue {
        return Finding::Superfluous;
    }
    match found.status {
        RunState::Running if found.callback.is_some() => Finding::Awaits,
        RunState::Running => Finding::Owned(found.worker.clone()),
        RunState::Retry => match found.next_attempt_at.map(|at| at - now) {
            Some(early) if early > EARLY_BY_MAX => Finding::NotNow(early.to_std().unwrap_or_default()),
            _ => Finding::Start,
        },
        _ => Finding::Start,
    }
}

/// Claims runs for one worker.
pub(crate) struct Claimer<'a> {
    pub(crate) streams: &'a Streams,
    pub(crate) running: &'a Running,
    pub(crate) status: &'a Status,
    pub(crate) ack_wait: Duration,
    /// The settings of the run's queue.
    pub(crate) settings: QueueSettings,
    /// Reads of the ledger that share their requests, if what any server says of it is its leader's word.
    pub(crate) lookups: Option<&'a Lookups>,
    /// Whether a limit lets only some of its kind begin.
    pub(crate) is_limited: bool,
}

impl Claimer<'_> {
    /// Claims a run, or says why not.
    pub(crate) async fn claim(
        &self,
        run: &Identified,
        delivery: &Arc<Delivery>,
    ) -> Result<Claim, ClaimError> {
        let mut known = match run.revision {
            _ if delivery.deliveries != 1 => None,
            _ if self.may_be_unclaimed(run, delivery) => match self.exclusive(run).await? {
                Some((record, revision)) => return Ok(self.unclaimed(&record, revision)),
                None => None,
            },
            // A first delivery of a planner's message: the record is known, and one write is enough.
            Some(revision) => Some((Cow::Borrowed(&run.record), revision)),
            None => Box::pin(self.waiting(run)).await,
        };
        for _ in 0..CLAIMS_MAX {
            let (record, revision) = match known.take() {
                Some(known) => known,
                // Apart, so that what a first claim does not need takes no room in it.
                None => match Box::pin(self.find(run, delivery)).await? {
                    Next::Start(record, revision) => (Cow::Owned(*record), revision),
                    Next::Say(claim) => return Ok(claim),
                    Next::LookAgain => continue,
                },
            };
            if let Some(claimed) = Box::pin(self.start(&record, revision)).await? {
                return Ok(Claim::Ours(Box::new(claimed)));
            }
        }
        Ok(Claim::NotNow(MEMBER_HEARTBEAT))
    }

    /// What a first delivery is claimed over, if nobody had the run before: no record, or one that waits. The claim's
    /// compare-and-set decides whether that is still so, and who cancels what waits writes over the same revision; so
    /// this needs neither the leader's word nor a look for requests to cancel.
    async fn waiting<'a>(&self, run: &'a Identified) -> Option<(Cow<'a, RunRecord>, u64)> {
        match self.streams.ledger().get_nearby(&run.record.id).await.ok()? {
            None => Some((Cow::Borrowed(&run.record), 0)),
            Some(found) if is_untouched(&found.value, &run.record) => {
                Some((Cow::Owned(found.value), found.revision))
            }
            Some(_) => None,
        }
    }

    /// Reads the record from the leader and says what it means for this delivery.
    async fn find(&self, run: &Identified, delivery: &Arc<Delivery>) -> Result<Next, ClaimError> {
        match self.streams.ledger().get(&run.record.id).await {
            Ok(None) => {
                let value = run.record.clone();
                let nothing = Stored { value, revision: 0, stored_at: run.record.created_at };
                match self.lost_unclaimed(&nothing, run, delivery).await? {
                    Some(next) => Ok(next),
                    None => Ok(Next::Start(Box::new(nothing.value), 0)),
                }
            }
            Ok(Some(found)) => self.look_at(found, run, delivery).await,
            // A stranger's writing in the place of the record. The task was acknowledged and must come to an end, so
            // it begins anew over that; the history keeps what was there.
            Err(ReadError::Corrupt { revision, detail, .. }) => {
                let id = &run.record.id;
                tracing::warn!(run.id = %id, detail, "The record of `{id}` was no record and is replaced: {detail}");
                Ok(Next::Start(Box::new(run.record.clone()), revision))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes RUNNING over exactly this revision; none if somebody was faster.
    async fn start(
        &self,
        record: &RunRecord,
        revision: u64,
    ) -> Result<Option<Stored<RunRecord>>, ClaimError> {
        let now = self.streams.clock().now();
        let Some(mut started) = self.started(record, now) else { return Ok(None) };
        let Update::Stored(revision) = self.streams.ledger().write(&started, revision).await? else {
            return Ok(None);
        };
        started.fence = Some(revision);
        Ok(Some(Stored { value: started, revision, stored_at: now }))
    }

    /// The record of an attempt that begins here; none if the run cannot begin.
    pub(crate) fn started(&self, record: &RunRecord, now: Timestamp) -> Option<RunRecord> {
        let started = record.apply(RunEvent::Started, now).ok()?;
        Some(RunRecord { worker: Some(self.status.id().clone()), ..started })
    }

    async fn look_at(
        &self,
        found: Stored<RunRecord>,
        run: &Identified,
        delivery: &Arc<Delivery>,
    ) -> Result<Next, ClaimError> {
        let now = self.streams.clock().now();
        match judge(&found.value, &run.record, now) {
            Finding::Start => {
                if let Some(next) = self.lost_unclaimed(&found, run, delivery).await? {
                    return Ok(next);
                }
                match self.end_if_cancelled(&found, now).await? {
                    Some(next) => Ok(next),
                    None => Ok(Next::Start(Box::new(found.value), found.revision)),
                }
            }
            Finding::Ended => Ok(Next::Say(Claim::Ended(Box::new(found.value)))),
            Finding::Superfluous => Ok(Next::Say(Claim::Superfluous)),
            Finding::NotNow(wait) => Ok(Next::Say(Claim::NotNow(wait))),
            Finding::Awaits => match self.end_if_cancelled(&found, now).await? {
                Some(next) => Ok(next),
                None => Ok(match callback::look(self.streams, &found, &run.task, now).await? {
                    Some(claim) => Next::Say(claim),
                    None => Next::LookAgain,
                }),
            },
            Finding::Owned(owner) if owner.as_ref() == Some(self.status.id()) => {
                if self.running.adopt(&run.record.id, delivery) {
                    return Ok(Next::Say(Claim::UnderWayHere));
                }
                // A late claim is made by an attempt that has begun; it says its fence.
                if found.value.fence.is_none() && !self.running.has_begun(found.revision) {
                    // Our claim, whose answer was lost: the attempt is ours and was never begun.
                    let fence = Some(found.revision);
                    let value = RunRecord { fence, ..found.value };
                    return Ok(Next::Say(Claim::Ours(Box::new(Stored { value, ..found }))));
                }
                // It may have begun between the two looks.
                if self.running.adopt(&run.record.id, delivery) {
                    return Ok(Next::Say(Claim::UnderWayHere));
                }
                // It has lost its hold, and stops: what comes after it begins when it has.
                if self.running.has(&run.record.id) {
                    return Ok(Next::Say(Claim::NotNow(MEMBER_HEARTBEAT)));
                }
                // Ours, but not under way: its attempt was stopped because it could not be renewed.
                self.lost(found, run, now).await
            }
            Finding::Owned(owner) => {
                if self.may_be_alive(&found.value, owner.as_ref(), now).await? {
                    // The server thinks its worker silent, but it speaks to the fleet: a restarted server forgets who
                    // has what. Taking the run over now could make it run twice at once.
                    return Ok(Next::Say(Claim::NotNow(LOOK_AGAIN.min(self.ack_wait))));
                }
                self.lost(found, run, now).await
            }
        }
    }

    /// Whether the owner of a running attempt may still be at it.
    async fn may_be_alive(
        &self,
        found: &RunRecord,
        owner: Option<&MemberId>,
        now: Timestamp,
    ) -> Result<bool, ReadError> {
        let Some(owner) = owner else { return Ok(false) };
        let Some(worker) = self.streams.members().worker(owner).await? else {
            // Its entry has run out. After an outage of the server all have: then its silence means nothing, until
            // it had time to be heard again.
            let heard_for = self.status.heard_for(self.streams.clock().elapsed());
            return Ok(heard_for < MEMBER_GONE + MEMBER_HEARTBEAT);
        };
        let lists_it =
            worker.running.iter().any(|(run, attempt)| *run == found.id && *attempt == found.attempt);
        // A claim younger than a heartbeat may not be in its list yet.
        let heartbeat = TimeDelta::from_std(2 * MEMBER_HEARTBEAT).unwrap_or(TimeDelta::MAX);
        let is_young = found.started_at.is_some_and(|started| now - started < heartbeat);
        Ok(lists_it || is_young)
    }

    /// Ends a run whose end was asked for, and which nobody is at: its worker died, was drained, or failed at it before
    /// it heard. Nothing if nobody asked. Only runs that were delivered or begun before are looked at, so that the first
    /// claim of a run stays one write: what waits is cancelled in the ledger, over the revision that claim needs.
    pub(crate) async fn end_if_cancelled(
        &self,
        found: &Stored<RunRecord>,
        now: Timestamp,
    ) -> Result<Option<Next>, ClaimError> {
        let Some(request) = self.streams.cancel_asked(&found.value).await? else { return Ok(None) };
        let Ok(cancelled) = request.end(&found.value, now) else { return Ok(None) };
        let was_running = found.value.status == RunState::Running;
        let fence = if was_running { fence_of(found) } else { found.value.fence };
        let cancelled = RunRecord { fence, ..cancelled };
        Ok(Some(match self.streams.ledger().write(&cancelled, found.revision).await? {
            Update::Stored(_) => {
                tracing::info!(run.id = %cancelled.id, by = request.by, "`{}` was cancelled before it was begun again", cancelled.id);
                Next::Say(Claim::Ended(Box::new(cancelled)))
            }
            Update::Stale => Next::LookAgain,
        }))
    }

    /// The worker of an attempt is gone: the attempt is spent, and there is another one or none.
    async fn lost(
        &self,
        found: Stored<RunRecord>,
        run: &Identified,
        now: Timestamp,
    ) -> Result<Next, ClaimError> {
        if let Some(next) = self.end_if_cancelled(&found, now).await? {
            return Ok(next);
        }
        let record = &found.value;
        let ends = ends_when_lost(record, &run.task) || run.task.too_late_for_attempt(record, now).is_some();
        let event = if ends { RunEvent::LostForGood } else { RunEvent::Lost };
        let Ok(next) = record.apply(event, now) else { return Ok(Next::LookAgain) };
        let worker = record.worker.as_ref().map_or("?", |worker| worker.as_str());
        let words = if record.worker.as_ref() == Some(self.status.id()) {
            // It could not hold the run any more, or its end could not be recorded.
            format!("attempt {} was given up by worker {worker} before its end was recorded", record.attempt)
        } else {
            format!("attempt {} was lost with worker {worker}, which is silent", record.attempt)
        };
        let next = RunRecord { fence: fence_of(&found), ..next }
            .because(Reason::Lost)
            .with_error(RunError::new(ErrorKind::Lost, words));
        match self.streams.ledger().update(&next, found.revision).await? {
            Update::Stored(_) if ends => Ok(Next::Say(Claim::Ended(Box::new(next)))),
            Update::Stored(revision) => Ok(Next::Start(Box::new(next), revision)),
            Update::Stale => Ok(Next::LookAgain),
        }
    }
}

pub(crate) enum Next {
    Start(Box<RunRecord>, u64),
    Say(Claim),
    LookAgain,
}

/// A claim that could not be made just now; the delivery is handed back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The fence of a running attempt: what it says itself, if it was claimed late; otherwise the revision of its claim.
fn fence_of(running: &Stored<RunRecord>) -> Option<u64> {
    running.value.fence.or(Some(running.revision))
}

fn ends_when_lost(record: &RunRecord, task: &Task) -> bool {
    task.delivery == DeliveryMode::AtMostOnce || !task.retry.allows_after(record.attempt_of_policy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::names::QueueName;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn pending() -> RunRecord {
        RunRecord::pending("reindex.4711".parse().expect("id"), QueueName::default_queue(), at("02:00:00"))
    }

    fn running() -> RunRecord {
        let mut record = pending().apply(RunEvent::Started, at("02:00:00")).expect("starts");
        record.worker = Some("worker-a-1".parse().expect("id"));
        record
    }

    #[test]
    fn what_is_found_decides() {
        let ended = running().apply(RunEvent::Succeeded, at("02:01:00")).expect("ends");
        let retry = |next: &str| RunRecord {
            next_attempt_at: Some(at(next)),
            ..running().apply(RunEvent::FailedWithRetry, at("02:01:00")).expect("fails")
        };
        let elsewhere = RunRecord { queue: "other".parse().expect("queue"), ..running() };
        for (found, expected) in [
            (pending(), Finding::Start),
            (ended, Finding::Ended),
            (running(), Finding::Owned(Some("worker-a-1".parse().expect("id")))),
            (retry("02:01:59"), Finding::Start),
            (retry("02:02:00.050"), Finding::Start),
            (retry("02:02:10"), Finding::NotNow(Duration::from_secs(10))),
            (elsewhere, Finding::Superfluous),
        ] {
            assert_eq!(judge(&found, &pending(), at("02:02:00")), expected, "{found:?}");
        }
    }

    #[test]
    fn a_lost_attempt_is_the_last_one_if_none_is_left_or_none_may_follow() {
        let task = |json: &str| Task::from_json(json.as_bytes()).expect("task");
        let three = task(r#"{"target_service":"a","action":"b"}"#);
        let once = task(r#"{"target_service":"a","action":"b","delivery":"at_most_once"}"#);
        let third = RunRecord { attempt: 3, ..running() };
        assert!(!ends_when_lost(&running(), &three));
        assert!(ends_when_lost(&third, &three));
        assert!(ends_when_lost(&running(), &once));
    }
}
