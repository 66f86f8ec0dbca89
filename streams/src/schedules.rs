//! The schedules bucket: definitions as planners plan them. Its history is the audit, the diff and the rollback.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use shared::{Timestamp, names::Name, schedule::Schedule};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Change, Stored},
    names::keys,
    pauses::{PauseVersion, pause_of},
};

/// The schedules of a fleet.
#[derive(Clone)]
pub struct Schedules {
    bucket: Bucket,
}

/// A version of a schedule's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The schedule.
    pub name: Name,
    /// What it says; `Err` if it cannot be understood, which concerns this schedule and no other.
    pub definition: Result<Option<Schedule>, String>,
    /// Its revision.
    pub revision: u64,
    /// From when on it is in force.
    pub since: Timestamp,
}

/// What a watch of the schedules sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A version of a schedule.
    Version(Box<Version>),
    /// A schedule was paused, or resumed.
    Pause(Box<PauseVersion>),
    /// Everything that was there when the watch began has been seen. Comes once, and also if there was nothing but keys
    /// that are no schedule's.
    Current,
}

/// What an `apply` did, or would do, to one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was not there.
    Created,
    /// It was there, and other.
    Changed,
    /// It was there just so.
    Unchanged,
}

impl Streams {
    /// The schedules.
    pub fn schedules(&self) -> Schedules {
        Schedules { bucket: self.bucket(self.names().schedules_bucket()) }
    }
}

impl Schedules {
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Reads one from the leader.
    pub async fn get(&self, name: &Name) -> Result<Option<Stored<Schedule>>, ReadError> {
        let Some(stored) = self.bucket.get(&keys::schedule(name)).await? else { return Ok(None) };
        let schedule = read(name, &stored.value).map_err(|detail| ReadError::Corrupt {
            what: format!("schedule {name}"),
            revision: stored.revision,
            detail,
        })?;
        Ok(Some(Stored { value: schedule, revision: stored.revision, stored_at: stored.stored_at }))
    }

    /// Reads exactly this version of one from the leader; none if its history does not reach back to it any more, or
    /// it cannot be understood.
    pub async fn at(&self, name: &Name, revision: u64) -> Result<Option<Schedule>, ReadError> {
        let stored = self.bucket.at(&keys::schedule(name), revision).await?;
        Ok(stored.and_then(|stored| read(name, &stored.value).ok()))
    }

    /// Writes one if it differs from what is there; over exactly what was read, so no change is lost.
    pub async fn apply(&self, name: &Name, schedule: &Schedule) -> Result<Applied, WriteError> {
        let key = keys::schedule(name);
        let bytes = Bytes::from(serde_json::to_vec(schedule).unwrap_or_default());
        let before = self
            .bucket
            .get_with_deleted(&key)
            .await
            .map_err(|_| WriteError::Unknown { what: key.clone() })?;
        let applied = match &before {
            Some(stored) if stored.value.as_ref() == Some(&bytes) => return Ok(Applied::Unchanged),
            Some(Stored { value: Some(_), .. }) => Applied::Changed,
            _ => Applied::Created,
        };
        self.bucket.update(&key, bytes, before.map_or(0, |stored| stored.revision)).await?;
        Ok(applied)
    }

    /// Deletes one; its history and its runs stay. Whether it was there.
    pub async fn delete(&self, name: &Name) -> Result<bool, WriteError> {
        let key = keys::schedule(name);
        let stored = self.bucket.get(&key).await.map_err(|_| WriteError::Unknown { what: key.clone() })?;
        let Some(stored) = stored else { return Ok(false) };
        self.bucket.delete(&key, stored.revision).await?;
        Ok(true)
    }

    /// All that are there now.
    pub async fn list(&self) -> Result<Vec<Version>, ReadError> {
        Ok(self.bucket.list(">").await?.into_iter().filter_map(version_of).collect())
    }

    /// All versions of all schedules of a partition, oldest first; none if no schedule was ever changed, because then
    /// the newest versions are all there are.
    pub async fn history_of_partition(&self, partition: u16) -> Result<Vec<Version>, ReadError> {
        if !self.bucket.has_history().await? {
            return Ok(Vec::new());
        }
        let versions = self.bucket.list_versions(&keys::schedules_of(partition)).await?;
        Ok(versions.into_iter().filter_map(version_of).collect())
    }

    /// All versions of one, oldest first.
    pub async fn history(&self, name: &Name) -> Result<Vec<Version>, ReadError> {
        Ok(self.bucket.history(&keys::schedule(name)).await?.into_iter().filter_map(version_of).collect())
    }

    /// All that are there now, then [`Seen::Current`], then every change. Ends with an error when it is lost.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<Seen, ReadError>> + Send + Unpin + use<>, ReadError> {
        // Watch before looking whether there is anything: what is written in between is then seen, not missed.
        let changes = self.bucket.watch(">").await?;
        let nothing = self.bucket.is_empty().await?.then_some(Ok(Seen::Current));
        let seen = changes.flat_map(|change| {
            stream::iter(match change {
                Ok(change) => {
                    let current = change.is_current.then_some(Ok(Seen::Current));
                    // A key that is no schedule's is a stranger's writing: it has no name to show it under.
                    let seen = match pause_of(&change) {
                        Some(pause) => Some(Seen::Pause(Box::new(pause))),
                        None => version_of(change).map(|version| Seen::Version(Box::new(version))),
                    };
                    [seen.map(Ok), current]
                }
                Err(error) => [Some(Err(error)), None],
            })
            .filter_map(std::future::ready)
        });
        Ok(Box::pin(stream::iter(nothing).chain(seen)))
    }
}

fn read(name: &Name, bytes: &[u8]) -> Result<Schedule, String> {
    let schedule: Schedule = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(schedule.named(name))
}

fn version_of(change: Change) -> Option<Version> {
    if keys::paused_schedule(&change.key).is_some() {
        return None;
    }
    let name = change.key.split_once('.').and_then(|(_, name)| name.parse::<Name>().ok());
    let Some(name) = name.filter(|name| keys::schedule(name) == change.key) else {
        tracing::warn!(
            key = change.key,
            "The schedules bucket holds a key that is no schedule's: `{}`",
            change.key
        );
        return None;
    };
    let definition = change.value.map(|bytes| read(&name, &bytes)).transpose();
    Some(Version { definition, revision: change.revision, since: change.stored_at, name })
}
