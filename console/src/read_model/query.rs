//! A list of runs, asked for: parsed at the door, so that inside there is none that cannot be answered.

use std::{fmt, str::FromStr};

use serde::de::IntoDeserializer;
use shared::{
    Timestamp,
    limits::{PAGE_DEFAULT, PAGE_MAX},
    run_record::Reason,
    run_state::RunState,
    suggest::nearest,
};

use super::{Cursor, CursorError, RunFilter};

/// In which order a list is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The run that was created last comes first.
    #[default]
    NewestFirst,
    /// The run that was created first comes first.
    OldestFirst,
    /// Those that failed come first, then those that wait for a retry, then all others; each the newest first.
    FailuresFirst,
}

impl Order {
    const WORDS: [(&'static str, Order); 3] =
        [("newest", Order::NewestFirst), ("oldest", Order::OldestFirst), ("failures", Order::FailuresFirst)];

    /// How many parts a list in this order has, one after the other.
    pub(crate) fn parts(self) -> u8 {
        if self == Order::FailuresFirst { 3 } else { 1 }
    }
}

/// A list of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunQuery {
    /// Which runs.
    pub filter: RunFilter,
    /// In which order.
    pub order: Order,
    /// At most so many on a page: 1 to `limits::PAGE_MAX`.
    pub limit: u16,
    /// Where the page begins; at the beginning if absent.
    pub cursor: Option<Cursor>,
}

impl Default for RunQuery {
    fn default() -> Self {
        Self { filter: RunFilter::default(), order: Order::default(), limit: PAGE_DEFAULT, cursor: None }
    }
}

/// A list that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A filter that there is not.
    #[error("there is no filter {name:?}{}; there are {}", did_you_mean(.near.as_deref()), RunQuery::NAMES.join(", "))]
    Unknown {
        /// Its name, cut to a readable length.
        name: String,
        /// The one that may have been meant.
        near: Option<String>,
    },
    /// A filter that was given twice, and is one.
    #[error("{0} is given twice; give it once")]
    Twice(&'static str),
    /// A value that cannot be understood.
    #[error("{name}: {detail}")]
    Value {
        /// The filter.
        name: &'static str,
        /// The value, the rule and the repair.
        detail: String,
    },
    /// A cursor that is none, or of another list.
    #[error("cursor: {0}")]
    Cursor(#[from] CursorError),
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

impl RunQuery {
    /// The names that [`RunQuery::from_pairs`] knows.
    pub const NAMES: [&'static str; 19] = [
        "schedule",
        "name",
        "queue",
        "status",
        "reason",
        "worker",
        "target",
        "action",
        "created_from",
        "created_to",
        "slot_from",
        "slot_to",
        "error",
        "late",
        "attempts_min",
        "id_prefix",
        "order",
        "limit",
        "cursor",
    ];

    /// Reads a query as it stands in an address: `status=FAILED&status=RETRY&queue=reports&limit=50`.
    ///
    /// `status` and `reason` may be given several times, or several of them separated by commas. Times are RFC 3339.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let mut seen = Vec::new();
        for (name, value) in pairs {
            let Some(name) = Self::NAMES.into_iter().find(|known| *known == name) else {
                let near = nearest(name, Self::NAMES).map(ToOwned::to_owned);
                return Err(QueryError::Unknown { name: name.chars().take(64).collect(), near });
            };
            if seen.contains(&name) && !matches!(name, "status" | "reason") {
                return Err(QueryError::Twice(name));
            }
            seen.push(name);
            query.set(name, value)?;
        }
        query.check()?;
        Ok(query)
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), QueryError> {
        let filter = &mut self.filter;
        match name {
            "schedule" => filter.schedule = Some(parse(name, value)?),
            "name" => filter.name = Some(parse(name, value)?),
            "queue" => filter.queue = Some(parse(name, value)?),
            "status" => {
                for word in value.split(',') {
                    filter.statuses.push(status(word)?);
                }
            }
            "reason" => {
                for word in value.split(',') {
                    filter.reasons.push(reason(word)?);
                }
            }
            "worker" => filter.worker = Some(parse(name, value)?),
            "target" => filter.target = Some(parse(name, value)?),
            "action" => filter.action = Some(parse(name, value)?),
            "created_from" => filter.created.from = Some(instant(name, value)?),
            "created_to" => filter.created.to = Some(instant(name, value)?),
            "slot_from" => filter.slot.from = Some(instant(name, value)?),
            "slot_to" => filter.slot.to = Some(instant(name, value)?),
            "error" => filter.error_text = Some(parse(name, value)?),
            "late" => filter.late = Some(one_of(name, value, &[("true", true), ("false", false)])?),
            "attempts_min" => filter.attempts_min = Some(number(name, value, u32::MAX)?),
            "id_prefix" => filter.id_prefix = Some(parse(name, value)?),
            "order" => self.order = one_of(name, value, &Order::WORDS)?,
            "limit" => self.limit = number(name, value, u32::from(PAGE_MAX))? as u16,
            _ => self.cursor = Some(value.parse()?),
        }
        Ok(())
    }

    /// Checks what is wrong only together.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if !(1..=PAGE_MAX).contains(&self.limit) {
            let detail = format!("{} is not a number from 1 to {PAGE_MAX}", self.limit);
            return Err(QueryError::Value { name: "limit", detail });
        }
        if let Some(cursor) = &self.cursor {
            cursor.check(&self.filter, self.order)?;
        }
        Ok(())
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(name: &'static str, value: &str) -> Result<T, QueryError> {
    value.parse().map_err(|error: T::Err| QueryError::Value { name, detail: error.to_string() })
}

/// What was given, short enough to be repeated.
fn cut(value: &str) -> String {
    value.chars().take(64).collect()
}

fn instant(name: &'static str, value: &str) -> Result<Timestamp, QueryError> {
    value.parse().map_err(|_| {
        let detail = format!("{:?} is not an instant; write it as 2026-11-24T02:00:00Z", cut(value));
        QueryError::Value { name, detail }
    })
}

fn number(name: &'static str, value: &str, max: u32) -> Result<u32, QueryError> {
    let number = value.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| {
        let detail = format!("{:?} is not a number from 1 to {max}", cut(value));
        QueryError::Value { name, detail }
    })
}

fn one_of<T: Copy>(name: &'static str, value: &str, words: &[(&str, T)]) -> Result<T, QueryError> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meant)| *meant).ok_or_else(|| {
        let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let detail = format!("{:?} is not one of {known}", cut(value));
        QueryError::Value { name, detail }
    })
}

