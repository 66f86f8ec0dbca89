//! What the picture shows, as values: kept up to date by what the fleet says, read by the drawing.

use std::collections::{BTreeMap, HashMap};

use chrono::SubsecRound;
use chrono_tz::Tz;
use shared::{
    Timestamp,
    names::Name,
    run::RunId,
    run_record::RunRecord,
    schedule::Schedule,
    slot::Slot,
    task::{Task, Work},
};
use streams::{bucket::Stored, schedules::Version};

use crate::{output::printable, up::talk::Notice};

/// Runs that are kept; a screen shows fewer.
const RUNS_KEPT_MAX: usize = 500;

/// What does not change while `up` runs.
#[derive(Debug, Clone, Default)]
pub(in crate::up) struct Fixed {
    /// Where NATS listens.
    pub(in crate::up) address: String,
    /// The data directory.
    pub(in crate::up) data_dir: String,
    /// The example's services: name and address.
    pub(in crate::up) services: Vec<(String, String)>,
    /// How a verb of ours is written on this command line.
    pub(in crate::up) program: String,
}

/// Who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) planners: usize,
    pub(super) workers: usize,
    pub(super) queues: usize,
}

/// The next slot of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NextSlot {
    pub(super) schedule: Name,
    pub(super) zone: Tz,
    pub(super) does: String,
    /// What it says where there is no slot: never again, or after which schedule.
    pub(super) otherwise: String,
    /// None: it does not come again, or has no slots. An error: the definition cannot be understood.
    pub(super) slot: Result<Option<Timestamp>, String>,
}

/// A run as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeenRun {
    pub(super) changed_at: Timestamp,
    pub(super) record: RunRecord,
}

/// Everything the picture shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) fixed: Fixed,
    pub(super) now: Timestamp,
    pub(super) is_connected: bool,
    pub(super) counts: Counts,
    pub(super) notices: Vec<Notice>,
    schedules: BTreeMap<Name, Planned>,
    runs: HashMap<RunId, SeenRun>,
}

#[derive(Debug, Clone)]
struct Planned {
    schedule: Result<Box<Schedule>, String>,
    next: Option<Slot>,
}

fn otherwise(planned: &Planned) -> String {
    let after = planned.schedule.as_ref().ok().and_then(|schedule| schedule.after());
    after.map_or_else(|| "never".to_owned(), |after| format!("after {}", after.schedule))
}

impl Model {
    /// A picture of a fleet of which nothing is known yet.
    pub(super) fn new(fixed: Fixed, now: Timestamp) -> Self {
        Self { fixed, now, is_connected: true, ..Self::default() }
    }

    /// Lets time pass: slots that have come make room for the next.
    pub(super) fn at(&mut self, now: Timestamp) {
        self.now = now;
        for planned in self.schedules.values_mut() {
            if planned.next.is_some_and(|slot| slot.instant() <= now) {
                planned.next = planned.schedule.as_ref().ok().and_then(|schedule| schedule.next_after(now));
            }
        }
    }

    /// A schedule was put, changed or deleted.
    pub(super) fn schedule(&mut self, version: Version) {
        let planned = match version.definition {
            Ok(None) => {
                self.schedules.remove(&version.name);
                return;
            }
            Ok(Some(schedule)) => {
                Planned { next: schedule.next_after(self.now), schedule: Ok(Box::new(schedule)) }
            }
            Err(detail) => Planned { schedule: Err(detail), next: None },
        };
        self.schedules.insert(version.name, planned);
    }

    /// A run changed its state just now.
    pub(super) fn run(&mut self, record: RunRecord) {
        self.runs.insert(record.id.clone(), SeenRun { changed_at: self.now, record });
        self.forget_old();
    }

    /// Runs as the ledger has them; what was heard of since is newer.
    pub(super) fn ledger(&mut self, stored: Vec<Stored<RunRecord>>) {
        for Stored { value: record, stored_at, .. } in stored {
            // To the millisecond, as our clock tells it: within one the word heard from the server wins.
            let changed_at = stored_at.trunc_subsecs(3);
            if self.runs.get(&record.id).is_none_or(|seen| seen.changed_at < changed_at) {
                self.runs.insert(record.id.clone(), SeenRun { changed_at, record });
            }
        }
        self.forget_old();
    }

    fn forget_old(&mut self) {
        if self.runs.len() <= 2 * RUNS_KEPT_MAX {
            return;
        }
        let kept: Vec<RunId> =
            self.latest_runs(RUNS_KEPT_MAX).iter().map(|run| run.record.id.clone()).collect();
        self.runs = kept.into_iter().filter_map(|id| self.runs.remove_entry(&id)).collect();
    }

    /// How many schedules there are.
    pub(super) fn schedules_total(&self) -> usize {
        self.schedules.len()
    }

    /// The schedules, those that cannot be understood first, then by their next slot; those that never come last.
    pub(super) fn next_slots(&self, count_max: usize) -> Vec<NextSlot> {
        let order = |planned: &Planned| (planned.schedule.is_ok(), planned.next.is_none(), planned.next);
        let mut all: Vec<(&Name, &Planned)> = self.schedules.iter().collect();
        all.sort_by_key(|(name, planned)| (order(planned), *name));
        let next = all.into_iter().take(count_max).map(|(name, planned)| NextSlot {
            schedule: name.clone(),
            zone: planned.schedule.as_ref().map_or(Tz::UTC, |schedule| schedule.timezone),
            does: planned.schedule.as_ref().map_or_else(|_| String::new(), |schedule| does(&schedule.task)),
            otherwise: otherwise(planned),
            slot: match &planned.schedule {
                Ok(_) => Ok(planned.next.map(Slot::instant)),
                Err(detail) => Err(printable(detail)),
            },
        });
        next.collect()
    }

    /// The latest runs, newest change first.
    pub(super) fn latest_runs(&self, count_max: usize) -> Vec<&SeenRun> {
        let mut all: Vec<&SeenRun> = self.runs.values().collect();
        all.sort_by(|a, b| (b.changed_at, &b.record.id).cmp(&(a.changed_at, &a.record.id)));
        all.truncate(count_max);
        all
    }

    /// The schedule the hints speak of.
    pub(super) fn example_schedule(&self) -> Option<&Name> {
        let usual = self.schedules.keys().find(|name| name.as_str() == "daily_data_archive");
        usual.or_else(|| self.schedules.keys().next())
    }
}

/// What a task does, in a few words.
fn does(task: &Task) -> String {
    match &task.work {
        Work::Service { target, action, .. } => format!("{action} on {target}"),
        Work::Command { name, arguments } => {
            printable(format!("command {name} {}", arguments.join(" ")).trim_end())
        }
    }
}
