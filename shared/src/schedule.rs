//! A schedule: a named recipe of when, what, and the policies between.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    after::{self, After, AfterError},
    bounds::{BoundsError, Exclusion},
    closed_day::OnClosedDay,
    cron::{CronError, DstPolicy, ZoneError},
    human_duration::HumanDuration,
    limits,
    names::{CalendarName, Name, QueueName},
    shard::{self, Shards, ShardsError},
    task::Task,
    timing::{Timing, TimingFields},
    when::{IntervalError, When},
};

/// What happens at a slot while the schedule's previous run has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The slot is skipped, and its record says so. Never two at once.
    #[default]
    Skip,
    /// One slot waits, the first that comes, and runs as soon as the previous run has ended; others are skipped. Never
    /// two at once.
    BufferOne,
    /// Slots wait, at most 100, and run in order, each as soon as the one before has ended. Never two at once.
    BufferAll,
    /// The previous run is cancelled, and the slot runs as soon as it has stopped. Never two at once.
    Replace,
    /// Both run.
    Allow,
}

impl Overlap {
    /// Whether the schedule's runs share one lock, so that never two of them are live.
    pub fn is_exclusive(self) -> bool {
        self != Overlap::Allow
    }

    /// How many of a schedule's runs may wait for its lock.
    pub fn waiting_max(self) -> usize {
        match self {
            Overlap::Skip | Overlap::Allow => 0,
            Overlap::BufferOne => 1,
            // Those that wait to replace are replaced themselves, as soon as somebody looks at them.
            Overlap::BufferAll | Overlap::Replace => limits::WAITING_RUNS_MAX,
        }
    }

    /// The policy as definitions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Overlap::Skip => "skip",
            Overlap::BufferOne => "buffer_one",
            Overlap::BufferAll => "buffer_all",
            Overlap::Replace => "replace",
            Overlap::Allow => "allow",
        }
    }
}

/// What happens to slots that passed while nobody could dispatch them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The newest within `catch_up` runs once, marked late; the others are recorded as skipped.
    #[default]
    Latest,
    /// None runs; all are recorded as skipped.
    Skip,
    /// Those within `catch_up` run, oldest first, at most 100; the others are recorded as skipped.
    All,
}

/// A schedule that can be planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ScheduleFields", into = "ScheduleFields")]
pub struct Schedule {
    /// A sentence for the people who look after it.
    pub description: Option<String>,
    /// When it is due. Its fields and methods are the schedule's own: `schedule.timezone`, `schedule.next_after(…)`.
    pub timing: Arc<Timing>,
    /// What happens while the previous run has not ended.
    pub overlap: Overlap,
    /// How many runs a slot has, if it is run in several parts.
    pub shards: Option<u16>,
    /// What happens to slots that were missed.
    pub missed: Missed,
    /// How late a missed slot may still run.
    pub catch_up: std::time::Duration,
    /// Days on which it may run.
    pub calendar: Option<CalendarName>,
    /// The queue its runs travel on.
    pub queue: QueueName,
    /// What is done.
    pub task: Arc<Task>,
}

/// One cron line or several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CronLines {
    /// One line.
    One(String),
    /// Several: the schedule is due at every slot of any of them.
    Several(Vec<String>),
}

/// A schedule as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Schedule")]
pub struct ScheduleFields {
    /// A sentence for the people who look after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// When it is due, as Unix cron writes it: 5 fields, 6 with seconds first, 7 with the year last; or a list of
    /// such lines. One of `cron`, `every`, `at` and `after`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cron: Option<CronLines>,
    /// The distance between two slots, counted from midnight UTC of 1970-01-01.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub every: Option<HumanDuration>,
    /// With `every`: by how much its slots are shifted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<HumanDuration>,
    /// The one instant at which it is due (RFC 3339); a part of a second counts as a whole one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Timestamp>,
    /// The schedule whose runs it follows: due whenever one of them ends. It is handed the id, state and output of that run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<After>,
    /// The IANA zone its cron lines are read in. Default UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<String>,
    /// What happens where that zone's clocks change.
    #[serde(skip_serializing_if = "DstPolicy::is_default", default)]
    pub dst: DstPolicy,
    /// The first instant at which it may be due (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start: Option<Timestamp>,
    /// The last instant at which it may be due (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<Timestamp>,
    /// How many slots it has, counted from `start`, which it needs. A slot that is skipped counts too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = limits::MAX_RUNS_MAX))]
    pub max_runs: Option<u32>,
    /// Dates in its zone, and instants, on which it is not due.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub exclude: BTreeSet<Exclusion>,
    /// Each slot is shifted by less than this, by a hash of the schedule's name and the slot: always the same, and
    /// never past the next one. The shifted instant is the slot, in `next`, in its record and for the calendar.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jitter: Option<HumanDuration>,
    /// What happens at a slot while the previous run has not ended. Default skip.
    #[serde(default)]
    pub overlap: Overlap,
    /// How many runs each slot has, which share its work: each is told its index and how many there are. Default: one run, and
    /// no shards. With overlap skip or allow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = limits::SHARDS_MAX))]
    pub shards: Option<u16>,
    /// What happens to slots that passed while nobody could dispatch them. Default latest. A slot counts as missed when it is
    /// more than 15 s old; younger ones run as if nothing had happened.
    #[serde(default)]
    pub missed: Missed,
    /// How late a missed slot may still run. Default 1h.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub catch_up: Option<HumanDuration>,
    /// The calendar whose days it may run on. Default: every day.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calendar: Option<CalendarName>,
    /// What happens to a slot on a day that the calendar leaves out. Default skip.
    #[serde(skip_serializing_if = "OnClosedDay::is_default", default)]
    pub on_closed_day: OnClosedDay,
    /// The queue its runs travel on. Default `default`.
    #[serde(default = "QueueName::default_queue")]
    pub queue: QueueName,
    /// What is done.
    pub task: Task,
}

