//! The planning loop: one round after another accounts for what is due.
//!
//! The timer is a hint, the clock decides: woken early, nothing is due and the loop waits again; woken late, the window
//! is wider. The wall clock stepping back dispatches nothing twice, because the cursor does not step back with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use futures::{StreamExt, stream};
use shared::{
    Timestamp, clock::SharedClock, cron::tzdb_version, hash::partition_of, limits, names::Name,
    pause::pause_at, run_record::Reason,
};
use streams::{ReadError, Streams, WriteError, bucket::Stored, leases::Cursor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    backlog::Backlog,
    book::{Book, DueSlots, before},
    catch_up::{Allowance, CatchUps},
    clock_guard::ClockGuard,
    definitions::Change,
    dispatch::{DispatchError, Dispatcher, Outcome},
    due::Due,
    holdings::Holdings,
    missed::{Days, Decision, decide, was_missed},
    pauses::Pauses,
    status::Status,
};

/// What a stopping planner waits for its round to end, and again for its last cursors to be taken: others wait for its
/// partitions, and find done what it did.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_millis(100);
/// Cursors that are read at once when partitions come.
const CURSORS_IN_FLIGHT_MAX: usize = 16;

/// Between two looks at a slot that is due in a partition whose lease is in doubt.
const IN_DOUBT_WAIT: Duration = Duration::from_millis(25);
/// A cursor may be this much ahead of our clock: its writer's may be fast.
const CURSOR_AHEAD_MAX: TimeDelta = TimeDelta::minutes(1);
/// How long a planner may go on without hearing of a new definition: a watch that is lost and begun anew.
const DEFINITION_LAG_MAX: TimeDelta = TimeDelta::minutes(1);
/// How far back a partition is looked through whose cursor is lost.
const CURSOR_LOST_LOOK_BACK: TimeDelta = TimeDelta::days(1);

/// A partition's cursor as it is stored.
#[derive(Debug, Clone, Copy)]
struct StoredCursor {
    accounted_to: Timestamp,
    revision: u64,
    written_at: Duration,
}

/// What a round did for one schedule.
struct Accounted {
    name: Name,
    /// Every slot up to here has its record.
    upto: Timestamp,
    /// Something went wrong; the next round tries again.
    failed: bool,
    allowed: Allowance,
    /// Missed slots that were run.
    caught_up: u32,
    /// Some are left for the next rounds.
    some_wait: bool,
}

/// The planning loop.
pub(crate) struct Rounds {
    streams: Streams,
    dispatcher: Dispatcher,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    clock: Arc<ClockGuard>,
    backlog: Backlog,
    book: Book,
    pauses: Pauses,
    catch_ups: CatchUps,
    cursors: BTreeMap<u16, StoredCursor>,
    /// Partitions that had slots due since their cursor was written.
    worked: BTreeSet<u16>,
    /// Versions of the zone data, other than ours, of which was spoken.
    zone_data_noted: BTreeSet<String>,
}

impl Rounds {
    pub(crate) fn new(
        streams: Streams,
        dispatcher: Dispatcher,
        holdings: Arc<Holdings>,
        status: Arc<Status>,
        clock: Arc<ClockGuard>,
    ) -> Self {
        Self {
            streams,
            dispatcher,
            holdings,
            backlog: Backlog::new(Arc::clone(&status)),
            status,
            clock,
            book: Book::default(),
            pauses: Pauses::default(),
            catch_ups: CatchUps::default(),
            cursors: BTreeMap::new(),
            worked: BTreeSet::new(),
            zone_data_noted: BTreeSet::new(),
        }
    }

