//! What is asked next, by a seed and by what is there.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use shared::{
    Timestamp,
    calendar::Calendar,
    hash::partition_of,
    names::{CalendarName, MemberId, Name, QueueName},
    pause::Pause,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunEvent,
    schedule::{Overlap, Schedule},
};
use streams::{
    cancel::CancelRequest,
    leases::{Cursor, Lease, Seat},
    tasks::DueTask,
};

use super::{pause, record, run_of, schedule};
use crate::{
    machine::ask::{Ask, CursorFound},
    model::{Store, random::Random},
};

/// One thing that is asked of both.
#[derive(Debug)]
pub(super) enum Step {
    Ask(Ask),
    Declare(QueueName),
    Calendar(CalendarName, Calendar),
    Define(Name, Option<Box<Schedule>>),
    SayPause(Name, Option<Pause>, u64),
    Seat(u16, Seat, u64),
    Lease(u16, Lease, u64),
    ReadSeat(u16),
    ReadLease(u16),
    Bury(Box<RunRecord>),
}

/// Chooses by a seed.
pub(super) struct Chooser {
    random: Random,
    number: u64,
    names: Vec<Name>,
    queues: Vec<QueueName>,
    calendars: Vec<CalendarName>,
}

const OVERLAPS: [Overlap; 5] =
    [Overlap::Skip, Overlap::BufferOne, Overlap::BufferAll, Overlap::Replace, Overlap::Allow];
/// Runs of each schedule.
const KEYS: u64 = 4;
/// Of partitions, seats and leases so many are used.
const NUMBERS: u64 = 3;
/// A task that is larger than the stream of tasks takes.
const TOO_LARGE_BYTES: usize = 600 * 1024;

