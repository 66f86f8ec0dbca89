//! Cancelling what waits.
//!
//! The ledger decides the race with a dispatch, because both begin with creating the run's record, which succeeds once.
//! If the cancelling is first, the planner finds the run ended and only removes it; if the planner is, it is too late
//! here, and the run is one like any other.

use shared::{
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunEvent,
    task::Task,
    trace::TraceContext,
};

use super::{Delayed, Waiting};
use crate::{Names, ReadError, WriteError, ledger::Creation};

/// What came of cancelling a run that may be waiting.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelling {
    /// It will never run; the record says so.
    Cancelled(Box<RunRecord>),
    /// It waits no more: it was dispatched, or has ended.
    TooLate(Box<RunRecord>),
    /// No such run waits.
    NotWaiting,
}

/// Why it is not known to be cancelled; it may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// It could not be looked for, or not be removed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Delayed {
    /// Cancels a run that waits for its instant, in whatever queue. May be repeated.
    pub async fn cancel(&self, run: &RunId) -> Result<Cancelling, CancelError> {
        // A planner's key never waits; what stands there is garbage, on its way to the dead letters.
        if Names::is_reserved_key(&run.key) {
            return Ok(Cancelling::NotWaiting);
        }
        let Some(waiting) = self.find(run).await? else { return Ok(Cancelling::NotWaiting) };
        let Some(cancelled) = self.as_cancelled(&waiting) else { return Ok(Cancelling::NotWaiting) };
        let cancelled = match self.streams.ledger().create(&cancelled).await? {
            Creation::Created(_) => cancelled,
            // By us, and the answer was lost; or by somebody else, who may not have come to removing it.
            Creation::Exists(found) if found.value.reason == Some(Reason::ByOperator) => found.value,
            Creation::Exists(found) => return Ok(Cancelling::TooLate(Box::new(found.value))),
        };
        // It may wait in more than one queue. If this fails, a planner finds it cancelled when it is due.
        let mut left = Some(waiting);
        while let Some(waiting) = left {
            self.remove(waiting.sequence).await?;
            left = self.find(run).await?.filter(|next| next.sequence != waiting.sequence);
        }
        Ok(Cancelling::Cancelled(Box::new(cancelled)))
    }

    fn as_cancelled(&self, waiting: &Waiting) -> Option<RunRecord> {
        let appointment = waiting.read.as_ref().ok()?.clone();
        let now = self.streams.clock().now();
        let record = RunRecord::delayed(appointment.run, appointment.not_before, appointment.queue, now);
        let task = Task::from_json(&waiting.payload).ok();
        let trace = waiting.traceparent.as_deref().and_then(TraceContext::parse);
        let record = RunRecord {
            target_service: task.as_ref().and_then(|task| task.target().cloned()),
            action: task.as_ref().map(|task| task.action().clone()),
            trace_id: trace.map(|trace| trace.trace_id_text()),
            ..record
        };
        Some(record.apply(RunEvent::Cancelled, now).ok()?.because(Reason::ByOperator))
    }
}
