//! Chains: runs that follow the ends of other schedules' runs.
//!
//! Promise: each end that a schedule follows makes exactly one run of it, or one record that says why not, whatever planners
//! crash or change. How it is kept: the id of that run is computed from the run that ended, and its record is created once.
//! Each partition has a *chain cursor*, the place in the ledger up to which every end was dealt with; it moves only past ends
//! that were, so a successor that reads on from there repeats what may not have been done and finds done what was. The ledger
//! remembers a chained run longer than the end that made it (both are kept equally long, and the end is older), so reading
//! again never runs anything twice.
//!
//! Nothing rests on a message that may be lost: the stream of the ledger is read itself. Limit: an end that is older than the
//! ledger remembers (90 days) is followed by nobody.

mod begin;
mod follow;
mod links;
mod partitions;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shared::{
    Timestamp,
    limits::{CHAIN_ENDS_OPEN_MAX, DISPATCHES_IN_FLIGHT_MAX},
    names::Name,
    run_record::RunRecord,
};
use streams::{ReadError, Streams, bucket::Stored, chain::Heard, members::Waiting};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::links::Links;
use self::{follow::Followers, links::Plan, work::Work};
use crate::{
    PlannerError, clock_guard::ClockGuard, dispatch::Dispatcher, holdings::Holdings, status::Status,
};

/// How often it is looked whether partitions came or went, and what is to be tried again.
const LOOK: Duration = Duration::from_millis(100);
/// Before the reading begins anew because something changed: several changes make one.
const BEGIN_ANEW_WAIT: Duration = Duration::from_millis(200);
/// Before it begins anew because something failed: each reading is a consumer.
const FAILED_WAIT: Duration = Duration::from_secs(1);
const FAILED_WAIT_MAX: Duration = Duration::from_secs(10);
/// Batches of records that were read and not taken in; the reading waits when it is full.
const BATCHES_WAITING_MAX: usize = 2;
/// Between two lines of the log about ends that wait.
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// What a stopping planner waits for its last cursors to be taken.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_millis(100);

/// A partition's cursor as it is stored.
#[derive(Debug, Clone, Copy)]
struct StoredCursor {
    /// What is stored; none if nothing is, or nothing that counts in this ledger.
    stored: Option<(u64, u64)>,
    revision: u64,
    written_at: Duration,
    /// Up to which revision of definitions what was read counts for all schedules of the partition.
    heard: u64,
}

/// What a planner is at.
#[derive(Default)]
struct State {
    /// When the ledger was made.
    made: Option<Timestamp>,
    cursors: BTreeMap<u16, StoredCursor>,
    work: Work,
    running: JoinSet<(Name, u64, Option<String>)>,
    /// What the latest that failed said, and when it was last said in the log that some wait.
    trouble: String,
    said_at: Option<Duration>,
}

/// Follows the ends of runs for one planner's partitions.
pub(crate) struct Chains {
    streams: Streams,
    followers: Followers,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    guard: Arc<ClockGuard>,
    links: Arc<Links>,
}

impl Chains {
    pub(crate) fn new(
        streams: Streams,
        dispatcher: Dispatcher,
        holdings: Arc<Holdings>,
        status: Arc<Status>,
        guard: Arc<ClockGuard>,
        links: Arc<Links>,
    ) -> Self {
        let followers = Followers::new(streams.clone(), dispatcher);
        Self { streams, followers, holdings, status, guard, links }
    }

