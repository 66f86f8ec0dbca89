//! Pauses: between which instants the slots of a schedule are recorded and not run, who said so, and why. Pure.

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Who paused a schedule, why, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// Who.
    pub by: String,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Slots from this instant on run again. Absent: until somebody resumes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// What somebody last said of a schedule: the value of its pause key, whose history is the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PauseState {
    /// It is paused.
    Paused(Pause),
    /// It is not, or no longer.
    Resumed {
        /// Who resumed it.
        by: String,
    },
}

/// What was said of a schedule, and from when on it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseEpoch {
    /// It holds for slots after this instant, until the next epoch's.
    pub since: Timestamp,
    /// Its revision in the bucket.
    pub revision: u64,
    /// The pause; none if it was resumed.
    pub pause: Option<Pause>,
}

/// A pause with its beginning, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PauseInForce {
    /// Slots after this instant do not run.
    pub since: Timestamp,
    /// Who, why, until when.
    #[serde(flatten)]
    pub pause: Pause,
}

impl PauseEpoch {
    /// The pause as it stands now, if nothing was said later. It ends by itself, by time alone; that it has begun is
    /// not asked, because `since` is by the server's clock and `now` by that of whoever looks.
    pub fn standing(&self, now: Timestamp) -> Option<PauseInForce> {
        let pause = self.pause.clone().filter(|pause| pause.until.is_none_or(|until| now < until))?;
        Some(PauseInForce { since: self.since, pause })
    }
}

impl PauseInForce {
    /// Whether a slot at this instant is kept from running.
    pub fn holds_at(&self, slot: Timestamp) -> bool {
        self.since < slot && self.pause.until.is_none_or(|until| slot < until)
    }
}

/// The pause that a slot falls into. Epochs are in the order of their instants.
///
/// Half-open like definitions: a pause holds for slots *after* it was said, and not for the slot at `until`.
pub fn pause_at(epochs: &[PauseEpoch], slot: Timestamp) -> Option<PauseInForce> {
    epochs.iter().rev().find(|epoch| epoch.since < slot)?.standing(slot)
}

/// If a slot falls into a pause: the last instant of which that is sure, `Some(None)` if it is sure of all later ones.
///
/// For whoever looks for the next slot that is in none: those in between need not be looked at.
pub fn paused_until(epochs: &[PauseEpoch], slot: Timestamp) -> Option<Option<Timestamp>> {
    let later = epochs.iter().rposition(|epoch| epoch.since < slot)? + 1;
    let pause = epochs[later - 1].pause.as_ref()?;
    if pause.until.is_some_and(|until| slot >= until) {
        return None;
    }
    // The slot at `until` runs; one at the instant of the next word does not yet follow it.
    let until = pause.until.and_then(|until| until.checked_sub_signed(TimeDelta::nanoseconds(1)));
    let next = epochs.get(later).map(|epoch| epoch.since);
    Some(until.into_iter().chain(next).min())
}

impl Pause {
    /// Who, why and until when: `paused by ann@laptop: disk is being replaced, until 2026-11-24T06:00:00Z`.
    pub fn words(&self) -> String {
        let mut words = format!("paused by {}", self.by);
        if let Some(reason) = &self.reason {
            words.push_str(": ");
            words.push_str(reason);
        }
        if let Some(until) = self.until {
            words.push_str(&until.format(", until %Y-%m-%dT%H:%M:%SZ").to_string());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn paused(since: &str, until: Option<&str>) -> PauseEpoch {
        let pause =
            Pause { by: "ann@laptop".to_owned(), reason: Some("disk".to_owned()), until: until.map(at) };
        PauseEpoch { since: at(since), revision: 1, pause: Some(pause) }
    }

    fn resumed(since: &str) -> PauseEpoch {
        PauseEpoch { since: at(since), revision: 1, pause: None }
    }

    #[test]
    fn a_slot_is_paused_by_what_was_in_force_at_its_instant() {
        let epochs = [
            paused("01:00:00", None),
            resumed("02:00:00"),
            paused("03:00:00", Some("04:00:00")),
            paused("05:00:00", None),
            paused("06:00:00", Some("06:30:00")),
        ];
        let table = [
            ("00:59:59", false, "before anything was said"),
            ("01:00:00", false, "at the instant of the pause: it holds for later slots"),
            ("01:00:01", true, "after it"),
            ("02:00:00", true, "at the instant of the resume: that holds for later slots, too"),
            ("02:00:01", false, "resumed"),
            ("03:59:59", true, "before until"),
            ("04:00:00", false, "the slot at until runs"),
            ("04:30:00", false, "after until, without a resume"),
            ("05:30:00", true, "paused anew"),
            ("06:15:00", true, "paused otherwise while it was paused"),
            ("06:30:00", false, "the later word counts, not the longer one"),
        ];
        for (slot, paused, why) in table {
            assert_eq!(pause_at(&epochs, at(slot)).is_some(), paused, "{slot}: {why}");
            assert_eq!(paused_until(&epochs, at(slot)).is_some(), paused, "{slot}: {why}");
        }
        assert_eq!(pause_at(&[], at("01:00:00")), None);
    }

    #[test]
    fn a_pause_is_left_where_the_next_slot_may_run_and_not_before() {
        let epochs = [
            paused("01:00:00", None),
            resumed("02:00:00"),
            paused("03:00:00", Some("04:00:00")),
            paused("05:00:00", None),
        ];
        let until = |slot| paused_until(&epochs, at(slot)).expect("paused");
        assert_eq!(until("01:30:00"), Some(at("02:00:00")), "the slot then is still in it");
        assert_eq!(until("03:30:00"), Some(at("03:59:59.999999999")), "the slot at four is not");
        assert_eq!(until("05:30:00"), None);
    }

    #[test]
    fn a_pause_stands_at_once_also_for_whose_clock_is_behind() {
        let epoch = paused("03:00:00", Some("04:00:00"));
        assert!(epoch.standing(at("02:59:59")).is_some());
        assert!(epoch.standing(at("04:00:00")).is_none());
        let found = epoch.standing(at("03:30:00")).expect("paused");
        assert_eq!([at("03:00:00"), at("03:00:01")].map(|slot| found.holds_at(slot)), [false, true]);
        assert!(resumed("03:00:00").standing(at("03:30:00")).is_none());
    }

    #[test]
    fn a_pause_says_who_why_and_until_when() {
        let found = pause_at(&[paused("03:00:00", Some("04:00:00"))], at("03:30:00")).expect("paused");
        assert_eq!(found.pause.words(), "paused by ann@laptop: disk, until 2026-11-24T04:00:00Z");
        let json = serde_json::to_string(&PauseState::Paused(found.pause.clone())).expect("json");
        let wanted = r#"{"state":"paused","by":"ann@laptop","reason":"disk","until":"2026-11-24T04:00:00Z"}"#;
        assert_eq!(json, wanted);
        assert_eq!(
            serde_json::from_str::<PauseState>(wanted).expect("read"),
            PauseState::Paused(found.pause)
        );
    }
}
