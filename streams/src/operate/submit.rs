//! Submitting an ad-hoc task: what any NATS client does with one publish, with a check before it.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use shared::{
    Timestamp,
    human_duration::HumanDuration,
    names::{QueueName, RunKey},
    run::RunId,
};

use super::unknown;
use crate::{Names, ReadError, Streams, WriteError, delayed::check_not_before};

/// How often a submission whose answer was lost is repeated.
const SUBMISSIONS_MAX: u32 = 4;
const SUBMISSION_WAIT: Duration = Duration::from_millis(300);

/// What is submitted.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The queue it travels on.
    pub queue: &'a QueueName,
    /// The run it will be.
    pub run: &'a RunId,
    /// The instant before which it may not run; none: at once.
    pub not_before: Option<Timestamp>,
    /// The task, as JSON.
    pub task: &'a [u8],
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is queued, or waits for its instant.
    New,
    /// The server has that run already: nothing was submitted.
    There,
}

/// A submission that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No such queue, or no stream.
    #[error("{0}")]
    Nowhere(String),
    /// What decides could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The server did not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads the key of a run that is submitted: not one of the planners' own.
pub fn parse_key(text: &str) -> Result<RunKey, String> {
    let key: RunKey = text.parse().map_err(|error: shared::names::NameError| error.to_string())?;
    if Names::is_reserved_key(&key) {
        return Err("keys that begin with _ or look like a slot (20261124T020000Z) are the planners' own; take another".to_owned());
    }
    Ok(key)
}

/// Refuses a run that nobody may submit, whatever its key alone looks like.
pub fn check_run(run: &RunId) -> Result<(), String> {
    if Names::is_reserved(run) {
        return Err(format!("{run} is a name for tasks that nobody could read; take another key"));
    }
    Ok(())
}

/// The instant before which it may not run; none if it was not said.
pub fn not_before(
    at: Option<Timestamp>,
    after: Option<HumanDuration>,
    now: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let wanted = match after {
        Some(after) => {
            let after = TimeDelta::from_std(after.0).ok().and_then(|after| now.checked_add_signed(after));
            Some(after.ok_or("--in reaches further than time itself; take less")?)
        }
        None => at,
    };
    if let Some(past) = at.filter(|at| *at <= now) {
        return Err(format!(
            "--at {} is over already; it is {} now. Leave --at out to run it at once",
            utc(past),
            utc(now)
        ));
    }
    wanted.map(|wanted| check_not_before(wanted, now)).transpose().map_err(|fault| fault.to_string())
}

impl Submission<'_> {
    async fn publish(&self, streams: &Streams, traceparent: &str) -> Result<u64, WriteError> {
        let Self { queue, run, not_before, task } = *self;
        match not_before {
            Some(at) => streams.delayed().submit(queue, run, at, task, Some(traceparent)).await,
            None => streams.submit(queue, run, task, Some(traceparent)).await,
        }
    }

    /// Submits it; repeats it, idempotently, where the answer was lost.
    pub async fn send(&self, streams: &Streams, traceparent: &str) -> Result<Sent, SubmitError> {
        let mut answer_was_lost = false;
        for attempt in 1.. {
            match self.publish(streams, traceparent).await {
                Ok(_) => break,
                // It was ours, of which the answer was lost.
                Err(WriteError::Occupied { .. }) if answer_was_lost => break,
                Err(WriteError::Occupied { .. }) => return Ok(Sent::There),
                Err(WriteError::NoStream { .. }) => return Err(self.nowhere(streams).await?),
                Err(error) if error.is_temporary() && attempt < SUBMISSIONS_MAX => {
                    answer_was_lost |= matches!(error, WriteError::Unknown { .. });
                    streams.clock().sleep(SUBMISSION_WAIT * attempt).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Sent::New)
    }

    async fn nowhere(&self, streams: &Streams) -> Result<SubmitError, ReadError> {
        let queue = self.queue;
        if self.not_before.is_some() {
            let words = "no stream takes what shall wait; run `cronfleet init`, which makes it";
            return Ok(SubmitError::Nowhere(words.to_owned()));
        }
        let queues = streams.catalog().queues().await?;
        Ok(SubmitError::Nowhere(if queues.contains_key(queue) {
            format!(
                "queue {queue} is declared, but no stream takes it; `cronfleet doctor` says what is missing"
            )
        } else {
            unknown("queue", queue.as_str(), queues.keys().map(QueueName::as_str))
        }))
    }
}

fn utc(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