    /// Plans until it is told to stop; then writes the cursors a last time.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        stop: CancellationToken,
    ) -> Result<(), PlannerError> {
        // Not one slot before all definitions are known: a cursor that moved on would leave the others' slots behind.
        let mut loaded = Loaded::default();
        while !loaded.is_whole() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.recv() => match change {
                    Some(change) => loaded.note(self.learn(change)),
                    None => return Ok(()),
                },
            }
        }
        self.status.note_schedules(self.book.census());
        while !stop.is_cancelled() {
            let clock = self.streams.clock().clone();
            let all_done = tokio::select! {
                all_done = self.round() => all_done,
                // Without a server a round takes long. What it leaves undone a successor finds and does.
                () = stopped_for(&stop, &clock, LAST_WORDS_WAIT_MAX) => break,
            };
            let wait = self.wait_until_next(all_done);
            let clock = self.streams.clock().clone();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.holdings.changed() => {}
                () = clock.sleep(wait) => {}
                change = changes.recv() => match change {
                    Some(change) => {
                        self.learn(change);
                        while let Ok(change) = changes.try_recv() {
                            self.learn(change);
                        }
                        self.status.note_schedules(self.book.census());
                    }
                    None => break,
                },
            }
        }
        // A server that cannot be reached does not hold us up: a successor repeats what it finds done.
        let clock = self.streams.clock().clone();
        let last_words = async {
            for partition in self.book.open_partitions() {
                self.write_cursor(partition, true).await;
            }
        };
        tokio::select! {
            () = last_words => {}
            () = clock.sleep(LAST_WORDS_WAIT_MAX) => {}
        }
        Ok(())
    }

    fn learn(&mut self, change: Change) -> Learned {
        match change {
            Change::Schedule(version) => self.book.learn(*version),
            Change::Pause(pause) => self.pauses.learn(*pause),
            Change::SchedulesCurrent => return Learned::Schedules,
            Change::CatalogCurrent => return Learned::Catalog,
            Change::Queue(name, true) => {
                self.book.queues.insert(name);
            }
            Change::Queue(name, false) => {
                self.book.queues.remove(&name);
            }
            Change::Calendar(name, Some(calendar)) => {
                self.book.calendars.insert(name, calendar);
            }
            Change::Calendar(name, None) => {
                self.book.calendars.remove(&name);
            }
        }
        Learned::One
    }

    /// How long to wait for the next slot; never long, because the clock may be set meanwhile.
    fn wait_until_next(&self, all_done: bool) -> Duration {
        let now = self.streams.clock().now();
        let next = self.book.next_slot().map(shared::slot::Slot::instant);
        let until_next =
            next.map_or(limits::ROUND_SLEEP_MAX, |next| (next - now).to_std().unwrap_or(Duration::ZERO));
        // What is due already and was not done is in a partition whose lease is in doubt: no hot loop for it.
        let is_in_doubt = all_done && until_next.is_zero();
        let wait = if is_in_doubt { IN_DOUBT_WAIT } else { until_next.min(limits::ROUND_SLEEP_MAX) };
        // What failed is due already: without a pause it would be tried in a hot loop.
        if all_done { wait } else { wait.max(limits::ROUND_SLEEP_MAX) }
    }

    /// Accounts for what is due in all partitions that are held. Whether everything was.
    async fn round(&mut self) -> bool {
        // A clock that is not believed decides nothing: neither what is due nor how far a cursor may move.
        if self.clock.now().is_none() {
            return true;
        }
        self.open_and_close().await;
        let Some(now) = self.clock.now() else { return true };
        let held = self.holdings.trusted(self.streams.clock().elapsed());
        let due: Vec<DueSlots> = held.iter().flat_map(|partition| self.book.due(*partition, now)).collect();
        let mut all_done = true;
        if !due.is_empty() {
            let this: &Self = self;
            let elapsed = this.streams.clock().elapsed();
            let done: Vec<Accounted> = stream::iter(due)
                .map(|due| {
                    let allowed = this.catch_ups.allowance(&due.name, now, elapsed);
                    async move { this.account_for(due, now, allowed).await }
                })
                .buffer_unordered(limits::DISPATCHES_IN_FLIGHT_MAX)
                .collect()
                .await;
            for Accounted { name, upto, failed, allowed, caught_up, some_wait } in done {
                self.worked.insert(partition_of(name.as_str()));
                self.book.account(&name, upto);
                self.catch_ups.note(&name, allowed, caught_up, some_wait, elapsed);
                all_done &= !failed;
            }
        }
        self.backlog.end_of_round(self.streams.clock().elapsed());
        for partition in self.book.open_partitions() {
            self.write_cursor(partition, false).await;
        }
        all_done
    }

    /// Accounts for the slots of one schedule, in order, up to the first that fails or that waits for its turn.
    async fn account_for(&self, due: DueSlots, now: Timestamp, allowed: Allowance) -> Accounted {
        let mut done = Accounted {
            name: due.name,
            upto: Timestamp::MIN_UTC,
            failed: false,
            allowed,
            caught_up: 0,
            some_wait: false,
        };
        for (index, slot) in due.slots.iter().enumerate() {
            let decided = self.decide_on(&done.name, slot, allowed.seen_at).await;
            // A missed slot that runs after all does so in its turn; its schedule's later slots wait behind it.
            let is_caught_up = matches!(decided, Ok(Decision::Run)) && was_missed(slot.slot, allowed.seen_at);
            if is_caught_up && done.caught_up >= allowed.runs {
                return Accounted { some_wait: true, ..done };
            }
            let accounted = match decided {
                Ok(decision) => self.account_for_slot(&done.name, slot, decision).await,
                Err(error) => Err(error.into()),
            };
            match accounted {
                Ok(outcome) => {
                    done.upto = slot.slot.instant();
                    done.caught_up += u32::from(is_caught_up);
                    if outcome == Outcome::Dispatched {
                        self.status.note_lateness(self.streams.clock().now() - slot.slot.instant());
                    }
                }
                Err(error) => {
                    // One schedule's trouble never stops the others; it is tried again in the next round.
                    self.backlog.note(&done.name, due.slots.len() - index, slot.slot.instant(), &error);
                    // What failed is judged anew in the next round: its age counts on.
                    return Accounted { failed: true, ..done };
                }
            }
        }
        // What did not fit into this round comes in the next one: then the catching up goes on.
        Accounted { some_wait: due.upto < now, upto: due.upto, ..done }
    }

    async fn decide_on(&self, name: &Name, due: &Due, now: Timestamp) -> Result<Decision, ReadError> {
        let schedule = &due.schedule;
        let days = schedule
            .calendar
            .as_ref()
            .map_or(Days::Every, |calendar| Days::of(self.book.calendars.get(calendar)));
        let pauses = self.pauses.of(name);
        let mut decision = decide(schedule, due.slot, now, days, pauses);
        // What the watch has not told yet, or tells late, must not skip a slot for good: the leader is asked.
        if let (Decision::Skip(Reason::SkippedCalendar), Some(calendar)) = (decision, &schedule.calendar) {
            let asked = self.streams.catalog().calendar(calendar).await?;
            decision = decide(schedule, due.slot, now, Days::of(asked.as_ref()), pauses);
        }
        Ok(decision)
    }

    async fn account_for_slot(
        &self,
        name: &Name,
        due: &Due,
        decision: Decision,
    ) -> Result<Outcome, DispatchError> {
        let declared = self.book.queues.contains(&due.schedule.queue);
        let pause = pause_at(self.pauses.of(name), due.slot.instant());
        self.dispatcher.slot(name, due, decision, declared, pause.map(|found| found.pause.words())).await
    }

    /// Follows what the lease keeper holds: opens partitions that are new, closes those that are gone.
    async fn open_and_close(&mut self) {
        let held = self.holdings.all();
        let open: BTreeSet<u16> = self.book.open_partitions().into_iter().collect();
        for partition in open.difference(&held) {
            self.book.close(*partition);
            self.catch_ups.close(*partition);
            self.cursors.remove(partition);
        }
        let partitions = self.streams.partitions();
        let cursors = stream::iter(held.difference(&open).copied())
            .map(|partition| {
                let partitions = partitions.clone();
                async move { (partition, partitions.cursor(partition).await) }
            })
            .buffer_unordered(CURSORS_IN_FLIGHT_MAX);
        for (partition, cursor) in cursors.collect::<Vec<_>>().await {
            if let Err(error) = self.open(partition, cursor).await {
                tracing::warn!(partition, %error, "Partition {partition} cannot be opened yet: {error}");
            }
        }
    }

    async fn open(
        &mut self,
        partition: u16,
        cursor: Result<Option<Stored<Cursor>>, ReadError>,
    ) -> Result<(), ReadError> {
        let now = self.streams.clock().now();
        let (stored, revision, heard) = match cursor {
            Ok(Some(stored)) if stored.value.accounted_to <= now + CURSOR_AHEAD_MAX => {
                self.note_zone_data(&stored.value);
                (stored.value.accounted_to, stored.revision, stored.value.heard)
            }
            Ok(None) => (self.beginning_of(partition, now).await?, 0, 0),
            // A cursor from the future (of a clock that was wrong) or one nobody understands would leave slots behind
            // without a record. Looking back finds done what was done.
            Ok(Some(Stored { revision, .. })) | Err(ReadError::Corrupt { revision, .. }) => {
                tracing::error!(
                    partition,
                    "Partition {partition}'s cursor cannot be right; looking back a day"
                );
                (self.beginning_of(partition, now).await?.max(now - CURSOR_LOST_LOOK_BACK), revision, 0)
            }
            Err(error) => return Err(error),
        };
        // Its writer's clock may be fast. What lies ahead by ours is looked at again when it comes, and found done if it is.
        let accounted_to = stored.min(now);
        // A definition that was written just before the cursor may not have been heard by who wrote the cursor.
        for name in self.book.changed_since(partition, accounted_to, DEFINITION_LAG_MAX, heard) {
            let versions = self.streams.schedules().history(&name).await?;
            self.book.learn_history(&name, versions);
        }
        for name in self.pauses.changed_since(partition, before(accounted_to, DEFINITION_LAG_MAX)) {
            let history = self.streams.schedules().pause_history(&name).await?;
            self.pauses.learn_history(&name, history);
        }
        self.book.open(partition, accounted_to, DEFINITION_LAG_MAX, heard);
        self.cursors
            .insert(partition, StoredCursor { accounted_to: stored, revision, written_at: Duration::ZERO });
        Ok(())
    }

    /// Where a partition begins that nobody ever planned: with its oldest schedule, in its oldest version. The slots
    /// since then count, although the schedule may have been changed before any planner lived.
    async fn beginning_of(&mut self, partition: u16, now: Timestamp) -> Result<Timestamp, ReadError> {
        let mut histories: BTreeMap<Name, Vec<_>> = BTreeMap::new();
        for version in self.streams.schedules().history_of_partition(partition).await? {
            histories.entry(version.name.clone()).or_default().push(version);
        }
        for (name, versions) in histories {
            self.book.learn_history(&name, versions);
        }
        Ok(self.book.beginning_of(partition).unwrap_or(now))
    }

    /// Says once if slots were computed with other zone data than ours. What is accounted for stays so; from the cursor on
    /// ours counts, and a slot that moved across the cursor by a new rule is not looked for.
    fn note_zone_data(&mut self, cursor: &Cursor) {
        if cursor.tzdb != tzdb_version() && self.zone_data_noted.insert(cursor.tzdb.clone()) {
            tracing::warn!(
                theirs = %cursor.tzdb, ours = tzdb_version(), by = %cursor.by,
                "Slots were computed with IANA {} by `{}`, from here on with {}: those near a change of clocks may differ",
                cursor.tzdb, cursor.by, tzdb_version()
            );
        }
    }

    /// Moves a partition's cursor, if it has something to say or was silent for long.
    async fn write_cursor(&mut self, partition: u16, is_last: bool) {
        let Some(now) = self.clock.now() else { return };
        let elapsed = self.streams.clock().elapsed();
        let Some(stored) = self.cursors.get(&partition).copied() else { return };
        let accounted_to = self.book.accounted_to(partition, now);
        let is_old = elapsed.saturating_sub(stored.written_at) >= limits::CURSOR_WRITE;
        let had_work = self.worked.remove(&partition);
        // Never backwards, whatever the wall clock does.
        if accounted_to <= stored.accounted_to || !(is_old || is_last || had_work) {
            return;
        }
        let cursor = Cursor {
            accounted_to,
            by: self.status.id().clone(),
            tzdb: tzdb_version().to_owned(),
            heard: self.book.heard(),
        };
        match self.streams.partitions().write_cursor(partition, &cursor, stored.revision).await {
            Ok(revision) => {
                self.cursors.insert(partition, StoredCursor { accounted_to, revision, written_at: elapsed });
            }
            Err(WriteError::Conflict { .. }) => self.adopt_cursor(partition).await,
            Err(error) => {
                tracing::warn!(partition, %error, "The cursor of partition {partition} stays where it is: {error}");
            }
        }
    }

    /// Somebody else wrote our cursor: a predecessor that was still at it, or a successor. Theirs is taken over, and
    /// whose partition it is the lease decides; the ledger keeps us from doing anything twice meanwhile.
    async fn adopt_cursor(&mut self, partition: u16) {
        if let Ok(Some(found)) = self.streams.partitions().cursor(partition).await {
            tracing::info!(partition, by = %found.value.by, "Partition {partition}'s cursor was moved by `{}`", found.value.by);
            // One from the future is written over: it would stand there until that comes.
            let limit = self.streams.clock().now() + CURSOR_AHEAD_MAX;
            let is_right = found.value.accounted_to <= limit;
            let accounted_to = if is_right { found.value.accounted_to } else { Timestamp::MIN_UTC };
            let stored = StoredCursor { accounted_to, revision: found.revision, written_at: Duration::ZERO };
            self.cursors.insert(partition, stored);
        } else {
            self.book.close(partition);
            self.catch_ups.close(partition);
            self.cursors.remove(&partition);
        }
    }
}

/// Returns when it was told to stop this long ago.
async fn stopped_for(stop: &CancellationToken, clock: &SharedClock, wait: Duration) {
    stop.cancelled().await;
    clock.sleep(wait).await;
}

#[derive(Clone, Copy)]
enum Learned {
    One,
    Schedules,
    Catalog,
}

/// Whether everything that was there at the start has been read.
#[derive(Default)]
struct Loaded {
    schedules: bool,
    catalog: bool,
}

impl Loaded {
    fn note(&mut self, learned: Learned) {
        match learned {
            Learned::One => {}
            Learned::Schedules => self.schedules = true,
            Learned::Catalog => self.catalog = true,
        }
    }

    fn is_whole(&self) -> bool {
        self.schedules && self.catalog
    }
}
