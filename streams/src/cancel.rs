//! Cancelling a run: what waits, in its queue or for its instant, is ended in the ledger and taken out of there; what a
//! worker is at, that worker is asked to stop.
//!
//! The request lies in the control stream before anything else is done, for the audit, and so that it cannot be lost:
//! workers hear it at once by a plain subscription, and look for it in the stream at every renewal of their hold, and
//! before they begin a run that was begun before.

use bytes::Bytes;
use chrono::TimeDelta;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    names::QueueName,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{IllegalTransition, RunEvent, RunState},
};

use crate::{
    ReadError, Streams, WriteError,
    headers::{self, Headers},
    ledger::{Creation, Update},
};

/// Looks at a run that changes all the time before its canceller is told to try again.
const LOOKS_MAX: u32 = 5;

/// "Stop this run, or do not begin it."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// The run.
    pub run: RunId,
    /// What its record will say.
    pub reason: Reason,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A request that is this much older than its run's record was about an earlier run under the same key: the control stream
/// remembers longer than the ledger. As much as two machines' clocks may differ, and more.
const EARLIER_RUN_BEFORE: TimeDelta = TimeDelta::minutes(1);

impl CancelRequest {
    /// The record of a run that ends because of this request.
    pub fn end(&self, record: &RunRecord, now: Timestamp) -> Result<RunRecord, IllegalTransition> {
        let cancelled = record.apply(RunEvent::Cancelled, now)?.because(self.reason);
        Ok(cancelled.noting(format!("{} by {}", words(self.reason), self.by)))
    }

    /// Whether it is about this run, and not about an earlier one under the same key.
    fn is_about(&self, record: &RunRecord) -> bool {
        self.run == record.id && self.at + EARLIER_RUN_BEFORE >= record.created_at
    }
}

fn words(reason: Reason) -> &'static str {
    if reason == Reason::Replaced { "replaced" } else { "cancelled" }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelling {
    /// Neither the ledger nor the queue knows such a run.
    Unknown,
    /// It had ended before.
    Ended(Box<RunRecord>),
    /// It was waiting, and will not run.
    Cancelled(Box<RunRecord>),
    /// A worker is at it, and has been asked to stop.
    Asked(Box<RunRecord>),
}

/// A run that could not be cancelled just now.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// A read that decides gave nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A write did not go through.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It changed at every look.
    #[error("{0} changes too quickly to be cancelled; try again")]
    Restless(RunId),
}

impl Streams {
    /// Cancels a run as far as it can be cancelled from here. May be repeated until it has ended: a request is stored
    /// once within two minutes, and heard by the workers each time.
    pub async fn cancel(&self, request: &CancelRequest) -> Result<Cancelling, CancelError> {
        let run = &request.run;
        let mut is_stored = false;
        for _ in 0..LOOKS_MAX {
            let found = self.ledger().get(run).await?;
            let submitted = match &found {
                Some(stored) if stored.value.status.is_final() => {
                    // Whoever cancelled it while it waited for its instant may not have come to removing it.
                    if stored.value.not_before.is_some() {
                        self.delayed().remove_all_of(run).await?;
                    }
                    return Ok(Cancelling::Ended(Box::new(stored.value.clone())));
                }
                // Submitted and not begun: the queue knows it, or the stream of what waits; the ledger does not.
                None => match (self.task_of(run).await?, self.delayed().find(run).await?) {
                    (None, None) => return Ok(Cancelling::Unknown),
                    (task, waiting) => Some((task, waiting)),
                },
                Some(_) => None,
            };
            if !is_stored {
                self.request_cancel(request).await?;
                is_stored = true;
            }
            let Some(stored) = found else {
                let record = match submitted {
                    // A planner may be about to create its record: whoever creates it first has decided.
                    Some((None, Some(waiting))) => match self.delayed().record_of(&waiting) {
                        Some(record) => record,
                        // Garbage under a key of planners, on its way to the dead letters.
                        None => return Ok(Cancelling::Unknown),
                    },
                    submitted => {
                        let queue = submitted.and_then(|(task, _)| task?.queue);
                        let queue = queue.unwrap_or_else(QueueName::default_queue);
                        RunRecord::pending(run.clone(), queue, self.clock().now())
                    }
                };
                let Ok(cancelled) = request.end(&record, self.clock().now()) else { continue };
                if let Creation::Created(_) = self.ledger().create(&cancelled).await? {
                    self.remove_task_of(run).await?;
                    self.delayed().remove_all_of(run).await?;
                    return Ok(Cancelling::Cancelled(Box::new(cancelled)));
                }
                continue;
            };
            // At what waits for its target's answer no worker is: it ends here, over its revision.
            if stored.value.status == RunState::Running && stored.value.awaits().is_none() {
                return Ok(Cancelling::Asked(Box::new(stored.value)));
            }
            let Ok(cancelled) = request.end(&stored.value, self.clock().now()) else { continue };
            if let Update::Stored(_) = self.ledger().update(&cancelled, stored.revision).await? {
                self.remove_task_of(run).await?;
                return Ok(Cancelling::Cancelled(Box::new(cancelled)));
            }
        }
        Err(CancelError::Restless(run.clone()))
    }

