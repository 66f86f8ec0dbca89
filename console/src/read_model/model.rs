//! The read model as others hold it: questions, its status, its feed.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    Timestamp,
    clock::SharedClock,
    limits::{COUNT_MAX, FEED_HELD_MAX},
    run::RunId,
};
use streams::Streams;
use tokio::sync::broadcast;

use super::{
    Count, FeedEvent, Listed, ModelError, ModelStatus, OpenError, Page, Projection, Relatives, RunFilter,
    RunQuery, Subscription,
    file::{self, Head},
    list,
    readers::Readers,
};

/// What the parts of the model share.
pub(super) struct Inner {
    pub(super) path: PathBuf,
    pub(super) clock: SharedClock,
    pub(super) readers: Arc<Readers>,
    pub(super) feed: broadcast::Sender<FeedEvent>,
    pub(super) state: Mutex<State>,
    /// Holds the file for this process.
    _taken: std::fs::File,
}

/// What is known of the model.
pub(super) struct State {
    pub(super) head: Head,
    pub(super) bytes: u64,
    /// The last place of the ledger that was heard of.
    pub(super) last: u64,
    /// Changes behind the newest that is stored.
    pub(super) pending: u64,
    /// When the newest that is stored was written.
    pub(super) stored_at: Option<Timestamp>,
    pub(super) unreadable: u64,
    pub(super) trouble: Option<String>,
}

impl Inner {
    /// Changes what is known.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what stands in the way, in the log only when it is another than before.
    pub(super) fn note_trouble(&self, trouble: String) {
        let is_new = self.note(|state| state.trouble.as_ref() != Some(&trouble));
        if is_new {
            tracing::warn!("The read model does not get on just now: {trouble}");
            self.note(|state| state.trouble = Some(trouble));
        }
    }
}

/// The ledger as tables. Cheap to clone.
#[derive(Clone)]
pub struct ReadModel {
    inner: Arc<Inner>,
}

impl ReadModel {
    /// Takes the file for this process, opens it, or begins one. Blocks for a moment.
    ///
    /// The model answers at once, with what it had; the projection brings it up to date and must be run.
    pub fn open(path: &Path, streams: Streams) -> Result<(Self, Projection), OpenError> {
        let model = Self::open_file(path, Arc::clone(streams.clock()))?;
        let projection = Projection::new(Arc::clone(&model.inner), streams);
        Ok((model, projection))
    }

    /// Takes the file and opens it, with nothing that follows the ledger.
    pub(super) fn open_file(path: &Path, clock: SharedClock) -> Result<Self, OpenError> {
        let taken = file::take(path)?;
        let (conn, head) = file::open(path, clock.now())?;
        drop(conn);
        let readers = Arc::new(Readers::new(path.to_owned(), Arc::clone(&clock)));
        let state = State {
            bytes: file::bytes(path),
            last: head.place,
            pending: 0,
            stored_at: None,
            unreadable: 0,
            trouble: None,
            head,
        };
        let inner = Inner {
            path: path.to_owned(),
            clock,
            readers,
            feed: broadcast::channel(FEED_HELD_MAX).0,
            state: Mutex::new(state),
            _taken: taken,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(super) fn readers(&self) -> &Arc<Readers> {
        &self.inner.readers
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// How it is.
    pub fn status(&self) -> ModelStatus {
        let now = self.inner.clock.now();
        self.inner.note(|state| {
            let behind =
                state.pending.max(if state.head.is_whole { 0 } else { state.last - state.head.place });
            let since = state.stored_at.filter(|_| behind > 0);
            ModelStatus {
                built: state.head.built.clone(),
                is_rebuilding: !state.head.is_whole,
                place: state.head.place,
                behind,
                behind_for: since.and_then(|at| (now - at).to_std().ok()).unwrap_or(Duration::ZERO),
                runs: state.head.runs,
                bytes: state.bytes,
                unreadable: state.unreadable,
                trouble: state.trouble.clone(),
            }
        })
    }

    /// The sequence up to which everything is in here.
    pub(super) fn place(&self) -> u64 {
        self.inner.note(|state| state.head.place)
    }

    /// A page of a list.
    pub async fn runs(&self, query: &RunQuery) -> Result<Page, ModelError> {
        query.check()?;
        let query = query.clone();
        self.readers().ask(move |conn| list::page(conn, &query)).await
    }

    /// How many runs there are of a kind; it stops counting at `limits::COUNT_MAX`.
    pub async fn count(&self, filter: &RunFilter) -> Result<Count, ModelError> {
        let filter = filter.clone();
        self.readers().ask(move |conn| list::count(conn, &filter, COUNT_MAX)).await
    }

    /// A run as the model has it.
    pub async fn run(&self, id: &RunId) -> Result<Option<Listed>, ModelError> {
        let id = id.to_string();
        self.readers().ask(move |conn| list::run(conn, &id)).await
    }

    /// The runs around a run; of followers and shards at most `limits::PAGE_MAX` each.
    pub async fn relatives(&self, id: &RunId) -> Result<Relatives, ModelError> {
        let id = id.clone();
        self.readers().ask_whole(move |conn| list::relatives(conn, &id)).await
    }

    /// What changed behind a place, in the order of the ledger; at most so many.
    pub(super) async fn changed_since(&self, after: u64, at_most: usize) -> Result<Vec<Listed>, ModelError> {
        self.readers().ask(move |conn| list::changed_since(conn, after, at_most)).await
    }

    /// Tells each change from now on; or all since a revision, of each run only the newest, and then each change.
    pub fn subscribe(&self, after: Option<u64>, filter: RunFilter) -> Subscription {
        // Listening begins before it is asked what is stored, so that nothing falls between.
        let live = self.inner.feed.subscribe();
        let places = self.inner.note(|state| (state.head.place, state.last.max(state.head.place)));
        Subscription::new(self.clone(), filter, live, after, places)
    }
}
