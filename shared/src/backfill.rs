//! Backfills: which slots of a range are run afterwards, and what becomes of each. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    calendar::Calendar,
    limits::BACKFILL_IN_FLIGHT_MAX,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    schedule::{Overlap, Schedule},
    slot::Slot,
};

/// What a backfill does at a slot while a run of its schedule has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackfillOverlap {
    /// It waits for that run: one after another, and never two at once.
    BufferAll,
    /// It does not look: several run at once, up to [`BACKFILL_IN_FLIGHT_MAX`].
    Allow,
    /// The slot is skipped, and its record says so.
    Skip,
}

impl BackfillOverlap {
    /// What a schedule's backfill does when nothing else is said. Not the schedule's `skip`: that would run the first
    /// slot of the range and skip the rest.
    pub fn of(schedule: &Schedule) -> Self {
        if schedule.overlap == Overlap::Allow { Self::Allow } else { Self::BufferAll }
    }

    /// Runs of one backfill that may be queued or running at once.
    pub fn in_flight_max(self) -> usize {
        match self {
            Self::BufferAll => 1,
            Self::Allow | Self::Skip => BACKFILL_IN_FLIGHT_MAX,
        }
    }
}

/// What a backfill does with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has no record: it is run.
    Runs,
    /// Its record says that it was skipped: it is run after all, under that same record.
    RunsAfterAll(Reason),
    /// It has run, or was stopped by somebody: it is left as it is.
    Stays(RunState),
    /// Its run is queued or running.
    UnderWay(RunState),
    /// The schedule's calendar leaves its day out: it is not run.
    LeftOut,
}

impl Fate {
    /// What becomes of a slot, by the record it has and by whether its calendar lets it run.
    pub fn of(found: Option<&RunRecord>, is_allowed: bool) -> Self {
        match found {
            Some(record) if !record.status.is_final() => Fate::UnderWay(record.status),
            Some(record) => match record.skipped_because() {
                Some(_) if !is_allowed => Fate::LeftOut,
                Some(reason) => Fate::RunsAfterAll(reason),
                None => Fate::Stays(record.status),
            },
            None if is_allowed => Fate::Runs,
            None => Fate::LeftOut,
        }
    }

    /// Whether the slot will be run.
    pub fn runs(self) -> bool {
        matches!(self, Fate::Runs | Fate::RunsAfterAll(_))
    }
}

/// A slot of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeSlot {
    /// The slot; where its calendar moved it, if it did.
    pub slot: Slot,
    /// Whether its schedule's calendar lets it run.
    pub is_open: bool,
}

