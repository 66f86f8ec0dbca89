//! One server, planners, workers and people, in virtual time: whatever happens next, happens next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::TimeDelta;
use shared::{Timestamp, clock_check::Sample, names::Name};
use streams::{
    leases::{Seat, Seen},
    schedules::Version,
};

use super::{
    Ms,
    checks::{Checks, Violation},
    people::Happening,
    process::{Life, Process},
    weather::Weather,
    workers::Work,
};
use crate::{
    definitions::Change,
    machine::{
        AskId, Effect, Event,
        ask::{Answer, Ask},
    },
    model::{Store, random::Random},
    table,
};

/// More events than any seed has.
const STEPS_MAX: u64 = 300_000;
/// The last events that are told when something is broken.
const TOLD_MAX: usize = 80;

/// What is on its way.
#[derive(Debug)]
pub(super) enum Coming {
    /// A planner's ask, at the server; whether its answer will be lost.
    Asked {
        from: usize,
        id: AskId,
        ask: Box<Ask>,
        is_lost: bool,
    },
    /// The answer, at the planner.
    Answered {
        to: usize,
        id: AskId,
        answer: Box<Answer>,
    },
    /// A write of the table, at the server.
    Written {
        from: usize,
        number: u64,
        is_lost: bool,
    },
    /// Its answer, at the planner.
    WriteAnswered {
        to: usize,
        number: u64,
        answer: table::Answer,
        at_server: Ms,
    },
    /// No answer came in time: the leader is asked.
    WriteUnanswered {
        to: usize,
        number: u64,
    },
    /// A look at a seat to compare clocks, back at the planner.
    Compared {
        to: usize,
        sample: Sample,
    },
    /// What the watch of seats and leases shows.
    Shown {
        to: usize,
        watch: u32,
        seen: Seen,
    },
    LeasesWatch {
        to: usize,
        begins: bool,
    },
    /// What the watch of definitions shows.
    Heard {
        to: usize,
        watch: u32,
        change: Box<Change>,
    },
    DefinitionsWatch {
        to: usize,
    },
    /// A worker's doing, at the server.
    Works(Work),
    /// The lines are looked at: all, or that of one schedule.
    LooksAtLines(Option<Name>),
    /// What people do, and what befalls machines.
    Happens(Happening),
}

impl Coming {
    /// The planner it comes to, if it comes to one.
    fn to(&self) -> Option<usize> {
        match self {
            Coming::Answered { to, .. }
            | Coming::WriteAnswered { to, .. }
            | Coming::WriteUnanswered { to, .. }
            | Coming::Compared { to, .. }
            | Coming::Shown { to, .. }
            | Coming::LeasesWatch { to, .. }
            | Coming::Heard { to, .. }
            | Coming::DefinitionsWatch { to } => Some(*to),
            _ => None,
        }
    }
}

/// The world.
pub(super) struct World {
    pub(super) now: Ms,
    /// The server's time at the beginning.
    pub(super) begun: Timestamp,
    pub(super) random: Random,
    pub(super) store: Store,
    pub(super) planners: Vec<Process>,
    pub(super) weather: Weather,
    pub(super) checks: Checks,
    pub(super) names: Vec<Name>,
    coming: BTreeMap<(Ms, u64), Coming>,
    unread: BTreeMap<usize, VecDeque<Coming>>,
    sent: u64,
    pub(super) table_writes: u64,
    pub(super) steps: u64,
    /// The last events, if they are wanted.
    pub(super) told: Option<VecDeque<String>>,
}

impl World {
    pub(super) fn new(seed: u64, begun: Timestamp) -> Self {
        Self {
            now: 0,
            begun,
            random: Random::new(seed),
            store: Store::default(),
            planners: Vec::new(),
            weather: Weather::default(),
            checks: Checks::default(),
            names: Vec::new(),
            coming: BTreeMap::new(),
            unread: BTreeMap::new(),
            sent: 0,
            table_writes: 0,
            steps: 0,
            told: None,
        }
    }

