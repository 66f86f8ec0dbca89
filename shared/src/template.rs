//! Texts with places for what a run brings: `/archive/{parameters.table}/{slot}`.
//!
//! A template is parsed when it is read, so that a place nobody can fill is refused by `apply`. A place that this run does not
//! fill is an error of the run: the request is not made, because one without it would mean something else.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    Timestamp,
    limits::TEMPLATE_BYTES_MAX,
    names::{ActionName, Name},
    run::RunId,
    suggest::nearest,
};

/// A text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// As it was written.
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

/// What can stand in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Action,
    TaskName,
    Run,
    Name,
    Key,
    Attempt,
    Slot,
    /// A parameter, or what lies within it: `parameters.window.from`.
    Parameter(Vec<String>),
}

/// What the places are filled with.
#[derive(Debug, Clone, Copy)]
pub struct TemplateValues<'a> {
    /// `{action}`.
    pub action: &'a ActionName,
    /// `{task_name}`.
    pub task_name: &'a Name,
    /// `{run}`, and its two halves `{name}` and `{key}`.
    pub run: &'a RunId,
    /// `{attempt}`.
    pub attempt: u32,
    /// `{slot}`, in RFC 3339.
    pub slot: Option<Timestamp>,
    /// `{parameters.…}`.
    pub parameters: &'a Map<String, Value>,
}

const PLACES: [&str; 8] = ["action", "task_name", "run", "name", "key", "attempt", "slot", "parameters.NAME"];

/// A text that is no template, or a template that a run does not fill.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than anybody writes.
    #[error("a template has {0} bytes; at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A brace without its other half.
    #[error("{0:?} has a {{ or }} without its other half; braces hold places such as {{action}}")]
    Braces(String),
    /// Nothing that a run brings.
    #[error("{{{place}}} is no place{hint}; there are {}", PLACES.map(|place| format!("{{{place}}}")).join(" "))]
    Unknown {
        /// What stands in braces.
        place: String,
        /// "; did you mean …?", or nothing.
        hint: String,
    },
    /// The run has no such thing.
    #[error("{{{0}}} has no value in this run: {repair}", repair = if .0 == "slot" { "only planned runs have a slot" } else { "add it to the task's parameters" })]
    Missing(String),
    /// What cannot stand in a text.
    #[error("{{{place}}} is {what}; only a text, a number, true or false fits here")]
    NotText {
        /// The place.
        place: String,
        /// A list, an object, nothing.
        what: &'static str,
    },
    /// A path would lead elsewhere.
    #[error(
        "the path {0:?} has an empty segment, . or .. where a value was put in; that would lead to another place"
    )]
    Elsewhere(String),
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(text.len()));
        }
        let braces = || TemplateError::Braces(text.to_owned());
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            let (place, after) =
                after.strip_prefix('{').and_then(|after| after.split_once('}')).ok_or_else(braces)?;
            if place.contains('{') {
                return Err(braces());
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Place(place.parse()?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }
}

impl FromStr for Place {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let unknown = || {
            let near = nearest(text, PLACES);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {{{near}}}?"));
            TemplateError::Unknown { place: text.to_owned(), hint }
        };
        Ok(match text {
            "action" => Self::Action,
            "task_name" => Self::TaskName,
            "run" => Self::Run,
            "name" => Self::Name,
            "key" => Self::Key,
            "attempt" => Self::Attempt,
            "slot" => Self::Slot,
            _ => {
                let path: Vec<String> = text
                    .strip_prefix("parameters.")
                    .ok_or_else(unknown)?
                    .split('.')
                    .map(str::to_owned)
                    .collect();
                if path.iter().any(String::is_empty) {
                    return Err(unknown());
                }
                Self::Parameter(path)
            }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Action => "action",
            Self::TaskName => "task_name",
            Self::Run => "run",
            Self::Name => "name",
            Self::Key => "key",
            Self::Attempt => "attempt",
            Self::Slot => "slot",
            Self::Parameter(path) => return write!(f, "parameters.{}", path.join(".")),
        };
        f.write_str(word)
    }
}

impl Place {
    fn value(&self, values: &TemplateValues<'_>) -> Result<String, TemplateError> {
        let missing = || TemplateError::Missing(self.to_string());
        Ok(match self {
            Self::Action => values.action.to_string(),
            Self::TaskName => values.task_name.to_string(),
            Self::Run => values.run.to_string(),
            Self::Name => values.run.name.to_string(),
            Self::Key => values.run.key.to_string(),
            Self::Attempt => values.attempt.to_string(),
            Self::Slot => {
                let slot = values.slot.ok_or_else(missing)?;
                slot.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            }
            Self::Parameter(path) => {
                let not_text = |what| TemplateError::NotText { place: self.to_string(), what };
                let (first, within) = path.split_first().ok_or_else(missing)?;
                let found = within
                    .iter()
                    .try_fold(values.parameters.get(first), |found, name| found.map(|found| found.get(name)));
                match found.flatten().ok_or_else(missing)? {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(value) => value.to_string(),
                    Value::Null => return Err(not_text("null")),
                    Value::Array(_) => return Err(not_text("a list")),
                    Value::Object(_) => return Err(not_text("an object")),
                }
            }
        })
    }
}

