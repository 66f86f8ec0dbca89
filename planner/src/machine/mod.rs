//! Planning as a state machine: what happened and the time in, what is to be done out. Pure: it waits for nothing and
//! writes nothing itself, so it can be driven through every order of events, and is (`simulation/`).
//!
//! One event at a time goes in ([`Planning::step`]); every effect is an [`Ask`] with a number, or a [`Note`] for people.
//! The answer comes back as an event with that number, or never. An answer that is not waited for any more changes
//! nothing.
//!
//! | file | what it decides |
//! |---|---|
//! | `event.rs` | what goes in and what comes out |
//! | `ask.rs` | what can be asked and answered: the whole of planning's contact with the outside |
//! | `partitions.rs` | where a partition begins, and how its cursor moves |
//! | `errand.rs` | the due slots of one schedule, in order |
//! | `dispatching.rs` | record, then task |
//! | `placing.rs` | the task under its schedule's lock |
//! | `contending.rs` | who is in the way |
//! | `alone.rs` | of whom it is known that nobody is, under another lock |
//! | `lining_up.rs` | joining those who wait for the lock |
//! | `turn.rs` | the first of those goes when the lock is free |
//!
//! A cursor never passes a slot that has no record, whatever is answered and in whatever order: it moves up to what the
//! book has *accounted for*, and the book is told so only at the end of an errand.

mod alone;
pub(crate) mod ask;
pub(crate) mod contending;
pub(crate) mod dispatching;
mod errand;
mod event;
pub(crate) mod lining_up;
mod partitions;
pub(crate) mod placing;
pub(crate) mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use shared::{
    Timestamp,
    hash::partition_of,
    limits::{DISPATCHES_IN_FLIGHT_MAX, ROUND_SLEEP_MAX},
    names::{MemberId, Name},
    slot::Slot,
};

pub(crate) use self::event::{AskId, Effect, Event, Note, Now};
use self::{
    alone::Alone,
    ask::{Answer, Ask},
    errand::{Accounted, Errand, Known},
    partitions::Partition,
};
use crate::{
    book::{Book, DueSlots},
    catch_up::CatchUps,
    definitions::Change,
    held_back::{HeldBack, TRY_AGAIN},
    pauses::Pauses,
    planted::planted,
};

/// Between two looks at a slot that is due and cannot be begun yet, or whose schedule is catching up.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Between two looks whether the clock is believed again.
const SUSPECT_LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long one schedule may take: an answer that is lost takes longer, and its place is needed for the others.
const SCHEDULE_PATIENCE: Duration = Duration::from_millis(2_500);

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Errand(u64),
    Partition(u16),
    /// Which schedules have live runs is asked for all of them.
    Everybody,
}

/// The state of planning.
pub(crate) struct Planning {
    me: MemberId,
    book: Book,
    pauses: Pauses,
    loaded: Loaded,
    /// While a watch of schedules tells everything anew: the newest definition heard of before. Versions in between may never
    /// be told, so until the partitions are opened anew nobody may think that we knew them.
    heard_before: Option<u64>,
    /// Schedules of which a version came while their partition was being opened: the book then drops older ones.
    heard_while_opening: BTreeSet<Name>,
    held: BTreeSet<u16>,
    trusted_until: Duration,
    /// The latest that a believed wall clock has shown.
    latest: Timestamp,
    partitions: BTreeMap<u16, Partition>,
    catch_ups: CatchUps,
    held_back: HeldBack,
    alone: Alone,
    /// Due, and not begun yet.
    ready: VecDeque<DueSlots>,
    /// Begun, by the order in which they were.
    errands: BTreeMap<u64, Errand>,
    /// Due or begun.
    busy: HashSet<Name>,
    asked: HashMap<AskId, Asker>,
    asks: AskId,
    begun: u64,
    /// When to look what is due, by the elapsed time.
    look_at: Duration,
    /// When to say again what waits.
    say_waits_at: Duration,
    /// When a cursor may want to be written.
    cursors_at: Duration,
    is_stopping: bool,
    zone_data_noted: BTreeSet<String>,
    effects: Vec<Effect>,
}

