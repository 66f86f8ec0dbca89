//! A calendar: the days on which a schedule may run.

use std::{borrow::Cow, collections::BTreeSet};

use chrono::{Datelike, NaiveDate, Weekday};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::suggest::nearest;

/// The days on which a schedule may run: some days of the week, except some dates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CalendarFields", into = "CalendarFields")]
pub struct Calendar {
    weekdays: [bool; 7],
    except: BTreeSet<NaiveDate>,
    written: Option<String>,
}

/// A calendar as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Calendar")]
pub struct CalendarFields {
    /// Days of the week, such as `mon-fri` or `mon,wed,fri`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weekdays: Option<String>,
    /// Dates, as 2026-10-01, on which nothing runs although the weekday would allow it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    #[schemars(with = "Vec<String>")]
    pub except: BTreeSet<NaiveDate>,
}

/// A calendar that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Not a day of the week.
    #[error("weekdays names {word:?}; write mon, tue, wed, thu, fri, sat or sun{hint}")]
    Weekday {
        /// What was given.
        word: String,
        /// "; did you mean …", or nothing.
        hint: String,
    },
    /// No day is left.
    #[error("weekdays is empty: name at least one day, or leave the field out for all")]
    Empty,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn day(word: &str) -> Result<usize, CalendarError> {
    let lower = word.trim().to_lowercase();
    DAYS.iter().position(|day| *day == lower).ok_or_else(|| CalendarError::Weekday {
        word: word.trim().to_owned(),
        hint: nearest(&lower, DAYS).map_or_else(String::new, |day| format!("; did you mean {day}?")),
    })
}

impl TryFrom<CalendarFields> for Calendar {
    type Error = CalendarError;
    fn try_from(fields: CalendarFields) -> Result<Self, CalendarError> {
        let mut weekdays = [fields.weekdays.is_none(); 7];
        for part in fields.weekdays.iter().flat_map(|text| text.split(',')) {
            if part.trim().is_empty() {
                return Err(CalendarError::Empty);
            }
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (day(from)?, day(to)?);
            // A week is a circle: fri-mon is friday, saturday, sunday and monday.
            let mut at = from;
            weekdays[at] = true;
            while at != to {
                at = (at + 1) % 7;
                weekdays[at] = true;
            }
        }
        Ok(Self { weekdays, except: fields.except, written: fields.weekdays })
    }
}

impl From<Calendar> for CalendarFields {
    fn from(calendar: Calendar) -> Self {
        Self { weekdays: calendar.written, except: calendar.except }
    }
}

impl Calendar {
    /// Whether this civil date is one of its days.
    pub fn includes(&self, date: NaiveDate) -> bool {
        let weekday: Weekday = date.weekday();
        self.weekdays[weekday.num_days_from_monday() as usize] && !self.except.contains(&date)
    }
}

impl JsonSchema for Calendar {
    fn schema_name() -> Cow<'static, str> {
        CalendarFields::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        CalendarFields::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(json: &str) -> Result<Calendar, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_market_calendar_leaves_out_weekends_and_holidays() {
        let market =
            calendar(r#"{"weekdays":"mon-fri","except":["2026-10-01","2026-10-02"]}"#).expect("calendar");
        let includes = |date: &str| market.includes(date.parse().expect("date"));
        assert!(includes("2026-09-30"), "a Wednesday");
        assert!(!includes("2026-10-01"), "a holiday");
        assert!(!includes("2026-10-03"), "a Saturday");
    }

    #[test]
    fn a_day_nobody_knows_is_refused_with_a_suggestion() {
        assert!(calendar(r#"{"weekdays":"mon-fry"}"#).expect_err("fry").contains("did you mean fri?"));
        assert!(calendar(r#"{"weekdays":""}"#).expect_err("empty").contains("leave the field out"));
        assert!(calendar(r#"{"except":["2026-02-30"]}"#).is_err());
    }
}
