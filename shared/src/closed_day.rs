//! Slots on days that a calendar leaves out: skipped, or moved to the next open day.
//!
//! # The model
//!
//! Calendars live in the catalog and change without the schedule, so a schedule's own slots
//! ([`Timing::slots_after`]) know nothing of them. With `on_closed_day: next_open_day` a slot of a closed day comes
//! on the next open day instead, when clocks show the same time there. The moved instant is the slot: it has the record,
//! and slots that are moved to the same instant, or to one that is due anyway, are one.
//!
//! # How planners agree
//!
//! What may come at all is computed without a calendar: [`Timing::candidates_after`] also has every instant to which a
//! slot could be moved. Whether one comes is decided at its own time, by [`Timing::comes_at`], with the calendar as it
//! then is. So no agenda depends on a calendar, and a planner that takes over looks at the same instants.
//! `docs/decisions/0011` has the ways that were rejected.
//!
//! # The limits
//!
//! A slot is moved over at most [`CLOSED_DAYS_MAX`] days; where all are closed it is skipped on its own day, with its
//! record. `start`, `end`, `exclude` and `max_runs` are about slots before they are moved. Where clocks are set, a moved
//! slot comes in the first pass of a fold, and at the first instant after a gap. A day that a zone never had (Apia,
//! 2011-12-30) is nobody's next open day.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    bounds::{EARLIEST, LATEST, end_of},
    calendar::Calendar,
    cron::{DAY_S, instants_of},
    limits::CLOSED_DAYS_MAX,
    schedule::Schedule,
    slot::Slot,
    timing::Timing,
};

/// What happens to a slot on a day that its calendar leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnClosedDay {
    /// It is skipped, and its record says so.
    #[default]
    Skip,
    /// It is moved to the same time of day on the next day that the calendar has.
    NextOpenDay,
}

impl OnClosedDay {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to skip_serializing_if")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether an instant is a slot, on the days of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    /// It is, on its own day.
    Here,
    /// It is: a slot of this closed day is moved to it.
    MovedFrom(NaiveDate),
    /// It is one of a closed day, and is skipped.
    Closed,
    /// It is not: nothing is moved to it, or it is moved away.
    Nothing,
}

impl Coming {
    /// Whether there is something to run.
    pub fn is_due(self) -> bool {
        matches!(self, Coming::Here | Coming::MovedFrom(_))
    }
}

/// Whether a calendar has a date.
pub type IsOpen<'a> = dyn Fn(NaiveDate) -> bool + 'a;

impl Timing {
    /// Whether an instant is a slot on these days. Asked of a slot or a candidate of this schedule.
    pub fn comes_at(&self, slot: Slot, is_open: &IsOpen<'_>) -> Coming {
        let date = self.civil(slot.instant()).date();
        if self.on_closed_day == OnClosedDay::Skip {
            return if is_open(date) { Coming::Here } else { Coming::Closed };
        }
        let is_own = self.next_after(slot.instant() - SECOND) == Some(slot);
        let is_real_and_open = |date: NaiveDate| is_open(date) && self.has_day(date);
        if !is_open(date) {
            let is_moved = (1..=CLOSED_DAYS_MAX)
                .filter_map(|days| date.checked_add_days(Days::new(days)))
                .any(is_real_and_open);
            return if is_own && !is_moved { Coming::Closed } else { Coming::Nothing };
        }
        if is_own {
            return Coming::Here;
        }
        (1..=CLOSED_DAYS_MAX)
            .filter_map(|days| date.checked_sub_days(Days::new(days)))
            .take_while(|day| !is_real_and_open(*day))
            .find(|day| self.moves_to(slot.instant(), *day))
            .map_or(Coming::Nothing, Coming::MovedFrom)
    }

