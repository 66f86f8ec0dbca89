//! A run's id: `<name>.<key>`.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    names::{Name, NameError, Parsed, RunKey},
    slot::Slot,
};

/// The id of a run, planned or ad hoc: the last two tokens of its subject and its key in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// The schedule, or the name an ad-hoc task was submitted under.
    pub name: Name,
    /// The slot of a planned run; the caller's idempotency key of an ad-hoc one.
    pub key: RunKey,
}

/// A text that is not a run's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunIdError {
    /// No dot, or more than one.
    #[error("{0:?} is not a run id; write it as <name>.<key>, such as reindex.4711")]
    Shape(String),
    /// One of its halves is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl RunId {
    /// The id of a schedule's run at a slot: the same whichever planner computes it, so two planners make one run.
    pub fn planned(schedule: &Name, slot: Slot) -> Self {
        Self { name: schedule.clone(), key: slot.key() }
    }

    /// The slot, if this is a planned run.
    pub fn slot(&self) -> Option<Slot> {
        self.key.as_str().parse().ok()
    }
}

impl FromStr for RunId {
    type Err = RunIdError;
    fn from_str(text: &str) -> Result<Self, RunIdError> {
        match text.split_once('.') {
            Some((name, key)) if !key.contains('.') => Ok(Self { name: name.parse()?, key: key.parse()? }),
            _ => Err(RunIdError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_none() && f.precision().is_none() {
            return write!(f, "{}.{}", self.name.as_str(), self.key.as_str());
        }
        f.pad(&format!("{}.{}", self.name, self.key))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

impl JsonSchema for RunId {
    fn schema_name() -> Cow<'static, str> {
        "RunId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}\\.[A-Za-z0-9_-]{1,64}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_run_has_the_same_id_whoever_computes_it() {
        let slot = Slot::at("2026-11-24T02:00:00Z".parse().expect("instant"));
        let id = RunId::planned(&"daily_data_archive".parse().expect("name"), slot);
        assert_eq!(id.to_string(), "daily_data_archive.20261124T020000Z");
        assert_eq!(id.slot(), Some(slot));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_run_id_has_two_halves_and_no_more() {
        for text in ["", "one", "a.b.c", ".", "a.", ".b", "a.*"] {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
    }
}
