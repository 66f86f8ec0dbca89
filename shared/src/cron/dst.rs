//! From civil slots to instants: what happens where a zone's clocks are set.
//!
//! Time is walked forwards in UTC, in stretches over which the offset is constant. Within a stretch civil time and UTC
//! go side by side, so slots come in order by construction. At its edges the policy decides: a *gap* (clocks set
//! forward) may leave one slot at its end, and a *fold* (clocks set back) hides its slots in the first pass, in the
//! second, or in neither. Nothing is remembered between two calls: where `after` lies decides everything.

use chrono::DateTime;
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    civil::CivilSlots,
    zone::{DAY_S, offset_at, shifts},
};

/// What happens to a slot in the hour that clocks jump over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapPolicy {
    /// It comes at the first instant after the gap; several slots of one gap come there once.
    RunAfter,
    /// It does not come.
    Skip,
}

/// What happens to a slot in the hour that clocks show twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoldPolicy {
    /// It comes the first time.
    First,
    /// It comes the second time.
    Last,
    /// It comes both times.
    Both,
}

/// What happens where a zone's clocks are set. What is left out follows Vixie's rule: an expression whose minute or
/// hour starts with `*` follows the wall clock (gap `skip`, fold `both`); every other one comes once a day (gap
/// `run_after`, fold `first`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DstPolicy {
    /// What happens to a slot in the hour that clocks jump over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<GapPolicy>,
    /// What happens to a slot in the hour that clocks show twice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fold: Option<FoldPolicy>,
}

impl DstPolicy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to skip_serializing_if")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The choice, with Vixie's rule for what is left out.
    pub(super) fn resolve(self, follows_wall_clock: bool) -> (GapPolicy, FoldPolicy) {
        let (gap, fold) = if follows_wall_clock {
            (GapPolicy::Skip, FoldPolicy::Both)
        } else {
            (GapPolicy::RunAfter, FoldPolicy::First)
        };
        (self.gap.unwrap_or(gap), self.fold.unwrap_or(fold))
    }
}

/// The engine counts civil time from 1970 to 2100; a day more on either side covers every offset.
const EARLIEST_S: i64 = -2 * DAY_S;
const LATEST_S: i64 = 4_133_980_800 + 2 * DAY_S;

const _: () = {
    // 2101-01-01T00:00:00Z: 131 years, 32 of them leap years (2000 is one, 2100 is not).
    assert!(LATEST_S == (131 * 365 + 32) * DAY_S + 2 * DAY_S);
};

/// The first instant strictly after `after_s` at which a civil slot comes.
pub(super) fn next_slot(
    slots: &CivilSlots,
    after_s: i64,
    zone: Tz,
    (gap, fold): (GapPolicy, FoldPolicy),
) -> Option<i64> {
    let mut now_s = after_s.max(EARLIEST_S).checked_add(1)?;
    // Each round ends at least at the next shift or a day later, so the loop ends with the calendar.
    while now_s < LATEST_S {
        // Clocks set back after `now_s` can show again what they showed before, but never a whole day of it; and no
        // clock is a whole day ahead of UTC. So nothing comes before a day before the next civil slot.
        let next_civil_s = slots.first_from(now_s + offset_at(zone, now_s) - DAY_S)?;
        now_s = now_s.max(next_civil_s - DAY_S);

        let offset_s = offset_at(zone, now_s);
        let nearby = shifts(zone, now_s - DAY_S, now_s + 2 * DAY_S);
        let next_shift = nearby.iter().find(|shift| shift.at > now_s);
        let stretch_end_s = next_shift.map_or(now_s + DAY_S, |shift| shift.at.min(now_s + DAY_S));

        if gap == GapPolicy::RunAfter
            && let Some(shift) = nearby.iter().find(|shift| shift.at == now_s)
            && slots.first_from(now_s + shift.before).is_some_and(|slot_s| slot_s < now_s + shift.after)
        {
            return Some(now_s);
        }

        let mut from_s = now_s + offset_s;
        let mut to_s = stretch_end_s + offset_s;
        for shift in &nearby {
            match fold {
                // What clocks have shown before they were set back has had its turn.
                FoldPolicy::First if shift.at <= now_s => from_s = from_s.max(shift.at + shift.before),
                // What clocks will show again when they are set back has its turn to come.
                FoldPolicy::Last if shift.at > now_s => to_s = to_s.min(shift.at + shift.after),
                _ => {}
            }
        }
        if let Some(slot_s) = slots.first_from(from_s).filter(|slot_s| *slot_s < to_s) {
            return Some(slot_s - offset_s);
        }
        now_s = stretch_end_s;
    }
    None
}

/// An instant of whole seconds as the rest of Cronfleet knows it.
pub(super) fn instant(utc_s: i64) -> Option<crate::Timestamp> {
    DateTime::from_timestamp(utc_s, 0)
}
