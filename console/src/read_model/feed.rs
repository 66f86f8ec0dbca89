//! Each change, once it is stored: live, resumable, and bounded for each who listens.
//!
//! Events go through one ring. Who is slower than the ring is long is told so, and reads on from the tables by the last
//! revision it was told: it misses versions in between, never the newest, and holds up nobody.

use std::{collections::VecDeque, sync::Arc};

use shared::run::RunId;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Listed, ModelError, ReadModel, RunFilter};

/// Changes that are read from the tables at once.
const REPLAYED_AT_ONCE: usize = 200;

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// A run is now so. Its revision is what to resume behind.
    Changed(Arc<Listed>),
    /// A run's record was deleted. (What the ledger forgets by age goes without a word.)
    Removed {
        /// The run.
        id: RunId,
        /// The revision of the deletion.
        revision: u64,
    },
    /// The subscriber was too slow and has missed so many events; the newest version of all that it missed comes now.
    Lagged {
        /// How many, of all runs.
        missed: u64,
    },
    /// The model was built anew, or what was to be resumed is of another ledger: what was told before may be gone. Ask anew
    /// for what is shown; then it goes on from now.
    Anew,
}

/// Somebody who is told of changes.
pub struct Subscription {
    model: ReadModel,
    filter: RunFilter,
    live: broadcast::Receiver<FeedEvent>,
    /// All changes up to this revision were told, or wait.
    told: u64,
    waiting: VecDeque<FeedEvent>,
    /// Whether the tables hold what was not told.
    is_behind: bool,
}

impl Subscription {
    pub(super) fn new(
        model: ReadModel,
        filter: RunFilter,
        live: broadcast::Receiver<FeedEvent>,
        after: Option<u64>,
        (place, last): (u64, u64),
    ) -> Self {
        let mut waiting = VecDeque::new();
        let (told, is_behind) = match after {
            None => (place, false),
            // It was told by the model of a ledger that there is no more.
            Some(after) if after > last => {
                waiting.push_back(FeedEvent::Anew);
                (place, false)
            }
            Some(after) => (after, true),
        };
        Self { model, filter, live, told, waiting, is_behind }
    }

    /// The next that is wanted. Dropping the future loses nothing. After an error wait a moment, and ask again.
    pub async fn next(&mut self) -> Result<FeedEvent, ModelError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            if self.is_behind {
                self.read_on().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(event) => {
                    if let Some(event) = self.wanted(&event) {
                        return Ok(event);
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    self.is_behind = true;
                    return Ok(FeedEvent::Lagged { missed });
                }
                // It never does while the model is there, which we hold.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Takes what was not told from the tables. What is stored meanwhile is on its way, and known by its revision.
    async fn read_on(&mut self) -> Result<(), ModelError> {
        let changed = self.model.changed_since(self.told, REPLAYED_AT_ONCE).await?;
        self.is_behind = changed.len() == REPLAYED_AT_ONCE;
        self.told = changed.last().map_or(self.told, |last| last.revision);
        let wanted = changed.into_iter().filter(|listed| self.filter.matches(&listed.record));
        self.waiting.extend(wanted.map(|listed| FeedEvent::Changed(Arc::new(listed))));
        Ok(())
    }

    /// A live event, if it is new and wanted.
    fn wanted(&mut self, event: &FeedEvent) -> Option<FeedEvent> {
        let is_wanted = match event {
            FeedEvent::Changed(listed) => self.is_new(listed.revision) && self.filter.matches(&listed.record),
            // What it was is not known any more: only its name can be compared.
            FeedEvent::Removed { id, revision } => {
                let is_new = self.is_new(*revision);
                let names = [self.filter.schedule.as_ref(), self.filter.name.as_ref()];
                is_new && names.into_iter().flatten().all(|name| *name == id.name)
            }
            FeedEvent::Lagged { .. } => true,
            FeedEvent::Anew => {
                self.told = self.model.place();
                true
            }
        };
        is_wanted.then(|| event.clone())
    }

    fn is_new(&mut self, revision: u64) -> bool {
        let is_new = revision > self.told;
        self.told = self.told.max(revision);
        is_new
    }
}
