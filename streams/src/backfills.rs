//! Backfills: what operators ask for, through the control stream, and how far each is.

use async_nats::jetstream::{
    self,
    consumer::{Consumer, pull},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    backfill::BackfillOverlap,
    names::{BackfillId, Name},
};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Stored},
    headers::{self, Headers},
    names::{BACKFILL_CONSUMER, keys},
    witness,
};

/// "Run the slots of this range that have not run."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackfillRequest {
    /// Its id.
    pub id: BackfillId,
    /// The schedule.
    pub schedule: Name,
    /// The revision of its definition by which the slots are computed and run.
    pub revision: u64,
    /// The first instant that is meant.
    pub from: Timestamp,
    /// The last instant that is meant.
    pub to: Timestamp,
    /// What happens at a slot while a run of the schedule has not ended.
    pub overlap: BackfillOverlap,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// How a backfill is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    /// An earlier one of its schedule is not done.
    Waiting,
    /// A planner is at it.
    Running,
    /// It is held up: the schedule is paused.
    Paused,
    /// All of its slots were dealt with, and its runs have ended.
    Done,
    /// It cannot be done.
    Failed,
}

/// How far a backfill is: written by the planner that is at it, read by its successor and by people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackfillProgress {
    /// What was asked for.
    #[serde(flatten)]
    pub request: BackfillRequest,
    /// How it is going.
    pub state: BackfillState,
    /// Why it cannot be done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// Slots in the range.
    pub slots: usize,
    /// Every slot up to this one was dealt with: dispatched, or found to need nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upto: Option<Timestamp>,
    /// Slots that were dispatched and whose runs have not ended.
    #[serde(default)]
    pub open: Vec<Timestamp>,
    /// Its runs that ended well.
    pub succeeded: usize,
    /// Its runs that ended otherwise.
    pub unsuccessful: usize,
    /// Slots that were left as they are: they had run, or were running, or their calendar leaves them out.
    pub left: usize,
}

impl BackfillProgress {
    /// The progress of a backfill that nobody has begun.
    pub fn new(request: BackfillRequest) -> Self {
        Self {
            request,
            state: BackfillState::Waiting,
            problem: None,
            slots: 0,
            upto: None,
            open: Vec::new(),
            succeeded: 0,
            unsuccessful: 0,
            left: 0,
        }
    }

    /// Slots of which nothing more is expected.
    pub fn done(&self) -> usize {
        self.succeeded + self.unsuccessful + self.left
    }

    /// Whether nothing more will happen to it.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, BackfillState::Done | BackfillState::Failed)
    }
}

/// A request as a planner gets it.
pub struct BackfillDelivery {
    /// What is asked; `Err` if it cannot be understood.
    pub request: Result<BackfillRequest, String>,
    message: jetstream::Message,
}

impl BackfillDelivery {
    /// It is done, or can never be: the server need not hand it out again.
    pub async fn done(&self) {
        // If this is lost it is handed out again, and found to be done.
        let _ = self.message.ack().await;
        witness::saw(|| "ack.backfill".to_owned());
    }

    /// This planner is still at it: the server shall not hand it to another.
    pub async fn working(&self) {
        let _ = self.message.ack_with(jetstream::AckKind::Progress).await;
    }

    /// This planner leaves it; hand it out again after a wait.
    pub async fn later(&self, wait: std::time::Duration) {
        let _ = self.message.ack_with(jetstream::AckKind::Nak(Some(wait))).await;
    }
}

/// How far the backfills of a fleet are.
#[derive(Clone)]
pub struct Backfills {
    bucket: Bucket,
}

impl Streams {
    /// Asks the planners for a backfill. Stored when this returns, whether or not a planner lives.
    pub async fn backfill(&self, request: &BackfillRequest) -> Result<u64, WriteError> {
        let headers =
            Headers::new().with(headers::BY, &request.by)?.with(headers::MESSAGE_ID, request.id.as_str())?;
        let bytes = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        self.write(&self.names().backfill(&request.schedule, &request.id), headers, bytes).await
    }

    /// The requests that no planner has done yet, as they come; each goes to one planner at a time.
    pub async fn backfill_requests(
        &self,
    ) -> Result<impl Stream<Item = Result<BackfillDelivery, ReadError>> + Send + Unpin + use<>, ReadError>
    {
        let name = self.names().control_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable("backfills", error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        let consumer: Consumer<pull::Config> =
            stream.get_consumer(BACKFILL_CONSUMER).await.map_err(|error| {
                // A fleet that was made before there were backfills.
                if error.to_string().contains("not found") {
                    return ReadError::Missing { what: format!("consumer {name}/{BACKFILL_CONSUMER}") };
                }
                unavailable(&error)
            })?;
        // One at a time: what a planner has asked for and not begun would wait for its acknowledge wait.
        let messages = consumer
            .stream()
            .max_messages_per_batch(1)
            .heartbeat(std::time::Duration::from_secs(5))
            .expires(std::time::Duration::from_secs(30))
            .messages()
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(Box::pin(messages.map(|message| match message {
            Ok(message) => {
                let request = serde_json::from_slice(&message.payload).map_err(|error| error.to_string());
                Ok(BackfillDelivery { request, message })
            }
            Err(error) => Err(ReadError::unavailable("backfills", error)),
        })))
    }

    /// How far the backfills are.
    pub fn backfills(&self) -> Backfills {
        Backfills { bucket: self.bucket(self.names().backfills_bucket()) }
    }
}

impl Backfills {
    /// How far one is, from the leader; none if no planner has seen it yet.
    pub async fn get(
        &self,
        schedule: &Name,
        id: &BackfillId,
    ) -> Result<Option<Stored<BackfillProgress>>, ReadError> {
        let key = keys::backfill(schedule, id);
        let Some(stored) = self.bucket.get(&key).await? else { return Ok(None) };
        let value = serde_json::from_slice(&stored.value).map_err(|error| ReadError::Corrupt {
            what: key,
            revision: stored.revision,
            detail: error.to_string(),
        })?;
        Ok(Some(Stored { value, revision: stored.revision, stored_at: stored.stored_at }))
    }

    /// Writes how far one is over exactly this revision. A conflict means that another planner is at it.
    pub async fn write(&self, progress: &BackfillProgress, over: u64) -> Result<u64, WriteError> {
        let key = keys::backfill(&progress.request.schedule, &progress.request.id);
        self.bucket.update(&key, Bytes::from(serde_json::to_vec(progress).unwrap_or_default()), over).await
    }

    /// The backfills of a schedule that are remembered, the earliest first.
    pub async fn of(&self, schedule: &Name) -> Result<Vec<BackfillProgress>, ReadError> {
        let changes = self.bucket.list(&keys::backfills_of(schedule)).await?;
        let mut found: Vec<BackfillProgress> =
            changes.iter().filter_map(|change| serde_json::from_slice(change.value.as_ref()?).ok()).collect();
        found.sort_by(|a, b| (a.request.at, &a.request.id).cmp(&(b.request.at, &b.request.id)));
        Ok(found)
    }
}