impl Chooser {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            number: 0,
            names: ["one", "two", "three"].iter().filter_map(|name| name.parse().ok()).collect(),
            // The last is never declared.
            queues: ["default", "other", "nowhere"].iter().filter_map(|name| name.parse().ok()).collect(),
            calendars: ["days", "none"].iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// What everything begins with.
    pub(super) fn beginning(&self) -> Vec<Step> {
        let calendar = serde_json::from_str(r#"{"weekdays":"mon-fri","except":["2026-12-25"]}"#);
        let mut steps: Vec<Step> = self.queues[..2].iter().cloned().map(Step::Declare).collect();
        steps.extend(calendar.ok().map(|calendar| Step::Calendar(self.calendars[0].clone(), calendar)));
        steps
    }

    pub(super) fn next(&mut self, model: &Store, now: Timestamp) -> Step {
        self.number += 1;
        match self.random.below(100) {
            0..34 => Step::Ask(self.record(model)),
            34..60 => Step::Ask(self.task(model)),
            60..74 => Step::Ask(self.line_or_cursor(model, now)),
            74..84 => self.definition(model),
            84..92 => Step::Ask(self.reading(model, now)),
            _ => self.planner(model, now),
        }
    }

    fn name(&mut self) -> Name {
        self.random.pick(&self.names).clone()
    }

    fn run(&mut self) -> RunId {
        let (name, key) = (self.name(), self.random.below(KEYS));
        run_of(&name, key).unwrap_or_else(|| RunId { name, key: shared::names::RunKey::unique() })
    }

    /// The right revision in most cases; otherwise one that was, will be or never was.
    fn over(&mut self, right: u64) -> u64 {
        match self.random.below(9) {
            0 => 0,
            1 => right + 1,
            2 => right.saturating_sub(1 + self.random.below(3)),
            _ => right,
        }
    }

    fn record(&mut self, model: &Store) -> Ask {
        let run = self.run();
        let found = model.records.get(&run);
        match self.random.below(8) {
            0..3 => Ask::CreateRecord(Arc::new(self.fresh(run))),
            3..6 => {
                let over = self.over(found.as_ref().map_or(0, |found| found.revision));
                let known = found.map(|found| found.value);
                let events = RunEvent::ALL.into_iter();
                let moved = known.as_ref().map(|known| {
                    let mut may = events
                        .filter_map(|event| known.apply(event, known.created_at).ok())
                        .collect::<Vec<_>>();
                    may.push(known.clone().noting(format!("number {}", self.number)));
                    self.random.pick(&may).clone()
                });
                let record = Box::new(moved.unwrap_or_else(|| self.fresh(run)));
                Ask::UpdateRecord { record, over }
            }
            _ => Ask::ReadRecord(run),
        }
    }

    fn fresh(&mut self, run: RunId) -> RunRecord {
        let queue = self.random.pick(&self.queues).clone();
        record(run, queue, self.number)
    }

    fn task(&mut self, model: &Store) -> Ask {
        let name = self.name();
        match self.random.below(8) {
            0..4 => {
                let run = self.run();
                let known = model.records.get(&run);
                let record = known.map_or_else(|| self.fresh(run), |found| found.value);
                let Some(mut task) = schedule(1).map(|schedule| schedule.task) else {
                    return Ask::FindHolder(name);
                };
                if self.random.one_in(16) {
                    Arc::make_mut(&mut task)
                        .parameters
                        .insert("large".to_owned(), json!("x".repeat(TOO_LARGE_BYTES)));
                }
                Ask::Publish {
                    due: DueTask { run: Arc::new(record), task },
                    revision: 7,
                    overlap: *self.random.pick(&OVERLAPS),
                    trace: None,
                }
            }
            4..6 => Ask::FindHolder(name),
            // One that is there, or was.
            6 if model.tasks.last_sequence() > 0 => {
                let last = model.tasks.last_sequence();
                Ask::RemoveTask(last - self.random.below(last.min(3)))
            }
            _ => Ask::IsDeclared(self.random.pick(&self.queues).clone()),
        }
    }

    fn line_or_cursor(&mut self, model: &Store, now: Timestamp) -> Ask {
        let (schedule, partition) = (self.name(), self.random.below(NUMBERS) as u16);
        match self.random.below(6) {
            0 | 1 => {
                let line = model.planners.line(&schedule);
                let runs = (0..self.random.below(3)).filter_map(|key| run_of(&schedule, key)).collect();
                Ask::WriteLine { schedule, runs, over: self.over(line.revision) }
            }
            2 => Ask::ReadLine(schedule),
            3 | 4 => {
                let right = match model.planners.cursor(partition) {
                    CursorFound::Cursor(_, revision) | CursorFound::Corrupt(revision) => revision,
                    CursorFound::None => 0,
                };
                let cursor =
                    Cursor { accounted_to: now, by: member(), tzdb: "2025b".to_owned(), heard: self.number };
                Ask::WriteCursor { partition, cursor, over: self.over(right) }
            }
            _ => Ask::ReadCursor(partition),
        }
    }

    fn definition(&mut self, model: &Store) -> Step {
        let name = self.name();
        let is_there =
            model.definitions.history(&name).last().is_some_and(|version| version.definition != Ok(None));
        match self.random.below(8) {
            // A version more than is kept makes the oldest go.
            0..4 => Step::Define(name, schedule(self.number).map(Box::new)),
            4 if is_there => Step::Define(name, None),
            _ => {
                let over = model.definitions.pause_revision(&name);
                let said = (!self.random.one_in(3)).then(|| pause(self.number));
                Step::SayPause(name, said, over)
            }
        }
    }

    fn reading(&mut self, model: &Store, now: Timestamp) -> Ask {
        let name = self.name();
        match self.random.below(13) {
            7 => Ask::FindLive,
            8 => Ask::ReadDefinition(name),
            9 => {
                let versions = model.definitions.history(&name);
                let right = versions.get(self.random.below(8) as usize).map_or(0, |version| version.revision);
                Ask::ReadVersion(name, self.over(right))
            }
            10 => Ask::ReadWish(self.run()),
            11 | 12 => self.cancelling(model, now),
            0 => Ask::PauseRevision(name),
            1 => Ask::ReadPauses(name),
            2 => Ask::ReadHistory(name),
            3 => Ask::ReadHistories(partition_of(name.as_str())),
            4 => Ask::ReadCalendar(self.random.pick(&self.calendars).clone()),
            5 => Ask::Wait(Duration::from_millis(1)),
            _ => {
                let run = self.run();
                Ask::IsBuried(Box::new(self.default_record(run)))
            }
        }
    }

    /// Only of runs with a record: of others the server's control stream is asked, which is not in the model.
    fn cancelling(&mut self, model: &Store, now: Timestamp) -> Ask {
        let run = self.run();
        if model.records.get(&run).is_none() {
            return Ask::ReadRecord(run);
        }
        let (reason, by) = (Reason::Replaced, "conformance".to_owned());
        Ask::Cancel(Box::new(CancelRequest { run, reason, by, at: now }))
    }

    fn default_record(&self, run: RunId) -> RunRecord {
        record(run, self.queues[0].clone(), 0)
    }

    fn planner(&mut self, model: &Store, now: Timestamp) -> Step {
        let number = self.random.below(NUMBERS) as u16;
        match self.random.below(7) {
            0 | 1 => {
                let seat = Seat { planner: self.random.one_in(2).then(member), aside: self.random.one_in(2) };
                let right = model.planners.seat(number).map_or(0, |(_, revision, _)| revision);
                Step::Seat(number, seat, self.over(right))
            }
            2 | 3 => {
                let holder = self.random.one_in(2).then(member);
                let right = model.planners.lease(number).map_or(0, |(_, revision)| revision);
                Step::Lease(number, Lease { holder, term: self.number, since: now }, self.over(right))
            }
            4 => Step::ReadSeat(number),
            5 => Step::ReadLease(number),
            _ => {
                let run = self.run();
                Step::Bury(Box::new(self.default_record(run)))
            }
        }
    }
}

fn member() -> MemberId {
    MemberId::new("planner", "spec")
}
