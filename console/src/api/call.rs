//! A call: what was asked, checked against what the verb takes, whether it came over HTTP or over NATS.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use bytes::Bytes;
use chrono::TimeDelta;
use serde::de::DeserializeOwned;
use shared::{
    Timestamp,
    distinct_keys::DistinctKeys,
    human_duration::HumanDuration,
    limits::{CONSOLE_RUN_WAIT_MAX, PAGE_DEFAULT},
    mistake::plain_words,
    run_record::is_deeper_than,
    run_state::RunState,
    suggest::{explain_unknown, nearest},
    words::Language,
};
use streams::schedules::Expected;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    kinds,
    parameter::{Parameter, Place, REPEATS_MAX, parse_instant},
    problem::Problem,
    verb::Verb,
};

/// A body as it came.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether it is called YAML. JSON is YAML, too.
    pub is_yaml: bool,
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Call {
    arguments: BTreeMap<&'static str, Vec<String>>,
    /// The body; empty if there is none.
    pub body: Body,
    /// Who asks.
    pub by: String,
    /// The place among the requests that are worked on; given back while a run is waited for.
    pub place: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// A call of this verb with these arguments, each by its name.
    pub fn read(
        verb: &Verb,
        given: impl IntoIterator<Item = (Place, String, String)>,
        body: Body,
        by: String,
    ) -> Result<Self, Problem> {
        let mut call = Self { body, by, ..Self::default() };
        for (place, name, value) in given {
            let parameter = verb.parameters.iter().find(|known| known.place == place && known.name == name);
            let Some(parameter) = parameter else { return Err(unknown_parameter(verb, place, &name)) };
            call.take(parameter, value)?;
        }
        if let Some(by) = call.text("Cronfleet-By") {
            call.by = by.to_owned();
        }
        Ok(call)
    }

    /// A call of this verb with these arguments, wherever each would stand over HTTP.
    pub fn read_by_key(
        verb: &Verb,
        given: impl IntoIterator<Item = (String, String)>,
        body: Body,
        by: String,
    ) -> Result<Self, Problem> {
        let mut found = Vec::new();
        for (key, value) in given {
            let Some(parameter) = verb.parameters.iter().find(|known| known.key() == key) else {
                return Err(unknown_parameter(verb, Place::Query, &key));
            };
            found.push((parameter.place, parameter.name.to_owned(), value));
        }
        let missing = verb.parameters.iter().find(|parameter| {
            parameter.place == Place::Path && !found.iter().any(|(_, name, _)| name == parameter.name)
        });
        if let Some(parameter) = missing {
            let words = format!("{:?} is missing: {}", parameter.key(), parameter.about);
            return Err(Problem::new(&kinds::BAD_PARAMETER, words).at(parameter.key()));
        }
        Self::read(verb, found, body, by)
    }

    fn take(&mut self, parameter: &Parameter, value: String) -> Result<(), Problem> {
        let refuse = |words: String| {
            let place = parameter.place.as_str();
            let detail = format!("{place} parameter {}: {words}", parameter.name);
            Problem::new(&kinds::BAD_PARAMETER, detail).at(parameter.name)
        };
        parameter.check(&value).map_err(refuse)?;
        let values = self.arguments.entry(parameter.name).or_default();
        values.push(value);
        if values.len() > 1 && !parameter.is_repeated {
            return Err(refuse(
                "it is given twice; which one is meant cannot be known: give it once".to_owned(),
            ));
        }
        if values.len() > REPEATS_MAX {
            return Err(refuse(format!("it is given more than {REPEATS_MAX} times; ask several times")));
        }
        Ok(())
    }

    /// The value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name)?.first().map(String::as_str)
    }

    /// All values of a parameter.
    pub fn texts(&self, name: &str) -> &[String] {
        self.arguments.get(name).map_or(&[], Vec::as_slice)
    }

    /// A parameter of the path, which was checked and is always there.
    pub fn path<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Problem> {
        self.parsed(name)?.ok_or_else(|| {
            Problem::new(&kinds::BAD_PARAMETER, format!("path parameter {name} is missing")).at(name)
        })
    }

    /// A parameter that may be there.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let read = |text: &str| {
            text.parse()
                .map_err(|error: T::Err| Problem::new(&kinds::BAD_PARAMETER, error.to_string()).at(name))
        };
        self.text(name).map(read).transpose()
    }

    /// Whether a parameter is `true`.
    pub fn is(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// How many items a page has.
    pub fn limit(&self) -> usize {
        self.text("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::from(PAGE_DEFAULT))
    }

    /// An instant.
    pub fn instant(&self, name: &str) -> Option<Timestamp> {
        self.text(name).and_then(|text| parse_instant(text).ok())
    }

    /// An instant, given as such or as how long ago.
    pub fn moment(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        let text = self.text(name)?;
        moment(text, now).ok()
    }

    /// States of runs.
    pub fn states(&self, name: &str) -> Vec<RunState> {
        let find =
            |text: &String| RunState::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text));
        self.texts(name).iter().filter_map(find).collect()
    }

    /// The language of words.
    pub fn language(&self) -> Language {
        self.text("lang").and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// What the caller expects to be there.
    pub fn expected(&self) -> Result<Expected, Problem> {
        let bad = |name: &str, words: &str| Err(Problem::new(&kinds::BAD_PARAMETER, words).at(name));
        match (self.text("If-Match"), self.text("If-None-Match")) {
            (None, None) => Ok(Expected::Anything),
            (Some(_), Some(_)) => {
                bad("If-Match", "If-Match and If-None-Match contradict each other; send one of them")
            }
            (None, Some("*")) => Ok(Expected::Nothing),
            (None, Some(_)) => bad("If-None-Match", "If-None-Match is `*` here: only if there is none yet"),
            (Some("*"), None) => Ok(Expected::Something),
            (Some(tag), None) => match revision_of(tag) {
                Some(revision) => Ok(Expected::Revision(revision)),
                None => bad(
                    "If-Match",
                    "If-Match is an ETag as it was answered, such as \"42\" in its quotes, or `*`",
                ),
            },
        }
    }

    /// How long the end of the run is to be waited for; none if it is not. Preferences nobody knows are left aside (RFC 7240).
    pub fn wait(&self) -> Result<Option<Duration>, Problem> {
        let Some(preferences) = self.text("Prefer") else { return Ok(None) };
        let wait = preferences.split([',', ';']).find_map(|part| part.trim().strip_prefix("wait="));
        let Some(wait) = wait else { return Ok(None) };
        let seconds = wait.trim_matches('"').parse().map_err(|_| {
            let words = format!("Prefer: wait={wait} is no number of whole seconds; write wait=30");
            Problem::new(&kinds::BAD_PARAMETER, words).at("Prefer")
        })?;
        Ok(Some(Duration::from_secs(seconds).min(CONSOLE_RUN_WAIT_MAX)))
    }

    /// The body as JSON of this shape; an empty one is that of no fields.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let bytes = if self.body.bytes.is_empty() { b"{}".as_slice() } else { &self.body.bytes };
        read_json(bytes)
    }

    /// The body as text.
    pub fn body_text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.body.bytes)
            .map_err(|error| Problem::new(&kinds::BAD_BODY, format!("the body is not UTF-8 text: {error}")))
    }
}

