//! Runs as a busy fleet has them, made up: for measuring. The same number gives the same run.

use std::sync::Arc;

use chrono::Duration;
use futures::{StreamExt, stream};
use shared::{
    Timestamp,
    hash::mixed_64,
    names::{Name, NameError, QueueName},
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{IllegalTransition, RunEvent},
    slot::Slot,
};
use streams::{Streams, WriteError};

/// Writes in flight at once.
const IN_FLIGHT: usize = 1_000;

/// A fleet that is made up.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    /// Runs.
    pub runs: u64,
    /// Schedules over which they are spread: the first tenth has half of the runs.
    pub schedules: u64,
    /// When the last of them was created; they reach back 90 days.
    pub until: Timestamp,
}

/// Something that cannot be filled in.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A name that is none, which is a mistake of ours.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A life that no run has, which is a mistake of ours.
    #[error(transparent)]
    Life(#[from] IllegalTransition),
    /// The ledger did not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Filling {
    /// The name of a schedule.
    pub fn schedule(number: u64) -> Result<Name, FillError> {
        Ok(format!("schedule_{number:06}").parse()?)
    }

    /// Two versions of a run's record: how it was made, and how it ended.
    pub fn versions(&self, number: u64) -> Result<[RunRecord; 2], FillError> {
        let chance = |what: &str, of: u64| mixed_64(&[what, &number.to_string()]) % of.max(1);
        let many = if chance("many", 2) == 0 { self.schedules.div_ceil(10) } else { self.schedules };
        let schedule = Self::schedule(chance("schedule", many))?;
        // Seconds of their own, so that no schedule has two runs of one slot.
        let step = 90 * 24 * 3_600_000 / self.runs.max(1);
        let age = Duration::milliseconds((step * (self.runs - number)).cast_signed());
        let slot = Slot::at(self.until - age);
        let created = slot.instant() + Duration::milliseconds(chance("created", 900).cast_signed());
        let queue = if chance("queue", 20) == 0 { "reports".parse()? } else { QueueName::default_queue() };
        let planned = RunRecord {
            target_service: Some(format!("service-{}", chance("target", 30)).parse()?),
            action: Some(format!("action_{}", chance("action", 80)).parse()?),
            trace_id: Some(format!("{:032x}", mixed_64(&["trace", &number.to_string()]))),
            definition_revision: Some(1 + chance("revision", 9)),
            ..RunRecord::planned(&schedule, slot, queue, created)
        };
        let started_at = created + Duration::milliseconds(2 + chance("delay", 60).cast_signed());
        let ended_at = started_at + Duration::milliseconds(5 + chance("duration", 4_000).cast_signed());
        let worker = Some(format!("worker-host{}-1a2b3c4d", chance("worker", 40)).parse()?);
        let ended = match chance("end", 100) {
            0..3 => {
                let skipped = planned.apply(RunEvent::Skipped, created)?;
                RunRecord { reason: Some(Reason::SkippedOverlap), ..skipped }
            }
            3..8 => {
                let failed =
                    planned.apply(RunEvent::Started, started_at)?.apply(RunEvent::FailedForGood, ended_at)?;
                let words = format!("{schedule} answered 503: connection to shard {number} refused");
                let error = Some(RunError::new(ErrorKind::Target, words));
                RunRecord { reason: Some(Reason::AttemptsExhausted), attempt: 3, error, worker, ..failed }
            }
            _ => {
                let done =
                    planned.apply(RunEvent::Started, started_at)?.apply(RunEvent::Succeeded, ended_at)?;
                let output = Some(serde_json::json!({"rows": chance("rows", 100_000), "ok": true}));
                RunRecord { output, worker, fence: Some(number), ..done }
            }
        };
        Ok([planned, ended])
    }

    /// Writes all of it into a ledger; how many writes that were.
    pub async fn fill(&self, streams: &Streams) -> Result<u64, FillError> {
        let ledger = Arc::new(streams.ledger());
        let filling = *self;
        let mut writing = stream::iter(0..self.runs)
            .map(|number| {
                let ledger = Arc::clone(&ledger);
                async move {
                    let [planned, ended] = filling.versions(number)?;
                    match ledger.create(&planned).await? {
                        streams::ledger::Creation::Created(revision) => {
                            ledger.update(&ended, revision).await?;
                            Ok::<_, FillError>(2)
                        }
                        streams::ledger::Creation::Exists(_) => Ok(0),
                    }
                }
            })
            .buffer_unordered(IN_FLIGHT);
        let mut writes = 0;
        while let Some(written) = writing.next().await {
            writes += written?;
        }
        Ok(writes)
    }
}