    /// What stays in the queue of a run that has ended is dropped by who gets it; but until then it holds its lock.
    async fn remove_task_of(&self, run: &RunId) -> Result<(), ReadError> {
        match self.task_of(run).await? {
            Some(task) => self.remove_finished(task.sequence).await,
            None => Ok(()),
        }
    }

    async fn request_cancel(&self, request: &CancelRequest) -> Result<u64, WriteError> {
        let reason = serde_json::to_string(&request.reason).unwrap_or_default();
        let headers = Headers::new()
            .with(headers::BY, &request.by)?
            .with(headers::MESSAGE_ID, &format!("cancel.{}.{}", request.run, reason.trim_matches('"')))?;
        let bytes = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        self.write(&self.names().cancel(&request.run), headers, bytes).await
    }

    /// Whether somebody asked for the end of a run, and why; read from the stream's leader. What was asked of an earlier
    /// run under the same key does not count.
    pub async fn cancel_asked(&self, record: &RunRecord) -> Result<Option<CancelRequest>, ReadError> {
        let subject = self.names().cancel(&record.id);
        let payload = self.last_control(&subject).await?;
        let request = payload.and_then(|payload| parse(&subject, &payload, self));
        Ok(request.filter(|request| request.is_about(record)))
    }

    /// Requests as they are made, from now on. One may be lost; the stream has it.
    pub async fn cancels(
        &self,
    ) -> Result<impl Stream<Item = CancelRequest> + Send + Unpin + use<>, ReadError> {
        let subject = self.names().cancels();
        let messages = self
            .client()
            .subscribe(subject.clone())
            .await
            .map_err(|error| ReadError::unavailable(subject, error))?;
        let streams = self.clone();
        Ok(Box::pin(messages.filter_map(move |message| {
            let request = parse(&message.subject, &message.payload, &streams);
            async move { request }
        })))
    }
}

/// A request that names another run than its subject is nobody's.
fn parse(subject: &str, payload: &[u8], streams: &Streams) -> Option<CancelRequest> {
    let request: CancelRequest = serde_json::from_slice(payload).ok()?;
    (streams.names().cancel(&request.run) == subject).then_some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_for_the_run_it_was_made_about_and_its_end_says_who_asked() {
        let at = |text: &str| -> Timestamp { text.parse().expect("instant") };
        let run: RunId = "reindex.4711".parse().expect("run");
        let request = CancelRequest {
            run: run.clone(),
            reason: Reason::ByOperator,
            by: "ann@laptop".to_owned(),
            at: at("2026-11-24T02:00:00Z"),
        };
        let record = |created: &str| RunRecord::pending(run.clone(), QueueName::default_queue(), at(created));
        for (created, counts) in [
            ("2026-11-24T01:00:00Z", true),
            // The clock of who asked may be behind that of who made the record.
            ("2026-11-24T02:00:30Z", true),
            ("2027-03-01T02:00:00Z", false),
        ] {
            assert_eq!(request.is_about(&record(created)), counts, "{created}");
        }
        let ended = request.end(&record("2026-11-24T01:00:00Z"), at("2026-11-24T02:00:01Z")).expect("ends");
        assert_eq!((ended.status, ended.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
        assert_eq!(ended.note.as_deref(), Some("cancelled by ann@laptop"));
    }
}
