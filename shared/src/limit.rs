//! Limits that hold over the whole fleet: how many attempts at once, how many in a time, and how many for one key.
//!
//! A limit is kept at a *gate*. A target has one for all of its runs; each value of a key, such as one symbol, has one of
//! its own, its *lane*.

use std::{borrow::Cow, collections::BTreeMap, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use crate::{
    hash::mixed_64,
    human_duration::HumanDuration,
    limits::{LIMIT_KEY_CHARS_MAX, LIMIT_LABEL_CHARS_MAX, RATE_PER_MAX, RATE_SPACING_MIN},
    names::{ActionName, TargetName},
    target::Target,
    task::{Task, Work},
};

/// So many attempts in so much time, evenly spread: `10/s`, or `{max: 10, per: 1s}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RateFields", into = "RateFields")]
pub struct Rate {
    max: NonZeroU32,
    per: HumanDuration,
}

/// A rate as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Rate")]
pub enum RateFields {
    /// `10/s`, `600/m`, `100/h`, `3/10s`.
    Text(String),
    /// `{max: 10, per: 1s}`.
    Parts {
        /// Attempts in that time.
        max: NonZeroU32,
        /// The time: up to 24h.
        per: HumanDuration,
    },
}

/// Told apart by what it is, and not by trying, so that what is said of a mistake is about what was meant.
impl<'de> Deserialize<'de> for RateFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            max: NonZeroU32,
            per: HumanDuration,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RateFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate")
            }

            fn visit_str<E>(self, text: &str) -> Result<RateFields, E> {
                Ok(RateFields::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RateFields, A::Error> {
                let Parts { max, per } = Parts::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RateFields::Parts { max, per })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A limit that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No rate at all.
    #[error("rate is {0:?}; write attempts per time, such as 10/s, 600/m or {{max: 10, per: 1s}}")]
    Rate(String),
    /// Over no time, or over more than a day.
    #[error("rate counts over {0}; that is more than 0s and at most {max}", max = HumanDuration(RATE_PER_MAX))]
    Per(HumanDuration),
    /// More often than the server is asked.
    #[error("rate is {0}; at most one attempt in {min} can be kept: leave the rate out, or use max_concurrent", min = HumanDuration(RATE_SPACING_MIN))]
    TooFast(String),
    /// Not a place in a task.
    #[error("limit.key is {0:?}; name a parameter of the task, such as parameters.symbol")]
    Key(String),
}

impl Rate {
    /// The time between two attempts.
    pub fn spacing(self) -> Duration {
        self.per.0 / self.max.get()
    }
}

impl TryFrom<RateFields> for Rate {
    type Error = LimitError;
    fn try_from(fields: RateFields) -> Result<Self, LimitError> {
        let rate = match fields {
            RateFields::Parts { max, per } => Self { max, per },
            RateFields::Text(text) => text.parse()?,
        };
        if rate.per.0.is_zero() || rate.per.0 > RATE_PER_MAX {
            return Err(LimitError::Per(rate.per));
        }
        if rate.spacing() < RATE_SPACING_MIN {
            return Err(LimitError::TooFast(rate.to_string()));
        }
        Ok(rate)
    }
}

impl FromStr for Rate {
    type Err = LimitError;
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let bad = || LimitError::Rate(text.to_owned());
        let (max, per) = text.split_once('/').ok_or_else(bad)?;
        let (max, per) = (max.trim(), per.trim());
        // `10/s` is `10/1s`.
        let per =
            if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        Ok(Self { max: max.parse().map_err(|_| bad())?, per: per.parse().map_err(|_| bad())? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.max, self.per))
    }
}

impl From<Rate> for RateFields {
    fn from(rate: Rate) -> Self {
        RateFields::Parts { max: rate.max, per: rate.per }
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        RateFields::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RateFields::json_schema(generator)
    }
}

/// A parameter of a task whose value is a key of its own: `parameters.symbol`, `parameters.account.id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPath(String);

impl TryFrom<String> for KeyPath {
    type Error = LimitError;
    fn try_from(text: String) -> Result<Self, LimitError> {
        let names_a_parameter = text.strip_prefix("parameters.").is_some_and(|rest| {
            rest.split('.')
                .all(|part| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control()))
        });
        if names_a_parameter && text.len() <= LIMIT_KEY_CHARS_MAX {
            Ok(Self(text))
        } else {
            Err(LimitError::Key(text))
        }
    }
}

impl From<KeyPath> for String {
    fn from(path: KeyPath) -> Self {
        path.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for KeyPath {
    fn schema_name() -> Cow<'static, str> {
        "KeyPath".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A parameter of the task, such as parameters.symbol.",
            "pattern": r"^parameters\.[^.\s]+(\.[^.\s]+)*$",
        })
    }
}

/// So many attempts at once for each value of a key: `{key: parameters.symbol, max: 1}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyLimit {
    /// The parameter whose value is the key. A run without it is not limited by it.
    pub key: KeyPath,
    /// Attempts at once for one value, over all workers: from 1.
    pub max: NonZeroU32,
}

