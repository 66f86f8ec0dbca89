//! The targets as the fleet knows them, kept up to date by a watch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use shared::{names::TargetName, target::Target};
use streams::{ReadError, Streams, catalog::CatalogChange};
use tokio_util::sync::CancellationToken;

use crate::queues::Queues;

const REWATCH_WAIT: Duration = Duration::from_secs(1);

/// The targets this worker knows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Targets {
    known: Arc<Mutex<HashMap<TargetName, Arc<Target>>>>,
    /// The queues, which the same watch tells of.
    pub(crate) queues: Queues,
}

impl Targets {
    /// All targets as they are now.
    pub(crate) async fn load(streams: &Streams) -> Result<Self, ReadError> {
        let targets = Self::default();
        let catalog = streams.catalog().all().await?;
        for (name, target) in catalog.targets {
            targets.note(name, Some(target));
        }
        for (name, settings) in catalog.queues {
            targets.queues.note(name, Some(settings));
        }
        Ok(targets)
    }

    /// A target. One this worker has not heard of is looked up, because it may be a moment old; and not noted, because what the
    /// watch says of it meanwhile is newer.
    pub(crate) async fn find(
        &self,
        streams: &Streams,
        name: &TargetName,
    ) -> Result<Option<Arc<Target>>, ReadError> {
        match self.get(name) {
            Some(known) => Ok(Some(known)),
            None => Ok(Box::pin(streams.catalog().target(name)).await?.map(Arc::new)),
        }
    }

    /// A target this worker has heard of.
    pub(crate) fn get(&self, name: &TargetName) -> Option<Arc<Target>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn note(&self, name: TargetName, target: Option<Target>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match target {
            Some(target) => known.insert(name, Arc::new(target)),
            None => known.remove(&name),
        };
    }

    /// Follows the catalog until it is told to stop.
    pub(crate) async fn follow(self, streams: Streams, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.watch(&streams) => if let Err(error) = ended {
                    tracing::warn!(%error, "The watch of targets is lost: {error}");
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = streams.clock().sleep(REWATCH_WAIT) => {}
            }
        }
    }

    async fn watch(&self, streams: &Streams) -> Result<(), ReadError> {
        let mut changes = streams.catalog().watch().await?;
        while let Some(change) = changes.next().await {
            match change? {
                CatalogChange::Target(name, target) => self.note(name, target.map(|target| *target)),
                CatalogChange::Queue(name, settings) => self.queues.note(name, settings),
                CatalogChange::Calendar(..) => {}
            }
        }
        Ok(())
    }
}
