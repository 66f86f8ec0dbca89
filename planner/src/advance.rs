//! Moving lines on: the first run of each goes as soon as its schedule's lock is free.
//!
//! A planner does this for the partitions it holds; that only saves work. Two may do it at once: the server takes one
//! task under a lock, the ledger lets a run be begun once, and a line is written by compare-and-set. What a planner
//! leaves half done, a run that was published and stands in line, its successor finds published.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use shared::{
    hash::partition_of,
    limits::ROUND_SLEEP_MAX,
    names::{MemberId, Name},
    run_record::{Reason, RunRecord},
};
use streams::{ReadError, Streams, lines::LineSeen};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    holdings::Holdings,
    machine::turn::{Step, Turning},
    perform::drive,
};

/// A lock is looked at this often although nothing was heard: what is heard over core NATS may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a watch may take to begin.
const WATCH_BEGINS_WAIT: Duration = Duration::from_secs(5);
/// Before a watch that was lost is begun anew.
const REWATCH_WAIT: Duration = Duration::from_millis(500);

/// Moves the lines of one planner's partitions on.
#[derive(Clone)]
pub(crate) struct Advance {
    streams: Streams,
    holdings: Arc<Holdings>,
    id: MemberId,
}

/// A line that is being moved on.
struct AtWork {
    task: AbortHandle,
    changed: Arc<Notify>,
}

/// The lines that somebody stands in, and those being moved on here.
#[derive(Default)]
struct Known {
    waiting: BTreeSet<Name>,
    at_work: HashMap<Name, AtWork>,
    running: JoinSet<()>,
}

impl Advance {
    pub(crate) fn new(streams: Streams, holdings: Arc<Holdings>, id: MemberId) -> Self {
        Self { streams, holdings, id }
    }

    /// Moves lines on until it is told to stop. What is half done then a successor finds.
    pub(crate) async fn follow(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.watch(&mut known) => if let Err(error) = ended {
                    tracing::warn!(%error, "The watch of lines is lost: {error}");
                },
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.streams.clock().sleep(REWATCH_WAIT) => {}
            }
        }
    }

    async fn watch(&self, known: &mut Known) -> Result<(), ReadError> {
        let clock = self.streams.clock();
        let lines = self.streams.lines();
        let mut seen = tokio::select! {
            seen = lines.watch() => seen?,
            () = clock.sleep(WATCH_BEGINS_WAIT) => return Err(lost("it does not begin")),
        };
        loop {
            tokio::select! {
                line = seen.next() => match line {
                    Some(line) => known.note(line?),
                    None => return Err(lost("it has ended")),
                },
                // Only reaped. If its line is not empty it is begun again at the next look.
                Some(ended) = known.running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(%panic, "Moving a line on ended in a panic: {panic}");
                    }
                    continue;
                }
                () = clock.sleep(ROUND_SLEEP_MAX) => {}
            }
            self.begin(known);
        }
    }

    /// Begins to move on every line that somebody stands in and whose partition is held.
    fn begin(&self, known: &mut Known) {
        known.at_work.retain(|_, at_work| !at_work.task.is_finished());
        let held = self.holdings.trusted(self.streams.clock().elapsed());
        for name in &known.waiting {
            if held.contains(&partition_of(name.as_str())) && !known.at_work.contains_key(name) {
                let changed = Arc::new(Notify::new());
                let task = known.running.spawn(self.clone().advance(name.clone(), Arc::clone(&changed)));
                known.at_work.insert(name.clone(), AtWork { task, changed });
            }
        }
    }

    fn holds(&self, name: &Name) -> bool {
        self.holdings.trusted(self.streams.clock().elapsed()).contains(&partition_of(name.as_str()))
    }

    /// Moves one line on until it is empty, or its partition is not ours any more.
    async fn advance(self, name: Name, changed: Arc<Notify>) {
        // Subscribed before the first look, so that the end of a run cannot fall between looking and waiting.
        let mut results = match self.streams.results(Some(&name)).await {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                return;
            }
        };
        while self.holds(&name) {
            match drive(&self.streams, Turning::new(self.id.clone(), name.clone())).await {
                Ok(Step::Empty) => return,
                Ok(Step::Moved) => continue,
                Ok(Step::Waits) => {}
                Err(error) => {
                    tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                }
            }
            tokio::select! {
                () = changed.notified() => {}
                () = end_of_a_run(&mut results) => {}
                () = self.streams.clock().sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

impl Known {
    fn note(&mut self, line: LineSeen) {
        if let Some(at_work) = self.at_work.get(&line.schedule) {
            at_work.changed.notify_one();
        }
        if line.is_empty {
            self.waiting.remove(&line.schedule);
        } else {
            self.waiting.insert(line.schedule);
        }
    }
}

fn lost(detail: &str) -> ReadError {
    ReadError::Unavailable { what: "watch of lines".to_owned(), detail: detail.to_owned() }
}

/// Returns when a run of the schedule has ended that may have held the lock or stood in line.
async fn end_of_a_run(results: &mut (impl Stream<Item = RunRecord> + Unpin)) {
    while let Some(record) = results.next().await {
        if record.status.is_final() && record.reason != Some(Reason::SkippedOverlap) {
            return;
        }
    }
    std::future::pending::<()>().await;
}
