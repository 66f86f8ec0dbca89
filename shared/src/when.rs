//! When a schedule is due: cron lines, an interval, or one instant.

use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;

use crate::{
    Timestamp,
    after::After,
    cron::{CronExpr, DstPolicy},
    limits::{INTERVAL_MAX, INTERVAL_MIN},
};

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// At every slot of any of these lines.
    Cron(Vec<CronExpr>),
    /// At fixed distances, counted from 1970-01-01T00:00:00Z plus the phase, so that every planner agrees.
    Every {
        /// The distance, in whole seconds.
        interval: Duration,
        /// By how much the slots are shifted, in whole seconds, less than the interval.
        phase: Duration,
    },
    /// Once.
    At(Timestamp),
    /// Whenever a run of another schedule ends: it has no slots.
    After(After),
}

/// An interval that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// Zero, a fraction of a second, or more than a year.
    #[error(
        "every is {}; a schedule comes at most once a second: write whole seconds, {} to {} days",
        show(*.0), show(INTERVAL_MIN), INTERVAL_MAX.as_secs() / 86_400
    )]
    Interval(Duration),
    /// Not less than the interval, or with a fraction of a second.
    #[error("phase is {}; it is whole seconds and less than every ({})", show(*.phase), show(*.interval))]
    Phase {
        /// What was given.
        phase: Duration,
        /// The interval it belongs to.
        interval: Duration,
    },
}

fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

impl When {
    /// An interval with its phase, checked.
    pub fn every(interval: Duration, phase: Duration) -> Result<Self, IntervalError> {
        if interval.subsec_nanos() != 0 || !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err(IntervalError::Interval(interval));
        }
        if phase.subsec_nanos() != 0 || phase >= interval {
            return Err(IntervalError::Phase { phase, interval });
        }
        Ok(Self::Every { interval, phase })
    }

    /// The first slot strictly after an instant; none if there is none before the year 2100.
    pub fn next_after(&self, after: Timestamp, zone: Tz, dst: DstPolicy) -> Option<Timestamp> {
        match self {
            When::Cron(lines) => lines.iter().filter_map(|line| line.next_after(after, zone, dst)).min(),
            When::Every { interval, phase } => {
                let (interval, phase) = (interval.as_secs().cast_signed(), phase.as_secs().cast_signed());
                let past = (after.timestamp() - phase).rem_euclid(interval);
                let whole_second = Timestamp::from_timestamp(after.timestamp(), 0)?;
                whole_second.checked_add_signed(TimeDelta::try_seconds(interval - past)?)
            }
            When::At(at) => (*at > after).then_some(*at),
            When::After(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("instant")
    }

    fn next(when: &When, after: &str) -> Option<Timestamp> {
        when.next_after(at(after), Tz::UTC, DstPolicy::default())
    }

    #[test]
    fn an_interval_is_aligned_whoever_counts_and_strictly_after() {
        let twelve_hours = When::every(Duration::from_hours(12), Duration::ZERO).expect("valid");
        assert_eq!(next(&twelve_hours, "2026-11-24T02:00:00.500Z"), Some(at("2026-11-24T12:00:00Z")));
        assert_eq!(next(&twelve_hours, "2026-11-24T12:00:00Z"), Some(at("2026-11-25T00:00:00Z")));
        assert_eq!(next(&twelve_hours, "2026-11-24T11:59:59.999Z"), Some(at("2026-11-24T12:00:00Z")));
        let shifted = When::every(Duration::from_secs(90), Duration::from_secs(30)).expect("valid");
        assert_eq!(next(&shifted, "1970-01-01T00:00:00Z"), Some(at("1970-01-01T00:00:30Z")));
        assert_eq!(next(&shifted, "1969-12-31T23:59:00Z"), Some(at("1970-01-01T00:00:30Z")));
    }

    #[test]
    fn an_instant_comes_once() {
        let once = When::At(at("2026-11-24T02:00:00Z"));
        assert_eq!(next(&once, "2026-11-24T01:59:59Z"), Some(at("2026-11-24T02:00:00Z")));
        assert_eq!(next(&once, "2026-11-24T02:00:00Z"), None);
    }

    #[test]
    fn several_lines_come_in_order_and_a_shared_slot_comes_once() {
        let lines =
            ["0 2 * * *", "0 3 * * *", "0 */3 * * *"].map(|line| line.parse().expect("cron")).to_vec();
        let both = When::Cron(lines);
        assert_eq!(next(&both, "2026-11-24T02:00:00Z"), Some(at("2026-11-24T03:00:00Z")));
        assert_eq!(next(&both, "2026-11-24T03:00:00Z"), Some(at("2026-11-24T06:00:00Z")));
    }

    #[test]
    fn an_interval_that_cannot_be_kept_is_refused() {
        for (interval, phase) in [(0, 0), (500, 0), (1500, 0), (10_000, 10_000), (10_000, 500)] {
            assert!(When::every(Duration::from_millis(interval), Duration::from_millis(phase)).is_err());
        }
    }
}
