//! Gates: who passes a limit just now, over the whole fleet. One value a gate, written by compare-and-set, so that
//! workers that come at once agree on who goes first.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Timestamp, limit::GateKey, limits::LIMIT_FORGOTTEN, names::MemberId, run::RunId};

use async_nats::jetstream::response::Response;

use crate::{
    ReadError, Streams, WriteError,
    bucket::Bucket,
    ledger::Update,
    names::{bucket_stream, limits as keys},
};

/// A permit: an attempt that has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The run.
    pub run: RunId,
    /// The worker that took it.
    pub worker: MemberId,
    /// Tells it from others of the same worker.
    pub token: u64,
    /// When its worker is silent for this long, it has stopped the attempt: the acknowledge wait of its queue, in milliseconds.
    pub hold_ms: u64,
}

/// Who has passed, and when the next one may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gate {
    /// The key and its value, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// Attempts at once, as the latest to pass knew it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max: Option<u32>,
    /// Who has passed and has not left.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub held: Vec<Permit>,
    /// The next turn by its rate, by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_at: Option<Timestamp>,
}

/// A gate with its revision: what a compare-and-set must name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GateSeen {
    /// Who has passed.
    pub gate: Gate,
    /// The revision; 0 if nobody ever passed, or it was forgotten.
    pub revision: u64,
}

/// A lane in which somebody waits, or did; seen by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSeen {
    /// The lane.
    pub lane: GateKey,
    /// The revision of the word that somebody waits; none if it was taken back.
    pub waiting: Option<u64>,
}

/// The gates of a fleet.
#[derive(Clone)]
pub struct Gates {
    streams: Streams,
    bucket: Bucket,
}

#[derive(Deserialize)]
struct Dated {
    ts: Timestamp,
}

impl Streams {
    /// The gates.
    pub fn gates(&self) -> Gates {
        Gates { streams: self.clone(), bucket: self.bucket(self.names().limits_bucket()) }
    }
}

impl Gates {
    /// A gate as the leader has it. What nobody understands lets everybody pass, and is written over.
    pub async fn get(&self, key: &GateKey) -> Result<GateSeen, ReadError> {
        let Some(stored) = self.bucket.get_with_deleted(&keys::gate(key)).await? else {
            return Ok(GateSeen::default());
        };
        let gate = stored.value.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(GateSeen { gate, revision: stored.revision })
    }

    /// Writes a gate over exactly this revision. One that nobody has passed, and that has no rate, is forgotten soon after.
    pub async fn write(&self, key: &GateKey, gate: &Gate, revision: u64) -> Result<Update, WriteError> {
        let key = keys::gate(key);
        let written = if gate.held.is_empty() && gate.next_at.is_none() {
            self.bucket.forget(&key, revision, LIMIT_FORGOTTEN).await
        } else {
            let bytes = Bytes::from(serde_json::to_vec(gate).unwrap_or_default());
            self.bucket.update(&key, bytes, revision).await
        };
        match written {
            Ok(revision) => Ok(Update::Stored(revision)),
            Err(WriteError::Conflict { .. }) => Ok(Update::Stale),
            Err(error) => Err(error),
        }
    }

    /// Every gate that somebody has passed.
    pub async fn list(&self) -> Result<Vec<(GateKey, Gate)>, ReadError> {
        let changes = self.bucket.list(keys::GATES).await?;
        let read = |change: &crate::bucket::Change| {
            let gate = serde_json::from_slice(change.value.as_ref()?).ok()?;
            Some((keys::parse_gate(&change.key)?, gate))
        };
        Ok(changes.iter().filter_map(read).collect())
    }

    /// The gate that nobody has passed or left for longest, of those at which that was at this revision or later. One that is
    /// forgotten, or that nobody understands, is as if nobody had passed it.
    pub async fn oldest(&self, from: u64) -> Result<Option<(Option<GateKey>, GateSeen)>, ReadError> {
        let Some((key, stored)) = self.bucket.oldest(keys::GATES, from).await? else { return Ok(None) };
        let gate = stored.value.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Some((keys::parse_gate(&key), GateSeen { gate, revision: stored.revision })))
    }

    /// Says that somebody waits in a lane. Whoever finds the lane empty takes that back, over the revision it knew: so a
    /// run must be there before it is said.
    pub async fn say_waiting(&self, lane: &GateKey) -> Result<u64, WriteError> {
        self.bucket.put(&keys::waiting(lane), Bytes::from_static(b"{}")).await
    }

    /// Takes back, over exactly this revision, that somebody waits in a lane. Stale: somebody came meanwhile.
    pub async fn say_empty(&self, lane: &GateKey, revision: u64) -> Result<Update, WriteError> {
        match self.bucket.forget(&keys::waiting(lane), revision, LIMIT_FORGOTTEN).await {
            Ok(revision) => Ok(Update::Stored(revision)),
            Err(WriteError::Conflict { .. }) => Ok(Update::Stale),
            Err(error) => Err(error),
        }
    }

    /// The lanes where somebody waits now, then every change. Ends with an error when it is lost.
    pub async fn watch_waiting(
        &self,
    ) -> Result<impl Stream<Item = Result<LaneSeen, ReadError>> + Send + Unpin + use<>, ReadError> {
        let changes = self.bucket.watch(keys::WAITING).await?;
        Ok(Box::pin(changes.filter_map(|change| async {
            let change = match change {
                Ok(change) => change,
                Err(error) => return Some(Err(error)),
            };
            let waiting = change.value.is_some().then_some(change.revision);
            Some(Ok(LaneSeen { lane: keys::parse_gate(&change.key)?, waiting }))
        })))
    }

    /// The server's clock: by the time the answer is here it shows a moment more.
    pub async fn server_now(&self) -> Result<Timestamp, ReadError> {
        let name = bucket_stream(&self.streams.names().limits_bucket());
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let answer: Response<Dated> = self
            .streams
            .jetstream()
            .request(format!("STREAM.INFO.{name}"), &json!({}))
            .await
            .map_err(|error| unavailable(&error))?;
        match answer {
            Response::Ok(Dated { ts }) => Ok(ts),
            Response::Err { error } => Err(unavailable(&error)),
        }
    }
}
