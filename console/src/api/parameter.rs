//! What verbs take beside a body: each parameter has a kind, which refuses a value before a verb sees it, and says so in the `OpenAPI`
//! document.

use std::str::FromStr;

use serde_json::{Value, json};
use shared::{
    Timestamp,
    human_duration::HumanDuration,
    limits::{IDEMPOTENCY_KEY_CHARS_MAX, PAGE_MAX},
    names::{MemberId, Name},
    run::RunId,
    run_state::RunState,
};

/// Where a parameter stands in a request over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// A header.
    Header,
}

impl Place {
    /// As `OpenAPI` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        }
    }
}

/// What values a parameter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name of a schedule, queue, target or calendar.
    Name,
    /// The id of a planner or worker.
    Member,
    /// `<name>.<key>`.
    Run,
    /// A number.
    Number {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// `true` or `false`.
    Boolean,
    /// RFC 3339.
    Instant,
    /// RFC 3339, or how long ago: `2h`.
    Moment,
    /// A state of runs.
    State,
    /// `en` or `zh`.
    Language,
    /// Any text, of at most so many characters.
    Text(usize),
}

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; of a header as HTTP writes it.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What values it has.
    pub kind: Kind,
    /// Whether it may be given several times: any of them counts.
    pub is_repeated: bool,
    /// What it is, in a sentence.
    pub about: &'static str,
}

/// A parameter of the path.
pub const fn path(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, kind, is_repeated: false, about }
}

/// A parameter of the query.
pub const fn query(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, is_repeated: false, about }
}

/// A parameter of the query that may be given several times.
pub const fn queries(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, is_repeated: true, about }
}

/// A header.
pub const fn header(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Header, kind, is_repeated: false, about }
}

/// So many characters of a text, when nothing else is said.
pub const TEXT: Kind = Kind::Text(256);
/// A page's size.
pub const LIMIT: Parameter = query(
    "limit",
    Kind::Number { min: 1, max: PAGE_MAX as u64 },
    "At most so many items, 1 to 500. Default 50.",
);
/// Where a page begins.
pub const CURSOR: Parameter =
    query("cursor", Kind::Text(1_024), "Where to go on: `next` of the page before, as it was given.");
/// Only saying what would be done.
pub const DRY_RUN: Parameter =
    query("dry_run", Kind::Boolean, "`true`: only say what would be done. Nothing is changed.");
/// What must be there.
pub const IF_MATCH: Parameter = header(
    "If-Match",
    TEXT,
    "The ETag that is to be written over, or `*`: whatever is there. Otherwise 412.",
);
/// What must not be there.
pub const IF_NONE_MATCH: Parameter =
    header("If-None-Match", TEXT, "`*`: only if there is none yet. Otherwise 412.");
/// The caller's key.
pub const IDEMPOTENCY_KEY: Parameter = header(
    "Idempotency-Key",
    Kind::Text(IDEMPOTENCY_KEY_CHARS_MAX),
    "The same key with the same body is the same request: it is carried out once, and answered the same.",
);
/// Waiting.
pub const PREFER: Parameter = header(
    "Prefer",
    TEXT,
    "`wait=30`: answer when the run has ended, 200 with its record; if it has not within so many seconds (60 at most), 202.",
);
/// Who asks.
pub const BY: Parameter = header(
    "Cronfleet-By",
    Kind::Text(IDEMPOTENCY_KEY_CHARS_MAX),
    "Who asks, for the audit. Default: the address the request comes from.",
);

