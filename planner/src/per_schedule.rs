//! One piece of work for each schedule whose list of runs is not empty, while its partition is held: for lines of runs that
//! wait, and for sharded runs that are open.
//!
//! That only saves work. Two planners may be at one list at once: it is written by compare-and-set, and whatever the work does
//! may be repeated.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use shared::{hash::partition_of, limits::ROUND_SLEEP_MAX, names::Name};
use streams::{
    ReadError, Streams,
    lines::{LineSeen, Lines},
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{PlannerError, holdings::Holdings};

/// How long a watch may take to begin.
const WATCH_BEGINS_WAIT: Duration = Duration::from_secs(5);
/// Before a watch that was lost is begun anew.
const REWATCH_WAIT: Duration = Duration::from_millis(500);

/// Follows the lists of all schedules.
pub(crate) struct PerSchedule {
    pub(crate) streams: Streams,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) lists: Lines,
    /// What the lists are, for people.
    pub(crate) what: &'static str,
}

/// Work on one schedule's list.
struct AtWork {
    task: AbortHandle,
    changed: Arc<Notify>,
}

/// The lists that are not empty, and those that are worked on here.
#[derive(Default)]
struct Known {
    filled: BTreeSet<Name>,
    at_work: HashMap<Name, AtWork>,
    running: JoinSet<()>,
}

impl PerSchedule {
    /// Keeps one `work` going for each list until it is told to stop. What is half done then a successor finds. Work that ends
    /// is begun again while its list is not empty; it hears when its list was written.
    pub(crate) async fn follow<W, F>(self, work: W, stop: CancellationToken) -> Result<(), PlannerError>
    where
        W: Fn(Name, Arc<Notify>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.watch(&mut known, &work) => if let Err(error) = ended {
                    tracing::warn!(%error, "The watch of {} is lost: {error}", self.what);
                },
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.streams.clock().sleep(REWATCH_WAIT) => {}
            }
        }
    }

    async fn watch<W, F>(&self, known: &mut Known, work: &W) -> Result<(), ReadError>
    where
        W: Fn(Name, Arc<Notify>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let clock = self.streams.clock();
        let mut seen = tokio::select! {
            seen = self.lists.watch() => seen?,
            () = clock.sleep(WATCH_BEGINS_WAIT) => return Err(self.lost("it does not begin")),
        };
        loop {
            tokio::select! {
                list = seen.next() => match list {
                    Some(list) => known.note(list?),
                    None => return Err(self.lost("it has ended")),
                },
                // Only reaped. If its list is not empty it is begun again at the next look.
                Some(ended) = known.running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(%panic, "Work on {} ended in a panic: {panic}", self.what);
                    }
                    continue;
                }
                () = clock.sleep(ROUND_SLEEP_MAX) => {}
            }
            self.begin(known, work);
        }
    }

    fn begin<W, F>(&self, known: &mut Known, work: &W)
    where
        W: Fn(Name, Arc<Notify>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        known.at_work.retain(|_, at_work| !at_work.task.is_finished());
        let held = self.holdings.trusted(self.streams.clock().elapsed());
        for name in &known.filled {
            if held.contains(&partition_of(name.as_str())) && !known.at_work.contains_key(name) {
                let changed = Arc::new(Notify::new());
                let task = known.running.spawn(work(name.clone(), Arc::clone(&changed)));
                known.at_work.insert(name.clone(), AtWork { task, changed });
            }
        }
    }

    fn lost(&self, detail: &str) -> ReadError {
        ReadError::Unavailable { what: format!("watch of {}", self.what), detail: detail.to_owned() }
    }
}

impl Known {
    fn note(&mut self, list: LineSeen) {
        if let Some(at_work) = self.at_work.get(&list.schedule) {
            at_work.changed.notify_one();
        }
        if list.is_empty {
            self.filled.remove(&list.schedule);
        } else {
            self.filled.insert(list.schedule);
        }
    }
}
