//! The lock of a schedule: one subject in the task queue, on which the server takes one task. Who holds it, and putting
//! a run's task there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{names::Name, run::RunId, run_state::RunState, schedule::Overlap};
use streams::{
    ReadError, Streams, WriteError,
    tasks::{DueTask, Holder},
};

use crate::dispatch::DispatchError;

/// A task younger than this is not removed when its run is found ended: on three replicas the removal of an acknowledged
/// message is a moment behind its ack. A worker that died in between leaves it for the acknowledge wait.
const LOCK_LINGER: Duration = Duration::from_millis(500);
const LOCK_LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Looks at a contended lock before the slot is left to the next round.
const LOCK_LOOKS_MAX: u32 = 60;

/// What came of putting a run's task into the queue.
#[derive(Debug)]
pub(crate) enum Placing {
    /// It is there, or was.
    Placed,
    /// Another run of the schedule is queued, running, or waits for its next attempt.
    Held(Holder),
    /// No stream takes this task, now or later; why.
    Refused(String),
}

/// Who is in the way of a run.
#[derive(Debug)]
pub(crate) enum Contention {
    /// Nobody.
    Free,
    /// It is there itself.
    Ours,
    /// Another run of its schedule.
    Held(Holder),
    /// Somebody was, and is on the way out: look again.
    Freed,
    /// One that has failed, and is held until its dead letter is stored: look again later.
    ToBeBuried,
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

/// The locks of all schedules.
#[derive(Clone)]
pub(crate) struct Locks {
    streams: Streams,
    /// Schedules whose live runs are known to hold the one lock of this revision of theirs.
    alone: Arc<Mutex<HashMap<Name, u64>>>,
}

impl Locks {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { streams, alone: Arc::default() }
    }

    /// Puts a run's task into the queue: under its schedule's lock, or, if runs may overlap, under a subject of its own.
    /// `definition` is the revision of the schedule whose queue and overlap these are.
    pub(crate) async fn place(
        &self,
        due: &DueTask,
        revision: u64,
        overlap: Overlap,
        definition: Option<u64>,
        traceparent: Option<&str>,
    ) -> Result<Placing, DispatchError> {
        let run = &due.run.id;
        for _ in 0..LOCK_LOOKS_MAX {
            let is_alone = !overlap.is_exclusive() || self.is_alone(run, definition).await?;
            if is_alone {
                match self.streams.dispatch(due, revision, overlap, traceparent).await {
                    Ok(_) => {
                        tracing::info!(run.id = %run, late = due.run.late, "Dispatched `{run}`");
                        return Ok(Placing::Placed);
                    }
                    // The subject of a run that may overlap is its own: whatever is there, it is this run.
                    Err(WriteError::Occupied { .. }) if !overlap.is_exclusive() => {
                        return Ok(Placing::Placed);
                    }
                    Err(WriteError::Occupied { .. }) => {}
                    // Trying again would not make it smaller or better.
                    Err(
                        error @ (WriteError::TooLarge { .. }
                        | WriteError::Refused { .. }
                        | WriteError::Header { .. }),
                    ) => return Ok(Placing::Refused(error.to_string())),
                    Err(error) => return Err(error.into()),
                }
            }
            match self.contend(run).await? {
                Contention::Ours => return Ok(Placing::Placed),
                Contention::Held(holder) => return Ok(Placing::Held(holder)),
                Contention::Free | Contention::Freed => {}
                Contention::ToBeBuried => break,
            }
        }
        Err(DispatchError::Contended(run.name.clone()))
    }

    /// Looks at who is in the way of a run, and helps what has ended out of it.
    pub(crate) async fn contend(&self, run: &RunId) -> Result<Contention, ReadError> {
        let Some(holder) = self.streams.live_run(&run.name).await? else { return Ok(Contention::Free) };
        if holder.run.as_ref() == Some(run) {
            return Ok(Contention::Ours);
        }
        match self.look_at(&holder).await? {
            LockState::Held => return Ok(Contention::Held(holder)),
            LockState::Ended => self.free(&holder).await?,
            // That takes as long as its worker needs, or the acknowledge wait if it died: not to be waited for here.
            LockState::ToBeBuried => return Ok(Contention::ToBeBuried),
        }
        Ok(Contention::Freed)
    }

    /// Whether no run of a schedule is queued or running; what an ended one left behind is removed.
    pub(crate) async fn is_free(&self, schedule: &Name) -> Result<bool, ReadError> {
        let Some(holder) = self.streams.live_run(schedule).await? else { return Ok(true) };
        match self.look_at(&holder).await? {
            LockState::Held | LockState::ToBeBuried => Ok(false),
            LockState::Ended => {
                self.free(&holder).await?;
                Ok(self.streams.live_run(schedule).await?.is_none())
            }
        }
    }

    /// Whether no run of this schedule is queued or running under *another* subject: from before its queue or its
    /// overlap was changed. Once that was found for a revision it stays so: all later runs hold the one lock.
    async fn is_alone(&self, run: &RunId, definition: Option<u64>) -> Result<bool, ReadError> {
        let Some(revision) = definition else { return Ok(true) };
        let name = &run.name;
        if self.alone.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&revision) {
            return Ok(true);
        }
        match self.streams.live_run(name).await? {
            // A message that names no run is no planner's: if it lies in our way, the publish says so.
            Some(Holder { run: None, .. }) => Ok(true),
            Some(holder) if holder.run.as_ref() != Some(run) => Ok(false),
            _ => {
                self.alone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), revision);
                Ok(true)
            }
        }
    }

    /// Whether the run that holds a lock lives. A holder that the ledger does not know is thought to.
    async fn look_at(&self, holder: &Holder) -> Result<LockState, ReadError> {
        let Some(run) = &holder.run else { return Ok(LockState::Held) };
        let stored = match self.streams.ledger().get(run).await {
            Ok(Some(stored)) => stored,
            // Its worker replaces a record that is none, and ends the run.
            Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(LockState::Held),
            Err(error) => return Err(error),
        };
        Ok(match stored.value.status {
            // Its message is all there is to make the dead letter from, until that is stored.
            RunState::Failed if !self.streams.is_buried(&stored.value).await? => LockState::ToBeBuried,
            RunState::Success | RunState::Failed | RunState::Cancelled => LockState::Ended,
            RunState::Pending | RunState::Running | RunState::Retry => LockState::Held,
        })
    }

    /// Waits a moment for the message of an ended run to go; if it lingers, its worker died before the ack: we remove it.
    async fn free(&self, holder: &Holder) -> Result<(), ReadError> {
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
}
