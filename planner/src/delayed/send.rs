//! One delayed submission on its way: read, wait for its instant, record, queue, delete.
//!
//! The order is the one that loses nothing. A crash after the record leaves it PENDING, and what waits is still there:
//! the next holder finds the record and queues the task. A crash after the queueing leaves what waits behind: the next
//! holder queues it once more, which the server refuses while the run is queued or running, and which the worker's claim
//! drops when it has ended. Deleting first would lose the task for good.

use std::{sync::Arc, time::Duration};

use shared::{
    Timestamp,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    task::Task,
    trace::TraceContext,
};
use streams::{
    ReadError, Streams, WriteError,
    delayed::{Appointment, Delayed, Entry, Lying, Waiting},
    ledger::Creation,
};
use tokio_util::sync::CancellationToken;

use super::reject::Rejected;
use crate::{
    clock_guard::ClockGuard,
    dispatch::{describe, undeclared},
    holdings::Holdings,
    status::Status,
};

/// Longest sleep before an instant: the timer is a hint, the clock decides.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// What became of one that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It waits no more: it is deleted.
    Done,
    /// It is not there: somebody else deleted it, or who was asked is behind.
    NotThere,
    /// It is queued, was before, or will never be: it can be deleted now.
    ToDelete,
    /// It waits still: its partition's lease is in doubt, or we are stopping.
    NotYet,
}

/// Why one is not dealt with yet; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Illegal(#[from] shared::run_state::IllegalTransition),
    #[error(transparent)]
    Name(#[from] shared::run::RunIdError),
}

/// Sends what is due on its way. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(super) streams: Streams,
    pub(super) delayed: Delayed,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    guard: Arc<ClockGuard>,
    stop: CancellationToken,
}

impl Sender {
    pub(crate) fn new(
        streams: Streams,
        holdings: Arc<Holdings>,
        status: Arc<Status>,
        guard: Arc<ClockGuard>,
        stop: CancellationToken,
    ) -> Self {
        let delayed = streams.delayed();
        Self { streams, delayed, holdings, status, guard, stop }
    }

    /// Deals with one that is due, or will be in a moment.
    pub(crate) async fn send(&self, entry: Entry) -> Result<Sent, SendError> {
        let waiting = match self.delayed.get(entry.sequence).await? {
            None => return Ok(Sent::NotThere),
            Some(Lying::Parked(parked)) => return self.put_back(entry, &parked).await,
            Some(Lying::Submission(waiting)) => waiting,
        };
        let appointment = match &waiting.read {
            Ok(appointment) => appointment.clone(),
            Err(unusable) => {
                let rejected = Rejected::unusable(unusable);
                return self.reject(&waiting, rejected).await.map(|()| Sent::ToDelete);
            }
        };
        let task = match Task::from_json(&waiting.payload) {
            Ok(task) => task,
            Err(error) => {
                let rejected = Rejected::task(&appointment, Reason::Malformed, error.to_string());
                return self.reject(&waiting, rejected).await.map(|()| Sent::ToDelete);
            }
        };
        if !self.wait_for(appointment.not_before).await || !self.is_ours(entry.partition) {
            return Ok(Sent::NotYet);
        }
        if let Some(rejected) = self.queue(&waiting, &appointment, &task).await? {
            return self.reject(&waiting, rejected).await.map(|()| Sent::ToDelete);
        }
        Ok(Sent::ToDelete)
    }

    /// Deletes what is queued.
    pub(crate) async fn delete(&self, entry: Entry) -> Result<Sent, SendError> {
        self.delayed.remove(entry.sequence).await?;
        Ok(Sent::Done)
    }

    /// Whether the instant has come; not if we are told to stop before, or the clock is not believed any more.
    pub(super) async fn wait_for(&self, not_before: Timestamp) -> bool {
        let clock = self.streams.clock();
        loop {
            let Some(now) = self.guard.now() else { return false };
            // A difference that is negative has passed.
            let Ok(wait) = (not_before - now).to_std() else { return true };
            if wait.is_zero() {
                return true;
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = clock.sleep(wait.min(SLEEP_MAX)) => {}
            }
        }
    }

    /// Whether the lease can be trusted at this moment. It saves work only; the ledger keeps it one run.
    pub(super) fn is_ours(&self, partition: u16) -> bool {
        self.holdings.trusted(self.streams.clock().elapsed()).contains(&partition)
    }

    /// Creates the record and publishes the task, each of which may be repeated. Some: no queue will ever take it.
    async fn queue(
        &self,
        waiting: &Waiting,
        appointment: &Appointment,
        task: &Task,
    ) -> Result<Option<Rejected>, SendError> {
        let Appointment { run, queue, not_before } = appointment;
        let trace = waiting.traceparent.as_deref().and_then(TraceContext::parse);
        let trace = trace.unwrap_or_else(TraceContext::root);
        let now = self.streams.clock().now();
        let record = RunRecord {
            trace_id: Some(trace.trace_id_text()),
            ..RunRecord::delayed(run.clone(), *not_before, queue.clone(), now)
        };
        let late = record.late;
        match self.streams.ledger().create(&describe(record, task)).await? {
            Creation::Created(_) => {}
            // Made before, by us or by a predecessor, and no worker has had it yet.
            Creation::Exists(found) if is_of(&found.value, appointment) => {}
            // It ran, was cancelled, or was submitted in another way: this one is superfluous.
            Creation::Exists(_) => return Ok(None),
        }
        // To the subject of a plain submission, as the submitter could have done at this instant. Not to those of
        // planned runs: there it would hold the lock of a schedule of the same name.
        match self.streams.submit_recorded(queue, run, &waiting.payload, Some(&trace.to_string())).await {
            // The subject is the run's own: whatever is there, it is this run.
            Ok(_) | Err(WriteError::Occupied { .. }) => {}
            Err(error @ WriteError::NoStream { .. }) => {
                // Nobody declared the queue, or its stream has no leader just now: the catalog knows.
                return if self.streams.catalog().queue(queue).await?.is_some() {
                    Err(error.into())
                } else {
                    Ok(Some(Rejected::task(appointment, Reason::Unknown, undeclared(queue))))
                };
            }
            Err(
                error
                @ (WriteError::TooLarge { .. } | WriteError::Refused { .. } | WriteError::Header { .. }),
            ) => return Ok(Some(Rejected::task(appointment, Reason::Malformed, error.to_string()))),
            Err(error) => return Err(error.into()),
        }
        self.status.note_lateness(self.streams.clock().now() - *not_before);
        tracing::info!(run.id = %run, late, "Dispatched `{run}`, which waited until {not_before}");
        Ok(None)
    }
}

/// Whether a record is that of this very submission, waiting for a worker.
pub(super) fn is_of(record: &RunRecord, appointment: &Appointment) -> bool {
    record.status == RunState::Pending
        && record.not_before == Some(appointment.not_before)
        && record.queue == appointment.queue
}
