//! One planner: the lease table and planning, as the keeper of leases and the planning loop drive them, and its clocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    clock_check::{ClockCheck, Reading, Sample},
    limits::{CLOCK_CHECK, PARTITIONS},
    names::{MemberId, Name},
    pause::PauseEpoch,
};

use streams::schedules::Version;

use super::Ms;
use crate::{
    definitions::Change,
    machine::{AskId, Effect, Event, Now, Planning},
    table::{Table, Write},
};

/// How often the keeper looks: the real one more often, but each look costs, and it must do with fewer. Less often than a
/// renewal it would take itself for absent.
const LOOK: Ms = 200;
const LOOK_MAX: Ms = 390;
/// What the keeper hears together it looks at together.
const HEARS_TOGETHER: Ms = 15;
/// What a stopping planner waits for what is on its way, and again for its last words.
const LAST_WORDS_WAIT: Ms = 100;

/// What a planner does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Lives,
    /// It was told to stop, and waits until then for what is on its way; whether its last words are spoken.
    Stops(Ms, bool),
    Dead,
}

/// A watch as its planner sees it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Each has a number, so that nothing of an earlier one is heard.
    pub(super) number: u32,
    pub(super) stands: bool,
    /// Nothing arrives before this: a watch keeps its order.
    pub(super) arrives_at: Ms,
}

/// A planner.
pub(super) struct Process {
    pub(super) life: Life,
    /// It stands still until then.
    pub(super) stands_until: Ms,
    /// Nothing passes between it and the server until then.
    pub(super) cut_until: Ms,
    /// By how much its wall clock is ahead of the server's.
    pub(super) ahead_ms: i64,
    begun: Timestamp,
    check: ClockCheck,
    compared_at: Option<Duration>,
    pub(super) table: Table,
    planning: Planning,
    /// What planning was last told to hold.
    told: (BTreeSet<u16>, Duration),
    pub(super) told_mask: u64,
    pub(super) looks_at: Ms,
    pub(super) wakes_at: Ms,
    pub(super) leases_watch: Watch,
    pub(super) definitions_watch: Watch,
    /// Asks without an answer.
    pub(super) waits_for: BTreeSet<AskId>,
    /// Writes of the table without an answer, and when they were asked.
    pub(super) writes: BTreeMap<u64, (Write, Reading)>,
    /// The revisions of definitions it was told of.
    pub(super) knows: BTreeSet<u64>,
    newest: BTreeMap<Name, u64>,
    pub(super) pauses: BTreeMap<Name, Vec<PauseEpoch>>,
    /// When the leader looked up a pause for an ask that was not answered yet, and for those that were.
    pub(super) pause_reads: BTreeMap<AskId, (Name, Timestamp)>,
    pub(super) pause_read_at: BTreeMap<Name, Timestamp>,
    /// The latest wall time at which it trusted its lease of each partition.
    pub(super) trusted_wall: [Timestamp; PARTITIONS as usize],
}

