//! What waits and can never be a run: a record says so, a dead letter keeps it, and the others go on.

use shared::{
    names::QueueName,
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{IllegalTransition, RunEvent, RunState},
    task::Task,
};
use streams::{
    dead::DeadLetter,
    delayed::{Appointment, Unusable, Waiting},
    ledger::{Creation, Update},
};

use super::send::{SendError, Sender, is_of};

/// Why a submission will never run, and whose record says so.
pub(super) struct Rejected {
    /// The run, if it may have a record under its own name.
    run: Option<RunId>,
    queue: QueueName,
    appointment: Option<Appointment>,
    reason: Reason,
    why: String,
}

impl Rejected {
    /// One that cannot be understood.
    pub(super) fn unusable(unusable: &Unusable) -> Self {
        Self {
            run: unusable.run.clone(),
            queue: unusable.queue.clone().unwrap_or_else(QueueName::default_queue),
            appointment: None,
            reason: Reason::Malformed,
            why: unusable.why.clone(),
        }
    }

    /// One whose task cannot be run.
    pub(super) fn task(appointment: &Appointment, reason: Reason, why: String) -> Self {
        Self {
            run: Some(appointment.run.clone()),
            queue: appointment.queue.clone(),
            appointment: Some(appointment.clone()),
            reason,
            why,
        }
    }

    fn record(&self, run: RunId, now: shared::Timestamp) -> RunRecord {
        match &self.appointment {
            Some(appointment) => RunRecord::delayed(run, appointment.not_before, self.queue.clone(), now),
            None => RunRecord::pending(run, self.queue.clone(), now),
        }
    }

    fn apply_to(&self, record: &RunRecord, now: shared::Timestamp) -> Result<RunRecord, IllegalTransition> {
        let error = RunError::new(ErrorKind::Malformed, self.why.clone());
        Ok(record.apply(RunEvent::Rejected, now)?.because(self.reason).with_error(error))
    }
}

impl Sender {
    /// Records it as failed and stores its dead letter; only then it may be deleted.
    pub(super) async fn reject(&self, waiting: &Waiting, rejected: Rejected) -> Result<(), SendError> {
        tracing::warn!(subject = waiting.subject, "`{}` will never run: {}", waiting.subject, rejected.why);
        let record = self.record_rejected(waiting, &rejected).await?;
        let letter = match Task::from_json(&waiting.payload) {
            Ok(task) => DeadLetter::of(record, task, waiting.subject.clone()),
            Err(_) => DeadLetter::unreadable(record, &waiting.payload, waiting.subject.clone()),
        };
        self.streams.bury(letter).await?;
        Ok(())
    }

    async fn record_rejected(&self, waiting: &Waiting, rejected: &Rejected) -> Result<RunRecord, SendError> {
        let now = self.streams.clock().now();
        let fallback: RunId = format!("rejected.delayed-{}", waiting.sequence).parse()?;
        let mut id = rejected.run.clone().unwrap_or_else(|| fallback.clone());
        loop {
            let record = rejected.apply_to(&rejected.record(id.clone(), now), now)?;
            match self.streams.ledger().create(&record).await? {
                Creation::Created(_) => return Ok(record),
                // Ours, from before an answer was lost, or of a predecessor who got no further.
                Creation::Exists(found)
                    if found.value.status == RunState::Failed && found.value.error == record.error =>
                {
                    return Ok(found.value);
                }
                // Made when it was due, and then no queue took its task.
                Creation::Exists(found)
                    if rejected.appointment.as_ref().is_some_and(|own| is_of(&found.value, own)) =>
                {
                    let failed = rejected.apply_to(&found.value, now)?;
                    match self.streams.ledger().update(&failed, found.revision).await? {
                        Update::Stored(_) => return Ok(failed),
                        Update::Stale => {}
                    }
                }
                // A run of that name was there: its record stays, and this one gets a name of its own.
                Creation::Exists(_) if id != fallback => id = fallback.clone(),
                Creation::Exists(found) => return Ok(found.value),
            }
        }
    }
}
