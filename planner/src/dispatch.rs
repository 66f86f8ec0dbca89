//! Record, then task. Both may be repeated; together they make one run of a slot, whoever does them and how often.
//!
//! What a crash leaves behind, and who mends it: nothing (the successor starts from the cursor); a record that is
//! PENDING without a task (the successor publishes it); a task without our knowing (the server refuses the second, or
//! the worker's claim drops it).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use serde_json::{Map, Value};
use shared::{
    names::{Name, QueueName},
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::{Overlap, Schedule},
    task::Task,
    trace::TraceContext,
};
use streams::{
    ReadError, Streams, WriteError,
    bucket::Stored,
    ledger::{Creation, Update},
    tasks::{DueTask, Holder},
};

use crate::{due::Due, missed::Decision};

/// How long the lock of a run that has ended may linger before we remove it. On three replicas the removal of an
/// acknowledged message is a moment behind its ack; a worker that died in between leaves it for the acknowledge wait.
const LOCK_LINGER: Duration = Duration::from_millis(500);
const LOCK_LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Looks at a contended lock before the slot is left to the next round.
const LOCK_LOOKS_MAX: u32 = 60;

/// What became of a run that was to be dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the queue, or was, or is done.
    Dispatched,
    /// It is recorded as skipped or failed, and will not run.
    Closed,
}

/// Why a run is not accounted for yet; the next round tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    /// A write did not go through.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A read that decides gave nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The lock changed hands all the time.
    #[error("the lock of schedule {0} changes hands too quickly; trying again")]
    Contended(Name),
}

/// What the holder of a contended lock is doing.
enum LockState {
    /// It is queued, running, or waits for its next attempt.
    Held,
    /// It has ended; its message is on its way out, or was left behind.
    Ended,
    /// It has failed, and its dead letter is not stored yet.
    ToBeBuried,
}

/// What became of a run that was to be closed.
pub(crate) enum Closing {
    /// It is recorded as closed.
    Closed,
    /// It had been made to run, and no worker has had it yet.
    WasPending(Box<Stored<RunRecord>>),
    /// It was accounted for before.
    WasDone,
}

/// Makes runs of slots.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    streams: Streams,
    /// Schedules whose live runs are known to hold the one lock of this revision of theirs.
    alone: Arc<Mutex<HashMap<Name, u64>>>,
}

