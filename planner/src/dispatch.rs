//! Runs that are made outside the planning loop: asked for by hand, back-filled, or waiting in a line. They go the same
//! way as those of slots ([`crate::machine`]), one ask after the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};
use shared::{
    names::{Name, QueueName},
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::RunEvent,
    schedule::{Overlap, Schedule},
    task::Task,
    trace::TraceContext,
};
use streams::{ReadError, Streams, WriteError, cancel::CancelError, ledger::Update, tasks::DueTask};

use crate::{
    lines::Lines,
    machine::{
        ask::Unanswered,
        contending::{Contending, Contention},
        dispatching::{Dispatching, IfPending, Wanted, closed, ended},
        placing::Placement,
    },
    perform::drive,
};

/// Schedules of which it is kept in memory that no run is under another lock; it is only a matter of speed.
const ALONE_KNOWN_MAX: usize = 65_536;

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

/// Why a run is not accounted for yet; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    /// Something was not answered.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
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

/// Makes runs.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    streams: Streams,
    pub(crate) lines: Lines,
    /// Schedules of which no run is under another lock than that of this revision of theirs.
    alone: Arc<Mutex<HashMap<Name, u64>>>,
}

impl Dispatcher {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { lines: Lines::new(streams.clone()), alone: Arc::default(), streams }
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
        let mut task = Arc::clone(&schedule.task);
        Arc::make_mut(&mut task).parameters.extend(parameters);
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
        let Some(closed) = closed(record, RunEvent::Rejected, reason, Some(error.clone())) else {
            return Ok(Outcome::Closed);
        };
        drive(&self.streams, Dispatching::close(closed, IfPending::Reject(reason, error))).await
    }

    /// Creates the record of a run and publishes its task; both may have been done before.
    pub(crate) async fn run(
        &self,
        record: RunRecord,
        task: Arc<Task>,
        overlap: Overlap,
    ) -> Result<Outcome, DispatchError> {
        let (name, definition) = (record.id.name.clone(), record.definition_revision);
        let is_alone = self.is_alone(&name, definition);
        let record = Arc::new(record);
        let wanted = Wanted { record, task, overlap, is_alone };
        self.dispatch(Dispatching::run(wanted, TraceContext::root()), name, definition).await
    }

    /// Publishes the task of a record that is PENDING under this revision; it may have been done before.
    pub(crate) async fn publish(
        &self,
        due: DueTask,
        revision: u64,
        overlap: Overlap,
        trace: Option<TraceContext>,
    ) -> Result<Outcome, DispatchError> {
        let (name, definition) = (due.run.id.name.clone(), due.run.definition_revision);
        let is_alone = self.is_alone(&name, definition);
        let placement = Placement { due, revision, overlap, definition, trace, is_alone };
        self.dispatch(Dispatching::publish(placement), name, definition).await
    }

    async fn dispatch(
        &self,
        mut dispatching: Dispatching,
        name: Name,
        definition: Option<u64>,
    ) -> Result<Outcome, DispatchError> {
        let outcome = drive(&self.streams, &mut dispatching).await?;
        if let (true, Some(revision)) = (dispatching.is_alone(), definition) {
            let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
            if alone.len() >= ALONE_KNOWN_MAX {
                alone.clear();
            }
            alone.insert(name, revision);
        }
        Ok(outcome)
    }

    fn is_alone(&self, name: &Name, definition: Option<u64>) -> bool {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        definition.is_some() && alone.get(name).copied() == definition
    }

    /// Looks at who is in the way of a run, and helps what has ended out of it.
    pub(crate) async fn contend(&self, run: &RunId) -> Result<Contention, DispatchError> {
        Ok(drive(&self.streams, Contending::new(run.clone())).await?)
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
        let Some(ended) = ended(record, event, reason, error, self.streams.clock().now()) else {
            return Ok(Outcome::Dispatched);
        };
        Ok(match self.streams.ledger().update(&ended, revision).await? {
            Update::Stored(_) => Outcome::Closed,
            // A worker or another planner moved it on.
            Update::Stale => Outcome::Dispatched,
        })
    }

    /// Whether no run of a schedule but this one is queued or running; what an ended one left behind is removed.
    pub(crate) async fn is_free(&self, schedule: &Name) -> Result<bool, DispatchError> {
        // A run that cannot be: whoever holds the lock is another.
        let nobody = RunId { name: schedule.clone(), key: shared::names::RunKey::unique() };
        for _ in 0..2 {
            match self.contend(&nobody).await? {
                Contention::Free | Contention::Ours => return Ok(true),
                Contention::Freed => {}
                Contention::Held(_) | Contention::ToBeBuried => return Ok(false),
            }
        }
        Ok(false)
    }
}

/// What the record says of the task, so that runs can be found by target and action.
pub(crate) fn describe(record: RunRecord, task: &Task) -> RunRecord {
    RunRecord { target_service: task.target().cloned(), action: Some(task.action().clone()), ..record }
}

pub(crate) fn undeclared(queue: &QueueName) -> String {
    format!("queue {queue} is not declared; add it under `queues:` and apply")
}
