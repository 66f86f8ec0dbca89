//! The members: which planners and workers are alive, and what they do. Each writes only of itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    Timestamp,
    names::{ActionName, MemberId, QueueName},
    run::RunId,
    run_log::Progress,
};

use crate::{ReadError, Streams, WriteError, bucket::Bucket, names::keys, witness};

/// A planner or worker, as it describes itself at each heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Member {
    /// A planner.
    Planner(PlannerStatus),
    /// A worker.
    Worker(WorkerStatus),
}

/// What a planner does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannerStatus {
    /// Its id.
    pub id: MemberId,
    /// The program's version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The partitions it holds.
    pub partitions: Vec<u16>,
    /// Schedules it knows.
    pub schedules: usize,
    /// Schedules whose definition cannot be understood.
    pub invalid: Vec<String>,
    /// How long after its slot the latest run was dispatched, in milliseconds.
    pub lateness_ms: Option<u64>,
    /// By how many milliseconds its clock is ahead of the server's, by its latest comparison; negative if behind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock_offset_ms: Option<i64>,
    /// Why its clock is not believed: it dispatches nothing until the clock agrees with the server's again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock_suspect: Option<String>,
    /// Slots that are due and wait, because something is full or does not answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting: Option<Waiting>,
    /// It is about to end: others should not count on it.
    #[serde(default)]
    pub stopping: bool,
}

/// Slots that are due, or ends of runs that others follow, which have no record or task yet. They come late; none is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// How many, at least.
    pub slots: usize,
    /// The oldest of them.
    pub since: Timestamp,
    /// What the latest attempt failed with.
    pub why: String,
}

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its id.
    pub id: MemberId,
    /// The program's version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// The weights of its queues; none from a worker of an earlier version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub weights: BTreeMap<QueueName, u32>,
    /// The commands it may run; none from a worker of an earlier version.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<ActionName>,
    /// Runs it executes at once.
    pub places: u16,
    /// The runs it executes now, with their attempts.
    pub running: Vec<(RunId, u32)>,
    /// How far those are that said so.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub progress: Vec<(RunId, Progress)>,
    /// It finishes what it has and fetches no more.
    pub draining: bool,
    /// Who asked it from afar to do so; absent if it was a signal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drained_by: Option<String>,
}

impl Member {
    /// Its id.
    pub fn id(&self) -> &MemberId {
        match self {
            Member::Planner(planner) => &planner.id,
            Member::Worker(worker) => &worker.id,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Member::Planner(_) => "planner",
            Member::Worker(_) => "worker",
        }
    }
}

/// The members of a fleet.
#[derive(Clone)]
pub struct Members {
    bucket: Bucket,
}

impl Streams {
    /// The members.
    pub fn members(&self) -> Members {
        Members { bucket: self.bucket(self.names().members_bucket()) }
    }
}

impl Members {
    /// Says that this member is alive.
    pub async fn heartbeat(&self, member: &Member) -> Result<(), WriteError> {
        let bytes = Bytes::from(serde_json::to_vec(member).unwrap_or_default());
        self.bucket.put(&keys::member(member.kind(), member.id()), bytes).await.map(|_| ())
    }

    /// Says that this member is gone, instead of letting its entry run out.
    pub async fn leave(&self, member: &Member) -> Result<(), WriteError> {
        let key = keys::member(member.kind(), member.id());
        let stored = self.bucket.get(&key).await.map_err(|_| WriteError::Unknown { what: key.clone() })?;
        match stored {
            Some(stored) => {
                self.bucket.delete(&key, stored.revision).await?;
                witness::passed("member.left");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One worker's word about itself, from the leader; none if it has been silent too long.
    pub async fn worker(&self, id: &MemberId) -> Result<Option<WorkerStatus>, ReadError> {
        let stored = self.bucket.get(&keys::member("worker", id)).await?;
        match stored.and_then(|stored| serde_json::from_slice(&stored.value).ok()) {
            Some(Member::Worker(worker)) => Ok(Some(worker)),
            _ => Ok(None),
        }
    }

    /// All that are alive.
    pub async fn list(&self) -> Result<Vec<Member>, ReadError> {
        let changes = self.bucket.list(">").await?;
        Ok(changes.iter().filter_map(|change| serde_json::from_slice(change.value.as_ref()?).ok()).collect())
    }
}
