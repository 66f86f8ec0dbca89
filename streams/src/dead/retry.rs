//! Running a dead letter again by hand, under its own id.
//!
//! In this order: the record FAILED becomes PENDING by compare-and-set, which one of several operators wins; then its task is
//! published as it was before; then the letter is deleted, by its place. A crash in between leaves the letter, and a run that
//! is PENDING and not queued: asked again, this goes on from there. What is published twice is refused by the server while
//! the run is queued or running, and dropped by the claim once it has ended.
//!
//! Several may retry one run at once. What its life before left in the queue is removed, because its worker's late answer is
//! about that message and must not be about the next one; but only by who has written the record since, and who then publishes
//! one itself. A message says by which record it was published: one that is as new as this life is nobody's to remove.
//!
//! A run of a schedule whose runs may not overlap takes the schedule's lock, as any run of it. If another has it, nothing is
//! changed; if another takes it in the very moment, the record becomes again what it was.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shared::{
    names::QueueName,
    run::RunId,
    run_record::RunRecord,
    run_state::{IllegalTransition, RunState},
    schedule::Overlap,
    task::Task,
    trace::TraceContext,
};

use super::{DeadLetter, Found};
use crate::{
    ReadError, Streams, WriteError,
    bucket::Stored,
    ledger::Update,
    tasks::{DueTask, Holder},
};

/// Looks at a run that changes all the time before its retrier is told to try again.
const LOOKS_MAX: u32 = 20;
/// Between two looks at a lock whose holder is on its way out.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a publish whose answer was lost is repeated.
const PUBLISHES_MAX: u32 = 5;

/// What came of retrying a run by hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Retrying {
    /// The ledger knows no such run.
    Unknown,
    /// It is queued again, and its dead letter is gone.
    Queued(Box<RunRecord>),
    /// It is queued, running, or waits for its next attempt.
    Lives(Box<RunRecord>),
    /// It ended otherwise: SUCCESS or CANCELLED.
    Ended(Box<RunRecord>),
    /// It failed and has no dead letter, or not yet.
    NoLetter(Box<RunRecord>),
    /// Its task cannot be understood.
    Unreadable(Box<DeadLetter>),
    /// Its queue is no longer declared.
    NoQueue(QueueName),
    /// Another run of its schedule is queued or running.
    Occupied(Option<RunId>),
    /// It is a part of a run that has not ended.
    WholeLives(Box<RunRecord>),
}

/// A run that could not be retried just now.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// A read that decides gave nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A write did not go through.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its record does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// It changed at every look.
    #[error("{0} changes too quickly to be retried; try again")]
    Restless(RunId),
}

/// A run that is PENDING again, and on its way into its queue.
struct OnItsWay {
    record: RunRecord,
    revision: u64,
    found: Found,
    task: Task,
    /// What its life before left in its queue.
    left: Option<Holder>,
}

/// What came of putting it there.
enum Placed {
    Queued,
    Held(Option<RunId>),
}

