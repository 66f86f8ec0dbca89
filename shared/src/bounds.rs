//! What narrows and shifts the instants of a schedule: `start`, `end`, `max_runs`, `exclude` and `jitter`.
//!
//! # The model
//!
//! `cron`, `every` and `at` give *nominal* instants. Jitter shifts each of them; the shifted instant **is** the slot, and
//! everything else is said of it: `start` and `end` are its first and last possible instant, `exclude` looks at it and at
//! its date, `max_runs` counts it, and so do calendars, records and `next`. So there is one instant per slot to speak of,
//! and whoever computes it gets the same one.
//!
//! # The promise
//!
//! - Slots stay strictly increasing: a shift is less than the distance to the next nominal instant. It is a hash of the
//!   schedule's name and the nominal instant, nothing is remembered, and every planner agrees.
//! - What is narrowed never shifts anything else: excluding one slot leaves the others where they are.
//! - `max_runs` counts slots from `start`, once, when the definition is read, and becomes an end. It counts slots, not
//!   executions: one that is skipped (overlap, a closed day, an outage) counts too. Otherwise the end would depend on what
//!   happened, and planners would have to agree on that first.

use std::{borrow::Cow, collections::BTreeSet, fmt, str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, SubsecRound, TimeDelta};
use chrono_tz::Tz;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Timestamp,
    cron::instants_of,
    hash::mixed_64,
    human_duration::HumanDuration,
    limits::{EXCLUDED_MAX, JITTER_MAX, MAX_RUNS_MAX},
};

/// A date, in the schedule's zone, or one instant, on which a schedule is not due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exclusion {
    /// All slots of this date.
    Date(NaiveDate),
    /// The slot at this instant.
    Instant(Timestamp),
}

/// A text that excludes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "exclude has {0:?}; write a date such as 2026-12-25, or an instant such as 2026-12-25T18:00:00+01:00"
)]
pub struct ExclusionError(String);

impl FromStr for Exclusion {
    type Err = ExclusionError;
    fn from_str(text: &str) -> Result<Self, ExclusionError> {
        let instant = || DateTime::parse_from_rfc3339(text).ok();
        text.parse()
            .map(Self::Date)
            .ok()
            .or_else(|| instant().map(|at| Self::Instant(at.to_utc().trunc_subsecs(0))))
            .ok_or_else(|| ExclusionError(text.to_owned()))
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exclusion::Date(date) => date.fmt(f),
            Exclusion::Instant(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        }
    }
}

impl Serialize for Exclusion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Exclusion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Exclusion {
    fn schema_name() -> Cow<'static, str> {
        "Exclusion".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A date in the schedule's zone, or an instant (RFC 3339).",
            "examples": ["2026-12-25", "2026-12-25T18:00:00+01:00"],
        })
    }
}

/// What narrows and shifts the instants of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The first instant at which it may be due.
    pub start: Option<Timestamp>,
    /// The last instant at which it may be due.
    pub end: Option<Timestamp>,
    /// How many slots there are, from `start` on.
    pub max_runs: Option<u32>,
    /// When it is not due.
    pub exclude: BTreeSet<Exclusion>,
    /// By how much a slot is shifted, less than this; whole seconds.
    pub jitter: Duration,
    /// The slot with which `max_runs` is reached.
    pub(crate) last: Option<Timestamp>,
    /// The schedule's name, by which shifts are chosen.
    pub(crate) seed: Box<str>,
}

/// Bounds that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// The wrong way round.
    #[error("end is {end}, before start ({start}); write a later end, or an earlier start", end = show(*.end), start = show(*.start))]
    EndBeforeStart {
        /// What was given.
        start: Timestamp,
        /// What was given.
        end: Timestamp,
    },
    /// None, or more than can be counted.
    #[error(
        "max_runs is {0}; 1 to {MAX_RUNS_MAX} are allowed: for no limit leave it out, for more write `end`"
    )]
    MaxRuns(u32),
    /// From when on should they be counted?
    #[error(
        "max_runs needs `start`, the instant from which slots are counted; add it, such as `start: 2026-12-01T00:00:00Z`"
    )]
    MaxRunsWithoutStart,
    /// A part of a second, or more than a day.
    #[error("jitter is {0}; it is whole seconds, at most {max}; write such as 30s", max = HumanDuration(JITTER_MAX))]
    Jitter(HumanDuration),
    /// More than anybody wrote by hand.
    #[error("exclude has {0} entries; at most {EXCLUDED_MAX} are allowed: a calendar holds more")]
    Exclude(usize),
    /// Nothing is left.
    #[error("the schedule never comes: start, end and exclude leave none of its slots; widen them")]
    NeverComes,
}