impl Planning {
    /// A planner that knows nothing and holds nothing.
    pub(crate) fn new(me: MemberId) -> Self {
        Self {
            me,
            book: Book::default(),
            pauses: Pauses::default(),
            loaded: Loaded::default(),
            heard_before: None,
            heard_while_opening: BTreeSet::new(),
            held: BTreeSet::new(),
            trusted_until: Duration::ZERO,
            latest: Timestamp::MIN_UTC,
            partitions: BTreeMap::new(),
            catch_ups: CatchUps::default(),
            held_back: HeldBack::default(),
            alone: Alone::default(),
            ready: VecDeque::new(),
            errands: BTreeMap::new(),
            busy: HashSet::new(),
            asked: HashMap::new(),
            asks: 0,
            begun: 0,
            look_at: Duration::ZERO,
            say_waits_at: Duration::ZERO,
            cursors_at: Duration::ZERO,
            is_stopping: false,
            zone_data_noted: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// Takes in what happened, and says what is to be done about it.
    pub(crate) fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        if now.is_believed {
            self.latest = self.latest.max(now.wall);
        }
        match event {
            Event::Woke => {}
            // A million come at the start: what is due is looked at once they have all been heard.
            Event::Heard(change) => {
                self.hear(change, now);
                return std::mem::take(&mut self.effects);
            }
            Event::Holds(held, trusted_until) => {
                (self.held, self.trusted_until) = (held, trusted_until);
                self.follow_holdings(now);
            }
            Event::Answered(id, answer) => self.answered(id, answer, now),
            Event::Stops => self.is_stopping = true,
            Event::LastWords => self.last_words(now),
        }
        if self.loaded.is_whole() && !self.is_stopping {
            self.go_on(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// How long nothing need be done if nothing happens; never long, because the clock may be set meanwhile.
    pub(crate) fn rests_for(&self, now: Now) -> Duration {
        if !self.loaded.is_whole() {
            return ROUND_SLEEP_MAX;
        }
        let patience = self.errands.values().next().map(|errand| errand.begun_at + SCHEDULE_PATIENCE);
        let next = self.look_at.min(self.cursors_at).min(patience.unwrap_or(Duration::MAX));
        next.saturating_sub(now.elapsed).min(ROUND_SLEEP_MAX)
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.errands.is_empty() && self.asked.is_empty()
    }

    /// How many schedules are known, and which of them cannot be understood; none before all have been heard of.
    pub(crate) fn census(&self) -> Option<(usize, Vec<String>)> {
        self.loaded.is_whole().then(|| self.book.census())
    }

    fn hear(&mut self, change: Change, now: Now) {
        match change {
            Change::Schedule(version) => {
                let (name, since) = (version.name.clone(), version.since);
                if self.book.learn(*version) {
                    self.cut(&name, since);
                    self.note_while_opening(&name);
                }
            }
            Change::Pause(pause) => self.pauses.learn(*pause),
            Change::SchedulesBegin => self.watch_begins(),
            Change::SchedulesCurrent => self.watch_is_current(),
            Change::CatalogCurrent => self.loaded.catalog = true,
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
        // What was heard may be due at once, or earlier than what we sleep for.
        self.look_at = self.look_at.min(now.elapsed);
    }

    /// What is due of a schedule by its older definition is not begun any more after a newer one's beginning.
    fn cut(&mut self, name: &Name, since: Timestamp) {
        if !self.busy.contains(name) {
            return;
        }
        if let Some(errand) = self.errands.values_mut().find(|errand| errand.name == *name) {
            errand.cut(since);
        } else {
            self.ready.retain(|due| due.name != *name);
            self.busy.remove(name);
        }
    }

    fn go_on(&mut self, now: Now) {
        self.give_up_slow(now);
        if now.elapsed >= self.look_at {
            self.look(now);
        }
        self.begin(now);
        if now.elapsed >= self.cursors_at {
            self.write_cursors(now, false);
        }
    }

    /// Looks what is due in the partitions whose lease is trusted.
    fn look(&mut self, now: Now) {
        self.look_at = now.elapsed + ROUND_SLEEP_MAX;
        self.follow_holdings(now);
        // A clock that is not believed decides nothing.
        if !now.is_believed && !planted!(ClockBelievedAlways) {
            self.look_at = now.elapsed + SUSPECT_LOOK_AGAIN;
            return;
        }
        if self.is_trusted(now) {
            for partition in self.open_partitions() {
                let due = self.book.due(partition, now.wall, |name| {
                    self.busy.contains(name) || self.held_back.holds(name, now.elapsed)
                });
                self.busy.extend(due.iter().map(|due| due.name.clone()));
                self.ready.extend(due);
            }
        }
        let is_unknown = |due: &DueSlots| {
            let first = due.slots.first().filter(|first| first.schedule.overlap.is_exclusive());
            first.is_some_and(|first| !self.alone.is_known(&due.name, first))
        };
        let unknown = self.ready.iter().filter(|due| is_unknown(due)).count();
        if self.alone.asks_for_all(unknown, now.elapsed) {
            self.alone.asked(now.elapsed, now.wall);
            self.ask(Asker::Everybody, Ask::FindLive);
        }
        if now.elapsed >= self.say_waits_at {
            self.say_waits_at = now.elapsed + ROUND_SLEEP_MAX;
            self.say_what_waits();
        }
        let next =
            self.book.next_slot(|name| self.busy.contains(name) || self.held_back.holds(name, now.elapsed));
        self.look_by(next, now);
        if let Some(until) = self.held_back.soonest(now.elapsed) {
            // Many fail one after the other: no look for each of them.
            self.look_at = self.look_at.min(until.max(now.elapsed + LOOK_AGAIN));
        }
    }

    fn say_what_waits(&mut self) {
        for (schedule, waiting) in self.held_back.all() {
            self.effects.push(Effect::Note(Note::Waits {
                schedule: schedule.clone(),
                slots: waiting.slots,
                oldest: waiting.oldest,
                why: waiting.why.clone(),
            }));
        }
        self.effects.push(Effect::Note(Note::AllWaitsSaid));
    }

    /// Sees to it that a slot is looked at in time. One that is due already is in a partition whose lease is in doubt,
    /// or waits for its turn: no hot loop for it.
    fn look_by(&mut self, slot: Option<Slot>, now: Now) {
        let Some(slot) = slot else { return };
        let wait = (slot.instant() - now.wall).to_std().ok().filter(|wait| !wait.is_zero());
        self.look_at = self.look_at.min(now.elapsed + wait.unwrap_or(LOOK_AGAIN));
    }

    fn is_trusted(&self, now: Now) -> bool {
        let more = if planted!(LeaseTrustedTooLong) { Duration::from_secs(30) } else { Duration::ZERO };
        now.elapsed < self.trusted_until + more
    }

    /// Begins what is due, as much of it as may be on its way at once.
    fn begin(&mut self, now: Now) {
        if let Some(until) = self.alone.awaited_until()
            && now.elapsed < until
        {
            self.look_at = self.look_at.min(until);
            return;
        }
        while self.errands.len() < DISPATCHES_IN_FLIGHT_MAX {
            let Some(due) = self.ready.pop_front() else { return };
            let is_ours = self.is_trusted(now) && self.is_open(partition_of(due.name.as_str()));
            if !is_ours {
                self.busy.remove(&due.name);
                self.look_at = self.look_at.min(now.elapsed + LOOK_AGAIN);
                continue;
            }
            let allowed = self.catch_ups.allowance(&due.name, now.wall, now.elapsed);
            self.begun += 1;
            if planted!(CursorBeforeDispatch) {
                self.book.account(&due.name, due.upto);
            }
            self.errands.insert(self.begun, Errand::new(due, allowed, now.elapsed));
            self.go_on_errand(self.begun, None, now);
        }
    }

    fn go_on_errand(&mut self, number: u64, answer: Option<Answer>, now: Now) {
        let Some(mut errand) = self.errands.remove(&number) else { return };
        let known = Known { me: &self.me, book: &self.book, pauses: &self.pauses, alone: &self.alone };
        let mut notes = Vec::new();
        let ask = errand.step(answer, now, &known, &mut notes);
        self.effects.extend(notes.into_iter().map(Effect::Note));
        match ask {
            Some(ask) => {
                self.errands.insert(number, errand);
                self.ask(Asker::Errand(number), ask);
            }
            None => self.end_errand(errand, now),
        }
    }

    /// Gives up what takes too long, so that the others get its place.
    fn give_up_slow(&mut self, now: Now) {
        while let Some(slow) = self.errands.first_entry()
            && now.elapsed >= slow.get().begun_at + SCHEDULE_PATIENCE
        {
            let (number, mut errand) = slow.remove_entry();
            self.forget_asks(|asker| matches!(asker, Asker::Errand(waiting) if *waiting == number));
            errand.give_up(format!("it takes longer than {SCHEDULE_PATIENCE:?}; does the server answer?"));
            self.end_errand(errand, now);
        }
    }

    fn end_errand(&mut self, errand: Errand, now: Now) {
        let (name, Accounted { upto, failed, allowed, caught_up, some_wait, alone }) = errand.end();
        self.busy.remove(&name);
        if let Some(revision) = alone {
            self.alone.note(&name, revision);
        }
        let next = self.book.account(&name, upto);
        self.catch_ups.note(&name, allowed, caught_up, some_wait, now.elapsed);
        if failed.is_some() {
            self.look_at = self.look_at.min(now.elapsed + TRY_AGAIN);
        } else {
            self.look_by(next, now);
        }
        self.held_back.note(&name, failed, now.elapsed);
        self.note_work(partition_of(name.as_str()), now);
    }

    fn ask(&mut self, asker: Asker, ask: Ask) {
        self.asks += 1;
        self.asked.insert(self.asks, asker);
        self.effects.push(Effect::Ask(self.asks, ask));
    }

    /// Nobody waits for the answers to these any more.
    fn forget_asks(&mut self, is_of: impl Fn(&Asker) -> bool) {
        let gone: Vec<AskId> =
            self.asked.iter().filter(|(_, asker)| is_of(asker)).map(|(id, _)| *id).collect();
        for id in gone {
            self.asked.remove(&id);
            self.effects.push(Effect::Forget(id));
        }
    }

    fn answered(&mut self, id: AskId, answer: Answer, now: Now) {
        match self.asked.remove(&id) {
            Some(Asker::Errand(number)) => self.go_on_errand(number, Some(answer), now),
            Some(Asker::Partition(partition)) => self.partition_answered(partition, answer, now),
            Some(Asker::Everybody) => self.alone.answered(match answer {
                Answer::Schedules(live) => live,
                _ => None,
            }),
            // It was given up meanwhile.
            None if planted!(LateAnswerTakenForAnother) => {
                let waiting = self.asked.iter().filter(|(_, asker)| matches!(asker, Asker::Errand(_)));
                if let Some(oldest) = waiting.map(|(id, _)| *id).min() {
                    self.answered(oldest, answer, now);
                }
            }
            None => {}
        }
    }
}

/// Whether everything that was there at the start has been heard of. Not one slot is looked at before: a cursor that
/// moved on would leave the others' slots behind.
#[derive(Default)]
struct Loaded {
    schedules: bool,
    catalog: bool,
}

impl Loaded {
    fn is_whole(&self) -> bool {
        self.schedules && self.catalog
    }
}