impl KeyLimit {
    /// The value of the key in these parameters, as text; none if it is not there, or null.
    pub fn value_in(&self, parameters: &Map<String, Value>) -> Option<String> {
        let mut parts = self.key.0.split('.').skip(1);
        let mut value = parameters.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// What a limit is about: runs of one target, or of one command.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A target.
    Target(TargetName),
    /// A local command.
    Command(ActionName),
}

impl Scope {
    /// For people: `target storage`, `command vacuum-tool`.
    pub fn in_words(&self) -> String {
        match self {
            Scope::Target(name) => format!("target {name}"),
            Scope::Command(name) => format!("command {name}"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Target(name) => write!(f, "t-{name}"),
            Scope::Command(name) => write!(f, "c-{name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = LimitError;
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let bad = || LimitError::Key(text.to_owned());
        match text.split_once('-') {
            Some(("t", name)) => name.parse().map(Scope::Target).map_err(|_| bad()),
            Some(("c", name)) => name.parse().map(Scope::Command).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

/// One value of one key: its hash, because the value may be anything. Two values of the same hash share a limit, which
/// makes one of them wait and breaks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(u64);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Lane {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Where a limit is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GateKey {
    /// What it is about.
    pub scope: Scope,
    /// For which value of a key; none: for all runs of the scope.
    pub lane: Option<Lane>,
}

/// A gate that a run has to pass, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Where it is kept.
    pub gate: GateKey,
    /// Attempts at once; none: any number.
    pub max: Option<NonZeroU32>,
    /// Attempts in a time.
    pub rate: Option<Rate>,
    /// The key and its value, for people.
    pub label: Option<String>,
}

/// The gates that a run of this task has to pass: those of its keys first, its target's last. Nothing for most tasks.
pub fn limits_of(task: &Task, target: Option<&Target>) -> Vec<Limit> {
    let scope = match &task.work {
        Work::Service { target, .. } => Scope::Target(target.clone()),
        Work::Command { name, .. } => Scope::Command(name.clone()),
    };
    let keys = [task.limit.as_ref(), target.and_then(|target| target.limit.as_ref())];
    let mut lanes: BTreeMap<Lane, Limit> = BTreeMap::new();
    for limit in keys.into_iter().flatten() {
        let Some(value) = limit.value_in(&task.parameters) else { continue };
        let lane = Lane(mixed_64(&[&limit.key.0, &value]));
        let label = format!("{}={value}", limit.key).chars().take(LIMIT_LABEL_CHARS_MAX).collect();
        let gate = GateKey { scope: scope.clone(), lane: Some(lane) };
        // The same key limited twice: the stricter one counts.
        let entry =
            lanes.entry(lane).or_insert(Limit { gate, max: Some(limit.max), rate: None, label: Some(label) });
        entry.max = entry.max.min(Some(limit.max));
    }
    let mut limits: Vec<Limit> = lanes.into_values().collect();
    if let Some(target) = target.filter(|target| target.max_concurrent.is_some() || target.rate.is_some()) {
        let gate = GateKey { scope, lane: None };
        limits.push(Limit { gate, max: target.max_concurrent, rate: target.rate, label: None });
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(json: &str) -> Result<Rate, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rate_is_attempts_per_time() {
        for (json, spacing_ms) in [
            (r#""10/s""#, 100),
            (r#""600/m""#, 100),
            (r#""1/h""#, 3_600_000),
            (r#""3/30s""#, 10_000),
            (r#"{"max":10,"per":"1s"}"#, 100),
        ] {
            let read = rate(json).expect(json);
            assert_eq!(read.spacing(), Duration::from_millis(spacing_ms), "{json}");
            let again = serde_json::to_string(&read).expect("JSON");
            assert_eq!(rate(&again), Ok(read), "{again}");
        }
    }

    #[test]
    fn a_rate_that_cannot_be_kept_is_refused_with_the_repair() {
        for (json, part) in [
            (r#""ten a second""#, "10/s"),
            (r#""0/s""#, "10/s"),
            (r#""10/parsec""#, "10/s"),
            (r#""1/48h""#, "at most 1day"),
            (r#""100000/s""#, "max_concurrent"),
        ] {
            let message = rate(json).expect_err(json);
            assert!(message.contains(part), "{json}: {message}");
        }
        for key in ["symbol", "parameters.", "parameters.a..b", "parameters.a b"] {
            let json = format!(r#"{{"key":"{key}","max":1}}"#);
            let message = serde_json::from_str::<KeyLimit>(&json).expect_err(key).to_string();
            assert!(message.contains("parameters.symbol"), "{key}: {message}");
        }
    }

    fn limits(task: &str, target: &str) -> Vec<Limit> {
        let task = Task::from_json(task.as_bytes()).expect("a task");
        let target: Target = serde_json::from_str(target).expect("a target");
        limits_of(&task, Some(&target))
    }

    #[test]
    fn a_run_passes_the_gates_of_its_keys_first_and_its_targets_last() {
        let plain = r#"{"target_service":"a","action":"b","parameters":{"symbol":"BTC"}}"#;
        assert_eq!(limits(plain, r#"{"http":"http://a"}"#), []);
        let found = limits(
            r#"{"target_service":"a","action":"b","parameters":{"symbol":"BTC"},"limit":{"key":"parameters.symbol","max":3}}"#,
            r#"{"http":"http://a","max_concurrent":4,"limit":{"key":"parameters.symbol","max":2}}"#,
        );
        let [lane, all] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(lane.max.map(NonZeroU32::get), Some(2), "the stricter of the two");
        assert_eq!(lane.label.as_deref(), Some("parameters.symbol=BTC"));
        assert_eq!((all.gate.lane, all.max.map(NonZeroU32::get)), (None, Some(4)));
        let other = limits(
            r#"{"target_service":"a","action":"b","parameters":{"symbol":"ETH"}}"#,
            r#"{"http":"http://a","limit":{"key":"parameters.symbol","max":2}}"#,
        );
        assert_ne!(other[0].gate, lane.gate);
        let without = limits(
            r#"{"target_service":"a","action":"b"}"#,
            r#"{"http":"http://a","limit":{"key":"parameters.symbol","max":2}}"#,
        );
        assert_eq!(without, [], "what has no key is not limited by it");
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in ["t-data-storage", "c-vacuum_tool"] {
            assert_eq!(text.parse::<Scope>().expect(text).to_string(), text);
        }
    }
}
