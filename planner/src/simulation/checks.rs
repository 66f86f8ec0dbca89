//! What must hold, checked at every event that could break it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    hash::partition_of,
    limits::MISSED_AFTER,
    names::Name,
    pause::pause_at,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    slot::Slot,
};
use streams::{
    leases::Cursor,
    ledger::{Creation, Update},
};

use super::{
    Ms,
    expected::{is_slot, may_be_paused, next_of, schedule_of, slots_of},
    world::World,
};
use crate::{
    machine::ask::{Answer, Ask, Publishing},
    model::Message,
};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// Every slot of every definition in force has its record in the end.
    EverySlotHasItsRecord,
    /// No record without a slot of a definition in force.
    NoRecordWithoutASlot,
    /// No record before its slot, but for the error a clock may have.
    NothingEarly,
    /// After all is well again every run comes to its end, and every cursor moves, within a bound.
    AllEndsInTime,
    /// No task is in the queue that has no record.
    RecordBeforeTask,
    /// The versions of a record are a chain of states that may follow each other, each over the one before.
    LegalLife,
    /// Never two live runs of one schedule under its lock.
    NeverTwoAtOnce,
    /// A cursor never goes back.
    CursorOnlyForward,
    /// A cursor never passes a slot that is not accounted for.
    CursorBehindRecords,
    /// No two planners trust themselves with one partition.
    OneTrustsItself,
    /// No slot is begun that came due after the lease was not trusted any more.
    NothingUnderALostLease,
    /// Each slot by the definition in force at its instant, as far as its planner could know.
    DefinitionOfItsInstant,
    /// A skip has the reason it says, and a paused slot is one.
    SkipsAreJustified,
}

/// Something that does not hold.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    detail: String,
}

impl Violation {
    fn of(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }

    pub(super) fn no_rest(events: u64) -> Self {
        Self::of(Invariant::AllEndsInTime, format!("it does not come to rest: {events} events"))
    }