/// The slots from `from` up to `to`, both meant, at most `max`, by this definition and this calendar, as planners count
/// them. A calendar that is named and not declared lets nothing run.
pub fn slots_of(
    schedule: &Schedule,
    calendar: Option<&Calendar>,
    from: Timestamp,
    to: Timestamp,
    max: usize,
) -> Vec<RangeSlot> {
    let before = from - chrono::TimeDelta::nanoseconds(1);
    let slots = schedule.slots_on(calendar, before).take_while(|(slot, _)| slot.instant() <= to);
    slots.take(max).map(|(slot, coming)| RangeSlot { slot, is_open: coming.is_due() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::QueueName, run_state::RunEvent};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn schedule(fields: &str) -> Schedule {
        let json = format!(r#"{{{fields},"task":{{"target_service":"a","action":"b"}}}}"#);
        serde_json::from_str(&json).expect("schedule")
    }

    fn record(events: &[RunEvent], reason: Option<Reason>) -> RunRecord {
        let name = "hourly".parse().expect("name");
        let pending =
            RunRecord::planned(&name, Slot::at(at("02:00:00")), QueueName::default_queue(), at("02:00:00"));
        let after =
            |record: RunRecord, event: &RunEvent| record.apply(*event, at("02:00:01")).expect("legal");
        RunRecord { reason, ..events.iter().fold(pending, after) }
    }

    #[test]
    fn the_record_of_a_slot_decides_what_a_backfill_does_with_it() {
        use RunEvent::{Cancelled, Expired, FailedForGood, FailedWithRetry, Skipped, Started, Succeeded};
        let table: [(&[RunEvent], Option<Reason>, Fate); 11] = [
            (&[Skipped], Some(Reason::SkippedMissed), Fate::RunsAfterAll(Reason::SkippedMissed)),
            (&[Skipped], Some(Reason::SkippedOverlap), Fate::RunsAfterAll(Reason::SkippedOverlap)),
            (&[Skipped], Some(Reason::SkippedCalendar), Fate::RunsAfterAll(Reason::SkippedCalendar)),
            (&[Skipped], Some(Reason::Paused), Fate::RunsAfterAll(Reason::Paused)),
            (&[Cancelled], Some(Reason::ByOperator), Fate::Stays(RunState::Cancelled)),
            (&[Expired], Some(Reason::Expired), Fate::Stays(RunState::Cancelled)),
            (&[Started, Succeeded], None, Fate::Stays(RunState::Success)),
            (&[Started, FailedForGood], Some(Reason::AttemptsExhausted), Fate::Stays(RunState::Failed)),
            (&[], None, Fate::UnderWay(RunState::Pending)),
            (&[Started], None, Fate::UnderWay(RunState::Running)),
            (&[Started, FailedWithRetry], None, Fate::UnderWay(RunState::Retry)),
        ];
        for (events, reason, fate) in table {
            assert_eq!(Fate::of(Some(&record(events, reason)), true), fate, "{events:?} {reason:?}");
        }
        assert_eq!(Fate::of(None, true), Fate::Runs);
        assert_eq!(Fate::of(None, false), Fate::LeftOut);
        let holiday = record(&[Skipped], Some(Reason::SkippedCalendar));
        assert_eq!(Fate::of(Some(&holiday), false), Fate::LeftOut);
    }

    #[test]
    fn both_ends_of_the_range_are_meant_and_its_length_has_a_bound() {
        let hourly = schedule(r#""cron":"0 * * * *""#);
        let slots = |from, to, max| slots_of(&hourly, None, at(from), at(to), max).len();
        assert_eq!(slots("02:00:00", "04:00:00", 100), 3);
        assert_eq!(slots("02:00:01", "03:59:59", 100), 1);
        assert_eq!(slots("02:00:00", "02:00:00", 100), 1);
        assert_eq!(slots("04:00:00", "02:00:00", 100), 0);
        assert_eq!(slots("00:00:00", "23:59:59", 10), 10);
    }

    #[test]
    fn without_a_word_a_backfill_waits_instead_of_skipping() {
        assert_eq!(BackfillOverlap::of(&schedule(r#""every":"1h""#)), BackfillOverlap::BufferAll);
        let overlapping = schedule(r#""every":"1h","overlap":"allow""#);
        assert_eq!(BackfillOverlap::of(&overlapping), BackfillOverlap::Allow);
        assert_eq!(BackfillOverlap::BufferAll.in_flight_max(), 1);
    }

    #[test]
    fn a_calendar_that_is_missing_lets_nothing_run_and_one_that_moves_slots_moves_them_here_too() {
        let plain = schedule(r#""every":"1h""#);
        let market = schedule(r#""every":"1h","calendar":"market""#);
        let moved = schedule(r#""cron":"0 2 1 * *","calendar":"market","on_closed_day":"next_open_day""#);
        let weekdays: Calendar = serde_json::from_str(r#"{"weekdays":"mon-fri"}"#).expect("calendar");
        let open = |schedule: &Schedule, calendar| {
            let slots = slots_of(schedule, calendar, at("02:00:00"), at("02:00:00"), 9);
            slots.iter().map(|slot| slot.is_open).collect::<Vec<_>>()
        };
        assert_eq!(open(&plain, None), [true]);
        assert_eq!(open(&market, Some(&weekdays)), [true]);
        assert_eq!(open(&market, None), [false]);
        // The first of November 2026 is a Sunday.
        let instant = |text: &str| -> Timestamp { text.parse().expect("instant") };
        let (from, to) = (instant("2026-11-01T00:00:00Z"), instant("2026-11-20T00:00:00Z"));
        let slots = slots_of(&moved, Some(&weekdays), from, to, 9);
        let monday = RangeSlot { slot: Slot::at(instant("2026-11-02T02:00:00Z")), is_open: true };
        assert!(slots.contains(&monday), "{slots:?}");
        assert_eq!(slots.iter().filter(|slot| slot.is_open).count(), 1, "{slots:?}");
    }
}