impl Dispatcher {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { streams, alone: Arc::default() }
    }

    /// Accounts for one slot: a run is dispatched, or its skipping recorded.
    pub(crate) async fn slot(
        &self,
        name: &Name,
        due: &Due,
        decision: Decision,
        queue_is_declared: bool,
    ) -> Result<Outcome, DispatchError> {
        let schedule = &due.schedule;
        let now = self.streams.clock().now();
        let record = RunRecord {
            definition_revision: Some(due.revision),
            ..RunRecord::planned(name, due.slot, schedule.queue.clone(), now)
        };
        let record = describe(record, &schedule.task);
        let task = schedule.task.clone();
        // What the watch has not told yet, or tells late, must not fail a run for good: the leader is asked.
        let queue_is_declared =
            queue_is_declared || self.streams.catalog().queue(&schedule.queue).await?.is_some();
        let closed = match decision {
            Decision::Run if queue_is_declared => return self.run(record, task, schedule.overlap).await,
            Decision::Run => {
                let error = RunError::new(ErrorKind::Malformed, undeclared(&schedule.queue));
                self.close(&record, RunEvent::Rejected, Reason::Unknown, Some(error)).await?
            }
            Decision::Skip(reason) => self.close(&record, RunEvent::Skipped, reason, None).await?,
            Decision::NoSlot => return Ok(Outcome::Closed),
        };
        match closed {
            // It was to run when a predecessor, or we, saw it first, and its task may not be in the queue: that
            // decision stands, however late it has become.
            Closing::WasPending(found) if queue_is_declared => {
                let due = DueTask { run: found.value, task };
                self.publish(&due, found.revision, schedule.overlap, None).await
            }
            Closing::WasPending(found) => {
                let due = DueTask { run: found.value, task };
                self.reject(&due, found.revision, undeclared(&schedule.queue)).await
            }
            Closing::Closed => Ok(Outcome::Closed),
            Closing::WasDone => Ok(Outcome::Dispatched),
        }
    }

    /// Makes a run that was asked for by hand, under the same lock as the planned ones.
    pub(crate) async fn by_hand(
        &self,
        run: RunId,
        schedule: &Schedule,
        revision: u64,
        parameters: Map<String, Value>,
    ) -> Result<Outcome, DispatchError> {
        let mut task = schedule.task.clone();
        task.parameters.extend(parameters);
        let record = RunRecord {
            schedule: Some(run.name.clone()),
            definition_revision: Some(revision),
            ..RunRecord::pending(run, schedule.queue.clone(), self.streams.clock().now())
        };
        let record = describe(record, &task);
        if let Err(error) = task.check_size() {
            let error = RunError::new(ErrorKind::Malformed, error.to_string());
            self.close(&record, RunEvent::Rejected, Reason::Malformed, Some(error)).await?;
            return Ok(Outcome::Closed);
        }
        self.run(record, task, schedule.overlap).await
    }

    /// Records a run that will never be dispatched.
    pub(crate) async fn close(
        &self,
        record: &RunRecord,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
    ) -> Result<Closing, DispatchError> {
        let Ok(closed) = record.apply(event, record.created_at) else { return Ok(Closing::Closed) };
        let closed = RunRecord { error, ..closed.because(reason) };
        Ok(match self.streams.ledger().create(&closed).await? {
            Creation::Created(_) => {
                tracing::info!(run.id = %record.id, ?reason, "Run `{}` will not run: {reason:?}", record.id);
                Closing::Closed
            }
            Creation::Exists(found) if found.value.status == RunState::Pending => Closing::WasPending(found),
            // Somebody accounted for it before us, perhaps otherwise: theirs counts.
            Creation::Exists(_) => Closing::WasDone,
        })
    }

    async fn run(&self, record: RunRecord, task: Task, overlap: Overlap) -> Result<Outcome, DispatchError> {
        let trace = TraceContext::root();
        let record = RunRecord { trace_id: Some(trace.trace_id_text()), ..record };
        let (record, revision, traceparent) = match self.streams.ledger().create(&record).await? {
            Creation::Created(revision) => (record, revision, Some(trace.to_string())),
            // Made before, by us or by a predecessor. Past PENDING: a worker had it, so it was published.
            Creation::Exists(stored) if stored.value.status != RunState::Pending => {
                return Ok(Outcome::Dispatched);
            }
            Creation::Exists(stored) => (stored.value, stored.revision, None),
        };
        let due = DueTask { run: record, task };
        self.publish(&due, revision, overlap, traceparent.as_deref()).await
    }

    async fn publish(
        &self,
        due: &DueTask,
        revision: u64,
        overlap: Overlap,
        traceparent: Option<&str>,
    ) -> Result<Outcome, DispatchError> {
        let run = &due.run.id;
        for _ in 0..LOCK_LOOKS_MAX {
            if overlap == Overlap::Skip && !self.is_alone(due).await? {
                match self.contend(due, revision).await? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                }
            }
            match self.streams.dispatch(due, revision, overlap, traceparent).await {
                Ok(_) => {
                    tracing::info!(run.id = %run, late = due.run.late, "Dispatched `{run}`");
                    return Ok(Outcome::Dispatched);
                }
                // The subject of a run that may overlap is its own: whatever is there, it is this run.
                Err(WriteError::Occupied { .. }) if overlap == Overlap::Allow => {
                    return Ok(Outcome::Dispatched);
                }
                Err(WriteError::Occupied { .. }) => {
                    if let Some(outcome) = self.contend(due, revision).await? {
                        return Ok(outcome);
                    }
                }
                // Trying again would not make it smaller or better.
                Err(
                    error @ (WriteError::TooLarge { .. }
                    | WriteError::Refused { .. }
                    | WriteError::Header { .. }),
                ) => return self.reject(due, revision, error.to_string()).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(DispatchError::Contended(run.name.clone()))
    }

    /// Whether no run of this schedule is queued or running under *another* subject: from before its queue or its
    /// overlap was changed. Once that was found for a revision it stays so: all later runs hold the one lock.
    async fn is_alone(&self, due: &DueTask) -> Result<bool, ReadError> {
        let Some(revision) = due.run.definition_revision else { return Ok(true) };
        let name = &due.run.id.name;
        if self.alone.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&revision) {
            return Ok(true);
        }
        match self.streams.live_run(name).await? {
            Some(holder) if holder.run.as_ref() != Some(&due.run.id) => Ok(false),
            _ => {
                self.alone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), revision);
                Ok(true)
            }
        }
    }

    /// Looks at who is in the way: the outcome if that decides, nothing if it is worth trying again.
    async fn contend(&self, due: &DueTask, revision: u64) -> Result<Option<Outcome>, DispatchError> {
        let Some(holder) = self.streams.live_run(&due.run.id.name).await? else { return Ok(None) };
        if holder.run.as_ref() == Some(&due.run.id) {
            return Ok(Some(Outcome::Dispatched));
        }
        match self.look_at(&holder).await? {
            LockState::Held => {
                return self
                    .end(due, revision, RunEvent::Skipped, Reason::SkippedOverlap, None)
                    .await
                    .map(Some);
            }
            LockState::Ended => self.free_lock(&holder).await?,
            LockState::ToBeBuried => self.streams.clock().sleep(LOCK_LOOK_AGAIN).await,
        }
        Ok(None)
    }

    /// A run whose task no stream takes, now or later: it has failed, and says why.
    async fn reject(&self, due: &DueTask, revision: u64, why: String) -> Result<Outcome, DispatchError> {
        let error = RunError::new(ErrorKind::Malformed, why);
        self.end(due, revision, RunEvent::Rejected, Reason::Malformed, Some(error)).await
    }

    /// Whether the run that holds a lock lives. A holder that the ledger does not know is thought to.
    async fn look_at(&self, holder: &Holder) -> Result<LockState, ReadError> {
        let Some(run) = &holder.run else { return Ok(LockState::Held) };
        let Some(stored) = self.streams.ledger().get(run).await? else { return Ok(LockState::Held) };
        Ok(match stored.value.status {
            // Its message is all there is to make the dead letter from, until that is stored.
            RunState::Failed if !self.streams.is_buried(&stored.value).await? => LockState::ToBeBuried,
            RunState::Success | RunState::Failed | RunState::Cancelled => LockState::Ended,
            RunState::Pending | RunState::Running | RunState::Retry => LockState::Held,
        })
    }

    /// Waits a moment for the message of an ended run to go; if it lingers, its worker died before the ack: we remove it.
    async fn free_lock(&self, holder: &Holder) -> Result<(), ReadError> {
        let age = self.streams.clock().now() - holder.since;
        if age > TimeDelta::from_std(LOCK_LINGER).unwrap_or(TimeDelta::MAX) {
            let run = holder.run.as_ref().map(ToString::to_string).unwrap_or_default();
            // The removal of an acked message may still be on its way: give it its moment before helping.
            self.streams.clock().sleep(LOCK_LOOK_AGAIN).await;
            tracing::debug!(run.id = run, "Freeing the lock of the ended run `{run}`");
            return self.streams.remove_finished(holder.sequence).await;
        }
        self.streams.clock().sleep(LOCK_LOOK_AGAIN).await;
        Ok(())
    }

    async fn end(
        &self,
        due: &DueTask,
        revision: u64,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
    ) -> Result<Outcome, DispatchError> {
        let Ok(ended) = due.run.apply(event, self.streams.clock().now()) else {
            return Ok(Outcome::Dispatched);
        };
        let ended = RunRecord { error, ..ended.because(reason) };
        match self.streams.ledger().update(&ended, revision).await? {
            Update::Stored(_) => {
                tracing::info!(run.id = %due.run.id, ?reason, "Run `{}` will not run: {reason:?}", due.run.id);
                Ok(Outcome::Closed)
            }
            // A worker or another planner moved it on.
            Update::Stale => Ok(Outcome::Dispatched),
        }
    }
}

/// What the record says of the task, so that runs can be found by target and action.
fn describe(record: RunRecord, task: &Task) -> RunRecord {
    RunRecord { target_service: task.target().cloned(), action: Some(task.action().clone()), ..record }
}

fn undeclared(queue: &QueueName) -> String {
    format!("queue {queue} is not declared; add it under `queues:` and apply")
}
