//! When a schedule is due, apart from what it does.
//!
//! A fleet may have a million schedules and a few thousand ways to say when. Reading a cron line costs a hundred times
//! what reading the rest of a definition costs, and what comes of it is large. So the fields that say when are read into a
//! value of their own, which schedules that say it in the same words share: `known_timings.rs` keeps it once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{Datelike, SubsecRound, TimeDelta, Timelike};
use chrono_tz::Tz;

use crate::{
    Timestamp,
    after::After,
    bounds::{Bounds, Exclusion},
    closed_day::OnClosedDay,
    cron::{CronError, CronExpr, DstPolicy, parse_zone},
    human_duration::HumanDuration,
    limits,
    names::Name,
    schedule::{CronLines, ScheduleError, ScheduleFields},
    slot::Slot,
    when::When,
};

/// When a schedule is due: all that its slots follow from. Only which days are closed a calendar says, when they come.
#[derive(Debug, Clone)]
pub struct Timing {
    /// When it is due.
    pub when: When,
    /// The zone its cron lines are read in.
    pub timezone: Tz,
    /// What happens where that zone's clocks change.
    pub dst: DstPolicy,
    /// What narrows and shifts the instants of `when`; none if nothing does.
    pub bounds: Option<Box<Bounds>>,
    /// What happens to a slot on a day that its calendar leaves out.
    pub on_closed_day: OnClosedDay,
    /// What it was before it was spread by a name: kept at hand for the next name.
    unnamed: Option<Arc<Timing>>,
    last_answer: LastAnswer,
}

/// From when on which slot was the next, when that was last asked: many schedules with one timing ask for the same one.
#[derive(Debug, Default)]
struct LastAnswer(Mutex<Option<(Timestamp, Option<Slot>)>>);