fn show(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

const SECOND: TimeDelta = TimeDelta::seconds(1);
/// Instants that can be written are of the years 0 to 9999; beyond, a zone's clocks may leave the calendar.
pub(crate) const EARLIEST: Timestamp = match DateTime::from_timestamp(-62_167_219_200, 0) {
    Some(earliest) => earliest,
    None => Timestamp::MIN_UTC,
};
pub(crate) const LATEST: Timestamp = match DateTime::from_timestamp(253_402_214_400, 0) {
    Some(latest) => latest,
    None => Timestamp::MAX_UTC,
};

impl Bounds {
    /// Whether nothing is narrowed or shifted.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without the instants.
    pub(crate) fn check(self) -> Result<Self, BoundsError> {
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(BoundsError::EndBeforeStart { start, end });
        }
        match self.max_runs {
            Some(max_runs) if !(1..=MAX_RUNS_MAX).contains(&max_runs) => {
                return Err(BoundsError::MaxRuns(max_runs));
            }
            Some(_) if self.start.is_none() => return Err(BoundsError::MaxRunsWithoutStart),
            _ => {}
        }
        if self.jitter.subsec_nanos() != 0 || self.jitter > JITTER_MAX {
            return Err(BoundsError::Jitter(HumanDuration(self.jitter)));
        }
        if self.exclude.len() > EXCLUDED_MAX {
            return Err(BoundsError::Exclude(self.exclude.len()));
        }
        Ok(self)
    }

    /// Refuses bounds that leave nothing. Shifts are left out of it: they are chosen by the name, and a definition is
    /// right or wrong under every name.
    pub(crate) fn check_comes(&self, zone: Tz, nominal: &Nominal<'_>) -> Result<(), BoundsError> {
        let unshifted = Self { jitter: Duration::ZERO, last: None, ..self.clone() };
        match unshifted.next_after(EARLIEST, zone, nominal) {
            Some(_) => Ok(()),
            None => Err(BoundsError::NeverComes),
        }
    }

    /// The same bounds under a schedule's name, with `max_runs` counted.
    pub(crate) fn named(mut self, name: &str, zone: Tz, nominal: &Nominal<'_>) -> Self {
        self.seed = name.into();
        self.last = None;
        if let (Some(start), Some(max_runs)) = (self.start, self.max_runs) {
            let first = self.next_after(just_before(start), zone, nominal);
            let slots = std::iter::successors(first, |slot| self.next_after(*slot, zone, nominal));
            self.last = slots.take(max_runs as usize).last();
        }
        self
    }

    /// The first slot strictly after an instant.
    pub(crate) fn next_after(&self, after: Timestamp, zone: Tz, nominal: &Nominal<'_>) -> Option<Timestamp> {
        let after = after.max(EARLIEST);
        let mut after = self.start.map_or(after, |start| after.max(just_before(start)));
        // Each round leaves an exclusion behind, and they are bounded.
        loop {
            let slot = self.shifted_after(after, nominal).filter(|slot| *slot <= LATEST)?;
            if self.end.is_some_and(|end| slot > end) || self.last.is_some_and(|last| slot > last) {
                return None;
            }
            let date = slot.with_timezone(&zone).date_naive();
            after = if self.exclude.contains(&Exclusion::Date(date)) {
                // A day of seconds is left in one step.
                slot.max(end_of(date, slot, zone))
            } else if self.exclude.contains(&Exclusion::Instant(slot)) {
                slot
            } else {
                return Some(slot);
            };
        }
    }

    /// The first nominal instant whose shifted one is strictly after an instant, shifted.
    fn shifted_after(&self, after: Timestamp, nominal: &Nominal<'_>) -> Option<Timestamp> {
        if self.jitter.is_zero() {
            return nominal(after);
        }
        // Only the latest nominal instant until now may still be to come; the one before ends before it begins.
        let mut at = match self.latest_upto(after, nominal) {
            Some(at) => at,
            None => nominal(after)?,
        };
        loop {
            let next = nominal(at);
            let shifted = at.checked_add_signed(self.shift(at, next))?;
            if shifted > after {
                return Some(shifted);
            }
            at = next?;
        }
    }

    /// The latest nominal instant until now, if it is near enough to be shifted past now.
    ///
    /// Instants are only found forwards, so it is looked for from further and further back.
    fn latest_upto(&self, now: Timestamp, nominal: &Nominal<'_>) -> Option<Timestamp> {
        let farthest = TimeDelta::from_std(self.jitter).unwrap_or(TimeDelta::MAX);
        let mut back = SECOND;
        loop {
            let from = now.checked_sub_signed(back)?;
            if let Some(first) = nominal(from).filter(|found| *found <= now) {
                let until_now = |at: &Timestamp| nominal(*at).filter(|next| *next <= now);
                return std::iter::successors(Some(first), until_now).last();
            }
            if back >= farthest {
                return None;
            }
            back = (back * 2).min(farthest);
        }
    }

    fn shift(&self, at: Timestamp, next: Option<Timestamp>) -> TimeDelta {
        let jitter_s = self.jitter.as_secs();
        let distance_s = next.map_or(jitter_s, |next| (next - at).num_seconds().unsigned_abs());
        let width_s = jitter_s.min(distance_s).max(1);
        let hash = mixed_64(&["jitter", &self.seed, &at.timestamp().to_string()]);
        TimeDelta::seconds((hash % width_s).cast_signed())
    }
}

