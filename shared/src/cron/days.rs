//! Days that no set of numbers can name: `L`, `L-n`, `LW`, `nW`, `d#n`, `dL`.
//!
//! The engine knows none of them. A field that has one is decided here as a whole, month by month, and the engine
//! only counts the times of day.

use std::{collections::BTreeSet, fmt};

use chrono::{Datelike, NaiveDate};

use super::{error::FieldFault, field::Field};

/// A rule about days, decided within one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DayRule {
    /// `L`, `L-n`: so many days before the last day of the month.
    FromLast(u16),
    /// `LW`: the last day from Monday to Friday.
    LastWorkday,
    /// `nW`: the day from Monday to Friday nearest to the n-th, without leaving the month.
    NearestWorkday(u16),
    /// `d#n`: the n-th such weekday of the month.
    Nth(u16, u16),
    /// `dL`: the last such weekday of the month.
    LastOf(u16),
}

const ONLY_DAYS: &str = "L and W belong to day-of-month, # and a last weekday such as FRIL to day-of-week";
const BARE_L: &str = "L alone means the last day of the month and belongs to day-of-month; for the last weekday of a \
                      kind write one such as FRIL, for Saturday SAT";
const NTH: &str = "# takes a weekday and a number from 1 to 5, such as MON#2, without range or step";
const LAST_OF: &str = "L follows one weekday, such as FRIL or 5L, without range or step";
const FROM_LAST: &str =
    "L takes at most a number of days before the last one, L-1 to L-30, or W, without step";
const WORKDAY: &str = "W follows one day or L, such as 15W or LW, without range or step";

impl DayRule {
    /// The rule in this item, if there is one.
    pub(super) fn parse(field: Field, item: &str) -> Result<Option<DayRule>, FieldFault> {
        let text = item.to_ascii_uppercase();
        let special = |rule: &'static str| FieldFault::Special { rule };
        let number = |digits: &str| digits.parse::<u16>().ok().filter(|_| !digits.starts_with('+'));
        let rule = match field {
            Field::DayOfMonth if text == "L" => DayRule::FromLast(0),
            Field::DayOfMonth if text == "LW" => DayRule::LastWorkday,
            Field::DayOfMonth if text.starts_with('L') => {
                let before = text.strip_prefix("L-").and_then(number);
                DayRule::FromLast(before.filter(|n| (1..=30).contains(n)).ok_or_else(|| special(FROM_LAST))?)
            }
            Field::DayOfMonth if text.contains('W') => {
                let digits = |day: &&str| !day.is_empty() && day.bytes().all(|byte| byte.is_ascii_digit());
                let day = text.strip_suffix('W').filter(digits);
                DayRule::NearestWorkday(field.value(day.ok_or_else(|| special(WORKDAY))?)?)
            }
            Field::DayOfWeek if text == "L" => return Err(special(BARE_L)),
            Field::DayOfWeek if text.contains('#') => {
                let whole = text.split_once('#').filter(|(day, _)| !day.is_empty() && !day.contains('-'));
                let (day, nth) = whole.ok_or_else(|| special(NTH))?;
                let nth = number(nth).filter(|n| (1..=5).contains(n)).ok_or_else(|| special(NTH))?;
                DayRule::Nth(field.value(day)? % 7, nth)
            }
            Field::DayOfWeek if text.ends_with('L') => {
                let day = text.trim_end_matches('L');
                if day.contains(['-', '/', '*']) || text.len() != day.len() + 1 {
                    return Err(special(LAST_OF));
                }
                DayRule::LastOf(field.value(day)? % 7)
            }
            // JUL ends with an L and is none of them.
            _ if text.contains('#') || text == "L" || text == "LW" => return Err(special(ONLY_DAYS)),
            _ => return Ok(None),
        };
        Ok(Some(rule))
    }

    fn day_in(self, month: &Month) -> Option<u16> {
        let workday = |day: u16| (1..=5).contains(&month.weekday_of(day));
        let day = match self {
            DayRule::FromLast(before) => month.days.checked_sub(before)?,
            DayRule::LastWorkday => (1..=month.days).rev().find(|day| workday(*day))?,
            // There is no 31st in April, so there is no workday nearest to it.
            DayRule::NearestWorkday(day) if day > month.days => return None,
            DayRule::NearestWorkday(day) => match month.weekday_of(day) {
                6 if day > 1 => day - 1,
                6 => day + 2,
                0 if day < month.days => day + 1,
                0 => day - 2,
                _ => day,
            },
            DayRule::Nth(weekday, nth) => month.first_such(weekday) + 7 * (nth - 1),
            DayRule::LastOf(weekday) => {
                (1..=month.days).rev().find(|day| month.weekday_of(*day) == weekday)?
            }
        };
        (1..=month.days).contains(&day).then_some(day)
    }
}

impl fmt::Display for DayRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DayRule::FromLast(0) => f.write_str("L"),
            DayRule::FromLast(before) => write!(f, "L-{before}"),
            DayRule::LastWorkday => f.write_str("LW"),
            DayRule::NearestWorkday(day) => write!(f, "{day}W"),
            DayRule::Nth(weekday, nth) => write!(f, "{weekday}#{nth}"),
            DayRule::LastOf(weekday) => write!(f, "{weekday}L"),
        }
    }
}

/// One month of one year: how long it is, and on which weekday it begins.
struct Month {
    days: u16,
    first_weekday: u16,
}

impl Month {
    fn of(date: NaiveDate) -> Option<Month> {
        let first = date.with_day(1)?;
        let first_weekday = first.weekday().num_days_from_sunday() as u16;
        Some(Month { days: u16::from(first.num_days_in_month()), first_weekday })
    }

    fn weekday_of(&self, day: u16) -> u16 {
        (self.first_weekday + day - 1) % 7
    }

    fn first_such(&self, weekday: u16) -> u16 {
        1 + (weekday + 7 - self.first_weekday) % 7
    }
}

/// What one day field allows: some values, and some rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DayField {
    pub(super) values: BTreeSet<u16>,
    pub(super) rules: BTreeSet<DayRule>,
}

impl DayField {
    fn allows(&self, value: u16, day: u16, month: &Month) -> bool {
        self.values.contains(&value) || self.rules.iter().any(|rule| rule.day_in(month) == Some(day))
    }
}

/// The days that both day fields allow, in the months that are asked for.
#[derive(Debug, Clone)]
pub(super) struct DayFilter {
    pub(super) days_of_month: DayField,
    pub(super) days_of_week: DayField,
    pub(super) months: BTreeSet<u16>,
}

impl DayFilter {
    /// The first allowed day, from this one on.
    pub(super) fn first_from(&self, from: NaiveDate) -> Option<NaiveDate> {
        let (_, year_max) = Field::Year.bounds();
        let mut date = from;
        // At most twelve months in each of the years the engine knows.
        while date.year() <= i32::from(year_max) {
            if self.months.contains(&(date.month() as u16)) {
                let month = Month::of(date)?;
                let allowed = |day: &u16| {
                    self.days_of_month.allows(*day, *day, &month)
                        && self.days_of_week.allows(month.weekday_of(*day), *day, &month)
                };
                if let Some(day) = (date.day() as u16..=month.days).find(allowed) {
                    return date.with_day(u32::from(day));
                }
            }
            date = date.with_day(1)?.checked_add_months(chrono::Months::new(1))?;
        }
        None
    }
}