impl Process {
    pub(super) fn new(id: MemberId, begun: Timestamp, ahead_ms: i64, now: Ms) -> Self {
        Self {
            table: Table::new(id.clone()),
            planning: Planning::new(id),
            life: Life::Lives,
            stands_until: 0,
            cut_until: 0,
            ahead_ms,
            begun,
            check: ClockCheck::default(),
            compared_at: None,
            told: (BTreeSet::new(), Duration::ZERO),
            told_mask: 0,
            looks_at: now,
            wakes_at: now,
            leases_watch: Watch::default(),
            definitions_watch: Watch::default(),
            waits_for: BTreeSet::new(),
            writes: BTreeMap::new(),
            knows: BTreeSet::new(),
            newest: BTreeMap::new(),
            pauses: BTreeMap::new(),
            pause_reads: BTreeMap::new(),
            pause_read_at: BTreeMap::new(),
            trusted_wall: [Timestamp::MIN_UTC; PARTITIONS as usize],
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.life == Life::Dead
    }

    /// Elapsed time, standing still included.
    pub(super) fn elapsed(now: Ms) -> Duration {
        Duration::from_secs(1_000) + Duration::from_millis(now)
    }

    pub(super) fn wall(&self, now: Ms) -> Timestamp {
        self.begun + TimeDelta::milliseconds(now.cast_signed() + self.ahead_ms)
    }

    pub(super) fn reading(&self, now: Ms) -> Reading {
        let elapsed = Self::elapsed(now);
        Reading { before: elapsed, wall: self.wall(now), after: elapsed }
    }

    /// Whether it trusts itself with what it holds.
    pub(super) fn trusts(&self, now: Ms) -> bool {
        !self.is_dead() && Self::elapsed(now) < self.told.1
    }

    /// The time as planning gets it; the clock is checked on the way, as the real guard does.
    fn now(&mut self, now: Ms) -> Now {
        let reading = self.reading(now);
        self.check = self.check.after_reading(reading);
        let is_believed = self.check.suspicion().is_none();
        Now { wall: reading.wall, is_believed, elapsed: reading.before }
    }

    /// One step of planning.
    pub(super) fn step(&mut self, event: Event, now: Ms) -> Vec<Effect> {
        let at = self.now(now);
        if self.trusts(now) {
            for partition in &self.told.0 {
                let known = &mut self.trusted_wall[usize::from(*partition)];
                *known = (*known).max(at.wall);
            }
        }
        let effects = self.planning.step(event, at);
        let rests = self.planning.rests_for(at).as_millis();
        self.wakes_at = now + Ms::try_from(rests).unwrap_or(Ms::MAX).max(1);
        effects
    }

    /// What planning is to be told of what the table holds, if that is news.
    pub(super) fn holds(&mut self) -> Option<Event> {
        let holds = (self.table.held().clone(), self.table.trusted_until());
        if holds == self.told {
            return None;
        }
        self.told = holds.clone();
        self.told_mask = self.told.0.iter().fold(0, |mask, partition| mask | 1 << partition);
        Some(Event::Holds(holds.0, holds.1))
    }

    /// One look of the keeper: what is to be written.
    pub(super) fn look(&mut self, now: Ms) -> Vec<Write> {
        // Not like clockwork: they would all look at once.
        self.looks_at = now + LOOK + now * 7_919 % (LOOK_MAX - LOOK);
        let at = self.now(now);
        let is_off = matches!(self.check.suspicion(), Some(shared::clock_check::Suspicion::Off(_)));
        self.table.writes(at.elapsed, at.wall, is_off)
    }

    /// The keeper heard something that may be worth a look.
    pub(super) fn looks_soon(&mut self, now: Ms) {
        self.looks_at = self.looks_at.min(now + HEARS_TOGETHER);
    }

    /// Whether the time of the server's answer is to be compared with ours.
    pub(super) fn compares(&mut self, now: Ms) -> bool {
        let elapsed = Self::elapsed(now);
        let is_due = self.compared_at.is_none_or(|at| elapsed.saturating_sub(at) >= CLOCK_CHECK);
        if is_due || self.check.suspicion().is_some() {
            self.compared_at = Some(elapsed);
            return true;
        }
        false
    }

    pub(super) fn compared(&mut self, sample: Sample) {
        self.check = self.check.after_sample(sample);
    }

    /// Takes note of versions that were read: of those that a watch has not told yet planning makes nothing.
    pub(super) fn note_history(&mut self, versions: &[Version]) {
        for version in versions {
            if self.newest.get(&version.name).is_some_and(|newest| version.revision <= *newest) {
                self.knows.insert(version.revision);
            }
        }
    }

    /// Takes note of what planning hears, for the checks.
    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Schedule(version) => {
                self.knows.insert(version.revision);
                self.newest.insert(version.name.clone(), version.revision);
            }
            Change::Pause(pause) => {
                let words = self.pauses.entry(pause.name.clone()).or_default();
                if words.last().is_none_or(|last| last.revision < pause.epoch.revision) {
                    words.push(pause.epoch.clone());
                }
            }
            _ => {}
        }
    }

    /// Is told to stop.
    pub(super) fn stops(&mut self, now: Ms) -> Vec<Effect> {
        self.life = Life::Stops(now + LAST_WORDS_WAIT, false);
        self.step(Event::Stops, now)
    }

    /// Goes on stopping. None: it has stopped.
    pub(super) fn goes_on_stopping(&mut self, now: Ms) -> Option<Vec<Effect>> {
        let Life::Stops(until, said) = self.life else { return Some(Vec::new()) };
        if now < until && !self.planning.is_idle() {
            self.wakes_at = now + 10;
            return Some(Vec::new());
        }
        if said {
            return None;
        }
        self.life = Life::Stops(now + LAST_WORDS_WAIT, true);
        let effects = self.step(Event::LastWords, now);
        self.wakes_at = now + 10;
        Some(effects)
    }
}