impl Streams {
    /// Runs a dead letter again, for this person. May be repeated, and goes on then where it was interrupted.
    pub async fn retry(&self, run: &RunId, by: &str) -> Result<Retrying, RetryError> {
        for look in 1..=LOOKS_MAX {
            let Some(stored) = self.ledger().get(run).await? else { return Ok(Retrying::Unknown) };
            let letter = self.find_dead_letter(run).await?;
            let record = Box::new(stored.value.clone());
            let Some(found) = letter else {
                return Ok(match record.status {
                    RunState::Failed => Retrying::NoLetter(record),
                    RunState::Success | RunState::Cancelled => Retrying::Ended(record),
                    _ => Retrying::Lives(record),
                });
            };
            // The letter of an earlier life of this run, whose retry did not come to deleting it.
            let is_past = found.letter.run.times_retried() < record.times_retried();
            let way = match record.status {
                RunState::Failed if is_past => return Ok(Retrying::NoLetter(record)),
                RunState::Failed => match self.reopen(&stored, &found, by, look).await? {
                    Reopened::Goes(way) => *way,
                    Reopened::Said(said) => return Ok(said),
                    Reopened::LookAgain => continue,
                },
                // Whoever retried it did not come to publishing it, or is about to: then one of the two is refused.
                RunState::Pending if is_past && record.is_just_retried() => {
                    let left = self.task_of(run).await?;
                    if left.as_ref().is_some_and(|holder| holder.is_as_new_as(stored.revision)) {
                        self.forget_letter(&found).await?;
                        return Ok(Retrying::Lives(record));
                    }
                    let Some(task) = found.letter.task.clone() else {
                        return Ok(Retrying::Unreadable(Box::new(found.letter)));
                    };
                    OnItsWay { record: stored.value, revision: stored.revision, found, task, left }
                }
                status => {
                    if is_past {
                        self.forget_letter(&found).await?;
                    }
                    return Ok(if status.is_final() {
                        Retrying::Ended(record)
                    } else {
                        Retrying::Lives(record)
                    });
                }
            };
            match self.place(&way).await? {
                Placed::Queued => {
                    self.forget_letter(&way.found).await?;
                    return Ok(Retrying::Queued(Box::new(way.record)));
                }
                Placed::Held(holder) => {
                    let failed = &way.found.letter.run;
                    let failed = way.record.retry_withdrawn(failed, self.clock().now())?;
                    if let Update::Stored(_) = self.ledger().update(&failed, way.revision).await? {
                        return Ok(Retrying::Occupied(holder));
                    }
                }
            }
        }
        Err(RetryError::Restless(run.clone()))
    }

    /// Writes a run that failed as PENDING again, if nothing is in its way.
    async fn reopen(
        &self,
        failed: &Stored<RunRecord>,
        found: &Found,
        by: &str,
        look: u32,
    ) -> Result<Reopened, RetryError> {
        let record = &failed.value;
        let Some(task) = found.letter.task.clone() else {
            return Ok(Reopened::Said(Retrying::Unreadable(Box::new(found.letter.clone()))));
        };
        if self.catalog().queue(&record.queue).await?.is_none() {
            return Ok(Reopened::Said(Retrying::NoQueue(record.queue.clone())));
        }
        if let Some(shard) = &record.shard
            && let Some(whole) = self.ledger().get(&shard.parent).await?
            && !whole.value.status.is_final()
        {
            return Ok(Reopened::Said(Retrying::WholeLives(Box::new(whole.value))));
        }
        // It has ended and is buried: what still lies in its queue is on its way out. Looked up before the record is written,
        // so that it is of the life before if that write is taken; removed after it, because until then another may be first.
        let left = self.task_of(&record.id).await?;
        if self.overlap_of(record, &found.letter).await?.is_some_and(Overlap::is_exclusive) {
            match self.in_the_way(record).await? {
                InTheWay::Nobody => {}
                InTheWay::Ended(_) if look < LOOKS_MAX => {
                    self.clock().sleep(LOOK_AGAIN).await;
                    return Ok(Reopened::LookAgain);
                }
                InTheWay::Ended(run) | InTheWay::Lives(run) => {
                    return Ok(Reopened::Said(Retrying::Occupied(run)));
                }
            }
        }
        let cancel_before = self.last_cancel(&record.id).await?.map(|request| request.at);
        let waits = record.retried_by_hand(by, cancel_before, self.clock().now())?;
        Ok(match self.ledger().update(&waits, failed.revision).await? {
            Update::Stored(revision) => Reopened::Goes(Box::new(OnItsWay {
                record: waits,
                revision,
                found: found.clone(),
                task,
                left,
            })),
            Update::Stale => Reopened::LookAgain,
        })
    }

