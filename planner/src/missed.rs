//! Whether a slot runs or is skipped. Pure: a slot, its schedule and the time in, the decision out.

use chrono::TimeDelta;
use shared::{
    Timestamp,
    calendar::Calendar,
    closed_day::{Coming, IsOpen},
    limits::{MISSED_AFTER, MISSED_RUNS_MAX},
    pause::{PauseEpoch, paused_until},
    run_record::Reason,
    schedule::{Missed, Schedule},
    slot::Slot,
};

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is dispatched.
    Run,
    /// It is recorded as skipped.
    Skip(Reason),
    /// It is no slot: its schedule moves slots of closed days, and none is moved to it, or it is moved away itself.
    NoSlot,
}

/// The days on which a schedule may run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Days<'a> {
    /// It names no calendar.
    Every,
    /// Those of its calendar.
    Of(&'a Calendar),
    /// It names a calendar that is not declared: then nothing runs, because running on a holiday may cost more than
    /// not running.
    Undeclared,
}

impl<'a> Days<'a> {
    /// The days of a schedule that names a calendar, which is declared or not.
    pub(crate) fn of(declared: Option<&'a Calendar>) -> Self {
        declared.map_or(Days::Undeclared, Days::Of)
    }
}

/// Decides on one slot. A pause comes first: it is somebody's word about this very time.
pub(crate) fn decide(
    schedule: &Schedule,
    slot: Slot,
    now: Timestamp,
    days: Days<'_>,
    pauses: &[PauseEpoch],
) -> Decision {
    let is_open = |date| match days {
        Days::Every => true,
        Days::Of(calendar) => calendar.includes(date),
        Days::Undeclared => false,
    };
    match schedule.comes_at(slot, &is_open) {
        // An instant to which a slot could have been moved and was not: there is nothing to pause.
        Coming::Nothing => return Decision::NoSlot,
        _ if paused_until(pauses, slot.instant()).is_some() => return Decision::Skip(Reason::Paused),
        Coming::Here | Coming::MovedFrom(_) => {}
        Coming::Closed => return Decision::Skip(Reason::SkippedCalendar),
    }
    if !was_missed(slot, now) {
        return Decision::Run;
    }
    let in_time = now - slot.instant() <= delta(schedule.catch_up);
    let newer = || newer_that_run(schedule, slot, now, &is_open, pauses);
    let runs = match schedule.missed {
        Missed::Skip => false,
        Missed::Latest => in_time && newer().next().is_none(),
        Missed::All => in_time && newer().take(MISSED_RUNS_MAX).count() < MISSED_RUNS_MAX,
    };
    if runs { Decision::Run } else { Decision::Skip(Reason::SkippedMissed) }
}

/// The newer slots until now that will run: one on a holiday, or in a pause, takes nobody's place.
///
/// Every slot of an outage asks for them, so what cannot run, a pause or a closed day, is left in one step: gone through second by
/// second, a pause of a month would be gone through for each of the slots before it.
fn newer_that_run<'a>(
    schedule: &'a Schedule,
    slot: Slot,
    now: Timestamp,
    is_open: &'a IsOpen<'a>,
    pauses: &'a [PauseEpoch],
) -> impl Iterator<Item = Slot> + 'a {
    let mut after = Some(slot.instant());
    std::iter::from_fn(move || {
        loop {
            let newer = schedule.candidates_after(after?).next().filter(|newer| newer.instant() <= now)?;
            let at = newer.instant();
            if let Some(until) = paused_until(pauses, at) {
                after = until.map(|until| until.max(at));
            } else if !is_open(schedule.date_of(newer)) {
                after = Some(schedule.end_of_day(newer).max(at));
            } else {
                after = Some(at);
                if schedule.comes_at(newer, is_open).is_due() {
                    return Some(newer);
                }
            }
        }
    })
}

/// Whether a slot passed while nobody could dispatch it.
pub(crate) fn was_missed(slot: Slot, now: Timestamp) -> bool {
    now - slot.instant() > delta(MISSED_AFTER)
}

fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::pause::Pause;

    use crate::due::{Epoch, due_between};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn schedule(fields: &str) -> Schedule {
        let json = format!(r#"{{{fields},"task":{{"target_service":"a","action":"b"}}}}"#);
        serde_json::from_str(&json).expect("schedule")
    }

    /// The slots that run when a planner comes back at 12:00:00 and has seen nothing since 09:00:00.
    fn runs_after_an_outage(fields: &str) -> Vec<String> {
        runs_after_an_outage_with(fields, &[])
    }

    fn runs_after_an_outage_with(fields: &str, pauses: &[PauseEpoch]) -> Vec<String> {
        let schedule = schedule(fields);
        let epochs =
            [Epoch { since: at("00:00:00"), revision: 1, definition: Some(schedule.clone().into()) }];
        due_between(&epochs, at("09:00:00"), at("12:00:00"), 100_000)
            .expect("definitions")
            .into_iter()
            .filter(|due| decide(&schedule, due.slot, at("12:00:00"), Days::Every, pauses) == Decision::Run)
            .map(|due| due.slot.instant().format("%H:%M:%S").to_string())
            .collect()
    }

    #[test]
    fn after_an_outage_the_policy_decides_which_slots_run() {
        let table: [(&str, &[&str]); 6] = [
            (r#""cron":"15,45 * * * *""#, &["11:45:00"]),
            (r#""cron":"15,45 * * * *","missed":"skip""#, &[]),
            (r#""cron":"15,45 * * * *","missed":"all""#, &["11:15:00", "11:45:00"]),
            (
                r#""cron":"15,45 * * * *","missed":"all","catch_up":"2h""#,
                &["10:15:00", "10:45:00", "11:15:00", "11:45:00"],
            ),
            (r#""cron":"15,45 * * * *","catch_up":"10m""#, &[]),
            (r#""cron":"0 12 * * *","missed":"skip""#, &["12:00:00"]),
        ];
        for (fields, expected) in table {
            assert_eq!(runs_after_an_outage(fields), expected, "{fields}");
        }
    }

    #[test]
    fn a_slot_in_a_pause_is_not_caught_up_and_takes_nobodys_place() {
        let pause = Pause { by: "ann".to_owned(), reason: None, until: Some(at("11:40:00")) };
        let said = |revision, since: &str, pause| PauseEpoch { since: at(since), revision, pause };
        let pauses = [said(1, "10:50:00", Some(pause.clone())), said(2, "11:50:00", Some(pause))];
        let every_quarter = |policy: &str| format!(r#""cron":"*/15 * * * *","catch_up":"2h"{policy}"#);
        let all = runs_after_an_outage_with(&every_quarter(r#","missed":"all""#), &pauses);
        assert_eq!(all, ["10:00:00", "10:15:00", "10:30:00", "10:45:00", "11:45:00", "12:00:00"]);
        let latest = Pause { by: "ann".to_owned(), reason: None, until: None };
        let still = [said(1, "11:20:00", Some(latest))];
        // All newer ones are paused; the newest that is not runs, as `missed: latest` says.
        assert_eq!(runs_after_an_outage_with(&every_quarter(""), &still), ["11:15:00"]);
    }

    #[test]
    fn catching_up_on_everything_has_its_bound_and_keeps_the_newest() {
        let runs = runs_after_an_outage(r#""every":"10s","missed":"all","catch_up":"3h""#);
        // Those that are not old enough to be missed run as if nothing had happened; of the missed, the newest hundred.
        assert!(runs.len() <= MISSED_RUNS_MAX, "{}", runs.len());
        assert_eq!(runs.last().map(String::as_str), Some("12:00:00"));
    }

    #[test]
    fn a_long_pause_or_closed_time_is_not_gone_through_for_every_slot_before_it() {
        // Second by second these would be thirty million looks for each of five hundred slots.
        let instant = |text: &str| -> Timestamp { text.parse().expect("instant") };
        let (slot, now) = (instant("2026-01-05T23:51:40Z"), instant("2026-12-25T00:00:10Z"));
        let pause =
            Pause { by: "ann".to_owned(), reason: None, until: Some(instant("2026-12-24T23:57:00Z")) };
        let pauses = [PauseEpoch { since: instant("2026-01-06T00:00:00Z"), revision: 1, pause: Some(pause) }];
        let days: Calendar =
            serde_json::from_str(r#"{"weekdays":"mon","include":["2026-12-24","2026-12-25"]}"#)
                .expect("calendar");
        for policy in ["latest", "all"] {
            let fields = format!(r#""every":"1s","missed":"{policy}","catch_up":"8760h","calendar":"c""#);
            let every_second = schedule(&fields);
            let decide_on = |second: i64, pauses| {
                let slot = Slot::at(slot + TimeDelta::seconds(second));
                decide(&every_second, slot, now, Days::Of(&days), pauses)
            };
            for second in 0..500 {
                assert_eq!(
                    decide_on(second, &pauses),
                    Decision::Skip(Reason::SkippedMissed),
                    "{policy} {second}"
                );
                assert_eq!(
                    decide_on(second, &[]),
                    Decision::Skip(Reason::SkippedMissed),
                    "{policy} {second}"
                );
            }
            let only_then =
                [PauseEpoch { pause: Some(Pause { until: None, ..said() }), ..pauses[0].clone() }];
            let kept = if policy == "all" { MISSED_RUNS_MAX } else { 1 };
            let runs = (0..500).filter(|second| decide_on(*second, &only_then) == Decision::Run).count();
            assert_eq!(runs, kept, "{policy}: nothing after the pause takes their place");
        }
    }

    fn said() -> Pause {
        Pause { by: "ann".to_owned(), reason: None, until: None }
    }

    #[test]
    fn a_change_of_holder_is_no_outage() {
        let every_second = schedule(r#""every":"1s","missed":"skip""#);
        let slot = Slot::at(at("12:00:00"));
        assert_eq!(decide(&every_second, slot, at("12:00:15"), Days::Every, &[]), Decision::Run);
        assert_eq!(
            decide(&every_second, slot, at("12:00:16"), Days::Every, &[]),
            Decision::Skip(Reason::SkippedMissed)
        );
    }

    #[test]
    fn a_calendar_is_read_in_the_schedules_zone_and_one_that_is_missing_lets_nothing_run() {
        let shanghai = schedule(r#""cron":"0 2 * * *","timezone":"Asia/Shanghai""#);
        let weekdays: Calendar = serde_json::from_str(r#"{"weekdays":"mon-fri"}"#).expect("calendar");
        // 18:00 UTC on a Friday is 02:00 on Saturday in Shanghai.
        let friday_utc: Timestamp = "2026-11-27T18:00:00Z".parse().expect("instant");
        let decision = |days| decide(&shanghai, Slot::at(friday_utc), friday_utc, days, &[]);
        assert_eq!(decision(Days::Of(&weekdays)), Decision::Skip(Reason::SkippedCalendar));
        assert_eq!(decision(Days::Undeclared), Decision::Skip(Reason::SkippedCalendar));
        assert_eq!(decision(Days::Every), Decision::Run);
    }

    #[test]
    fn a_slot_of_a_closed_day_runs_on_the_next_open_day_by_the_calendar_of_that_day() {
        let fields = r#""cron":"0 9 28 * *","calendar":"c","on_closed_day":"next_open_day""#;
        let monthly = schedule(fields);
        let epochs = [Epoch { since: at("00:00:00"), revision: 1, definition: Some(monthly.clone().into()) }];
        let instant = |text: &str| -> Timestamp { text.parse().expect("instant") };
        let weekdays: Calendar = serde_json::from_str(r#"{"weekdays":"mon-fri"}"#).expect("calendar");
        let longer: Calendar =
            serde_json::from_str(r#"{"weekdays":"mon-fri","except":["2026-11-30"]}"#).expect("calendar");
        let runs = |days: Days<'_>| -> Vec<String> {
            let due = due_between(&epochs, at("12:00:00"), instant("2026-12-05T00:00:00Z"), 1_000);
            let runs = due.expect("definitions").into_iter().filter_map(|due| {
                match decide(&monthly, due.slot, due.slot.instant(), days, &[]) {
                    Decision::Run => Some(due.slot.to_string()),
                    Decision::Skip(reason) => Some(format!("{} {reason:?}", due.slot)),
                    Decision::NoSlot => None,
                }
            });
            runs.collect()
        };
        // The 28th is a Saturday.
        assert_eq!(runs(Days::Of(&weekdays)), ["20261130T090000Z"]);
        assert_eq!(runs(Days::Of(&longer)), ["20261201T090000Z"]);
        assert_eq!(runs(Days::Undeclared), ["20261128T090000Z SkippedCalendar"]);
        // After an outage the moved slot is the newest that was missed.
        let late = instant("2026-11-30T09:30:00Z");
        let moved = Slot::at(instant("2026-11-30T09:00:00Z"));
        assert_eq!(decide(&monthly, moved, late, Days::Of(&weekdays), &[]), Decision::Run);
    }
}