    pub(super) fn two_trust_themselves(one: usize, other: usize, partitions: u64) -> Self {
        let detail = format!("planners {one} and {other}, partitions {partitions:#x}");
        Self::of(Invariant::OneTrustsItself, detail)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}

/// How much earlier than its slot by the server's clock a record may be: what a believed clock may be ahead, and what it
/// may be set by unnoticed between two comparisons.
const EARLY_MAX: TimeDelta = TimeDelta::milliseconds(5_000 + 1_500);
/// How long a decision may be on its way until it is a record: an errand's patience, a late message, a planner that stood
/// still.
const DECISION_AGE_MAX: TimeDelta = TimeDelta::seconds(30);
/// After all is well again a slot has its record within this, and its run its end.
const RECORD_WITHIN: TimeDelta = TimeDelta::seconds(4);
const END_WITHIN: TimeDelta = TimeDelta::seconds(12);
/// And a cursor is not further behind.
const CURSOR_WITHIN: TimeDelta = TimeDelta::seconds(13);

/// What is remembered of a run.
#[derive(Debug, Clone, Copy)]
struct Life {
    status: RunState,
    revision: u64,
    is_buffered: bool,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    lives: BTreeMap<RunId, Life>,
    cursors: BTreeMap<u16, Timestamp>,
    /// The first slot of each version that no cursor has passed.
    ahead: HashMap<u64, Option<Slot>>,
    /// Runs under a lock that were claimed and have not ended.
    live: BTreeMap<Name, BTreeSet<RunId>>,
    /// When a task of a schedule was last in the queue.
    busy_at: HashMap<Name, Ms>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Checks {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A planner asks for something.
    pub(super) fn asked(world: &mut World, from: usize, ask: &Ask) -> Result<(), Violation> {
        let Ask::CreateRecord(record) = ask else { return Ok(()) };
        let Some(slot) = record.slot else { return Ok(()) };
        let (planner, name) = (&world.planners[from], &record.id.name);
        let trusted = planner.trusted_wall[usize::from(partition_of(name.as_str()))];
        if slot > trusted {
            let detail =
                format!("planner {from} begins {}, and trusted its lease until {trusted}", record.id);
            return Err(Violation::of(Invariant::NothingUnderALostLease, detail));
        }
        let versions = world.versions(name);
        let used = record.definition_revision.unwrap_or_default();
        let later = versions.iter().filter(|version| version.revision > used && version.since < slot);
        if let Some(known) = later.rev().find(|version| planner.knows.contains(&version.revision)) {
            let detail =
                format!("{} by revision {used}, though {} is in force and known", record.id, known.revision);
            return Err(Violation::of(Invariant::DefinitionOfItsInstant, detail));
        }
        if record.reason == Some(Reason::Paused) {
            let said = world.store.definitions.pauses(name);
            let read_at = planner.pause_read_at.get(name).copied().unwrap_or(world.time());
            if !may_be_paused(&said, slot, read_at) {
                let detail = format!("{} is skipped for a pause that was over at {read_at}", record.id);
                return Err(Violation::of(Invariant::SkipsAreJustified, detail));
            }
        }
        if record.status == RunState::Pending {
            let said = world.store.definitions.pauses(name);
            let heard = planner.pauses.get(name).map_or(&[][..], Vec::as_slice);
            if pause_at(heard, slot).is_some() && pause_at(&said, slot).is_some() {
                let detail = format!("{} runs, and planner {from} knows that it is paused", record.id);
                return Err(Violation::of(Invariant::SkipsAreJustified, detail));
            }
        }
        Ok(())
    }

    /// What must be known of how it was before an ask is served.
    pub(super) fn before(world: &World, ask: &Ask) -> Option<Message> {
        match ask {
            Ask::RemoveTask(sequence) => world.store.tasks.message(*sequence).cloned(),
            _ => None,
        }
    }

    /// An ask was served.
    pub(super) fn after(
        world: &mut World,
        from: Option<usize>,
        ask: &Ask,
        answer: &Answer,
        before: Option<Message>,
    ) -> Result<(), Violation> {
        match (ask, answer) {
            (Ask::CreateRecord(record), Answer::Created(Creation::Created(revision))) => {
                Self::created(world, record)?;
                world.checks.moved(record, 0, *revision)
            }
            (Ask::UpdateRecord { record, over }, Answer::Updated(Update::Stored(revision))) => {
                Self::ended(world, record)?;
                Self::claimed(world, record)?;
                world.checks.moved(record, *over, *revision)
            }
            (Ask::Publish { due, .. }, Answer::Published(Publishing::Stored)) => {
                world.checks.count("tasks");
                world.checks.busy_at.insert(due.run.id.name.clone(), world.now);
                if world.checks.lives.contains_key(&due.run.id) {
                    return Ok(());
                }
                Err(Violation::of(Invariant::RecordBeforeTask, format!("{} has no record", due.run.id)))
            }
            (Ask::WriteCursor { partition, cursor, .. }, Answer::Updated(Update::Stored(_))) => {
                Self::cursor(world, from, *partition, cursor)
            }
            (Ask::RemoveTask(_), Answer::Done) => {
                if let Some(message) = before {
                    world.checks.busy_at.insert(message.run.name, world.now);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn created(world: &mut World, record: &RunRecord) -> Result<(), Violation> {
        let Some(slot) = record.slot else { return Ok(()) };
        world.checks.count(match record.reason {
            None => "runs",
            Some(Reason::Paused) => "paused",
            Some(Reason::SkippedMissed) => "missed",
            Some(Reason::SkippedCalendar) => "closed days",
            Some(_) => "refused",
        });
        let (time, id) = (world.time(), &record.id);
        if time < slot - EARLY_MAX {
            return Err(Violation::of(Invariant::NothingEarly, format!("{id} at {time}")));
        }
        let versions = world.versions(&id.name);
        let used = versions.iter().find(|version| Some(version.revision) == record.definition_revision);
        let schedule = used.filter(|version| version.since < slot).and_then(schedule_of);
        let calendars = &world.store.definitions.calendars;
        let Some(schedule) = schedule.filter(|schedule| is_slot(schedule, calendars, Slot::at(slot))) else {
            let by = record.definition_revision;
            return Err(Violation::of(Invariant::NoRecordWithoutASlot, format!("{id} by revision {by:?}")));
        };
        let is_justified = match record.reason {
            Some(Reason::SkippedMissed) => {
                let age = TimeDelta::from_std(MISSED_AFTER).unwrap_or_default() - EARLY_MAX;
                time - slot > age && !(schedule.overlap.is_exclusive() && record.status == RunState::Pending)
            }
            Some(Reason::Paused) => !world.store.definitions.pauses(&id.name).is_empty(),
            Some(Reason::SkippedCalendar) => schedule.calendar.is_some(),
            Some(Reason::Unknown) => !world.store.tasks.is_declared(&schedule.queue),
            None => record.status == RunState::Pending,
            Some(_) => false,
        };
        if is_justified {
            return Ok(());
        }
        let detail = format!("{id} is {} because of {:?} at {time}", record.status, record.reason);
        Err(Violation::of(Invariant::SkipsAreJustified, detail))
    }

    /// A run that a planner ended: another was in its way.
    fn ended(world: &World, record: &RunRecord) -> Result<(), Violation> {
        if record.reason != Some(Reason::SkippedOverlap) {
            return Ok(());
        }
        let name = &record.id.name;
        let is_busy =
            world.store.tasks.newest_of(name).is_some() || !world.store.planners.line(name).runs.is_empty();
        let busy_at = world.checks.busy_at.get(name);
        let age = DECISION_AGE_MAX.num_milliseconds().unsigned_abs();
        if is_busy || busy_at.is_some_and(|at| world.now - at < age) {
            return Ok(());
        }
        Err(Violation::of(Invariant::SkipsAreJustified, format!("{}: nothing was in its way", record.id)))
    }

    /// A worker claimed a run, or a run ended.
    fn claimed(world: &mut World, record: &RunRecord) -> Result<(), Violation> {
        let run = &record.id;
        let live = world.checks.live.entry(run.name.clone()).or_default();
        if record.status != RunState::Running {
            if record.status != RunState::Retry {
                live.remove(run);
            }
            return Ok(());
        }
        if !world.store.tasks.messages().any(|message| message.is_lock && message.run == *run) {
            return Ok(());
        }
        live.insert(run.clone());
        if live.len() > 1 {
            return Err(Violation::of(Invariant::NeverTwoAtOnce, format!("{live:?}")));
        }
        Ok(())
    }

    /// A record has a new version.
    fn moved(&mut self, record: &RunRecord, over: u64, revision: u64) -> Result<(), Violation> {
        let is_buffered = record.reason == Some(Reason::Buffered);
        let life = Life { status: record.status, revision, is_buffered };
        let before = self.lives.insert(record.id.clone(), life);
        let is_legal = match before {
            None => over == 0,
            Some(before) => {
                before.revision == over
                    && RunEvent::ALL.iter().any(|event| {
                        let by_hand = [RunEvent::Backfilled, RunEvent::Retried, RunEvent::RetryWithdrawn]
                            .contains(event);
                        !by_hand && before.status.next(*event) == Ok(record.status)
                    })
            }
        };
        if is_legal {
            return Ok(());
        }
        let detail = format!("{}: {before:?}, and then {} over {over}", record.id, record.status);
        Err(Violation::of(Invariant::LegalLife, detail))
    }

    fn cursor(
        world: &mut World,
        from: Option<usize>,
        partition: u16,
        cursor: &Cursor,
    ) -> Result<(), Violation> {
        world.checks.count("cursors");
        let to = cursor.accounted_to;
        let before = world.checks.cursors.insert(partition, to);
        // Who took a partition by a clock that was set far back within the last two seconds, and had never looked at it
        // before, takes its cursor for one from the future: a known weakness, which costs a look through what is done.
        let is_far_behind = from.is_some_and(|from| world.planners[from].ahead_ms < -60_000);
        if before.is_some_and(|before| to < before) && !is_far_behind {
            let detail = format!("of partition {partition}, from {before:?} to {to}");
            return Err(Violation::of(Invariant::CursorOnlyForward, detail));
        }
        let names: Vec<Name> =
            world.names.iter().filter(|name| partition_of(name.as_str()) == partition).cloned().collect();
        for name in names {
            let versions = world.versions(&name);
            for (index, version) in versions.iter().enumerate() {
                if version.revision > cursor.heard {
                    break;
                }
                let calendars = &world.store.definitions.calendars;
                let known = world.checks.ahead.get(&version.revision).copied();
                let mut next = known.unwrap_or_else(|| next_of(version, calendars, version.since));
                let until = versions.get(index + 1).map_or(to, |later| to.min(later.since));
                while let Some(slot) = next.filter(|slot| slot.instant() <= until) {
                    let run = RunId::planned(&name, slot);
                    if let Some(why) = world.checks.is_unaccounted(world, &run) {
                        let detail = format!("planner {from:?} moves it to {to}, and {run} {why}");
                        return Err(Violation::of(Invariant::CursorBehindRecords, detail));
                    }
                    next = next_of(version, calendars, slot.instant());
                }
                world.checks.ahead.insert(version.revision, next);
            }
        }
        Ok(())
    }

    /// Why a run may be forgotten by everybody: a cursor must not pass it.
    fn is_unaccounted(&self, world: &World, run: &RunId) -> Option<&'static str> {
        let Some(life) = self.lives.get(run) else { return Some("has no record") };
        let is_queued = || world.store.tasks.messages().any(|message| message.run == *run);
        let is_in_line = || world.store.planners.line(&run.name).runs.contains(run);
        if life.status != RunState::Pending || is_queued() || life.is_buffered && is_in_line() {
            return None;
        }
        Some("is PENDING, and neither in the queue nor in line")
    }

    /// All has been well for a while: everything is accounted for.
    pub(super) fn at_the_end(world: &World, calm_since: Ms) -> Result<(), Violation> {
        let time = world.time();
        let calm = world.begun + TimeDelta::milliseconds(calm_since.cast_signed());
        for name in &world.names {
            let versions = world.versions(name);
            for index in 0..versions.len() {
                let (after, upto) = (versions[index].since, time - RECORD_WITHIN);
                for slot in slots_of(&versions, index, &world.store.definitions.calendars, after, upto) {
                    let run = RunId::planned(name, slot);
                    let Some(life) = world.checks.lives.get(&run) else {
                        let invariant = Invariant::EverySlotHasItsRecord;
                        return Err(Violation::of(invariant, format!("{run} has none at {time}")));
                    };
                    if !life.status.is_final() && slot.instant() < time - END_WITHIN && !world.is_stuck(name)
                    {
                        let detail = format!("{run} is {} at {time}; all is well since {calm}", life.status);
                        return Err(Violation::of(Invariant::AllEndsInTime, detail));
                    }
                }
            }
        }
        for partition in world.partitions_with_schedules() {
            let at = world.checks.cursors.get(&partition).copied();
            if at.is_none_or(|at| at < time - CURSOR_WITHIN) {
                let detail = format!("the cursor of partition {partition} is at {at:?}, at {time}");
                return Err(Violation::of(Invariant::AllEndsInTime, detail));
            }
        }
        Ok(())
    }
}