    /// The slots strictly after an instant and, if its calendar may move them, every instant to which it could.
    pub fn candidates_after(&self, after: Timestamp) -> impl Iterator<Item = Slot> + '_ {
        std::iter::successors(self.candidate_after(after), |slot| self.candidate_after(slot.instant()))
    }

    /// The date on which an instant falls, in its zone.
    pub fn date_of(&self, slot: Slot) -> NaiveDate {
        self.civil(slot.instant()).date()
    }

    /// The last second of the date on which an instant falls.
    pub fn end_of_day(&self, slot: Slot) -> Timestamp {
        end_of(self.date_of(slot), slot.instant(), self.timezone)
    }

    fn candidate_after(&self, after: Timestamp) -> Option<Slot> {
        let own = self.next_after(after);
        if self.on_closed_day == OnClosedDay::Skip {
            return own;
        }
        let after = after.clamp(EARLIEST, LATEST);
        let mut day = self.civil(after).date();
        // Each round is a later day; a stretch of days to which nothing could be moved is one round.
        loop {
            if own.is_some_and(|own| self.civil(own.instant()).date() < day) {
                return own;
            }
            let first = day.checked_sub_days(Days::new(CLOSED_DAYS_MAX))?;
            let Some(source) = self.next_after(self.first_of(first.and_time(NaiveTime::MIN)) - SECOND) else {
                return own;
            };
            let source_day = self.civil(source.instant()).date();
            if source_day < day {
                let moved = self.first_moved_to(day, source_day, after);
                if moved.is_some() {
                    return moved.into_iter().chain(own).min();
                }
                day = day.succ_opt()?;
            } else if Some(source) == own {
                return own;
            } else {
                day = source_day.succ_opt()?;
            }
        }
    }

    /// The first slot of the days from `first` to before `day`, moved to `day`, that comes strictly after an instant.
    fn first_moved_to(&self, day: NaiveDate, first: NaiveDate, after: Timestamp) -> Option<Slot> {
        let mut moved = None;
        let mut from = first;
        while from < day {
            moved = self.first_moved(from, day, after).into_iter().chain(moved).min();
            // On to the next day that has slots at all.
            let Some(tomorrow) = from.succ_opt() else { break };
            let begin = self.first_of(tomorrow.and_time(NaiveTime::MIN)) - SECOND;
            let Some(next) = self.next_after(begin) else { break };
            from = self.civil(next.instant()).date().max(tomorrow);
        }
        moved
    }

    /// The first slot of `from`, moved to `day`, that comes strictly after an instant.
    fn first_moved(&self, from: NaiveDate, day: NaiveDate, after: Timestamp) -> Option<Slot> {
        let civil = self.civil(after);
        let earliest = if civil.date() == day { civil.time() } else { NaiveTime::MIN };
        let begin = self.first_of(from.and_time(earliest)) - SECOND;
        self.slots_after(begin)
            .map(|slot| self.civil(slot.instant()))
            .take_while(|civil| civil.date() <= from)
            // Clocks set back over midnight show the day before again.
            .filter(|civil| civil.date() == from)
            .map(|civil| Slot::at(self.first_of(day.and_time(civil.time()))))
            .find(|moved| moved.instant() > after)
    }

    /// Whether a slot of `day` is moved to this instant, once it is moved to this instant's day.
    fn moves_to(&self, to: Timestamp, day: NaiveDate) -> bool {
        let civil = self.civil(to);
        if self.first_of(civil) != to {
            // The second pass of a fold.
            return false;
        }
        // What clocks jumped over comes at the first instant after it.
        let just_before = self.civil(to - SECOND) + SECOND;
        let earliest = if just_before < civil && just_before.date() == civil.date() {
            just_before.time()
        } else if just_before < civil {
            NaiveTime::MIN
        } else {
            civil.time()
        };
        let begin = self.first_of(day.and_time(earliest)) - SECOND;
        self.slots_after(begin)
            .map(|slot| self.civil(slot.instant()))
            .take_while(|civil| civil.date() <= day)
            .any(|found| found.date() == day && (earliest..=civil.time()).contains(&found.time()))
    }

    /// What clocks in its zone show.
    fn civil(&self, at: Timestamp) -> NaiveDateTime {
        at.with_timezone(&self.timezone).naive_local()
    }

    /// The first instant at which they show it, or the first after a gap.
    fn first_of(&self, civil: NaiveDateTime) -> Timestamp {
        let (first_s, _) = instants_of(self.timezone, civil.and_utc().timestamp());
        DateTime::from_timestamp(first_s, 0).unwrap_or(Timestamp::MAX_UTC)
    }

    /// Whether its zone ever had this day.
    fn has_day(&self, date: NaiveDate) -> bool {
        let midnight_s = date.and_time(NaiveTime::MIN).and_utc().timestamp();
        let (_, noon_s) = instants_of(self.timezone, midnight_s + DAY_S / 2);
        DateTime::from_timestamp(noon_s, 0).is_some_and(|noon| self.civil(noon).date() == date)
    }
}