/// JSON of this shape: each key once, no unknown fields, not too deep.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bad = |error: &dyn std::fmt::Display| {
        Problem::new(&kinds::BAD_BODY, explain_unknown(&plain_words(&error.to_string())))
    };
    serde_json::from_slice::<DistinctKeys>(bytes).map_err(|error| bad(&error))?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = bad(error.inner());
        if path == "." { problem } else { problem.at(path.trim_end_matches(".?").to_owned()) }
    })?;
    deserializer.end().map_err(|error| bad(&error))?;
    Ok(read)
}

/// Whether a value nests deeper than tasks may.
pub fn is_too_deep(value: &serde_json::Value) -> bool {
    is_deeper_than(value, shared::limits::JSON_DEPTH_MAX)
}

/// An instant, given as such or as how long ago.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = text.parse::<HumanDuration>() {
        let ago = TimeDelta::from_std(ago.0).unwrap_or(TimeDelta::MAX);
        return Ok(now.checked_sub_signed(ago).unwrap_or(Timestamp::MIN_UTC));
    }
    parse_instant(text).map_err(|error| format!("{error}; or how long ago: 2h"))
}

fn revision_of(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn unknown_parameter(verb: &Verb, place: Place, name: &str) -> Problem {
    let known: Vec<&str> =
        verb.parameters.iter().filter(|known| known.place == place).map(|known| known.name).collect();
    let shown: String = name.chars().take(64).collect();
    let words = match (nearest(name, known.iter().copied()), known.is_empty()) {
        (Some(near), _) => format!("there is no parameter {shown:?}; did you mean {near:?}?"),
        (None, true) => format!("there is no parameter {shown:?}; this takes none here"),
        (None, false) => format!("there is no parameter {shown:?}; there are {}", known.join(", ")),
    };
    Problem::new(&kinds::BAD_PARAMETER, words).at(shown)
}