impl Template {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text with its places filled, as it is.
    pub fn fill(&self, values: &TemplateValues<'_>) -> Result<String, TemplateError> {
        self.pieces.iter().try_fold(String::new(), |filled, piece| {
            Ok(filled
                + &match piece {
                    Piece::Text(text) => Cow::Borrowed(text.as_str()),
                    Piece::Place(place) => place.value(values)?.into(),
                })
        })
    }

    /// A path with its places filled. What is put in stays within its segment, whatever it is.
    pub fn fill_path(&self, values: &TemplateValues<'_>) -> Result<String, TemplateError> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Place(place) => filled.push_str(&escaped(&place.value(values)?)),
            }
        }
        // What reads URLs takes these for steps, in whatever form; a point is never escaped here.
        let leads_elsewhere = |segment: &str| matches!(segment, "" | "." | "..");
        let mut written = self.text.split('/');
        let strays = filled.split('/').any(|segment| {
            let as_written = written.next() == Some(segment);
            leads_elsewhere(segment) && !as_written
        });
        if strays { Err(TemplateError::Elsewhere(filled)) } else { Ok(filled) }
    }
}

/// A text as it may stand in a part of a URL: all but what RFC 3986 calls unreserved is `%` and two digits.
pub fn escaped(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let places = PLACES.map(|place| format!("{{{place}}}")).join(" ");
        json_schema!({
            "type": "string",
            "description": format!("A text with places that each run fills: {places}."),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(text: &str, parameters: &Value, as_path: bool) -> Result<String, String> {
        let (action, name) = ("archive".parse().expect("action"), "daily".parse().expect("name"));
        let run = "daily.20261124T020000Z".parse().expect("run");
        let values = TemplateValues {
            action: &action,
            task_name: &name,
            run: &run,
            attempt: 2,
            slot: Some("2026-11-24T02:00:00Z".parse().expect("instant")),
            parameters: parameters.as_object().expect("an object"),
        };
        let template: Template = text.parse().map_err(|error: TemplateError| error.to_string())?;
        let filled = if as_path { template.fill_path(&values) } else { template.fill(&values) };
        filled.map_err(|error| error.to_string())
    }

    #[test]
    fn places_are_filled_with_what_the_run_brings() {
        let parameters = json!({"table": "a b", "days": 7, "full": true, "window": {"from": "x"}});
        for (text, filled) in [
            ("/plain", "/plain"),
            ("/actions/{action}", "/actions/archive"),
            ("/{name}/{key}/{attempt}", "/daily/20261124T020000Z/2"),
            ("/{run}?{task_name}", "/daily.20261124T020000Z?daily"),
            ("{slot}", "2026-11-24T02:00:00Z"),
            ("{parameters.table}-{parameters.days}-{parameters.full}", "a b-7-true"),
            ("{parameters.window.from}", "x"),
        ] {
            assert_eq!(fill(text, &parameters, false).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn a_value_stays_within_its_segment_of_a_path() {
        for (value, path) in [
            ("a b", Some("/x/a%20b/y")),
            ("../../etc", Some("/x/..%2F..%2Fetc/y")),
            ("?q#f%2F", Some("/x/%3Fq%23f%252F/y")),
            ("日", Some("/x/%E6%97%A5/y")),
            ("a\r\nHost: b", Some("/x/a%0D%0AHost%3A%20b/y")),
            ("...", Some("/x/.../y")),
            ("..", None),
            (".", None),
            ("", None),
        ] {
            let filled = fill("/x/{parameters.v}/y", &json!({"v": value}), true);
            match path {
                Some(path) => assert_eq!(filled.as_deref(), Ok(path), "{value:?}"),
                None => assert!(filled.expect_err(value).contains("another place"), "{value:?}"),
            }
        }
        assert!(fill("/x/.{parameters.v}/y", &json!({"v": "."}), true).is_err(), "put together");
        assert_eq!(fill("/x/", &json!({}), true).as_deref(), Ok("/x/"), "what the operator wrote is meant");
    }

    #[test]
    fn a_place_that_has_no_value_or_none_that_fits_is_named() {
        let parameters = json!({"list": [1], "object": {}, "nothing": null});
        for (text, part) in [
            ("{parameters.day}", "{parameters.day} has no value in this run"),
            ("{parameters.object.deep}", "has no value"),
            ("{parameters.list}", "is a list"),
            ("{parameters.nothing}", "is null"),
            ("{parametrs.day}", "is no place"),
            ("{actoin}", "did you mean {action}?"),
            ("{parameters.}", "is no place"),
            ("{}", "is no place"),
            ("{action", "without its other half"),
            ("action}", "without its other half"),
            ("{{action}}", "without its other half"),
        ] {
            let message = fill(text, &parameters, false).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(fill(&"a".repeat(TEMPLATE_BYTES_MAX + 1), &json!({}), false).is_err());
    }
}
