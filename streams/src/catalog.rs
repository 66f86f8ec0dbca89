//! The catalog bucket: targets, queues and calendars, which schedules refer to by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use shared::{
    calendar::Calendar,
    definitions::Definitions,
    names::{CalendarName, QueueName, TargetName},
    queue::QueueSettings,
    target::Target,
};

use crate::{
    ReadError, Streams, WriteError,
    bucket::{Bucket, Change},
    names::keys,
    schedules::Applied,
};

/// The targets, queues and calendars of a fleet.
#[derive(Clone)]
pub struct Catalog {
    bucket: Bucket,
}

/// A change in the catalog; none means that the entry was deleted or cannot be understood.
#[derive(Debug, Clone, PartialEq)]
pub enum CatalogChange {
    /// A target.
    Target(TargetName, Option<Box<Target>>),
    /// A queue.
    Queue(QueueName, Option<QueueSettings>),
    /// A calendar.
    Calendar(CalendarName, Option<Calendar>),
}

impl Streams {
    /// The catalog.
    pub fn catalog(&self) -> Catalog {
        Catalog { bucket: self.bucket(self.names().catalog_bucket()) }
    }
}

impl Catalog {
    /// One target, from the leader.
    pub async fn target(&self, name: &TargetName) -> Result<Option<Target>, ReadError> {
        self.read(&keys::target(name)).await
    }

    /// One queue, from the leader.
    pub async fn queue(&self, name: &QueueName) -> Result<Option<QueueSettings>, ReadError> {
        self.read(&keys::queue(name)).await
    }

    /// One calendar, from the leader.
    pub async fn calendar(&self, name: &CalendarName) -> Result<Option<Calendar>, ReadError> {
        self.read(&keys::calendar(name)).await
    }

    /// All queues.
    pub async fn queues(&self) -> Result<BTreeMap<QueueName, QueueSettings>, ReadError> {
        Ok(self.all().await?.queues)
    }

    /// Everything in the catalog, without schedules.
    pub async fn all(&self) -> Result<Definitions, ReadError> {
        let mut found = Definitions::default();
        for change in self.bucket.list(">").await? {
            match change_of(&change) {
                Some(CatalogChange::Target(name, Some(target))) => {
                    found.targets.insert(name, *target);
                }
                Some(CatalogChange::Queue(name, Some(queue))) => {
                    found.queues.insert(name, queue);
                }
                Some(CatalogChange::Calendar(name, Some(calendar))) => {
                    found.calendars.insert(name, calendar);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Writes a target if it differs.
    pub async fn apply_target(&self, name: &TargetName, target: &Target) -> Result<Applied, WriteError> {
        self.apply(&keys::target(name), target).await
    }

    /// Writes a calendar if it differs.
    pub async fn apply_calendar(
        &self,
        name: &CalendarName,
        calendar: &Calendar,
    ) -> Result<Applied, WriteError> {
        self.apply(&keys::calendar(name), calendar).await
    }

    /// Writes a queue if it differs; whether it did. Only [`Streams::declare_queue`] makes a queue usable.
    pub(crate) async fn put_queue(
        &self,
        name: &QueueName,
        queue: &QueueSettings,
    ) -> Result<bool, WriteError> {
        Ok(self.apply(&keys::queue(name), queue).await? != Applied::Unchanged)
    }

    /// All that is there now, then every change. Ends with an error when it is lost.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<CatalogChange, ReadError>> + Send + Unpin + use<>, ReadError> {
        let changes = self.bucket.watch(">").await?;
        Ok(Box::pin(
            changes.filter_map(|change| async { change.map(|change| change_of(&change)).transpose() }),
        ))
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ReadError> {
        let Some(stored) = self.bucket.get(key).await? else { return Ok(None) };
        serde_json::from_slice(&stored.value).map(Some).map_err(|error| ReadError::Corrupt {
            what: key.to_owned(),
            revision: stored.revision,
            detail: error.to_string(),
        })
    }

    async fn apply<T: Serialize>(&self, key: &str, value: &T) -> Result<Applied, WriteError> {
        let bytes = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
        let before = self
            .bucket
            .get_with_deleted(key)
            .await
            .map_err(|_| WriteError::Unknown { what: key.to_owned() })?;
        let applied = match &before {
            Some(stored) if stored.value.as_ref() == Some(&bytes) => return Ok(Applied::Unchanged),
            Some(stored) if stored.value.is_some() => Applied::Changed,
            _ => Applied::Created,
        };
        self.bucket.update(key, bytes, before.map_or(0, |stored| stored.revision)).await?;
        Ok(applied)
    }
}

fn change_of(change: &Change) -> Option<CatalogChange> {
    let (kind, name) = change.key.split_once('.')?;
    match kind {
        "target" => Some(CatalogChange::Target(name.parse().ok()?, parse(change))),
        "queue" => Some(CatalogChange::Queue(name.parse().ok()?, parse(change))),
        "calendar" => Some(CatalogChange::Calendar(name.parse().ok()?, parse(change))),
        _ => None,
    }
}

fn parse<T: DeserializeOwned>(change: &Change) -> Option<T> {
    match serde_json::from_slice(change.value.as_ref()?) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(key = change.key, %error, "The catalog's `{}` cannot be understood: {error}", change.key);
            None
        }
    }
}
