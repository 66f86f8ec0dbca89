//! Cancelling a run: what waits, in its queue or for its instant, is ended in the ledger and taken out of there; what a
//! worker is at, that worker is asked to stop.
//!
//! The request lies in the control stream before anything else is done, for the audit, and so that it cannot be lost:
//! workers hear it at once by a plain subscription, and look for it in the stream at every renewal of their hold, and
//! before they begin a run that was begun before.

use std::time::Duration;

use async_nats::{
    datetime,
    jetstream::consumer::{AckPolicy, DeliverPolicy, pull},
};
use bytes::Bytes;
use chrono::TimeDelta;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    limits::CANCEL_LOOK_AGAIN,
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

/// The server forgets a reader of recent requests after this.
const READER_KEPT: Duration = Duration::from_secs(10);
/// Recent requests that are read at once.
const RECENT_MAX: usize = 1_000;

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

    /// Whether it is about this run, and not about an earlier one under the same key, or about its life before it was
    /// retried by hand.
    pub fn is_about(&self, record: &RunRecord) -> bool {
        let is_of_life_before =
            record.retried.as_ref().is_some_and(|retried| retried.cancel_before == Some(self.at));
        self.run == record.id && !is_of_life_before && self.at + EARLIER_RUN_BEFORE >= record.created_at
    }
}

/// Whether a worker may have begun a run although its record does not say so. What is replaced lies under its schedule's lock,
/// and like a whole and its parts it is never begun without a claim.
fn may_be_begun(record: &RunRecord, reason: Reason) -> bool {
    let is_of_many = record.shard.is_some() || record.shards.is_some();
    record.status == RunState::Pending && !is_of_many && reason != Reason::Replaced
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
                    let record = Box::new(stored.value.clone());
                    // One that was begun without a claim, whose worker heard us and has stopped it meanwhile.
                    let stopped_now = is_stored && record.status == RunState::Cancelled;
                    return Ok(if stopped_now {
                        Cancelling::Cancelled(record)
                    } else {
                        Cancelling::Ended(record)
                    });
                }
                // Submitted and not begun: the queue knows it, or the stream of what waits; the ledger does not.
                None => match (self.task_of(run).await?, self.delayed().find(run).await?) {
                    (None, None) => return Ok(Cancelling::Unknown),
                    (task, waiting) => Some((task, waiting)),
                },
                Some(_) => None,
            };
            if !is_stored {
                let life = found.as_ref().map_or(0, |stored| stored.value.times_retried());
                self.request_cancel(request, life).await?;
                is_stored = true;
                let may_be_begun = match (&found, &submitted) {
                    (Some(stored), _) => may_be_begun(&stored.value, request.reason),
                    (None, submitted) => submitted.as_ref().is_some_and(|(task, _)| task.is_some()),
                };
                if may_be_begun {
                    self.clock().sleep(CANCEL_LOOK_AGAIN).await;
                    continue;
                }
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
                if stored.value.status == RunState::Retry {
                    self.delayed().remove_parked(run).await?;
                }
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

    /// Stores a request; one in each life of the run, if it was retried by hand.
    async fn request_cancel(&self, request: &CancelRequest, life: u32) -> Result<u64, WriteError> {
        let reason = serde_json::to_string(&request.reason).unwrap_or_default();
        let id = format!("cancel.{}.{}.{life}", request.run, reason.trim_matches('"'));
        let headers = Headers::new().with(headers::BY, &request.by)?.with(headers::MESSAGE_ID, &id)?;
        let bytes = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        self.write(&self.names().cancel(&request.run), headers, bytes).await
    }

    /// Whether somebody asked for the end of a run, and why; read from the stream's leader. What was asked of an earlier
    /// run under the same key does not count.
    pub async fn cancel_asked(&self, record: &RunRecord) -> Result<Option<CancelRequest>, ReadError> {
        Ok(self.last_cancel(&record.id).await?.filter(|request| request.is_about(record)))
    }

    /// The last request to cancel a run under this key, whichever run it was about.
    pub(crate) async fn last_cancel(&self, run: &RunId) -> Result<Option<CancelRequest>, ReadError> {
        let subject = self.names().cancel(run);
        let payload = self.last_control(&subject).await?;
        Ok(payload.and_then(|payload| parse(&subject, &payload, self)))
    }

    /// Requests that were made since a moment, as far as the server hands them out at once. For a worker that has just begun to
    /// listen: who cancelled a run a moment ago takes it that every worker heard.
    pub async fn cancels_since(&self, since: Timestamp) -> Result<Vec<CancelRequest>, ReadError> {
        let name = self.names().control_stream();
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let nanos = since.timestamp_nanos_opt().unwrap_or_default();
        let start_time = datetime::from_nanos(nanos.into()).map_err(|error| failed(&error))?;
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| failed(&error))?;
        let consumer = stream
            .create_consumer(pull::Config {
                filter_subject: self.names().cancels(),
                deliver_policy: DeliverPolicy::ByStartTime { start_time },
                ack_policy: AckPolicy::None,
                inactive_threshold: READER_KEPT,
                memory_storage: true,
                num_replicas: 1,
                ..Default::default()
            })
            .await
            .map_err(|error| failed(&error))?;
        let mut found = Vec::new();
        let expected = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        if expected > 0 {
            let fetched = consumer.fetch().max_messages(expected.min(RECENT_MAX)).messages().await;
            let mut messages = fetched.map_err(|error| failed(&error))?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| failed(&error))?;
                found.extend(parse(&message.subject, &message.payload, self));
            }
        }
        Ok(found)
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
        let failed = RunRecord { status: RunState::Failed, ..record("2026-11-24T01:00:00Z") };
        let retried = |before| failed.retried_by_hand("ann", before, request.at).expect("retried");
        assert!(request.is_about(&retried(None)), "asked of the new life, whatever the clocks");
        assert!(!request.is_about(&retried(Some(request.at))), "asked of the life before");
        let ended = request.end(&record("2026-11-24T01:00:00Z"), at("2026-11-24T02:00:01Z")).expect("ends");
        assert_eq!((ended.status, ended.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
        assert_eq!(ended.note.as_deref(), Some("cancelled by ann@laptop"));
    }
}
