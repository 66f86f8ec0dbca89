//! Slots on a wall calendar that knows no zones: sets of values, counted by the engine.
//!
//! The engine is the `cron` crate. It speaks Quartz: it counts weekdays from Sunday = 1, joins the two day fields by
//! AND, and goes backwards where clocks are set back. So it is handed weekdays by name, one expression per day field
//! where they are joined by OR, and civil time dressed up as UTC.

use std::{collections::BTreeSet, fmt::Write, str::FromStr};

use chrono::{DateTime, NaiveTime};

use super::{
    days::{DayField, DayFilter, DayRule},
    error::CronError,
    field::Field,
};

/// The values of all fields, with every spread already chosen.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pub(super) seconds: BTreeSet<u16>,
    pub(super) minutes: BTreeSet<u16>,
    pub(super) hours: BTreeSet<u16>,
    pub(super) days_of_month: DayField,
    pub(super) months: BTreeSet<u16>,
    pub(super) days_of_week: DayField,
    pub(super) years: BTreeSet<u16>,
    /// Both day fields are restricted, so a day needs to satisfy only one of them.
    pub(super) either_day: bool,
}

impl Values {
    /// One text for all expressions that mean the same slots.
    pub(super) fn normal_text(&self) -> String {
        let Values { seconds, minutes, hours, days_of_month, months, days_of_week, years, either_day } = self;
        let days = |field: Field, days: &DayField| {
            let rules = days.rules.iter().map(DayRule::to_string);
            let values = (!days.values.is_empty()).then(|| runs(field, &days.values));
            values.into_iter().chain(rules).collect::<Vec<_>>().join(",")
        };
        format!(
            "{} {} {} {} {} {} {} {}",
            runs(Field::Second, seconds),
            runs(Field::Minute, minutes),
            runs(Field::Hour, hours),
            days(Field::DayOfMonth, days_of_month),
            runs(Field::Month, months),
            days(Field::DayOfWeek, days_of_week),
            runs(Field::Year, years),
            if *either_day { "or" } else { "and" },
        )
    }
}

/// A set as the engine reads it: `*`, or runs, and weekdays by name.
fn runs(field: Field, values: &BTreeSet<u16>) -> String {
    if field.all_values().all(|value| values.contains(&value)) {
        return "*".to_owned();
    }
    if field == Field::DayOfWeek {
        return values.iter().map(|day| Field::weekday_name(*day)).collect::<Vec<_>>().join(",");
    }
    let mut text = String::new();
    let mut rest = values.iter().copied().peekable();
    while let Some(from) = rest.next() {
        let mut to = from;
        while let Some(next) = rest.next_if_eq(&(to + 1)) {
            to = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = if from == to { write!(text, "{comma}{from}") } else { write!(text, "{comma}{from}-{to}") };
    }
    text
}

/// The civil slots of one expression.
#[derive(Debug)]
pub(super) struct CivilSlots {
    /// One, or two where the day fields are joined by OR: the earlier slot counts.
    branches: Vec<Branch>,
}

#[derive(Debug)]
struct Branch {
    engine: cron::Schedule,
    /// Present if a day field has rules; the engine then lets every day pass.
    filter: Option<DayFilter>,
}

impl CivilSlots {
    pub(super) fn new(expression: &str, values: &Values) -> Result<CivilSlots, CronError> {
        let every_day =
            |field: Field| DayField { values: field.all_values().collect(), rules: BTreeSet::new() };
        let branches = if values.either_day {
            let by_month = Values { days_of_week: every_day(Field::DayOfWeek), ..values.clone() };
            let by_week = Values { days_of_month: every_day(Field::DayOfMonth), ..values.clone() };
            vec![Branch::new(expression, &by_month)?, Branch::new(expression, &by_week)?]
        } else {
            vec![Branch::new(expression, values)?]
        };
        Ok(CivilSlots { branches })
    }

    /// The first slot at or after this civil second (seconds since 1970-01-01T00:00:00, whatever the zone).
    pub(super) fn first_from(&self, civil_s: i64) -> Option<i64> {
        self.branches.iter().filter_map(|branch| branch.first_from(civil_s.max(0))).min()
    }
}

impl Branch {
    fn new(expression: &str, values: &Values) -> Result<Branch, CronError> {
        let has_rules = !values.days_of_month.rules.is_empty() || !values.days_of_week.rules.is_empty();
        let handed = format!(
            "{} {} {} {} {} {} {}",
            runs(Field::Second, &values.seconds),
            runs(Field::Minute, &values.minutes),
            runs(Field::Hour, &values.hours),
            if has_rules { "*".to_owned() } else { runs(Field::DayOfMonth, &values.days_of_month.values) },
            runs(Field::Month, &values.months),
            if has_rules { "*".to_owned() } else { runs(Field::DayOfWeek, &values.days_of_week.values) },
            runs(Field::Year, &values.years),
        );
        let engine = cron::Schedule::from_str(&handed).map_err(|error| CronError::Engine {
            expression: expression.to_owned(),
            reason: error.to_string(),
            handed,
        })?;
        let filter = has_rules.then(|| DayFilter {
            days_of_month: values.days_of_month.clone(),
            days_of_week: values.days_of_week.clone(),
            months: values.months.clone(),
        });
        Ok(Branch { engine, filter })
    }

    fn first_from(&self, civil_s: i64) -> Option<i64> {
        let Some(filter) = &self.filter else { return self.engine_from(civil_s) };
        let mut from_s = civil_s;
        // Each round is at least one day later, and the filter ends with the last year the engine knows.
        loop {
            let day = filter.first_from(DateTime::from_timestamp(from_s, 0)?.date_naive())?;
            let day_starts_s = day.and_time(NaiveTime::MIN).and_utc().timestamp();
            let found_s = self.engine_from(from_s.max(day_starts_s))?;
            if found_s < day_starts_s + super::zone::DAY_S {
                return Some(found_s);
            }
            from_s = found_s;
        }
    }

    fn engine_from(&self, civil_s: i64) -> Option<i64> {
        let just_before = DateTime::from_timestamp(civil_s.checked_sub(1)?, 0)?;
        self.engine.after(&just_before).next().map(|slot| slot.timestamp())
    }
}
