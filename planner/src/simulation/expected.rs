//! Which slots there must be: computed from the history of definitions alone, by another way than the planners' book.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use shared::{
    Timestamp,
    calendar::Calendar,
    names::CalendarName,
    pause::{PauseEpoch, pause_at},
    schedule::Schedule,
    slot::Slot,
};
use streams::schedules::Version;

/// The calendars of a fleet.
pub(super) type Calendars = BTreeMap<CalendarName, Calendar>;

/// What a version says; none if it is a deletion.
pub(super) fn schedule_of(version: &Version) -> Option<&Schedule> {
    version.definition.as_ref().ok()?.as_ref()
}

/// The first slot of a version after an instant, and be it one at which it is not in force any more.
pub(super) fn next_of(version: &Version, calendars: &Calendars, after: Timestamp) -> Option<Slot> {
    let schedule = schedule_of(version)?;
    let calendar = schedule.calendar.as_ref().and_then(|calendar| calendars.get(calendar));
    schedule.slots_on(calendar, after.max(version.since)).next().map(|(slot, _)| slot)
}

/// The slots of one version after an instant, up to another, while it is in force.
pub(super) fn slots_of(
    versions: &[Version],
    index: usize,
    calendars: &Calendars,
    after: Timestamp,
    upto: Timestamp,
) -> Vec<Slot> {
    let upto = versions.get(index + 1).map_or(upto, |next| upto.min(next.since));
    let next = |after| next_of(&versions[index], calendars, after);
    std::iter::successors(next(after), |slot| next(slot.instant()))
        .take_while(|slot| slot.instant() <= upto)
        .collect()
}

/// Whether an instant is a slot of a schedule.
pub(super) fn is_slot(schedule: &Schedule, calendars: &Calendars, slot: Slot) -> bool {
    let calendar = schedule.calendar.as_ref().and_then(|calendar| calendars.get(calendar));
    let before = slot.instant() - TimeDelta::milliseconds(1);
    schedule.slots_on(calendar, before).next().is_some_and(|(found, _)| found == slot)
}

/// Whether a slot is paused, by what was said up to an instant and, as may be, by what was said after it: who decided may
/// have heard of that or not.
pub(super) fn may_be_paused(said: &[PauseEpoch], slot: Timestamp, heard_at_least: Timestamp) -> bool {
    let surely = said.iter().take_while(|word| word.since <= heard_at_least).count();
    (surely..=said.len()).any(|words| pause_at(&said[..words], slot).is_some())
}
