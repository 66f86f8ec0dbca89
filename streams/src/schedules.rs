//! The schedules bucket: definitions as planners plan them. Its history is the audit, the diff and the rollback.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use shared::{
    Timestamp,
    definition::{Definition, DefinitionError},
    known_timings::KnownTimings,
    names::Name,
    schedule::Schedule,
};

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
    timings: KnownTimings,
}

/// Definitions that are read as one piece of work.
const READ_TOGETHER_MAX: usize = 256;
/// Such pieces that are worked on at the same time.
const PIECES_AT_ONCE_MAX: usize = 8;

/// A version of a schedule's definition: all that it says, or (`Version<Definition>`) what is kept by the million.
#[derive(Debug, Clone, PartialEq)]
pub struct Version<D = Schedule> {
    /// The schedule.
    pub name: Name,
    /// What it says; `Err` if it cannot be understood, which concerns this schedule and no other.
    pub definition: Result<Option<D>, String>,
    /// Its revision.
    pub revision: u64,
    /// From when on it is in force.
    pub since: Timestamp,
}

impl From<Version> for Version<Definition> {
    fn from(Version { name, definition, revision, since }: Version) -> Self {
        Self { name, definition: definition.map(|schedule| schedule.map(Definition::from)), revision, since }
    }
}

/// What a watch of the schedules sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<D = Schedule> {
    /// A version of a schedule.
    Version(Box<Version<D>>),
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

/// What a caller expects to be there before it is written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Anything,
    /// Something, whatever it is.
    Something,
    /// Nothing: it is created.
    Nothing,
    /// Exactly this revision.
    Revision(u64),
}

impl Expected {
    fn is_met_by(self, there: Option<u64>) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Something => there.is_some(),
            Expected::Nothing => there.is_none(),
            Expected::Revision(revision) => there == Some(revision),
        }
    }
}

impl Streams {
    /// The schedules.
    pub fn schedules(&self) -> Schedules {
        Schedules { bucket: self.bucket(self.names().schedules_bucket()), timings: self.timings().clone() }
    }
}

impl Schedules {
    pub(crate) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Reads one from the leader.
    pub async fn get(&self, name: &Name) -> Result<Option<Stored<Schedule>>, ReadError> {
        let Some(stored) = self.bucket.get(&keys::schedule(name)).await? else { return Ok(None) };
        let schedule =
            Schedule::read(name, &stored.value, &self.timings).map_err(|error| ReadError::Corrupt {
                what: format!("schedule {name}"),
                revision: stored.revision,
                detail: error.to_string(),
            })?;
        Ok(Some(Stored { value: schedule, revision: stored.revision, stored_at: stored.stored_at }))
    }

    /// Reads exactly this version of one from the leader; none if its history does not reach back to it any more, or
    /// it cannot be understood.
    pub async fn at(&self, name: &Name, revision: u64) -> Result<Option<Schedule>, ReadError> {
        let stored = self.bucket.at(&keys::schedule(name), revision).await?;
        Ok(stored.and_then(|stored| Schedule::read(name, &stored.value, &self.timings).ok()))
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

    /// Writes one over what the caller expects to be there; what was done, and the revision it has then.
    ///
    /// [`WriteError::Conflict`] says that something else is there: nothing was written.
    pub async fn put(
        &self,
        name: &Name,
        schedule: &Schedule,
        expected: Expected,
    ) -> Result<(Applied, u64), WriteError> {
        let key = keys::schedule(name);
        let bytes = Bytes::from(serde_json::to_vec(schedule).unwrap_or_default());
        let before = self.found(&key).await?;
        let there = before.as_ref().filter(|stored| stored.value.is_some());
        if !expected.is_met_by(there.map(|stored| stored.revision)) {
            return Err(WriteError::Conflict { what: key });
        }
        if let Some(stored) = there.filter(|stored| stored.value.as_ref() == Some(&bytes)) {
            return Ok((Applied::Unchanged, stored.revision));
        }
        let applied = if there.is_some() { Applied::Changed } else { Applied::Created };
        let revision = self.bucket.update(&key, bytes, before.map_or(0, |stored| stored.revision)).await?;
        Ok((applied, revision))
    }

    /// Deletes one if what the caller expects is there; whether it was there at all.
    pub async fn delete_if(&self, name: &Name, expected: Expected) -> Result<bool, WriteError> {
        let key = keys::schedule(name);
        let Some(stored) = self.found(&key).await?.filter(|stored| stored.value.is_some()) else {
            return Ok(false);
        };
        if !expected.is_met_by(Some(stored.revision)) {
            return Err(WriteError::Conflict { what: key });
        }
        self.bucket.delete(&key, stored.revision).await?;
        Ok(true)
    }

    async fn found(&self, key: &str) -> Result<Option<Stored<Option<Bytes>>>, WriteError> {
        let found = self.bucket.get_with_deleted(key).await;
        found.map_err(|_| WriteError::Unknown { what: key.to_owned() })
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
        Ok(self.bucket.list(">").await?.into_iter().filter_map(|change| self.version(change)).collect())
    }

    /// All versions of all schedules of a partition, oldest first; none if no schedule was ever changed, because then
    /// the newest versions are all there are.
    pub async fn history_of_partition(&self, partition: u16) -> Result<Vec<Version>, ReadError> {
        if !self.bucket.has_history().await? {
            return Ok(Vec::new());
        }
        let versions = self.bucket.list_versions(&keys::schedules_of(partition)).await?;
        Ok(versions.into_iter().filter_map(|change| self.version(change)).collect())
    }

    /// All versions of one, oldest first.
    pub async fn history(&self, name: &Name) -> Result<Vec<Version>, ReadError> {
        Ok(self
            .bucket
            .history(&keys::schedule(name))
            .await?
            .into_iter()
            .filter_map(|change| self.version(change))
            .collect())
    }

    /// All that are there now, then [`Seen::Current`], then every change. Ends with an error when it is lost.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<Seen, ReadError>> + Send + Unpin + use<>, ReadError> {
        self.watch_as(Schedule::read).await
    }

