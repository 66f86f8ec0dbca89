//! The targets as the fleet knows them, kept up to date by a watch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use shared::{names::TargetName, target::Target};
use streams::{ReadError, Streams, catalog::CatalogChange};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const REWATCH_WAIT: Duration = Duration::from_secs(1);

/// The targets this worker knows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Targets {
    known: Arc<Mutex<HashMap<TargetName, Known>>>,
}

#[derive(Clone)]
struct Known {
    target: Target,
    /// Places at this target, if it has a limit.
    places: Option<Arc<Semaphore>>,
}

impl Targets {
    /// All targets as they are now.
    pub(crate) async fn load(streams: &Streams) -> Result<Self, ReadError> {
        let targets = Self::default();
        for (name, target) in streams.catalog().all().await?.targets {
            targets.note(name, Some(target));
        }
        Ok(targets)
    }

    /// A target and its places. One this worker has not heard of is looked up, because it may be a moment old.
    pub(crate) async fn find(
        &self,
        streams: &Streams,
        name: &TargetName,
    ) -> Result<Option<(Target, Option<Arc<Semaphore>>)>, ReadError> {
        if let Some(known) = self.get(name) {
            return Ok(Some((known.target, known.places)));
        }
        if let Some(target) = streams.catalog().target(name).await? {
            self.note(name.clone(), Some(target));
        }
        Ok(self.get(name).map(|known| (known.target, known.places)))
    }

    fn get(&self, name: &TargetName) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn note(&self, name: TargetName, target: Option<Target>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match target {
            // Unchanged: its places are kept, with the attempts that hold them.
            Some(target) if known.get(&name).is_some_and(|known| known.target == target) => {}
            Some(target) => {
                let places = target.max_concurrent.map(|max| Arc::new(Semaphore::new(max.get() as usize)));
                known.insert(name, Known { target, places });
            }
            None => {
                known.remove(&name);
            }
        }
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
            if let CatalogChange::Target(name, target) = change? {
                self.note(name, target.map(|target| *target));
            }
        }
        Ok(())
    }
}