/// A schedule that cannot be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// None of the four ways, or more than one.
    #[error("a schedule has exactly one of `cron`, `every`, `at` and `after`; this one has {0}")]
    When(&'static str),
    /// A line that cannot be planned.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// Too many lines, or none.
    #[error("cron has {0} lines; 1 to {max} are allowed", max = limits::CRON_LINES_MAX)]
    Lines(usize),
    /// An interval that cannot be kept.
    #[error(transparent)]
    Interval(#[from] IntervalError),
    /// A phase without an interval.
    #[error("phase is for schedules with `every`: leave it out")]
    Phase,
    /// A zone nobody knows.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// Bounds that cannot be kept.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// About slots, where there are none.
    #[error(transparent)]
    After(#[from] AfterError),
    /// Shards that it cannot have.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// Without a calendar no day is closed.
    #[error("on_closed_day is for schedules with `calendar`: name the calendar, or leave it out")]
    ClosedDay,
    /// Longer than anybody would call catching up.
    #[error("catch_up is {0}; at most {max} is allowed", max = HumanDuration(limits::CATCH_UP_MAX))]
    CatchUp(HumanDuration),
}

impl TryFrom<ScheduleFields> for Schedule {
    type Error = ScheduleError;
    fn try_from(fields: ScheduleFields) -> Result<Self, ScheduleError> {
        Self::read_with(fields, |timing| Ok(Arc::new(timing.try_into()?)))
    }
}

impl From<Schedule> for ScheduleFields {
    fn from(schedule: Schedule) -> Self {
        let timing = Arc::unwrap_or_clone(schedule.timing);
        let bounds = timing.bounds.map(|bounds| *bounds).unwrap_or_default();
        let mut fields = Self {
            description: schedule.description,
            cron: None,
            every: None,
            phase: None,
            at: None,
            after: None,
            timezone: (timing.timezone != Tz::UTC).then(|| timing.timezone.name().to_owned()),
            dst: timing.dst,
            start: bounds.start,
            end: bounds.end,
            max_runs: bounds.max_runs,
            exclude: bounds.exclude,
            jitter: (!bounds.jitter.is_zero()).then_some(HumanDuration(bounds.jitter)),
            overlap: schedule.overlap,
            shards: schedule.shards,
            missed: schedule.missed,
            catch_up: Some(HumanDuration(schedule.catch_up)),
            calendar: schedule.calendar,
            on_closed_day: timing.on_closed_day,
            queue: schedule.queue,
            task: Arc::unwrap_or_clone(schedule.task),
        };
        match timing.when {
            When::Cron(lines) if lines.len() == 1 => fields.cron = Some(CronLines::One(lines[0].to_string())),
            When::Cron(lines) => {
                fields.cron = Some(CronLines::Several(lines.iter().map(ToString::to_string).collect()));
            }
            When::Every { interval, phase } => {
                fields.every = Some(HumanDuration(interval));
                fields.phase = (!phase.is_zero()).then_some(HumanDuration(phase));
            }
            When::At(at) => fields.at = Some(at),
            When::After(after) => {
                fields.after = Some(after);
                fields.catch_up = None;
            }
        }
        fields
    }
}

impl Deref for Schedule {
    type Target = Timing;
    fn deref(&self) -> &Timing {
        &self.timing
    }
}

impl Schedule {
    /// Reads a definition; when it is due is read by `timing`, which may know it already.
    pub(crate) fn read_with(
        mut fields: ScheduleFields,
        timing: impl FnOnce(TimingFields) -> Result<Arc<Timing>, ScheduleError>,
    ) -> Result<Self, ScheduleError> {
        shard::check(fields.shards, fields.overlap)?;
        if fields.after.is_some() {
            after::check_fields(&fields)?;
        }
        let timing = timing(TimingFields::take(&mut fields))?;
        let catch_up = fields.catch_up.unwrap_or(HumanDuration(limits::CATCH_UP_DEFAULT));
        if catch_up.0 > limits::CATCH_UP_MAX {
            return Err(ScheduleError::CatchUp(catch_up));
        }
        if timing.on_closed_day != OnClosedDay::Skip && fields.calendar.is_none() {
            return Err(ScheduleError::ClosedDay);
        }
        Ok(Self {
            description: fields.description,
            timing,
            overlap: fields.overlap,
            shards: fields.shards,
            missed: fields.missed,
            catch_up: catch_up.0,
            calendar: fields.calendar,
            queue: fields.queue,
            task: Arc::new(fields.task),
        })
    }

    /// The schedule under its name: `H` in its cron lines and its jitter are spread by the name, the same on every
    /// machine.
    #[must_use]
    pub fn named(mut self, name: &Name) -> Self {
        self.timing = self.timing.named(name);
        self
    }

    /// The parts of a run of it that is just made; none if it is run as a whole.
    pub fn shards(&self) -> Option<Shards> {
        self.shards.map(Shards::new)
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        ScheduleFields::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ScheduleFields::json_schema(generator)
    }
}