/// The first nominal instant strictly after one.
pub(crate) type Nominal<'a> = dyn Fn(Timestamp) -> Option<Timestamp> + 'a;

fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub_signed(TimeDelta::nanoseconds(1)).unwrap_or(at)
}

/// The last second before a zone's clocks show the day after `date`, seen from a slot on it.
pub(crate) fn end_of(date: NaiveDate, slot: Timestamp, zone: Tz) -> Timestamp {
    let Some(next) = date.succ_opt() else { return slot };
    let (first_s, last_s) = instants_of(zone, next.and_time(NaiveTime::MIN).and_utc().timestamp());
    // Clocks that are set back at midnight show the day's end again.
    let next_s = if first_s > slot.timestamp() { first_s } else { last_s };
    DateTime::from_timestamp(next_s - 1, 0).unwrap_or(slot)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::{Timestamp, names::Name, schedule::Schedule, slot::Slot};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn parse(fields: &str) -> Result<Schedule, String> {
        let json = format!(r#"{{{fields},"task":{{"target_service":"a","action":"b"}}}}"#);
        let schedule: Schedule = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        Ok(schedule.named(&"nightly".parse().expect("name")))
    }

    fn slots(fields: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = parse(fields).expect(fields);
        let slots = schedule.slots_after(at(after)).take(count).map(Slot::instant);
        slots.map(|slot| slot.format("%m-%dT%H:%M:%S").to_string()).collect()
    }

    #[test]
    fn a_schedule_is_due_from_its_start_to_its_end_both_included() {
        let fields = r#""every":"12h","start":"2026-11-24T12:00:00Z","end":"2026-11-25T12:00:00Z""#;
        let expected = ["11-24T12:00:00", "11-25T00:00:00", "11-25T12:00:00"];
        assert_eq!(slots(fields, "2020-01-01T00:00:00Z", 9), expected);
        assert_eq!(slots(fields, "2026-11-25T00:00:00Z", 9), expected[2..]);
        let between = r#""every":"12h","start":"2026-11-24T12:00:00.500Z""#;
        assert_eq!(slots(between, "2020-01-01T00:00:00Z", 1), ["11-25T00:00:00"]);
    }

    #[test]
    fn max_runs_counts_slots_from_the_start_wherever_one_enters() {
        let fields = r#""cron":"0 2 * * *","start":"2026-11-24T02:00:00Z","max_runs":3"#;
        let expected = ["11-24T02:00:00", "11-25T02:00:00", "11-26T02:00:00"];
        assert_eq!(slots(fields, "2026-01-01T00:00:00Z", 9), expected);
        assert_eq!(slots(fields, "2026-11-25T12:00:00Z", 9), expected[2..]);
        assert!(slots(fields, "2026-11-26T02:00:00Z", 9).is_empty());
        let excluded = format!(r#"{fields},"exclude":["2026-11-25"]"#);
        let expected = ["11-24T02:00:00", "11-26T02:00:00", "11-27T02:00:00"];
        assert_eq!(slots(&excluded, "2026-01-01T00:00:00Z", 9), expected, "what is excluded is no slot");
    }

    #[test]
    fn a_date_is_excluded_in_the_schedules_zone_and_an_instant_by_itself() {
        // 2026-12-24T18:00Z is 2026-12-25 02:00 in Shanghai.
        let fields = r#""cron":"0 2 * * *","timezone":"Asia/Shanghai","exclude":["2026-12-25","2026-12-27T02:00:00+08:00"]"#;
        let expected = ["12-23T18:00:00", "12-25T18:00:00", "12-27T18:00:00"];
        assert_eq!(slots(fields, "2026-12-23T00:00:00Z", 3), expected);
    }

    #[test]
    fn a_whole_day_of_seconds_is_excluded_also_where_midnight_is_in_a_gap_or_a_fold() {
        for (zone, date, before, first) in [
            ("UTC", "2026-11-24", "2026-11-23T23:59:58Z", "2026-11-25T00:00:00Z"),
            // 00:00 is 01:00 on the 26th in Cairo.
            ("Africa/Cairo", "2024-04-25", "2024-04-24T21:59:58Z", "2024-04-25T22:00:00Z"),
            ("Africa/Cairo", "2024-04-26", "2024-04-25T21:59:58Z", "2024-04-26T21:00:00Z"),
            // 24:00 is 23:00 again on the 31st.
            ("Africa/Cairo", "2024-10-31", "2024-10-30T20:59:58Z", "2024-10-31T22:00:00Z"),
            // 00:01 on 7 November was 23:01 on the 6th again: what is shown of the 7th in between stays.
            ("America/St_Johns", "2010-11-06", "2010-11-06T02:29:58Z", "2010-11-07T02:30:00Z"),
            ("America/Havana", "2024-11-03", "2024-11-03T03:59:58Z", "2024-11-04T05:00:00Z"),
            ("Pacific/Apia", "2011-12-29", "2011-12-29T09:59:58Z", "2011-12-30T10:00:00Z"),
        ] {
            let fields = format!(r#""every":"1s","timezone":"{zone}","exclude":["{date}"]"#);
            let schedule = parse(&fields).expect("schedule");
            let found: Vec<_> = schedule.slots_after(at(before)).map(Slot::instant).take(2).collect();
            assert_eq!(found, [at(before) + super::SECOND, at(first)], "{zone} {date}");
        }
    }

    #[test]
    fn jitter_is_the_same_for_ever_and_wherever_one_enters() {
        // If this fails, every schedule in the field that has jitter moves: a breaking change.
        let mut table = String::new();
        for fields in [
            r#""cron":"0 2 * * *","jitter":"1h""#,
            r#""every":"10s","jitter":"1m""#,
            r#""at":"2026-11-24T02:00:00Z","jitter":"24h""#,
            r#""every":"1s","jitter":"1h""#,
        ] {
            let found = slots(fields, "2026-11-23T12:00:00Z", 3);
            let _ = writeln!(table, "{fields}: {}", found.join(" "));
        }
        insta::assert_snapshot!(table);
        let schedule = parse(r#""cron":"*/7 * * * *","jitter":"20m""#).expect("schedule");
        let whole: Vec<Slot> = schedule.slots_after(at("2026-11-24T00:00:00Z")).take(60).collect();
        assert!(whole.is_sorted_by(|a, b| a < b));
        for (n, slot) in whole.iter().enumerate() {
            if let Some(next) = whole.get(n + 1) {
                assert_eq!(schedule.next_after(slot.instant()), Some(*next));
            }
            let just_before = slot.instant() - super::SECOND;
            assert_eq!(schedule.next_after(just_before), Some(*slot));
            // One nominal instant, one slot: it is less than seven minutes after its own.
            let minute = slot.instant().timestamp() / 60 % 60;
            assert!(minute - minute / 7 * 7 < 7);
        }
    }

    #[test]
    fn jitter_spreads_schedules_and_leaves_excluded_neighbours_in_place() {
        let of = |name: &str| {
            let json = r#"{"cron":"0 2 * * *","jitter":"1h","task":{"target_service":"a","action":"b"}}"#;
            let schedule: Schedule = serde_json::from_str(json).expect("schedule");
            let name: Name = name.parse().expect("name");
            schedule.named(&name).next_after(at("2026-11-24T00:00:00Z")).expect("slot").instant()
        };
        let different: std::collections::BTreeSet<_> = (0..100).map(|n| of(&format!("s_{n}"))).collect();
        assert!(different.len() > 90, "{}", different.len());
        assert!(
            different
                .iter()
                .all(|slot| *slot >= at("2026-11-24T02:00:00Z") && *slot < at("2026-11-24T03:00:00Z"))
        );
        let all = slots(r#""cron":"0 2 * * *","jitter":"1h""#, "2026-11-24T00:00:00Z", 3);
        let less =
            slots(r#""cron":"0 2 * * *","jitter":"1h","exclude":["2026-11-25"]"#, "2026-11-24T00:00:00Z", 2);
        assert_eq!(less, [all[0].clone(), all[2].clone()]);
    }

    #[test]
    fn bounds_that_cannot_be_kept_are_refused_with_value_rule_and_repair() {
        let mut said = String::new();
        for fields in [
            r#""every":"1h","start":"2026-12-01T00:00:00Z","end":"2026-11-01T00:00:00Z""#,
            r#""every":"1h","max_runs":3"#,
            r#""every":"1h","start":"2026-12-01T00:00:00Z","max_runs":0"#,
            r#""every":"1h","start":"2026-12-01T00:00:00Z","max_runs":10001"#,
            r#""every":"1h","jitter":"1500ms""#,
            r#""every":"1h","jitter":"25h""#,
            r#""every":"1h","exclude":["2026-02-30"]"#,
            r#""every":"1h","exclude":["tomorrow"]"#,
            r#""at":"2026-12-01T00:00:00Z","exclude":["2026-12-01"]"#,
            r#""cron":"0 0 1 1 *","start":"2026-02-01T00:00:00Z","end":"2026-11-01T00:00:00Z""#,
            r#""every":"1h","on_closed_day":"next_open_day""#,
            r#""every":"500ms""#,
            r#""every":"0s""#,
            r#""every":"1h","phase":"1h""#,
        ] {
            let _ = writeln!(said, "{fields}\n    {}", parse(fields).expect_err(fields));
        }
        insta::assert_snapshot!(said);
    }

    #[test]
    fn bounds_are_written_as_they_were_read() {
        let fields = r#""every":"1h","exclude":["2026-12-25","2026-12-26T10:00:00Z"],"start":"2026-12-01T00:00:00Z","end":"2027-12-01T00:00:00Z","max_runs":5,"jitter":"30s""#;
        let schedule = parse(fields).expect("schedule");
        let json = serde_json::to_string(&schedule).expect("json");
        let again: Schedule = serde_json::from_str(&json).expect("schedule");
        assert_eq!(again.named(&"nightly".parse().expect("name")), schedule);
        assert!(json.contains(r#""exclude":["2026-12-25","2026-12-26T10:00:00Z"]"#), "{json}");
    }
}
