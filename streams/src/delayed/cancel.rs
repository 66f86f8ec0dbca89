//! What waits and shall never run: its record, and its removal. [`Streams::cancel`](crate::Streams::cancel) uses both.
//!
//! The ledger decides the race with a dispatch, because both begin with creating the run's record, which succeeds once.
//! If the cancelling is first, the planner finds the run ended and only removes it; if the planner is, the run is one
//! like any other.

use shared::{run::RunId, run_record::RunRecord, task::Task, trace::TraceContext};

use super::{Delayed, Waiting};
use crate::{Names, ReadError};

impl Delayed {
    /// The record of a run that waits, as it would be if it were due now; none of what will never be a run.
    pub(crate) fn record_of(&self, waiting: &Waiting) -> Option<RunRecord> {
        let appointment = waiting.read.as_ref().ok()?.clone();
        let now = self.streams.clock().now();
        let record = RunRecord::delayed(appointment.run, appointment.not_before, appointment.queue, now);
        let task = Task::from_json(&waiting.payload).ok();
        let trace = waiting.traceparent.as_deref().and_then(TraceContext::parse);
        Some(RunRecord {
            target_service: task.as_ref().and_then(|task| task.target().cloned()),
            action: task.as_ref().map(|task| task.action().clone()),
            trace_id: trace.map(|trace| trace.trace_id_text()),
            ..record
        })
    }

    /// Removes all that waits of a run; it may wait in more than one queue. What is left, because this fails, a planner
    /// finds ended when it is due.
    pub(crate) async fn remove_all_of(&self, run: &RunId) -> Result<(), ReadError> {
        // A planner's key never waits; what stands there is garbage, on its way to the dead letters.
        if Names::is_reserved_key(&run.key) {
            return Ok(());
        }
        let mut left = self.find(run).await?;
        while let Some(waiting) = left {
            self.remove(waiting.sequence).await?;
            left = self.find(run).await?.filter(|next| next.sequence != waiting.sequence);
        }
        Ok(())
    }
}