    /// The server's clock.
    pub(super) fn time(&self) -> Timestamp {
        self.begun + TimeDelta::milliseconds(self.now.cast_signed())
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let Some(told) = &mut self.told else { return };
        if told.len() >= super::number("SIM_TOLD").map_or(TOLD_MAX, |told| told as usize) {
            told.pop_front();
        }
        told.push_back(format!("{:>7} ms  {}", self.now, what()));
    }

    pub(super) fn send(&mut self, takes: Ms, coming: Coming) {
        self.sent += 1;
        self.coming.insert((self.now + takes, self.sent), coming);
    }

    /// Lets time pass until then, or until something is broken.
    pub(super) fn pass(&mut self, until: Ms) -> Result<(), Violation> {
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(Violation::no_rest(self.steps));
            }
            match self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => {
                    let coming = entry.remove();
                    self.arrives(coming)?;
                }
                None => self.wakes()?,
            }
        }
        self.now = until;
        Ok(())
    }

    fn next_at(&self) -> Option<Ms> {
        let planners = self.planners.iter().filter(|planner| !planner.is_dead());
        let wakes = planners.map(|planner| planner.looks_at.min(planner.wakes_at).max(planner.stands_until));
        wakes.chain(self.coming.keys().next().map(|key| key.0)).min()
    }

    /// Whose timer has run out: who stood still finds all that came meanwhile.
    fn wakes(&mut self) -> Result<(), Violation> {
        for at in 0..self.planners.len() {
            let planner = &self.planners[at];
            if planner.is_dead() || planner.stands_until > self.now {
                continue;
            }
            if planner.looks_at <= self.now {
                self.looks(at)?;
            }
            if self.planners[at].wakes_at <= self.now {
                self.goes_on(at)?;
            }
            for coming in self.unread.remove(&at).unwrap_or_default() {
                self.arrives(coming)?;
            }
        }
        Ok(())
    }

    fn arrives(&mut self, coming: Coming) -> Result<(), Violation> {
        if let Some(to) = coming.to() {
            let planner = &self.planners[to];
            if planner.is_dead() {
                return Ok(());
            }
            if planner.stands_until > self.now || self.unread.contains_key(&to) {
                self.unread.entry(to).or_default().push_back(coming);
                return Ok(());
            }
        }
        match coming {
            Coming::Asked { from, id, ask, is_lost } => self.serves(from, id, &ask, is_lost),
            Coming::Answered { to, id, answer } => {
                if !self.planners[to].waits_for.remove(&id) {
                    return Ok(());
                }
                self.tell(|| format!("planner {to} hears #{id}: {answer:?}"));
                if let Some((name, at)) = self.planners[to].pause_reads.remove(&id)
                    && !matches!(&*answer, Answer::Failed(_))
                {
                    self.planners[to].pause_read_at.insert(name, at);
                }
                if let Answer::Versions(versions) = &*answer {
                    self.planners[to].note_history(versions);
                }
                self.step(to, Event::Answered(id, *answer))
            }
            Coming::Written { from, number, is_lost } => {
                self.serves_write(from, number, is_lost);
                Ok(())
            }
            Coming::WriteAnswered { to, number, answer, at_server } => {
                self.write_answered(to, number, answer, at_server);
                Ok(())
            }
            Coming::WriteUnanswered { to, number } => {
                self.write_unanswered(to, number);
                Ok(())
            }
            Coming::Compared { to, sample } => {
                self.planners[to].compared(sample);
                Ok(())
            }
            Coming::Shown { to, watch, seen } => {
                self.tell(|| format!("planner {to} is shown {seen:?}"));
                let planner = &mut self.planners[to];
                if planner.leases_watch.number == watch {
                    // Somebody else's renewal is nothing to act on.
                    if matches!(seen, Seen::Lease(..) | Seen::Seat(_, Some(Seat { planner: None, .. }), _)) {
                        planner.looks_soon(self.now);
                    }
                    planner.table.seen(seen, Process::elapsed(self.now));
                }
                Ok(())
            }
            Coming::LeasesWatch { to, begins } => {
                self.turns_leases_watch(to, begins);
                Ok(())
            }
            Coming::Heard { to, watch, change } => {
                if self.planners[to].definitions_watch.number != watch {
                    return Ok(());
                }
                self.tell(|| format!("planner {to} is told {change:?}"));
                self.planners[to].note(&change);
                self.step(to, Event::Heard(*change))
            }
            Coming::DefinitionsWatch { to } => {
                self.begins_definitions_watch(to);
                Ok(())
            }
            Coming::Works(work) => self.works(work),
            Coming::LooksAtLines(name) => self.looks_at_lines(name),
            Coming::Happens(happening) => self.happens(happening),
        }
    }

    fn goes_on(&mut self, at: usize) -> Result<(), Violation> {
        if self.planners[at].life == Life::Lives {
            return self.step(at, Event::Woke);
        }
        if let Some(effects) = self.planners[at].goes_on_stopping(self.now) {
            return self.follows(at, effects);
        }
        self.leaves(at);
        Ok(())
    }

    pub(super) fn step(&mut self, at: usize, event: Event) -> Result<(), Violation> {
        let effects = self.planners[at].step(event, self.now);
        self.follows(at, effects)
    }

    /// Does what planning wants.
    pub(super) fn follows(&mut self, at: usize, effects: Vec<Effect>) -> Result<(), Violation> {
        for effect in effects {
            let Effect::Ask(id, ask) = effect else { continue };
            self.tell(|| format!("planner {at} asks #{id}: {ask:?}"));
            Checks::asked(self, at, &ask)?;
            self.planners[at].waits_for.insert(id);
            if let Ask::Wait(wait) = ask {
                let takes = Ms::try_from(wait.as_millis()).unwrap_or(Ms::MAX);
                self.send(takes, Coming::Answered { to: at, id, answer: Box::new(Answer::Done) });
                continue;
            }
            let (takes, is_lost) = self.transit(at);
            if let Some(takes) = takes {
                self.send(takes, Coming::Asked { from: at, id, ask: Box::new(ask), is_lost });
            }
            let gives_up = self.random.between(1_500, 9_000);
            let nothing = Answer::Failed("no answer".to_owned());
            self.send(gives_up, Coming::Answered { to: at, id, answer: Box::new(nothing) });
        }
        Ok(())
    }

    fn serves(&mut self, from: usize, id: AskId, ask: &Ask, is_lost: bool) -> Result<(), Violation> {
        if self.weather.is_server_down(self.now) {
            self.tell(|| format!("the server is down for #{id} of planner {from}"));
            return Ok(());
        }
        let answer = self.performs(Some(from), ask)?;
        if let Ask::PauseRevision(name) | Ask::ReadPauses(name) = ask {
            let read = (name.clone(), self.time());
            self.planners[from].pause_reads.insert(id, read);
        }
        self.tell(|| {
            let lost = if is_lost { " (the answer will be lost)" } else { "" };
            format!("the server answers #{id} of planner {from}: {answer:?}{lost}")
        });
        if let (false, Some(takes)) = (is_lost, self.way_back(from)) {
            self.send(takes, Coming::Answered { to: from, id, answer: Box::new(answer) });
        }
        Ok(())
    }

    /// The server does it, and everything that is promised is checked.
    pub(super) fn performs(&mut self, from: Option<usize>, ask: &Ask) -> Result<Answer, Violation> {
        let time = self.time();
        let before = Checks::before(self, ask);
        let answer = self.store.perform(ask, time);
        Checks::after(self, from, ask, &answer, before)?;
        if let (Ask::Publish { .. }, Answer::Published(crate::machine::ask::Publishing::Stored)) =
            (ask, &answer)
        {
            self.hands_out(self.store.tasks.last_sequence());
        }
        Ok(answer)
    }

    /// The calendars and definitions as the oracle reads them.
    pub(super) fn versions(&self, name: &Name) -> Vec<Version> {
        self.store.definitions.history(name)
    }

    pub(super) fn living(&self) -> Vec<usize> {
        let living = self.planners.iter().enumerate().filter(|(_, planner)| planner.life == Life::Lives);
        living.map(|(number, _)| number).collect()
    }

    pub(super) fn partitions_with_schedules(&self) -> BTreeSet<u16> {
        self.names.iter().map(|name| shared::hash::partition_of(name.as_str())).collect()
    }
}