    /// Follows ends until it is told to stop; then writes the cursors a last time.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let clock = self.streams.clock().clone();
        let (mut state, mut failed_wait) = (State::default(), FAILED_WAIT);
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.follow(&mut state) => ended,
            };
            let wait = match ended {
                Ok(()) => {
                    failed_wait = FAILED_WAIT;
                    BEGIN_ANEW_WAIT
                }
                Err(error) => {
                    tracing::warn!(%error, "The ends of runs cannot be followed just now: {error}");
                    failed_wait = (failed_wait * 2).min(FAILED_WAIT_MAX);
                    failed_wait / 2
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(wait) => {}
            }
        }
        // A successor repeats what is not written down any more, and finds it done.
        tokio::select! {
            () = self.write_cursors(&mut state, true) => {}
            () = clock.sleep(LAST_WORDS_WAIT_MAX) => {}
        }
        Ok(())
    }

    /// Follows ends until something changes: who follows whom, the partitions, or the ledger itself.
    async fn follow(&self, state: &mut State) -> Result<(), ReadError> {
        let changes = self.links.changes();
        let held = self.holdings.all();
        self.note_cycles();
        let plan = self.links.plan(&held).unwrap_or_default();
        self.open_and_close(state, &plan).await?;
        let mut records = state.work.behind().map(|behind| self.read(&plan, behind, state.made));
        while self.links.changes() == changes && self.holdings.all() == held {
            self.begin(state);
            self.note_waiting(state);
            self.write_cursors(state, false).await;
            let has_room = state.work.len() < CHAIN_ENDS_OPEN_MAX;
            tokio::select! {
                heard = next(&mut records), if has_room => match heard {
                    Some(Heard::Records(found, place)) => {
                        for record in found {
                            let upstream = record.value.schedule.as_ref();
                            let followers = upstream.and_then(|upstream| plan.followers.get(upstream));
                            if let Some(followers) = followers.filter(|_| record.value.status.is_final()) {
                                state.work.take_in(light(record), followers);
                            }
                        }
                        state.work.note_read(place);
                    }
                    // Made anew: places mean nothing any more. Or the reading has ended, which it does not by itself.
                    Some(Heard::Anew) | None => {
                        state.made = None;
                        return Ok(());
                    }
                },
                Some(ended) = state.running.join_next() => {
                    let (downstream, place, trouble) = match ended {
                        Ok(ended) => ended,
                        Err(panic) => {
                            // Which one it was is not known, so all are read again.
                            tracing::error!(%panic, "Following the end of a run ended in a panic: {panic}");
                            state.made = None;
                            return Err(ReadError::Unavailable {
                                what: "ends of runs".to_owned(),
                                detail: panic.to_string(),
                            });
                        }
                    };
                    state.work.end(&downstream, place, trouble.is_none(), self.streams.clock().elapsed());
                    state.trouble = trouble.unwrap_or(std::mem::take(&mut state.trouble));
                }
                () = self.links.changed() => {}
                () = self.streams.clock().sleep(LOOK) => {}
            }
        }
        Ok(())
    }

    /// Says that ends wait to be followed, because something is full or does not answer: in the planner's status, and in one
    /// line of the log every few seconds.
    fn note_waiting(&self, state: &mut State) {
        let waiting = state.work.held_back().map(|(ends, since)| Waiting {
            slots: ends,
            since,
            why: state.trouble.clone(),
        });
        let now = self.streams.clock().elapsed();
        if let Some(Waiting { slots, since, why }) = &waiting
            && state.said_at.is_none_or(|at| now.saturating_sub(at) >= SAY_AGAIN)
        {
            state.said_at = Some(now);
            tracing::warn!(
                "{slots} ends of runs wait to be followed, the oldest since {since}; they are late. The latest says: {why}"
            );
        }
        self.status.note_ends_waiting(waiting);
    }

    /// Says which schedules follow themselves; only a foreign writer can have made them.
    fn note_cycles(&self) {
        let words = |(name, way)| format!("{name}: its `after` leads back to itself: {way}");
        let cycles: Vec<String> = self.links.cycles().into_iter().map(words).collect();
        if self.status.note_cycles(cycles.clone()) {
            for cycle in cycles {
                tracing::error!("Nothing is run after the ends that this schedule follows: {cycle}");
            }
        }
    }

    /// A task of its own that reads: nothing that happens here interrupts it in the middle of a pull.
    fn read(&self, plan: &Plan, behind: u64, made: Option<Timestamp>) -> Reading {
        let upstreams: BTreeSet<Name> = plan.followers.keys().cloned().collect();
        let mut follower = self.streams.follow_records(&upstreams, behind, made.unwrap_or_default());
        let (sender, heard) = mpsc::channel(BATCHES_WAITING_MAX);
        let clock = self.streams.clock().clone();
        let task = tokio::spawn(async move {
            let mut wait = FAILED_WAIT;
            loop {
                match follower.next().await {
                    Ok(heard) => {
                        wait = FAILED_WAIT;
                        if sender.send(heard).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "The ledger cannot be followed just now: {error}");
                        clock.sleep(wait).await;
                        wait = (wait * 2).min(FAILED_WAIT_MAX);
                    }
                }
            }
        });
        Reading { heard, _task: AbortOnDropHandle::new(task) }
    }

    /// Begins to deal with what is to be dealt with. A clock that is not believed begins nothing.
    fn begin(&self, state: &mut State) {
        if self.guard.now().is_none() {
            return;
        }
        let now = self.streams.clock().elapsed();
        for item in state.work.begin(now, DISPATCHES_IN_FLIGHT_MAX) {
            let followers = self.followers.clone();
            state.running.spawn(async move {
                let trouble = followers.follow(&item).await.err().map(|error| error.to_string());
                if let Some(error) = &trouble {
                    let (name, run) = (&item.downstream, &item.end.value.id);
                    tracing::debug!(schedule.name = %name, run.id = %run, error, "`{name}` cannot follow `{run}` just now: {error}");
                }
                (item.downstream, item.end.revision, trouble)
            });
        }
    }
}

/// A record without its output, which the worker reads itself: many may lie in memory.
fn light(record: Stored<RunRecord>) -> Stored<RunRecord> {
    Stored { value: RunRecord { output: None, ..record.value }, ..record }
}

/// What is read from the ledger.
struct Reading {
    heard: mpsc::Receiver<Heard>,
    _task: AbortOnDropHandle<()>,
}

/// The next that is heard; never returns if nothing is read.
async fn next(reading: &mut Option<Reading>) -> Option<Heard> {
    match reading {
        Some(reading) => reading.heard.recv().await,
        None => std::future::pending().await,
    }
}
