//! Cancelling a run: what waits is ended in the ledger and taken out of the queue; what a worker is at, that worker is
//! asked to stop.
//!
//! The request lies in the control stream before anything else is done, for the audit, and so that it cannot be lost:
//! workers hear it at once by a plain subscription, and look for it in the stream at every renewal of their hold, and
//! before they begin a run that was begun before.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    names::QueueName,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
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
            let task = match &found {
                Some(stored) if stored.value.status.is_final() => {
                    return Ok(Cancelling::Ended(Box::new(stored.value.clone())));
                }
                // Submitted and not begun: the queue knows it, the ledger does not.
                None => match self.task_of(run).await? {
                    None => return Ok(Cancelling::Unknown),
                    task => task,
                },
                Some(_) => None,
            };
            if !is_stored {
                self.request_cancel(request).await?;
                is_stored = true;
            }
            let Some(stored) = found else {
                let queue = task.and_then(|task| task.queue).unwrap_or_else(QueueName::default_queue);
                let record = RunRecord::pending(run.clone(), queue, request.at);
                let Ok(cancelled) = record.apply(RunEvent::Cancelled, request.at) else { continue };
                let cancelled = cancelled.because(request.reason);
                if let Creation::Created(_) = self.ledger().create(&cancelled).await? {
                    self.remove_task_of(run).await?;
                    return Ok(Cancelling::Cancelled(Box::new(cancelled)));
                }
                continue;
            };
            if stored.value.status == RunState::Running {
                return Ok(Cancelling::Asked(Box::new(stored.value)));
            }
            let Ok(cancelled) = stored.value.apply(RunEvent::Cancelled, self.clock().now()) else { continue };
            let cancelled = cancelled.because(request.reason);
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

    /// Whether somebody asked for the end of a run, and why; read from the stream's leader.
    pub async fn cancel_asked(&self, run: &RunId) -> Result<Option<CancelRequest>, ReadError> {
        let payload = self.last_control(&self.names().cancel(run)).await?;
        Ok(payload.and_then(|payload| parse(&self.names().cancel(run), &payload, self)))
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