    /// As [`Schedules::watch`], for those who keep all of them: what is kept of a definition, after all of it was read.
    pub async fn watch_definitions(
        &self,
    ) -> Result<impl Stream<Item = Result<Seen<Definition>, ReadError>> + Send + Unpin + use<>, ReadError>
    {
        self.watch_as(Definition::read).await
    }

    async fn watch_as<D: Send + 'static>(
        &self,
        read: Reading<D>,
    ) -> Result<impl Stream<Item = Result<Seen<D>, ReadError>> + Send + Unpin + use<D>, ReadError> {
        // Watch before looking whether there is anything: what is written in between is then seen, not missed.
        let changes = self.bucket.watch(">").await?;
        let nothing = self.bucket.is_empty().await?.then_some(Ok(Seen::Current));
        let timings = self.timings.clone();
        // A million definitions are more to read than to receive: each processor takes its part. What comes alone is
        // read alone, at once.
        let pieces = changes.ready_chunks(READ_TOGETHER_MAX).map(move |piece| {
            let timings = timings.clone();
            let seen = move |change| seen_in(change, read, &timings);
            tokio::spawn(async move { piece.into_iter().flat_map(seen).collect::<Vec<_>>() })
        });
        let seen = pieces.buffered(PIECES_AT_ONCE_MAX).flat_map(|piece| {
            let lost = |error| vec![Err(ReadError::unavailable("watch of schedules", error))];
            stream::iter(piece.unwrap_or_else(lost))
        });
        Ok(Box::pin(stream::iter(nothing).chain(seen)))
    }

    fn version(&self, change: Change) -> Option<Version> {
        version_of(change, Schedule::read, &self.timings)
    }
}

/// How a definition is read.
type Reading<D> = fn(&Name, &[u8], &KnownTimings) -> Result<D, DefinitionError>;

/// What a change shows, one or two things.
fn seen_in<D>(
    change: Result<Change, ReadError>,
    read: Reading<D>,
    timings: &KnownTimings,
) -> impl Iterator<Item = Result<Seen<D>, ReadError>> + use<D> {
    let (seen, current) = match change {
        Ok(change) => {
            let current = change.is_current.then_some(Ok(Seen::Current));
            // A key that is no schedule's is a stranger's writing: it has no name to show it under.
            let seen = match pause_of(&change) {
                Some(pause) => Some(Seen::Pause(Box::new(pause))),
                None => version_of(change, read, timings).map(|version| Seen::Version(Box::new(version))),
            };
            (seen.map(Ok), current)
        }
        Err(error) => (Some(Err(error)), None),
    };
    seen.into_iter().chain(current)
}

fn version_of<D>(change: Change, read: Reading<D>, timings: &KnownTimings) -> Option<Version<D>> {
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
    let read = |bytes: Bytes| read(&name, &bytes, timings).map_err(|error| error.to_string());
    let definition = change.value.map(read).transpose();
    Some(Version { definition, revision: change.revision, since: change.stored_at, name })
}