impl Parameter {
    /// Its name where everything has one: `If-Match` is `if_match` over NATS.
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase().replace('-', "_")
    }

    /// Refuses a value that is not of its kind, with the rule.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let from_instant = |text: &str| parse_instant(text).map(|_| ());
        match self.kind {
            Kind::Name => parsed::<Name>(text),
            Kind::Member => parsed::<MemberId>(text),
            Kind::Run => parsed::<RunId>(text),
            Kind::Number { min, max } => match text.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!("{text:?} is no number from {min} to {max}")),
            },
            Kind::Boolean if ["true", "false"].contains(&text) => Ok(()),
            Kind::Boolean => Err(format!("{text:?} is neither true nor false")),
            Kind::Instant => from_instant(text),
            Kind::Moment if text.parse::<HumanDuration>().is_ok() => Ok(()),
            Kind::Moment => from_instant(text).map_err(|error| format!("{error}; or how long ago: 2h")),
            Kind::State if RunState::ALL.iter().any(|state| state.as_str().eq_ignore_ascii_case(text)) => {
                Ok(())
            }
            Kind::State => {
                let all = RunState::ALL.map(RunState::as_str).join(", ");
                Err(format!("{text:?} is no state; it is one of {all}"))
            }
            Kind::Language if ["en", "zh"].contains(&text) => Ok(()),
            Kind::Language => Err(format!("{text:?} is not spoken here; write en or zh")),
            Kind::Text(max) => check_text(text, max),
        }
    }

    /// Its values, as JSON Schema says it.
    pub fn schema(&self) -> Value {
        let one = match self.kind {
            Kind::Name | Kind::Member => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" }),
            Kind::Run => {
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}\\.[A-Za-z0-9_-]{1,64}$" })
            }
            Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Kind::Boolean => json!({ "type": "boolean" }),
            Kind::Instant => json!({ "type": "string", "format": "date-time" }),
            Kind::Moment => json!({ "type": "string", "maxLength": 64 }),
            Kind::State => json!({ "type": "string", "enum": RunState::ALL.map(RunState::as_str) }),
            Kind::Language => json!({ "type": "string", "enum": ["en", "zh"] }),
            Kind::Text(max) => json!({ "type": "string", "minLength": 1, "maxLength": max }),
        };
        if self.is_repeated { json!({ "type": "array", "items": one, "maxItems": REPEATS_MAX }) } else { one }
    }
}

/// How often a parameter may be given that may be given several times.
pub const REPEATS_MAX: usize = 32;

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(|_| ()).map_err(|error| error.to_string())
}

fn check_text(text: &str, max: usize) -> Result<(), String> {
    let chars = text.chars().count();
    if chars == 0 {
        return Err("it is empty; leave it out, or give it a value".to_owned());
    }
    if chars > max {
        return Err(format!("it has {chars} characters; at most {max} are read: shorten it"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(control) => Err(format!("it holds the control character {control:?}; leave it out")),
        None => Ok(()),
    }
}

/// Reads an instant.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    let read = chrono::DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    read.map_err(|error| {
        format!(
            "{text:?} is no instant ({error}); write it as 2026-11-24T02:00:00Z or 2026-11-24T10:00:00+08:00"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_of_its_kind_is_refused_with_the_rule() {
        for (kind, good, bad, part) in [
            (Kind::Name, "a_b", "a.b", "try \"a_b\""),
            (Kind::Run, "a.b", "a", "<name>.<key>"),
            (Kind::Number { min: 1, max: 5 }, "5", "6", "1 to 5"),
            (Kind::Boolean, "true", "yes", "neither"),
            (Kind::Instant, "2026-11-24T02:00:00Z", "tomorrow", "write it as"),
            (Kind::Moment, "2h", "soon", "how long ago"),
            (Kind::State, "failed", "DONE", "SUCCESS"),
            (Kind::Language, "zh", "fr", "en or zh"),
            (Kind::Text(3), "abc", "abcd", "shorten"),
            (Kind::Text(3), "a", "\u{1b}", "control"),
            (Kind::Text(3), "a", "", "empty"),
        ] {
            let parameter = query("p", kind, "");
            assert_eq!(parameter.check(good), Ok(()), "{kind:?}");
            let refused = parameter.check(bad).expect_err(bad);
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(IF_MATCH.key(), "if_match");
    }
}