fn status(word: &str) -> Result<RunState, QueryError> {
    let words = RunState::ALL.map(|state| (state.as_str(), state));
    one_of("status", &word.to_ascii_uppercase(), &words)
}

fn reason(word: &str) -> Result<Reason, QueryError> {
    let read: Result<Reason, serde::de::value::Error> =
        serde::Deserialize::deserialize(word.to_ascii_lowercase().into_deserializer());
    // What there is no word for is read as `other`, which nobody looks for by another word.
    let known = read.ok().filter(|reason| *reason != Reason::Other || word == "other");
    known.ok_or_else(|| {
        let detail =
            format!("{:?} is not a reason; docs/PROTOCOL.md lists them, such as skipped_overlap", cut(word));
        QueryError::Value { name: "reason", detail }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<RunQuery, String> {
        let pairs = address.split('&').filter_map(|pair| pair.split_once('='));
        RunQuery::from_pairs(pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_is_read_as_it_stands_in_an_address() {
        assert_eq!(read(""), Ok(RunQuery::default()));
        let query = read(
            "schedule=daily&queue=default&status=FAILED,retry&status=RUNNING&reason=timeout&late=true&attempts_min=2&\
             created_from=2026-11-24T02:00:00Z&error=Refused&id_prefix=daily.2026&order=oldest&limit=7",
        )
        .expect("a query");
        assert_eq!(query.filter.statuses, [RunState::Failed, RunState::Retry, RunState::Running]);
        assert_eq!(query.filter.reasons, [Reason::Timeout]);
        assert_eq!((query.order, query.limit, query.filter.late), (Order::OldestFirst, 7, Some(true)));
        assert_eq!(query.filter.error_text.as_ref().map(super::super::ErrorText::as_str), Some("refused"));
        let cursor = Cursor::new(0, 77, &query.filter, query.order).to_string();
        let next = format!(
            "schedule=daily&queue=default&status=RETRY,RUNNING,FAILED&reason=timeout&late=true&attempts_min=2&\
             created_from=2026-11-24T02:00:00Z&error=Refused&id_prefix=daily.2026&order=oldest&limit=9&cursor={cursor}"
        );
        assert!(read(&next).expect("the next page").cursor.is_some());
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_with_the_value_the_rule_and_the_repair() {
        for (address, words) in [
            ("statsu=FAILED", "did you mean \"status\"?"),
            ("queue=a&queue=b", "queue is given twice"),
            ("status=DONE", "\"DONE\" is not one of PENDING, RUNNING"),
            ("reason=because", "\"because\" is not a reason"),
            ("queue=a.b", "only A-Z a-z 0-9 _ - are allowed"),
            ("limit=0", "\"0\" is not a number from 1 to"),
            ("limit=100000", "is not a number from 1 to"),
            ("attempts_min=-1", "attempts_min: \"-1\" is not a number"),
            ("late=yes", "late: \"yes\" is not one of true, false"),
            ("order=random", "is not one of newest, oldest, failures"),
            ("created_from=yesterday", "write it as 2026-11-24T02:00:00Z"),
            ("error=", "error: the text to look for is empty"),
            ("id_prefix=%25", "is not the beginning of a run's id"),
            ("cursor=77", "\"77\" is no cursor"),
            ("cursor=r1-0-7-0000000000000007", "other filters or another order"),
        ] {
            let error = read(address).expect_err(address);
            assert!(error.contains(words), "{address}: {error}");
        }
    }
}
