//! A slot: an instant, in UTC and whole seconds, at which a schedule is due.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, Timelike};

use crate::{Timestamp, names::RunKey};

/// How a slot is written in a run's id: no character that a subject or a KV key would mind.
const KEY_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// An instant at which a schedule is due. Whoever computes it gets the same text, and so the same run id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(Timestamp);

/// A text that is not a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a slot; write it as 20261124T020000Z")]
pub struct SlotError(String);

impl Slot {
    /// The slot at this instant; parts of a second are cut off.
    pub fn at(instant: Timestamp) -> Self {
        Self(instant.trunc_subsecs(0))
    }

    /// The instant of this slot.
    pub fn instant(self) -> Timestamp {
        self.0
    }

    /// The key of the run of this slot.
    pub fn key(self) -> RunKey {
        // Digits, `T` and `Z` only: always a valid key. Years beyond 9999 cannot come: calendars end in 2100.
        self.to_string().parse().unwrap_or_else(|_| RunKey::unique())
    }

    /// Whether a key looks like a slot; such keys are reserved for planners.
    pub fn is_slot_key(key: &RunKey) -> bool {
        key.as_str().parse::<Slot>().is_ok()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at) = self;
        write!(f, "{:04}{:02}{:02}T", at.year(), at.month(), at.day())?;
        write!(f, "{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second())
    }
}

impl FromStr for Slot {
    type Err = SlotError;
    fn from_str(text: &str) -> Result<Self, SlotError> {
        let shaped = text.len() == 16 && text.is_ascii();
        NaiveDateTime::parse_from_str(text, KEY_FORMAT)
            .ok()
            .filter(|_| shaped)
            .map(|civil| Self(DateTime::from_naive_utc_and_offset(civil, chrono::Utc)))
            .ok_or_else(|| SlotError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_written_without_anything_a_subject_would_mind_and_read_back() {
        let slot = Slot::at("2026-11-24T02:00:00.750Z".parse().expect("instant"));
        assert_eq!(slot.to_string(), "20261124T020000Z");
        assert_eq!(slot.to_string().parse::<Slot>(), Ok(slot));
        assert!(Slot::is_slot_key(&slot.key()));
    }

    #[test]
    fn only_what_looks_exactly_like_a_slot_is_reserved() {
        for key in ["4711", "20261124", "20261124T0200Z", "20261324T020000Z", "x20261124T020000Z"] {
            assert!(!Slot::is_slot_key(&key.parse().expect("key")), "{key}");
        }
    }
}