    /// The policy of a run's schedule: as it is defined now, or as the run was dispatched if there is none any more. None: it
    /// is no schedule's run.
    async fn overlap_of(
        &self,
        record: &RunRecord,
        letter: &DeadLetter,
    ) -> Result<Option<Overlap>, ReadError> {
        let Some(schedule) = &record.schedule else { return Ok(None) };
        match self.schedules().get(schedule).await {
            // The parts of a run do not hold its schedule's lock; they are live runs of it all the same.
            Ok(Some(stored)) => Ok(Some(stored.value.overlap)),
            Ok(None) | Err(ReadError::Corrupt { .. }) => {
                let held_lock = self.names().is_lock(&letter.subject);
                Ok(Some(if held_lock { Overlap::Skip } else { Overlap::Allow }))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether another run of the schedule is queued or running, under whatever subject.
    async fn in_the_way(&self, record: &RunRecord) -> Result<InTheWay, ReadError> {
        let Some(holder) = self.live_run(&record.id.name).await? else { return Ok(InTheWay::Nobody) };
        let Some(run) = holder.run else { return Ok(InTheWay::Lives(None)) };
        if run == record.id {
            return Ok(InTheWay::Nobody);
        }
        let found = match self.ledger().get(&run).await {
            Ok(found) => found.map(|stored| stored.value),
            Err(ReadError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        let whole = |record: &RunRecord| record.shard.as_ref().map(|shard| shard.parent.clone());
        Ok(match found {
            Some(other) if other.status.is_final() => InTheWay::Ended(Some(run)),
            // Parts of one run are made to run at once.
            Some(other) if record.shard.is_some() && whole(&other) == whole(record) => InTheWay::Nobody,
            _ => InTheWay::Lives(Some(run)),
        })
    }

    /// Publishes the task of a run that is PENDING again; it may have been done before.
    async fn place(&self, way: &OnItsWay) -> Result<Placed, RetryError> {
        let OnItsWay { record, revision, found, task, left } = way;
        let overlap = self.overlap_of(record, &found.letter).await?;
        if let Some(left) = left {
            self.remove_finished(left.sequence).await?;
            // Behind it another may have been hidden.
            if overlap.is_some_and(Overlap::is_exclusive)
                && let InTheWay::Ended(run) | InTheWay::Lives(run) = self.in_the_way(record).await?
            {
                return Ok(Placed::Held(run));
            }
        }
        // Parts never hold the lock.
        let overlap = overlap.map(|overlap| if record.shard.is_some() { Overlap::Allow } else { overlap });
        let trace = record.trace_id.as_deref().and_then(TraceContext::within);
        let traceparent = trace.map(|trace| trace.to_string());
        for publish in 1..=PUBLISHES_MAX {
            let published = if let Some(overlap) = overlap {
                let due = DueTask { run: Arc::new(record.clone()), task: Arc::new(task.clone()) };
                self.dispatch(&due, *revision, overlap, trace).await
            } else {
                let bytes = Bytes::from(serde_json::to_vec(task).unwrap_or_default());
                self.submit_retried(&record.queue, &record.id, &bytes, *revision, traceparent.as_deref())
                    .await
            };
            match published {
                Ok(_) => return Ok(Placed::Queued),
                Err(WriteError::Occupied { .. }) => {
                    match self.task_of(&record.id).await? {
                        Some(ours) if ours.is_as_new_as(*revision) => return Ok(Placed::Queued),
                        // Submitted under its key meanwhile, maybe, and a worker that found it ended is about to drop it.
                        Some(older) => self.remove_finished(older.sequence).await?,
                        None if overlap.is_some_and(Overlap::is_exclusive) => {
                            if let Some(holder) = self.live_run(&record.id.name).await? {
                                return Ok(Placed::Held(holder.run));
                            }
                        }
                        // It left in this moment.
                        None => {}
                    }
                    // With three replicas a subject is free only a moment after its message is gone.
                    self.clock().sleep(LOOK_AGAIN * publish).await;
                }
                Err(WriteError::Unknown { .. } | WriteError::NoStream { .. }) if publish < PUBLISHES_MAX => {
                    self.clock().sleep(LOOK_AGAIN * publish).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(RetryError::Restless(record.id.clone()))
    }

    /// Deletes a letter whose run lives again. Not one that was stored since.
    async fn forget_letter(&self, found: &Found) -> Result<(), ReadError> {
        self.remove_message(&self.names().dead_stream(), found.sequence).await
    }
}

/// What became of reopening a run.
enum Reopened {
    Goes(Box<OnItsWay>),
    Said(Retrying),
    LookAgain,
}

/// Who holds the lock of a run's schedule.
enum InTheWay {
    Nobody,
    /// One that has ended, and is on its way out.
    Ended(Option<RunId>),
    Lives(Option<RunId>),
}
