//! Record, then task. Both may be repeated; together they make one run of a slot, whoever does them and how often.
//!
//! What a crash leaves behind, and who mends it: nothing (the successor starts from the cursor); a record that is
//! PENDING without a task (the successor publishes it); a task without our knowing (the server refuses the second, or
//! the worker's claim drops it).

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
    cancel::CancelError,
    ledger::{Creation, Update},
    tasks::DueTask,
};

use crate::{
    due::Due,
    lines::{Lines, Standing, stand},
    lock::{Contention, Locks, Placing},
    missed::Decision,
    shards,
};

/// Writes to a line, each over a newer one, before the slot is left to the next round.
const LINE_WRITES_MAX: u32 = 10;

/// What became of a run that was to be dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the queue, or was, or is done.
    Dispatched,
    /// It waits for its schedule's lock.
    Waits,
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
    /// A run that is to be replaced could not be cancelled.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// The lock changed hands all the time.
    #[error("the lock of schedule {0} changes hands too quickly; trying again")]
    Contended(Name),
}

/// What became of a run that was to be closed.
#[must_use]
enum Closing {
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
    pub(crate) locks: Locks,
    pub(crate) lines: Lines,
}

impl Dispatcher {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { locks: Locks::new(streams.clone()), lines: Lines::new(streams.clone()), streams }
    }

    /// Accounts for one slot: a run is dispatched, or its skipping recorded, with a note if there is more to say.
    pub(crate) async fn slot(
        &self,
        name: &Name,
        due: &Due,
        decision: Decision,
        queue_is_declared: bool,
        note: Option<String>,
    ) -> Result<Outcome, DispatchError> {
        let schedule = &due.schedule;
        let now = self.streams.clock().now();
        let record = RunRecord {
            definition_revision: Some(due.revision),
            shards: schedule.shards(),
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
            Decision::Skip(reason) => {
                let record = RunRecord { note, ..record };
                self.close(&record, RunEvent::Skipped, reason, None).await?
            }
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
                self.reject(&due.run, found.revision, undeclared(&schedule.queue)).await
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
        by: &str,
    ) -> Result<Outcome, DispatchError> {
        let mut task = schedule.task.clone();
        task.parameters.extend(parameters);
        let record = RunRecord {
            schedule: Some(run.name.clone()),
            by: Some(by.to_owned()),
            definition_revision: Some(revision),
            shards: schedule.shards(),
            ..RunRecord::pending(run, schedule.queue.clone(), self.streams.clock().now())
        };
        let record = describe(record, &task);
        if let Err(error) = task.check_size() {
            return self.refuse(&record, Reason::Malformed, &error.to_string()).await;
        }
        self.run(record, task, schedule.overlap).await
    }

    /// Records that a run that was asked for cannot be made; also over a record that a predecessor left PENDING when it
    /// died before the publish.
    pub(crate) async fn refuse(
        &self,
        record: &RunRecord,
        reason: Reason,
        why: &str,
    ) -> Result<Outcome, DispatchError> {
        let error = RunError::new(ErrorKind::Malformed, why);
        match self.close(record, RunEvent::Rejected, reason, Some(error.clone())).await? {
            Closing::WasPending(found) => {
                let Ok(ended) = found.value.apply(RunEvent::Rejected, self.streams.clock().now()) else {
                    return Ok(Outcome::Dispatched);
                };
                let ended = RunRecord { error: Some(error), ..ended.because(reason) };
                // Stale: a worker has it after all, and its end is the worker's to say.
                self.streams.ledger().update(&ended, found.revision).await?;
                Ok(Outcome::Closed)
            }
            Closing::Closed | Closing::WasDone => Ok(Outcome::Closed),
        }
    }

    /// Records a run that will never be dispatched.
    async fn close(
        &self,
        record: &RunRecord,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
    ) -> Result<Closing, DispatchError> {
        let Ok(closed) = record.apply(event, record.created_at) else { return Ok(Closing::Closed) };
        // What the state's change left out: a note that came with the record belongs to the reason.
        let closed = RunRecord { error, note: record.note.clone(), ..closed.because(reason) };
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

    /// Creates the record of a run and publishes its task; both may have been done before.
    pub(crate) async fn run(
        &self,
        record: RunRecord,
        task: Task,
        overlap: Overlap,
    ) -> Result<Outcome, DispatchError> {
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

    /// Publishes the task of a record that is PENDING under this revision; it may have been done before.
    pub(crate) async fn publish(
        &self,
        due: &DueTask,
        revision: u64,
        overlap: Overlap,
        traceparent: Option<&str>,
    ) -> Result<Outcome, DispatchError> {
        if due.run.shards.is_some() {
            return Box::pin(shards::fan_out(&self.streams, self, due, revision, overlap)).await;
        }
        let may_wait = overlap.waiting_max() > 0;
        // Nobody goes past those who wait; but a run that is asked for again may lie in the queue already.
        let waiting = if may_wait { self.lines.get(&due.run.id.name).await?.runs } else { Vec::new() };
        if !waiting.is_empty() {
            let stands = waiting.contains(&due.run.id);
            if !stands && matches!(self.locks.contend(&due.run.id).await?, Contention::Ours) {
                return Ok(Outcome::Dispatched);
            }
            return self.line_up(&due.run, revision, overlap).await;
        }
        let definition = due.run.definition_revision;
        match self.locks.place(due, revision, overlap, definition, traceparent).await? {
            Placing::Placed => Ok(Outcome::Dispatched),
            Placing::Refused(why) => self.reject(&due.run, revision, why).await,
            Placing::Held(_) if may_wait => self.line_up(&due.run, revision, overlap).await,
            Placing::Held(_) => {
                self.end(&due.run, revision, RunEvent::Skipped, Reason::SkippedOverlap, None).await
            }
        }
    }

    /// Puts a run at the end of its schedule's line, if one more may wait. Record first, then line: a crash in between
    /// leaves a slot that is not accounted for, or a wish that is not answered, and so is done again.
    async fn line_up(
        &self,
        record: &RunRecord,
        mut revision: u64,
        overlap: Overlap,
    ) -> Result<Outcome, DispatchError> {
        let (mut record, run) = (record.clone(), &record.id);
        for _ in 0..LINE_WRITES_MAX {
            let line = self.lines.get(&run.name).await?;
            let place = match stand(&line.runs, run, overlap.waiting_max()) {
                Standing::Stands => return Ok(Outcome::Waits),
                Standing::Full => {
                    let error = RunError::new(ErrorKind::Overlap, full(overlap, line.runs.len()));
                    let reason = Reason::SkippedOverlap;
                    return self.end(&record, revision, RunEvent::Skipped, reason, Some(error)).await;
                }
                Standing::Joins(runs) => runs,
            };
            if record.reason != Some(Reason::Buffered) {
                let Ok(waits) = record.apply(RunEvent::Buffered, self.streams.clock().now()) else {
                    return Ok(Outcome::Dispatched);
                };
                record = waits.because(Reason::Buffered);
                match self.streams.ledger().update(&record, revision).await? {
                    Update::Stored(stored) => revision = stored,
                    // It was cancelled, or another planner was faster.
                    Update::Stale => return Ok(Outcome::Dispatched),
                }
            }
            if let Update::Stored(_) = self.lines.write(&run.name, &place, line.revision).await? {
                tracing::info!(run.id = %run, before = line.runs.len(), "`{run}` waits for its schedule's lock");
                return Ok(Outcome::Waits);
            }
        }
        Err(DispatchError::Contended(run.name.clone()))
    }

    /// A run whose task no stream takes, now or later: it has failed, and says why.
    pub(crate) async fn reject(
        &self,
        record: &RunRecord,
        revision: u64,
        why: String,
    ) -> Result<Outcome, DispatchError> {
        let error = RunError::new(ErrorKind::Malformed, why);
        self.end(record, revision, RunEvent::Rejected, Reason::Malformed, Some(error)).await
    }

    /// Ends a run that no worker has had.
    pub(crate) async fn end(
        &self,
        record: &RunRecord,
        revision: u64,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
    ) -> Result<Outcome, DispatchError> {
        let Ok(ended) = record.apply(event, self.streams.clock().now()) else {
            return Ok(Outcome::Dispatched);
        };
        let ended = RunRecord { error, ..ended.because(reason) };
        match self.streams.ledger().update(&ended, revision).await? {
            Update::Stored(_) => {
                tracing::info!(run.id = %record.id, ?reason, "Run `{}` will not run: {reason:?}", record.id);
                Ok(Outcome::Closed)
            }
            // A worker or another planner moved it on.
            Update::Stale => Ok(Outcome::Dispatched),
        }
    }
}

/// What the record says of the task, so that runs can be found by target and action.
pub(crate) fn describe(record: RunRecord, task: &Task) -> RunRecord {
    RunRecord { target_service: task.target().cloned(), action: Some(task.action().clone()), ..record }
}

pub(crate) fn undeclared(queue: &QueueName) -> String {
    format!("queue {queue} is not declared; add it under `queues:` and apply")
}

fn full(overlap: Overlap, waiting: usize) -> String {
    let overlap_word = overlap.as_str();
    format!(
        "{waiting} run(s) of the schedule wait for the one that runs; with overlap {overlap_word} at most {} may: make \
         the task quicker, or its slots fewer",
        overlap.waiting_max()
    )
}
