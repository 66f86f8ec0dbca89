//! A calendar: the days on which a schedule may run.

use std::{borrow::Cow, collections::BTreeSet};

use chrono::{Datelike, NaiveDate, Weekday};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ical, limits::CALENDAR_DATES_MAX, suggest::nearest};

/// The days on which a schedule may run: some days of the week, without some dates, with some others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CalendarFields", into = "CalendarFields")]
pub struct Calendar {
    weekdays: [bool; 7],
    fields: CalendarFields,
}

/// A calendar as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
    /// Dates, as 2026-10-10, that belong to it although the weekday or a holiday would not allow it: working Saturdays.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    #[schemars(with = "Vec<String>")]
    pub include: BTreeSet<NaiveDate>,
    /// iCalendar files with more dates for `except`. They are read by `apply`, `diff` and `next -f`; the fleet keeps the
    /// dates, not the files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holidays: Option<IcalFiles>,
    /// iCalendar files with more dates for `include`, read in the same way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workdays: Option<IcalFiles>,
    /// Turned round: its days are those that it would otherwise leave out.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub invert: bool,
}

/// Dates that are in iCalendar files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IcalFiles {
    /// A file or several, beside the definitions file.
    pub ical: Files,
    /// Only events whose summary holds this text, in upper or lower case. Default: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<String>,
}

/// One file or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Files {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Files {
    fn paths(&self) -> &[String] {
        match self {
            Files::One(path) => std::slice::from_ref(path),
            Files::Several(paths) => paths,
        }
    }
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
    /// A date that is to run and not to run.
    #[error("{0} is in `except` and in `include`; leave it in one of them")]
    Contradiction(NaiveDate),
    /// More than a message holds.
    #[error(
        "the calendar has {0} dates; at most {CALENDAR_DATES_MAX} are allowed: narrow the files by `summary`"
    )]
    Dates(usize),
    /// A file that cannot be read here, or not at all.
    #[error("{field}.ical {path:?}: {reason}")]
    File {
        /// `holidays` or `workdays`.
        field: &'static str,
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
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
        if let Some(date) = fields.except.intersection(&fields.include).next() {
            return Err(CalendarError::Contradiction(*date));
        }
        let dates = fields.except.len() + fields.include.len();
        if dates > CALENDAR_DATES_MAX {
            return Err(CalendarError::Dates(dates));
        }
        Ok(Self { weekdays, fields })
    }
}

impl From<Calendar> for CalendarFields {
    fn from(calendar: Calendar) -> Self {
        calendar.fields
    }
}

/// Reads a file: its bytes, or why it cannot be read.
pub type ReadFile<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

impl Calendar {
    /// Whether this civil date is one of its days.
    pub fn includes(&self, date: NaiveDate) -> bool {
        // Files that nobody read may hold any date: then nothing runs, as with a calendar that is not declared.
        if self.fields.holidays.is_some() || self.fields.workdays.is_some() {
            return false;
        }
        let weekday: Weekday = date.weekday();
        let by_weekday = self.weekdays[weekday.num_days_from_monday() as usize];
        let has = self.fields.include.contains(&date) || (by_weekday && !self.fields.except.contains(&date));
        has != self.fields.invert
    }

    /// The same calendar with the dates of its files in place of the files. What is written as a date comes before what
    /// is in a file, and a workday before a holiday.
    pub fn with_files_read(self, read: &mut ReadFile<'_>) -> Result<Self, CalendarError> {
        let mut fields = self.fields;
        let mut dates_of = |field, files: Option<IcalFiles>| -> Result<BTreeSet<NaiveDate>, CalendarError> {
            let mut dates = BTreeSet::new();
            for path in files.iter().flat_map(|files| files.ical.paths()) {
                let refused = |reason| CalendarError::File { field, path: path.clone(), reason };
                let bytes = read(path).map_err(refused)?;
                let summary = files.as_ref().and_then(|files| files.summary.as_deref());
                dates.extend(ical::dates(&bytes, summary).map_err(|error| refused(error.to_string()))?);
            }
            Ok(dates)
        };
        let holidays = dates_of("holidays", fields.holidays.take())?;
        let workdays = dates_of("workdays", fields.workdays.take())?;
        let workdays: BTreeSet<NaiveDate> = workdays.difference(&fields.except).copied().collect();
        fields.include.extend(workdays);
        fields.except.extend(holidays.difference(&fields.include));
        fields.try_into()
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

    #[test]
    fn a_working_saturday_is_included_and_a_date_cannot_be_both() {
        let market = calendar(r#"{"weekdays":"mon-fri","except":["2026-10-01"],"include":["2026-10-10"]}"#);
        let market = market.expect("calendar");
        assert!(market.includes("2026-10-10".parse().expect("a Saturday")));
        assert!(!market.includes("2026-10-11".parse().expect("a Sunday")));
        let both = calendar(r#"{"except":["2026-10-01"],"include":["2026-10-01"]}"#).expect_err("both");
        assert!(both.contains("2026-10-01 is in `except` and in `include`; leave it in one"), "{both}");
    }

    #[test]
    fn an_inverted_calendar_has_the_days_the_other_leaves_out() {
        let fields = r#""weekdays":"mon-fri","except":["2026-10-01"],"include":["2026-10-10"]"#;
        let one = calendar(&format!("{{{fields}}}")).expect("calendar");
        let other = calendar(&format!(r#"{{{fields},"invert":true}}"#)).expect("calendar");
        for date in NaiveDate::from_ymd_opt(2026, 9, 20).expect("date").iter_days().take(40) {
            assert_ne!(one.includes(date), other.includes(date), "{date}");
        }
    }

    #[test]
    fn dates_of_files_take_the_place_of_the_files_and_what_is_written_comes_first() {
        let event = |date: &str, summary: &str| {
            format!("BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:{date}\r\nSUMMARY:{summary}\r\nEND:VEVENT\r\n")
        };
        let events = [
            ("20261001", "国庆节 休"),
            ("20261002", "国庆节 休"),
            ("20261010", "国庆节 班"),
            ("20261010", "休"),
        ];
        let events: String = events.map(|(date, summary)| event(date, summary)).concat();
        let file = format!("BEGIN:VCALENDAR\r\n{events}END:VCALENDAR\r\n");
        let written = calendar(
            r#"{"weekdays":"mon-fri","include":["2026-10-02"],"holidays":{"ical":"cn.ics","summary":"休"},"workdays":{"ical":["cn.ics"],"summary":"班"}}"#,
        )
        .expect("calendar");
        assert!(!written.includes("2026-09-30".parse().expect("date")), "nobody read the files");
        let mut asked = Vec::new();
        let read = written.clone().with_files_read(&mut |path| {
            asked.push(path.to_owned());
            Ok(file.clone().into_bytes())
        });
        assert_eq!(
            serde_json::to_string(&read.expect("read")).expect("json"),
            r#"{"weekdays":"mon-fri","except":["2026-10-01"],"include":["2026-10-02","2026-10-10"]}"#
        );
        assert_eq!(asked, ["cn.ics", "cn.ics"]);
        let refused =
            written.with_files_read(&mut |_| Ok(b"BEGIN:VCALENDAR\nEND".to_vec())).expect_err("cut off");
        assert!(refused.to_string().starts_with("holidays.ical \"cn.ics\": line "), "{refused}");
    }
}