impl Clone for LastAnswer {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The fields of a definition that say when it is due. Equal ones mean the same [`Timing`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TimingFields {
    pub(crate) cron: Option<CronLines>,
    pub(crate) every: Option<HumanDuration>,
    pub(crate) phase: Option<HumanDuration>,
    pub(crate) at: Option<Timestamp>,
    pub(crate) after: Option<After>,
    pub(crate) timezone: Option<String>,
    pub(crate) dst: DstPolicy,
    pub(crate) start: Option<Timestamp>,
    pub(crate) end: Option<Timestamp>,
    pub(crate) max_runs: Option<u32>,
    pub(crate) exclude: BTreeSet<Exclusion>,
    pub(crate) jitter: Option<HumanDuration>,
    pub(crate) on_closed_day: OnClosedDay,
}

impl TimingFields {
    /// Takes what says when out of a definition. What is left says the rest, and no longer when.
    pub(crate) fn take(fields: &mut ScheduleFields) -> Self {
        // All are named, so that whoever adds one says here to which part it belongs.
        let ScheduleFields {
            cron,
            every,
            phase,
            at,
            after,
            timezone,
            dst,
            start,
            end,
            max_runs,
            exclude,
            jitter,
            on_closed_day,
            description: _,
            overlap: _,
            shards: _,
            missed: _,
            catch_up: _,
            calendar: _,
            queue: _,
            task: _,
        } = fields;
        Self {
            cron: cron.take(),
            every: every.take(),
            phase: phase.take(),
            at: at.take(),
            after: after.take(),
            timezone: timezone.take(),
            dst: std::mem::take(dst),
            start: start.take(),
            end: end.take(),
            max_runs: max_runs.take(),
            exclude: std::mem::take(exclude),
            jitter: jitter.take(),
            on_closed_day: std::mem::take(on_closed_day),
        }
    }

    /// Whether reading them is so cheap, and what comes of it so small, that remembering it costs more.
    pub(crate) fn are_simple(&self) -> bool {
        let Self { start, end, max_runs, exclude, jitter, .. } = self;
        let is_bounded = start.is_some() || end.is_some() || max_runs.is_some() || jitter.is_some();
        self.cron.is_none() && !is_bounded && exclude.is_empty()
    }
}

impl PartialEq for Timing {
    fn eq(&self, other: &Self) -> bool {
        let parts = |timing: &Self| (timing.timezone, timing.dst, timing.on_closed_day);
        self.when == other.when && self.bounds == other.bounds && parts(self) == parts(other)
    }
}

impl TryFrom<TimingFields> for Timing {
    type Error = ScheduleError;
    fn try_from(fields: TimingFields) -> Result<Self, ScheduleError> {
        if fields.phase.is_some() && fields.every.is_none() {
            return Err(ScheduleError::Phase);
        }
        let when = match (fields.cron, fields.every, fields.at, fields.after) {
            (Some(lines), None, None, None) => When::Cron(parse_lines(lines)?),
            (None, Some(every), None, None) => When::every(every.0, fields.phase.unwrap_or_default().0)?,
            (None, None, Some(at), None) => When::At(whole_second(at)),
            (None, None, None, Some(after)) => When::After(after),
            (None, None, None, None) => return Err(ScheduleError::When("none")),
            _ => return Err(ScheduleError::When("more than one")),
        };
        let timezone = fields.timezone.as_deref().map_or(Ok(Tz::UTC), parse_zone)?;
        let bounds = Bounds {
            start: fields.start,
            end: fields.end,
            max_runs: fields.max_runs,
            exclude: fields.exclude,
            jitter: fields.jitter.unwrap_or_default().0,
            ..Bounds::default()
        };
        let bounds = if bounds.is_none() {
            None
        } else {
            let nominal = |after| when.next_after(after, timezone, fields.dst);
            let bounds = bounds.check()?;
            if !matches!(when, When::After(_)) {
                bounds.check_comes(timezone, &nominal)?;
            }
            Some(Box::new(bounds.named("", timezone, &nominal)))
        };
        Ok(Self {
            when,
            timezone,
            dst: fields.dst,
            bounds,
            on_closed_day: fields.on_closed_day,
            unnamed: None,
            last_answer: LastAnswer::default(),
        })
    }
}

/// The first whole second that is not before an instant: no run starts before its slot. At the end of all dates there is
/// none after it.
fn whole_second(at: Timestamp) -> Timestamp {
    let whole = at.trunc_subsecs(0);
    let is_last = (whole.year(), whole.ordinal(), whole.num_seconds_from_midnight()) >= (9_999, 365, 86_399);
    if whole < at && !is_last { whole + TimeDelta::seconds(1) } else { whole }
}

fn parse_lines(lines: CronLines) -> Result<Vec<CronExpr>, ScheduleError> {
    let lines = match lines {
        CronLines::One(line) => vec![line],
        CronLines::Several(lines) => lines,
    };
    if !(1..=limits::CRON_LINES_MAX).contains(&lines.len()) {
        return Err(ScheduleError::Lines(lines.len()));
    }
    Ok(lines.iter().map(|line| line.parse()).collect::<Result<_, CronError>>()?)
}

impl Timing {
    /// Whether its slots also follow from the schedule's name: then no other schedule can share what comes of it.
    pub fn is_spread(&self) -> bool {
        let by_line = matches!(&self.when, When::Cron(lines) if lines.iter().any(CronExpr::is_spread));
        by_line || self.bounds.as_ref().is_some_and(|bounds| !bounds.jitter.is_zero())
    }

    /// The schedule whose runs are followed, if it is due when they end.
    pub fn after(&self) -> Option<&After> {
        match &self.when {
            When::After(after) => Some(after),
            _ => None,
        }
    }

    /// The same under a schedule's name: `H` in its cron lines and its jitter are spread by the name, the same on every
    /// machine.
    #[must_use]
    pub fn named(self: Arc<Self>, name: &Name) -> Arc<Self> {
        if !self.is_spread() {
            return self;
        }
        let unnamed = self.unnamed.clone().unwrap_or(self);
        let mut named = Self { unnamed: Some(Arc::clone(&unnamed)), ..Self::clone(&unnamed) };
        if let When::Cron(lines) = named.when {
            named.when = When::Cron(lines.into_iter().map(|line| line.with_seed(name.as_str())).collect());
        }
        if let Some(bounds) = named.bounds.take() {
            let nominal = |after| named.when.next_after(after, named.timezone, named.dst);
            named.bounds = Some(Box::new(bounds.named(name.as_str(), named.timezone, &nominal)));
        }
        Arc::new(named)
    }

    /// The first slot strictly after an instant, whatever its calendar says.
    pub fn next_after(&self, after: Timestamp) -> Option<Slot> {
        let nominal = |after| self.when.next_after(after, self.timezone, self.dst);
        let next = match &self.bounds {
            None => nominal(after),
            Some(bounds) => bounds.next_after(after, self.timezone, &nominal),
        };
        next.map(Slot::at)
    }

    /// The first of [`Timing::candidates_after`]. Asked by many for about the same instant it is computed once.
    pub fn next_candidate(&self, after: Timestamp) -> Option<Slot> {
        let mut last = self.last_answer.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, next)) = *last
            && from <= after
            && next.is_none_or(|next| next.instant() > after)
        {
            return next;
        }
        let next = self.candidates_after(after).next();
        *last = Some((after, next));
        next
    }

    /// The slots strictly after an instant, in order, whatever its calendar says. `closed_day.rs` has those that count
    /// with a calendar.
    pub fn slots_after(&self, after: Timestamp) -> impl Iterator<Item = Slot> + '_ {
        std::iter::successors(self.next_after(after), |slot| self.next_after(slot.instant()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_with_a_part_of_a_second_counts_as_the_next_whole_one() {
        for (at, expected) in [
            ("2026-11-25T14:51:23Z", "2026-11-25T14:51:23Z"),
            ("2026-11-25T14:51:23.900Z", "2026-11-25T14:51:24Z"),
            ("2026-12-31T23:59:59.000000001Z", "2027-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59Z"),
        ] {
            let instant = |text: &str| text.parse::<Timestamp>().expect("an instant");
            assert_eq!(whole_second(instant(at)), instant(expected), "{at}");
        }
    }
}
