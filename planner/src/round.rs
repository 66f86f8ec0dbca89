//! The planning loop: one round after another accounts for what is due.
//!
//! The timer is a hint, the clock decides: woken early, nothing is due and the loop waits again; woken late, the window
//! is wider. The wall clock stepping back dispatches nothing twice, because the cursor does not step back with it.

mod partitions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use shared::{
    Timestamp, clock::SharedClock, hash::partition_of, limits, names::Name, pause::pause_at,
    run_record::Reason,
};
use streams::{ReadError, Streams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    backlog::Backlog,
    book::{Book, DueSlots},
    catch_up::{Allowance, CatchUps},
    clock_guard::ClockGuard,
    definitions::Change,
    dispatch::{DispatchError, Dispatcher, Outcome},
    due::Due,
    held_back::HeldBack,
    holdings::Holdings,
    missed::{Days, Decision, decide, was_missed},
    pauses::Pauses,
    status::Status,
};

/// What a stopping planner waits for its round to end, and again for its last cursors to be taken: others wait for its
/// partitions, and find done what it did.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_millis(100);

/// Between two looks at a slot that is due in a partition whose lease is in doubt.
const IN_DOUBT_WAIT: Duration = Duration::from_millis(25);

/// How long a round waits for one schedule: an answer that is lost takes longer, and the others must not wait for that.
const SCHEDULE_PATIENCE: Duration = Duration::from_millis(2_500);

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
    /// What went wrong, if something did; a later round tries again.
    failed: Option<String>,
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
    held_back: HeldBack,
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
            held_back: HeldBack::default(),
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
            tokio::select! {
                () = self.round() => {}
                // Without a server a round takes long. What it leaves undone a successor finds and does.
                () = stopped_for(&stop, &clock, LAST_WORDS_WAIT_MAX) => break,
            }
            let wait = self.wait_until_next();
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
    fn wait_until_next(&self) -> Duration {
        let (now, elapsed) = (self.streams.clock().now(), self.streams.clock().elapsed());
        let next = self.book.next_slot(|name| self.held_back.holds(name)).map(shared::slot::Slot::instant);
        let until_next =
            next.map_or(limits::ROUND_SLEEP_MAX, |next| (next - now).to_std().unwrap_or(Duration::ZERO));
        // What is due already and was not done is in a partition whose lease is in doubt, or waits for its turn: no hot
        // loop for it.
        let wait = if until_next.is_zero() { IN_DOUBT_WAIT } else { until_next };
        wait.min(self.held_back.soonest(elapsed).unwrap_or(wait)).min(limits::ROUND_SLEEP_MAX)
    }

    /// Accounts for what is due in all partitions that are held.
    async fn round(&mut self) {
        self.held_back.release(self.streams.clock().elapsed());
        // A clock that is not believed decides nothing: neither what is due nor how far a cursor may move.
        if self.clock.now().is_none() {
            return;
        }
        self.open_and_close().await;
        let Some(now) = self.clock.now() else { return };
        let held = self.holdings.trusted(self.streams.clock().elapsed());
        let due = held.iter().flat_map(|partition| self.book.due(*partition, now));
        let (held_back, due): (Vec<DueSlots>, Vec<DueSlots>) =
            due.partition(|due| self.held_back.holds(&due.name));
        for waiting in &held_back {
            if let (Some(first), Some(why)) = (waiting.slots.first(), self.held_back.why(&waiting.name)) {
                self.backlog.note(&waiting.name, waiting.slots.len(), first.slot.instant(), why);
            }
        }
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
                self.held_back.note(&name, failed, self.streams.clock().elapsed());
            }
        }
        self.backlog.end_of_round(self.streams.clock().elapsed());
        for partition in self.book.open_partitions() {
            self.write_cursor(partition, false).await;
        }
    }

    /// Accounts for the slots of one schedule, for as long as a round waits for it.
    async fn account_for(&self, due: DueSlots, now: Timestamp, allowed: Allowance) -> Accounted {
        let mut done = Accounted {
            name: due.name.clone(),
            upto: Timestamp::MIN_UTC,
            failed: None,
            allowed,
            caught_up: 0,
            some_wait: false,
        };
        let in_time = tokio::select! {
            () = self.account_in_order(&mut done, &due, now) => true,
            () = self.streams.clock().sleep(SCHEDULE_PATIENCE) => false,
        };
        // Cut off between two effects it is as after a crash: the next try repeats what it finds undone.
        if !in_time && done.upto > Timestamp::MIN_UTC {
            // There are many of them, and it gets on: the next round goes on.
            done.some_wait = true;
        } else if !in_time {
            let why = format!("it takes longer than {SCHEDULE_PATIENCE:?}; does the server answer?");
            let slot = due.slots.iter().find(|slot| slot.slot.instant() > done.upto);
            self.backlog.note(&due.name, 1, slot.map_or(now, |slot| slot.slot.instant()), &why);
            done.failed = Some(why);
        }
        done
    }

    /// Accounts for the slots of one schedule, in order, up to the first that fails or that waits for its turn.
    async fn account_in_order(&self, done: &mut Accounted, due: &DueSlots, now: Timestamp) {
        let allowed = done.allowed;
        for (index, slot) in due.slots.iter().enumerate() {
            let decided = self.decide_on(&done.name, slot, allowed.seen_at).await;
            // A missed slot that runs after all does so in its turn; its schedule's later slots wait behind it.
            let is_caught_up = matches!(decided, Ok(Decision::Run)) && was_missed(slot.slot, allowed.seen_at);
            if is_caught_up && done.caught_up >= allowed.runs {
                done.some_wait = true;
                return;
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
                    done.failed = Some(error.to_string());
                    return;
                }
            }
        }
        // What did not fit into this round comes in the next one: then the catching up goes on.
        done.some_wait = due.upto < now;
        done.upto = due.upto;
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
        if decision == Decision::Skip(Reason::Paused) {
            // Its newest word only, which is one read; all of them, which is a consumer, if that is news to us.
            let newest = self.streams.schedules().pause(name).await?.revision;
            if pauses.last().is_some_and(|known| known.revision == newest) {
                return Ok(decision);
            }
            let said = self.streams.schedules().pause_history(name).await?;
            return Ok(decide(schedule, due.slot, now, days, &said));
        }
        let is_unheard = decision == Decision::NoSlot && matches!(days, Days::Undeclared);
        let is_closed = decision == Decision::Skip(Reason::SkippedCalendar);
        if let (true, Some(calendar)) = (is_unheard || is_closed, &schedule.calendar) {
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