impl Schedule {
    /// The slots strictly after an instant on the days of its calendar, and why they come: also those that are
    /// skipped, because they have a record. A calendar that is not declared has no days.
    pub fn slots_on<'a>(
        &'a self,
        calendar: Option<&'a Calendar>,
        after: Timestamp,
    ) -> impl Iterator<Item = (Slot, Coming)> + 'a {
        let is_open = move |date| match (&self.calendar, calendar) {
            (None, _) => true,
            (Some(_), calendar) => calendar.is_some_and(|calendar| calendar.includes(date)),
        };
        let comes = move |slot| (slot, self.comes_at(slot, &is_open));
        self.candidates_after(after).map(comes).filter(|(_, coming)| *coming != Coming::Nothing)
    }
}

const SECOND: TimeDelta = TimeDelta::seconds(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn schedule(fields: &str) -> Schedule {
        let json = format!(
            r#"{{{fields},"calendar":"c","on_closed_day":"next_open_day","task":{{"target_service":"a","action":"b"}}}}"#
        );
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{fields}: {error}"))
    }

    fn calendar(json: &str) -> Calendar {
        serde_json::from_str(json).expect("calendar")
    }

    /// Slots in the schedule's zone; `<` and a date is where it was moved from, `x` a closed day.
    fn slots(fields: &str, days: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, calendar) = (schedule(fields), calendar(days));
        let slots = schedule.slots_on(Some(&calendar), at(after)).take(count);
        slots
            .map(|(slot, coming)| {
                let local = slot.instant().with_timezone(&schedule.timezone).format("%m-%dT%H:%M");
                match coming {
                    Coming::MovedFrom(date) => format!("{local}<{}", date.format("%m-%d")),
                    Coming::Closed => format!("{local}x"),
                    _ => local.to_string(),
                }
            })
            .collect()
    }

    const WORKDAYS: &str = r#"{"weekdays":"mon-fri","except":["2026-10-01","2026-10-02"]}"#;

    #[test]
    fn a_slot_on_a_closed_day_comes_at_the_same_time_on_the_next_open_day() {
        // 1 and 2 October 2026 are holidays, a Thursday and a Friday; then comes a weekend.
        let first_of_month = r#""cron":"0 9 1 * *","timezone":"Asia/Shanghai""#;
        let expected = ["10-05T09:00<10-01", "11-02T09:00<11-01", "12-01T09:00", "01-01T09:00"];
        assert_eq!(slots(first_of_month, WORKDAYS, "2026-09-15T00:00:00Z", 4), expected);
        let yearly = r#""cron":"30 9 3 10 *""#;
        assert_eq!(
            slots(yearly, WORKDAYS, "2026-01-01T00:00:00Z", 2),
            ["10-05T09:30<10-03", "10-04T09:30<10-03"]
        );
    }

    #[test]
    fn slots_that_land_on_the_same_instant_become_one() {
        let daily = r#""cron":"0 9 * * *""#;
        let expected = ["09-29T09:00", "09-30T09:00", "10-05T09:00", "10-06T09:00"];
        assert_eq!(slots(daily, WORKDAYS, "2026-09-29T00:00:00Z", 4), expected);
        let shifting = r#""every":"20h""#;
        let found = slots(shifting, r#"{"weekdays":"mon"}"#, "2026-11-24T00:00:00Z", 6);
        assert!(found.is_sorted() && found.iter().all(|slot| slot.starts_with("11-30")), "{found:?}");
    }

    #[test]
    fn where_no_day_is_open_for_a_month_the_slot_is_skipped_on_its_own_day() {
        let daily = r#""cron":"0 9 * * *""#;
        let never = r#"{"weekdays":"mon-sun","invert":true}"#;
        assert_eq!(slots(daily, never, "2026-11-24T00:00:00Z", 2), ["11-24T09:00x", "11-25T09:00x"]);
    }

    #[test]
    fn jitter_and_zones_move_along() {
        let fields = r#""cron":"0 2 * * 6","timezone":"America/New_York","jitter":"30m""#;
        let moved = slots(fields, WORKDAYS, "2026-11-24T00:00:00Z", 1);
        let alone = schedule(fields).next_after(at("2026-11-24T00:00:00Z")).expect("slot").instant();
        let time = alone.with_timezone(&chrono_tz::America::New_York).format("%H:%M").to_string();
        assert_eq!(moved, [format!("11-30T{time}<11-28")]);
    }

    #[test]
    fn a_moved_slot_comes_after_a_gap_in_the_first_pass_of_a_fold_and_never_on_a_day_that_was_not() {
        let new_york = |time: &str, before: &str, open: &str| {
            let fields = format!(r#""cron":"{time} * * *","timezone":"America/New_York""#);
            slots(&fields, &format!(r#"{{"weekdays":"{open}"}}"#), before, 1)
        };
        // Clocks are set on Sundays; Saturday is closed. Saturday's 02:30 does not exist on Sunday.
        assert_eq!(
            new_york("30 2", "2024-03-08T12:00:00Z", "sun"),
            ["03-10T03:00"],
            "it has one of its own there"
        );
        let only_saturday = r#""cron":"30 2 * * 6","timezone":"America/New_York""#;
        let sunday = r#"{"weekdays":"sun"}"#;
        assert_eq!(slots(only_saturday, sunday, "2024-03-08T12:00:00Z", 1), ["03-10T03:00<03-09"]);
        let in_the_fold = r#""cron":"30 1 * * 6","timezone":"America/New_York""#;
        let slot = schedule(in_the_fold).slots_on(Some(&calendar(sunday)), at("2024-11-01T12:00:00Z")).next();
        assert_eq!(slot.map(|(slot, _)| slot.instant()), Some(at("2024-11-03T05:30:00Z")));
        let apia = r#""cron":"0 12 29 12 *","timezone":"Pacific/Apia""#;
        let closed = r#"{"except":["2011-12-29"]}"#;
        assert_eq!(slots(apia, closed, "2011-12-28T00:00:00Z", 1), ["12-31T12:00<12-29"]);
    }

    #[test]
    fn candidates_hold_every_slot_of_every_calendar_and_go_on_from_anywhere() {
        use proptest::prelude::*;
        let whens = prop::sample::select(vec![
            r#""cron":"0 9 1 * *""#,
            r#""cron":"0 0 29 2 *""#,
            r#""cron":"30 1,2 * * SAT","timezone":"America/New_York""#,
            r#""cron":"15 */8 L * *","timezone":"Australia/Lord_Howe""#,
            r#""every":"31h","phase":"30m","timezone":"Africa/Cairo""#,
            r#""cron":"0 12 * * MON","jitter":"2h","timezone":"Atlantic/Azores""#,
        ]);
        let dates = prop::collection::btree_set(0_u64..80, 0..12);
        let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(when in whens, closed in dates, week in 0_usize..4, begin in 0_i64..7000)| {
            let schedule = schedule(when);
            let after = at("2010-01-01T00:00:00Z") + TimeDelta::days(begin);
            let first = after.date_naive();
            let weekdays = [vec![], vec![5, 6], vec![6], vec![0, 1, 2, 3]][week].clone();
            let is_open = |date: NaiveDate| {
                use chrono::Datelike;
                let days = (date - first).num_days();
                !closed.contains(&days.cast_unsigned()) && !weekdays.contains(&date.weekday().num_days_from_monday())
            };
            let end = after + TimeDelta::days(60);
            let candidates: Vec<Slot> =
                schedule.candidates_after(after).take_while(|slot| slot.instant() <= end).collect();
            prop_assert!(candidates.is_sorted_by(|a, b| a < b));
            // Plainly: every own slot of the two months before is put on its day.
            let begin = after - TimeDelta::days(60);
            let mut wanted = std::collections::BTreeSet::new();
            for slot in schedule.slots_after(begin).take_while(|slot| slot.instant() <= end) {
                let civil = schedule.civil(slot.instant());
                let open = (0..=CLOSED_DAYS_MAX)
                    .map(|days| civil.date() + Days::new(days))
                    .find(|day| is_open(*day) && schedule.has_day(*day));
                let at = match open {
                    Some(day) if day != civil.date() => schedule.first_of(day.and_time(civil.time())),
                    _ => slot.instant(),
                };
                if at > after && at <= end {
                    wanted.insert(at);
                }
            }
            let found: std::collections::BTreeSet<Timestamp> = candidates
                .iter()
                .filter(|slot| schedule.comes_at(**slot, &is_open) != Coming::Nothing)
                .map(|slot| slot.instant())
                .collect();
            prop_assert_eq!(found, wanted);
            if let Some(middle) = candidates.get(candidates.len() / 2) {
                let rest = schedule.candidates_after(middle.instant() - SECOND).next();
                prop_assert_eq!(rest, Some(*middle));
            }
        });
    }
}
