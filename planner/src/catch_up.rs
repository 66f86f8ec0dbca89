//! How fast missed slots are run. Pure: what is due and the time in, how many may run now out.
//!
//! After an outage a schedule with `missed: all` may have a hundred slots to run. They are spread: so many a second for
//! each schedule. Its cursor waits meanwhile, so what is not run yet is late and not lost.

use std::{collections::HashMap, time::Duration};

use shared::{Timestamp, hash::partition_of, limits::CATCH_UP_RUNS_PER_SECOND, names::Name};

/// Between two missed slots of one schedule.
const INTERVAL: Duration = Duration::from_millis(1_000 / CATCH_UP_RUNS_PER_SECOND as u64);

/// What a round may do for a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// When its missed slots were first seen: their age is counted up to then. A slot does not become too old, and none
    /// becomes one too many, because it waits for its turn.
    pub(crate) seen_at: Timestamp,
    /// Missed slots that may run in this round.
    pub(crate) runs: u32,
}

/// A schedule that is catching up.
#[derive(Debug, Clone, Copy)]
struct CatchUp {
    seen_at: Timestamp,
    /// When its next missed slot may run, by the clock that only goes forward.
    next_at: Duration,
}

/// The schedules that are catching up.
#[derive(Debug, Default)]
pub(crate) struct CatchUps {
    under_way: HashMap<Name, CatchUp>,
}

impl CatchUps {
    /// What a round may do for a schedule that has slots due.
    pub(crate) fn allowance(&self, name: &Name, now: Timestamp, elapsed: Duration) -> Allowance {
        let Some(catch_up) = self.under_way.get(name) else { return Allowance { seen_at: now, runs: 1 } };
        let Some(waited) = elapsed.checked_sub(catch_up.next_at) else {
            return Allowance { seen_at: catch_up.seen_at, runs: 0 };
        };
        // A round that came late makes up for it, within a second's worth.
        let turns = u32::try_from(waited.as_millis() / INTERVAL.as_millis()).unwrap_or(u32::MAX);
        let runs = turns.saturating_add(1).min(CATCH_UP_RUNS_PER_SECOND);
        Allowance { seen_at: catch_up.seen_at, runs }
    }

    /// Forgets a partition: whoever holds it next sees for itself what was missed.
    pub(crate) fn close(&mut self, partition: u16) {
        self.under_way.retain(|name, _| partition_of(name.as_str()) != partition);
    }

    /// Notes what a round did: how many missed slots ran, and whether some wait for their turn.
    pub(crate) fn note(
        &mut self,
        name: &Name,
        allowed: Allowance,
        ran: u32,
        some_wait: bool,
        elapsed: Duration,
    ) {
        if !some_wait {
            self.under_way.remove(name);
            return;
        }
        let catch_up = self
            .under_way
            .entry(name.clone())
            .or_insert(CatchUp { seen_at: allowed.seen_at, next_at: elapsed });
        if ran > 0 {
            // From the turn it had, so that the rate holds on the average; a long pause is not made up for.
            let turn = catch_up.next_at.max(elapsed.saturating_sub(Duration::from_secs(1)));
            catch_up.next_at = turn + INTERVAL * ran;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn begun() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("instant")
    }

    /// How many of the slots have run after so long, with a round every `every`.
    fn ran_after(slots: u32, length: Duration, every: Duration) -> u32 {
        let name: Name = "minutely".parse().expect("name");
        let mut catch_ups = CatchUps::default();
        let (mut ran, mut elapsed) = (0, Duration::from_secs(1_000));
        let end = elapsed + length;
        while elapsed < end {
            let now = begun() + TimeDelta::from_std(elapsed).expect("short");
            let allowed = catch_ups.allowance(&name, now, elapsed);
            let runs = allowed.runs.min(slots - ran);
            ran += runs;
            catch_ups.note(&name, allowed, runs, ran < slots, elapsed);
            elapsed += every;
        }
        ran
    }

    #[test]
    fn missed_slots_are_spread_and_all_of_them_run() {
        let milliseconds = Duration::from_millis;
        for every in [5, 25, 100, 500] {
            let ran = ran_after(100, Duration::from_secs(3), milliseconds(every));
            assert!((20..=31).contains(&ran), "{ran} in three seconds, rounds every {every} ms");
            assert_eq!(ran_after(100, Duration::from_secs(12), milliseconds(every)), 100, "{every} ms");
        }
    }

    #[test]
    fn a_planner_that_stood_still_makes_up_for_no_more_than_a_second() {
        let name: Name = "minutely".parse().expect("name");
        let mut catch_ups = CatchUps::default();
        let first = catch_ups.allowance(&name, begun(), Duration::from_secs(10));
        catch_ups.note(&name, first, 1, true, Duration::from_secs(10));
        let later = catch_ups.allowance(&name, begun() + TimeDelta::hours(1), Duration::from_secs(3_610));
        assert_eq!(later.runs, CATCH_UP_RUNS_PER_SECOND);
        assert_eq!(later.seen_at, begun(), "their age is counted up to when they were first seen");
        catch_ups.note(&name, later, later.runs, true, Duration::from_secs(3_610));
        assert_eq!(catch_ups.allowance(&name, begun(), Duration::from_secs(3_610)).runs, 1);
        assert_eq!(catch_ups.allowance(&name, begun(), Duration::from_millis(3_610_001)).runs, 1);
    }

    #[test]
    fn when_nothing_waits_the_next_outage_begins_anew() {
        let name: Name = "minutely".parse().expect("name");
        let mut catch_ups = CatchUps::default();
        let first = catch_ups.allowance(&name, begun(), Duration::ZERO);
        catch_ups.note(&name, first, 1, true, Duration::ZERO);
        assert_eq!(catch_ups.allowance(&name, begun(), Duration::from_millis(20)).runs, 0);
        catch_ups.note(&name, first, 0, false, Duration::from_millis(20));
        let later = begun() + TimeDelta::days(1);
        let anew = Allowance { seen_at: later, runs: 1 };
        assert_eq!(catch_ups.allowance(&name, later, Duration::from_millis(30)), anew);
        catch_ups.note(&name, anew, 1, true, Duration::from_millis(30));
        catch_ups.close(partition_of("minutely"));
        assert_eq!(catch_ups.allowance(&name, later, Duration::from_millis(31)).runs, 1);
    }
}
