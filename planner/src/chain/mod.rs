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
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shared::{
    Timestamp,
    limits::{CHAIN_CURSOR_WRITE, CHAIN_ENDS_OPEN_MAX, DISPATCHES_IN_FLIGHT_MAX},
    names::Name,
    run_record::RunRecord,
};
use streams::{
    ReadError, Streams, WriteError,
    bucket::Stored,
    chain::{ChainCursor, Heard},
    schedules::Version,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::links::Links;
use self::{
    begin::{Beginning, beginning},
    follow::Followers,
    links::{Link, Plan},
    work::Work,
};
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
/// Schedules whose history is read one by one; of more, a partition's whole history is read at once.
const HISTORIES_ONE_BY_ONE_MAX: usize = 2;
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
    running: JoinSet<(Name, u64, bool)>,
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
                    let Ok((downstream, place, went_well)) = ended else {
                        // A panic: which one it was is not known, so all are read again.
                        state.made = None;
                        return Ok(());
                    };
                    state.work.end(&downstream, place, went_well, self.streams.clock().elapsed());
                }
                () = self.links.changed() => {}
                () = self.streams.clock().sleep(LOOK) => {}
            }
        }
        Ok(())
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
                let (name, end) = (&item.downstream, &item.end);
                let followed = followers.follow(&item).await;
                if let Err(error) = &followed {
                    tracing::warn!(
                        schedule.name = %name, run.id = %end.value.id, %error,
                        "`{name}` cannot follow `{}` just now: {error}", end.value.id
                    );
                }
                (name.clone(), end.revision, followed.is_ok())
            });
        }
    }

    /// Opens the partitions of a plan that are new to it, closes those that are gone, and reads from further back where a
    /// schedule was heard of later than its partition was read.
    async fn open_and_close(&self, state: &mut State, plan: &Plan) -> Result<(), ReadError> {
        for partition in state.work.partitions() {
            if !plan.partitions.contains_key(&partition) {
                state.work.close(partition);
                state.cursors.remove(&partition);
            }
        }
        if plan.partitions.is_empty() {
            return Ok(());
        }
        let made = self.streams.ledger_made().await?;
        if state.made != Some(made) {
            state.running.abort_all();
            *state = State { made: Some(made), ..State::default() };
        }
        let mut beginnings = Vec::new();
        for (partition, links) in &plan.partitions {
            if !state.cursors.contains_key(partition) {
                let (cursor, revision) = self.streams.chain_cursors().get(*partition).await?;
                let stored = cursor.filter(|cursor| cursor.ledger == made);
                let stored = stored.map(|cursor| (cursor.place, cursor.heard));
                let heard = stored.map_or(0, |(_, heard)| heard);
                let cursor = StoredCursor { stored, revision, written_at: Duration::ZERO, heard };
                state.cursors.insert(*partition, cursor);
            }
            let Some(cursor) = state.cursors.get(partition) else { continue };
            let read = state.work.read(*partition).or(cursor.stored.map(|(place, _)| place));
            let (since, at_cursor) = self.beginning_of(*partition, links, cursor.heard).await?;
            beginnings.push((*partition, since, read.filter(|_| at_cursor)));
        }
        // One look for all: each is a consumer. What is read from too far back is found done, or too early for its schedule.
        let since = beginnings.iter().filter_map(|(_, since, _)| *since).min();
        let place = match since {
            Some(since) => self.streams.ledger_place_before(since).await?,
            None => 0,
        };
        for (partition, since, read) in beginnings {
            let behind = since.map(|_| place).into_iter().chain(read).min();
            if let (Some(behind), Some(cursor)) = (behind, state.cursors.get_mut(&partition)) {
                state.work.open(partition, behind);
                cursor.heard = plan.heard;
            }
        }
        Ok(())
    }

    /// From when on a partition is to be read for schedules that were not followed for when it was read, and whether it has
    /// others, for which it is read on from where it is.
    async fn beginning_of(
        &self,
        partition: u16,
        links: &[(Name, Link)],
        heard: u64,
    ) -> Result<(Option<Timestamp>, bool), ReadError> {
        let unheard: Vec<&(Name, Link)> = links.iter().filter(|(_, link)| link.revision > heard).collect();
        let (known, unknown): (Vec<&(Name, Link)>, Vec<_>) =
            unheard.iter().partition(|(_, link)| link.taken_up.is_some());
        let taken_up = known.iter().filter_map(|(_, link)| link.taken_up);
        let mut beginnings: Vec<Beginning> =
            taken_up.map(|first| Beginning::of(first.revision, first.since, heard)).collect();
        for (link, versions) in self.histories(partition, &unknown).await? {
            beginnings.extend(beginning(&versions, heard, &link.after.schedule));
        }
        let since = beginnings.iter().filter_map(|beginning| match beginning {
            Beginning::At(since) => Some(*since),
            Beginning::AtCursor => None,
        });
        let at_cursor = unheard.len() < links.len() || beginnings.contains(&Beginning::AtCursor);
        Ok((since.min(), at_cursor))
    }

    /// The versions of these schedules' definitions.
    async fn histories<'a>(
        &self,
        partition: u16,
        of: &[&'a (Name, Link)],
    ) -> Result<Vec<(&'a Link, Vec<Version>)>, ReadError> {
        let mut histories = Vec::new();
        if of.len() <= HISTORIES_ONE_BY_ONE_MAX {
            for (name, link) in of {
                histories.push((link, self.streams.schedules().history(name).await?));
            }
            return Ok(histories);
        }
        // Each read is a consumer of its own, and the server has a limit of those: many are read as one.
        let mut all: BTreeMap<Name, Vec<Version>> = BTreeMap::new();
        for version in self.streams.schedules().history_of_partition(partition).await? {
            all.entry(version.name.clone()).or_default().push(version);
        }
        for (name, link) in of {
            let Link { revision, since, .. } = link.clone();
            // None is there if no schedule was ever changed.
            let versions = all.remove(name).unwrap_or_default();
            let newest = || async {
                let stored = self.streams.schedules().at(name, revision).await?;
                Ok::<_, ReadError>(vec![Version {
                    name: name.clone(),
                    definition: Ok(stored),
                    revision,
                    since,
                }])
            };
            let versions = if versions.is_empty() { newest().await? } else { versions };
            histories.push((link, versions));
        }
        Ok(histories)
    }

    /// Moves the cursors that have something to say, at most once a second each. Never back.
    async fn write_cursors(&self, state: &mut State, is_last: bool) {
        let Some(made) = state.made else { return };
        let now = self.streams.clock().elapsed();
        let mut lost = Vec::new();
        for (partition, cursor) in &mut state.cursors {
            let Some(place) = state.work.accounted_to(*partition) else { continue };
            let is_news =
                cursor.stored.is_none_or(|stored| stored.0 <= place && stored < (place, cursor.heard));
            let is_soon = now.saturating_sub(cursor.written_at) < CHAIN_CURSOR_WRITE;
            if !is_news || (is_soon && !is_last) {
                continue;
            }
            cursor.written_at = now;
            let by = self.status.id().clone();
            let written = ChainCursor { place, heard: cursor.heard, ledger: made, by };
            match self.streams.chain_cursors().write(*partition, &written, cursor.revision).await {
                Ok(revision) => {
                    cursor.revision = revision;
                    cursor.stored = Some((place, written.heard));
                }
                Err(WriteError::Conflict { .. }) => lost.push(*partition),
                Err(error) => {
                    tracing::warn!(partition, %error, "The chain cursor of partition {partition} stays where it is: {error}");
                }
            }
        }
        for partition in lost {
            self.adopt_cursor(state, partition, made).await;
        }
    }

    /// Somebody else wrote our cursor: a predecessor that was still at it, a successor, or we, and the answer was lost. What
    /// we have read stays; it is written over theirs once it is further.
    async fn adopt_cursor(&self, state: &mut State, partition: u16, made: Timestamp) {
        let Ok((found, revision)) = self.streams.chain_cursors().get(partition).await else { return };
        if let Some(cursor) = state.cursors.get_mut(&partition) {
            let found = found.filter(|found| found.ledger == made);
            cursor.stored = found.map(|found| (found.place, found.heard));
            cursor.revision = revision;
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
