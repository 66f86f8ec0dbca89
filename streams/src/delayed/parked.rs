//! Runs that wait long for their next attempt: here, so that they hold no place of their queue.
//!
//! A worker puts one here after it has recorded RETRY, and only then acknowledges the message it came by; a planner puts it
//! back at its instant, and only then deletes it here. A crash in between leaves it in both places, and who finds it there
//! knows by the record and by the place of the first message what is to be done. Workers write here, and nobody else may:
//! what lies here goes back to the subject that it names.

use async_nats::jetstream::{message::StreamMessage, stream};
use shared::{
    Timestamp,
    names::{Name, QueueName},
    run::RunId,
    run_state::RunState,
};

use super::{Delayed, door};
use crate::{
    ReadError, Streams, WriteError,
    bucket::timestamp,
    delivery::Delivery,
    headers::{self, Headers},
    names::Origin,
    tasks::Holder,
};

/// A run that waits for its next attempt.
#[derive(Debug, Clone)]
pub struct Parked {
    /// The run.
    pub run: RunId,
    /// The queue it goes back to.
    pub queue: QueueName,
    /// Not before this instant; none if what is written is no instant.
    pub not_before: Option<Timestamp>,
    /// The revision of the record that says so. If the run has another by then, this is superfluous.
    pub revision: u64,
    /// The subject it goes back to.
    subject: String,
    /// The place in the task stream of the message it came by.
    pub came_by: u64,
    traceparent: Option<String>,
    payload: crate::Bytes,
}

/// What lies in the queue in place of a run that is to be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    /// This one, put back before.
    PutBack,
    /// The message it came by, or one that was submitted under its key meanwhile; at this place. Its worker found that the run
    /// waits, and its late answer would take with it what is thought to be queued.
    Other(u64),
}

/// What came of putting a run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parking {
    /// It is here.
    Parked,
    /// An earlier wait of it is still here.
    Occupied,
    /// The fleet has no room for such: it was made by an older version.
    NoRoom,
}

impl Delayed {
    /// Puts a run here until its next attempt: as it came by this delivery, by the record of this revision. May be repeated.
    pub async fn park(
        &self,
        queue: &QueueName,
        run: &RunId,
        (not_before, revision): (Timestamp, u64),
        delivery: &Delivery,
    ) -> Result<Parking, WriteError> {
        // To whole milliseconds, up.
        let not_before = door::check_not_before(not_before, not_before).unwrap_or(not_before);
        let instant = not_before.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let mut headers = Headers::new()
            .with(headers::NOT_BEFORE, &instant)?
            .with(headers::SUBJECT, &delivery.subject)?
            .with_number(headers::REVISION, revision)
            .with_number(headers::SEQUENCE, delivery.sequence);
        if let Some(traceparent) = &delivery.traceparent {
            headers = headers.with_if_legal(headers::TRACEPARENT, traceparent);
        }
        let subject = self.streams.names().parked(queue, run);
        match self.streams.write(&subject, headers, delivery.payload.clone()).await {
            Ok(_) => Ok(Parking::Parked),
            Err(WriteError::NoStream { .. }) => Ok(Parking::NoRoom),
            Err(WriteError::Occupied { .. }) => match self.find_parked(run).await {
                // For this very message, from before an answer was lost or a worker died; or for the run, which was submitted
                // once more. Not what was put back: that is the run, and the other is about to be deleted.
                Ok(Some(parked))
                    if parked.revision == revision
                        && (parked.came_by == delivery.sequence || !delivery.is_put_back) =>
                {
                    Ok(Parking::Parked)
                }
                _ => Ok(Parking::Occupied),
            },
            Err(error) => Err(error),
        }
    }

    /// A run that waits here, read from the leader.
    pub async fn find_parked(&self, run: &RunId) -> Result<Option<Parked>, ReadError> {
        let found = self.last_parked(&self.streams.names().parked_run(run)).await?;
        Ok(found.and_then(|message| self.parked(message)))
    }

    /// Removes a run that waits here, because it will not be tried again.
    pub(crate) async fn remove_parked(&self, run: &RunId) -> Result<(), ReadError> {
        match self.last_parked(&self.streams.names().parked_run(run)).await? {
            Some(message) => self.remove(message.sequence).await,
            None => Ok(()),
        }
    }

    /// A run of a schedule that waits here and will be tried again.
    pub(crate) async fn parked_run_of(&self, schedule: &Name) -> Result<Option<Holder>, ReadError> {
        let Some(message) = self.last_parked(&self.streams.names().parked_of(schedule)).await? else {
            return Ok(None);
        };
        let since = timestamp(message.time.unix_timestamp_nanos());
        let Some(parked) = self.parked(message) else { return Ok(None) };
        let record = match self.streams.ledger().get(&parked.run).await {
            Ok(found) => found,
            Err(ReadError::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        // One that has ended is in nobody's way; it is deleted when its instant comes.
        let lives = record.is_some_and(|found| found.value.status == RunState::Retry);
        // No message of the queue, so it has no place there.
        Ok(lives.then_some(Holder {
            run: Some(parked.run),
            queue: Some(parked.queue),
            sequence: 0,
            since,
            revision: None,
            came_by: None,
        }))
    }

    async fn last_parked(&self, subject: &str) -> Result<Option<StreamMessage>, ReadError> {
        match self.stream().await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => match self.unavailable(&error) {
                ReadError::Missing { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(super) fn parked(&self, message: StreamMessage) -> Option<Parked> {
        let (_, queue, name, key) = self.streams.names().parse_parked(&message.subject)?;
        let header = |header: &str| headers::value(Some(&message.headers), header);
        let stored_at = timestamp(message.time.unix_timestamp_nanos());
        Some(Parked {
            run: format!("{name}.{key}").parse().ok()?,
            queue: queue.parse().ok()?,
            not_before: door::read_not_before(header(headers::NOT_BEFORE), stored_at).ok(),
            revision: header(headers::REVISION)?.parse().ok()?,
            subject: header(headers::SUBJECT)?.to_owned(),
            came_by: header(headers::SEQUENCE)?.parse().ok()?,
            traceparent: header(headers::TRACEPARENT).map(str::to_owned),
            payload: message.payload,
        })
    }
}

impl Streams {
    /// Puts a run that waited for its next attempt back into its queue. Without the revision of its record: whoever claims it
    /// reads that from the leader, and sees whether somebody wants its end.
    pub async fn unpark(&self, parked: &Parked) -> Result<u64, WriteError> {
        let mut headers = Headers::new();
        if self.names().parse_task(&parked.subject).is_some_and(|(origin, ..)| origin == Origin::Due) {
            headers = headers.with(headers::RUN, &parked.run.to_string())?;
        }
        if let Some(traceparent) = &parked.traceparent {
            headers = headers.with_if_legal(headers::TRACEPARENT, traceparent);
        }
        // By which a worker whose clock is behind knows it, and does not park it once more.
        headers = headers.with_number(headers::SEQUENCE, parked.came_by);
        self.write(&parked.subject, headers, parked.payload.clone()).await
    }

    /// The place of the task that lies where this one goes back to.
    pub async fn in_place_of(&self, parked: &Parked) -> Result<Option<InPlace>, ReadError> {
        Ok(self.last_on(&parked.subject).await?.map(|holder| match holder.came_by {
            Some(came_by) if came_by == parked.came_by => InPlace::PutBack,
            _ => InPlace::Other(holder.sequence),
        }))
    }
}
