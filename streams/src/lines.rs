//! Lines: the runs of a schedule that wait for its lock, in their order. Each has its record, PENDING, before it
//! stands in line; the line says in which order they go, and is what a planner's successor finds.
//!
//! One value a schedule, written by compare-and-set, so that planners that add to it at once agree on who is before
//! whom and on how many wait.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use shared::{
    names::{Name, RunKey},
    run::RunId,
};

use crate::{ReadError, Streams, WriteError, bucket::Bucket, ledger::Update, names::keys};

/// A schedule's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The runs that wait, the next one first.
    pub runs: Vec<RunId>,
    /// Its revision: what a compare-and-set must name.
    pub revision: u64,
}

/// A line that a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSeen {
    /// The schedule.
    pub schedule: Name,
    /// Whether nobody stands in it.
    pub is_empty: bool,
}

/// The lines of all schedules.
#[derive(Clone)]
pub struct Lines {
    bucket: Bucket,
    kind: &'static str,
}

impl Streams {
    /// The lines of all schedules.
    pub fn lines(&self) -> Lines {
        Lines { bucket: self.bucket(self.names().planner_bucket()), kind: keys::LINE }
    }

    /// The runs of each schedule whose shards are at work, kept in the same way.
    pub fn sharded_runs(&self) -> Lines {
        Lines { bucket: self.bucket(self.names().planner_bucket()), kind: keys::SHARDS }
    }
}

impl Lines {
    /// A schedule's line, read from the leader. Corrupt if what is there is no line.
    pub async fn get(&self, schedule: &Name) -> Result<Line, ReadError> {
        let Some(stored) = self.bucket.get_with_deleted(&keys::list(self.kind, schedule)).await? else {
            return Ok(Line { runs: Vec::new(), revision: 0 });
        };
        let revision = stored.revision;
        let Some(bytes) = stored.value else { return Ok(Line { runs: Vec::new(), revision }) };
        let keys: Vec<RunKey> = serde_json::from_slice(&bytes).map_err(|error| ReadError::Corrupt {
            what: format!("the {} of {schedule}", self.kind),
            revision,
            detail: error.to_string(),
        })?;
        let runs = keys.into_iter().map(|key| RunId { name: schedule.clone(), key }).collect();
        Ok(Line { runs, revision })
    }

    /// Writes a line over exactly this revision. Stale: somebody came or went meanwhile.
    pub async fn write(&self, schedule: &Name, runs: &[RunId], revision: u64) -> Result<Update, WriteError> {
        let key = keys::list(self.kind, schedule);
        let written = if runs.is_empty() {
            self.bucket.delete(&key, revision).await
        } else {
            let keys: Vec<&RunKey> = runs.iter().map(|run| &run.key).collect();
            let bytes = Bytes::from(serde_json::to_vec(&keys).unwrap_or_default());
            self.bucket.update(&key, bytes, revision).await
        };
        match written {
            Ok(revision) => Ok(Update::Stored(revision)),
            Err(WriteError::Conflict { .. }) => Ok(Update::Stale),
            Err(error) => Err(error),
        }
    }

    /// All lines now, then every change. Ends with an error when it is lost.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<LineSeen, ReadError>> + Send + Unpin + use<>, ReadError> {
        let kind = self.kind;
        let changes = self.bucket.watch(&format!("{kind}.*.*")).await?;
        Ok(Box::pin(changes.filter_map(move |change| async move {
            let change = match change {
                Ok(change) => change,
                Err(error) => return Some(Err(error)),
            };
            let schedule: Name = change.key.rsplit('.').next()?.parse().ok()?;
            // A stranger's writing under a partition that is not the schedule's is no line.
            (keys::list(kind, &schedule) == change.key)
                .then(|| Ok(LineSeen { schedule, is_empty: change.value.is_none() }))
        })))
    }
}
