//! Whether a clock can be believed. Pure: what both its hands showed, and what the server's clock showed meanwhile.
//!
//! Two things make a clock suspect. Its wall time moved on by more than time has passed: somebody set it. Or it
//! differs from the server's by more than the limit. The first is known at once and settled by the next comparison;
//! the second lasts until a comparison says otherwise. A clock that was never compared is suspect too.

use std::{fmt, time::Duration};

use chrono::TimeDelta;

use crate::{
    Timestamp,
    clock::Clock,
    limits::{CLOCK_OFFSET_MAX, CLOCK_OFFSET_WARN, CLOCK_STEP_MAX},
};

/// Both hands of a clock, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Elapsed time before the wall time was read.
    pub before: Duration,
    /// The wall time.
    pub wall: Timestamp,
    /// Elapsed time after it was read: later than `before` if the process was held up in between.
    pub after: Duration,
}

impl Reading {
    /// Reads a clock.
    pub fn of(clock: &dyn Clock) -> Self {
        let before = clock.elapsed();
        let wall = clock.now();
        Self { before, wall, after: clock.elapsed() }
    }

    /// How much further the wall time has moved since an earlier reading than time can have passed.
    fn ahead_of_time_since(&self, earlier: &Reading) -> TimeDelta {
        (self.wall - earlier.wall) - delta(self.after.saturating_sub(earlier.before))
    }
}

/// One comparison with the server's clock: we asked, it stored something under its own time, its answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Our clock before we asked.
    pub asked: Reading,
    /// The server's wall time in between.
    pub server: Timestamp,
    /// Our clock when the answer was there.
    pub answered: Reading,
}

impl Sample {
    /// The least and the most by which our clock can be ahead of the server's. The round trip is the difference.
    fn bounds(&self) -> (TimeDelta, TimeDelta) {
        (self.asked.wall - self.server, self.answered.wall - self.server)
    }

    /// Whether our wall clock was set between asking and answer: then the sample says nothing.
    fn is_torn(&self) -> bool {
        let (least, most) = self.bounds();
        most < least || self.answered.ahead_of_time_since(&self.asked) > delta(CLOCK_STEP_MAX)
    }
}

/// Why a clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It was not compared with the server's yet.
    NeverCompared,
    /// It moved on by this much more than time has passed, and was not compared with the server's since.
    Stepped(TimeDelta),
    /// It is ahead of the server's by this much; behind it if negative.
    Off(TimeDelta),
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspicion::NeverCompared => f.write_str("not yet compared with the server's clock"),
            Suspicion::Stepped(by) => {
                write!(
                    f,
                    "set forward by {} ms, and not yet compared with the server's clock",
                    by.num_milliseconds()
                )
            }
            Suspicion::Off(by) if *by < TimeDelta::zero() => {
                write!(f, "{} ms behind the server's clock", by.num_milliseconds().unsigned_abs())
            }
            Suspicion::Off(by) => write!(f, "{} ms ahead of the server's clock", by.num_milliseconds()),
        }
    }
}

/// What is known of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockCheck {
    last: Option<Reading>,
    offset: Option<TimeDelta>,
    suspicion: Option<Suspicion>,
    /// A sample must have been asked for at this elapsed time or later to settle the suspicion.
    suspect_since: Duration,
}

impl Default for ClockCheck {
    fn default() -> Self {
        Self {
            last: None,
            offset: None,
            suspicion: Some(Suspicion::NeverCompared),
            suspect_since: Duration::ZERO,
        }
    }
}

impl ClockCheck {
    /// Takes in a reading, and notices if the clock was set forward since the last one. Set back it needs no suspicion:
    /// then nothing is due that was not due before.
    #[must_use]
    pub fn after_reading(self, reading: Reading) -> Self {
        let ahead = self.last.map_or(TimeDelta::zero(), |last| reading.ahead_of_time_since(&last));
        let last = Some(reading);
        if ahead <= delta(CLOCK_STEP_MAX) {
            return Self { last, ..self };
        }
        Self { last, suspicion: Some(Suspicion::Stepped(ahead)), suspect_since: reading.after, ..self }
    }

    /// Takes in a comparison with the server's clock. One that is too coarse to tell changes nothing.
    #[must_use]
    pub fn after_sample(self, sample: Sample) -> Self {
        if sample.is_torn() || sample.asked.before < self.suspect_since {
            return self;
        }
        let (least, most) = sample.bounds();
        let middle = least + (most - least) / 2;
        let max = delta(CLOCK_OFFSET_MAX);
        let suspicion = if least > max || most < -max {
            Some(Suspicion::Off(middle))
        } else if least >= -max && most <= max {
            None
        } else {
            return self;
        };
        Self { offset: Some(middle), suspicion, ..self }
    }

    /// Why the clock is not believed; none if it is.
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.suspicion
    }

    /// By how much it is ahead of the server's, by the latest comparison; negative if behind.
    pub fn offset(&self) -> Option<TimeDelta> {
        self.offset
    }

    /// Whether it differs by so much that somebody should look at it, although it is believed.
    pub fn is_worth_a_warning(&self) -> bool {
        self.offset.is_some_and(|offset| offset.abs() > delta(CLOCK_OFFSET_WARN))
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading at so many milliseconds of elapsed time, the wall clock so many ahead of the true time.
    fn reading(elapsed_ms: u64, ahead_ms: i64) -> Reading {
        let elapsed = Duration::from_millis(elapsed_ms);
        Reading {
            before: elapsed,
            wall: truth(elapsed_ms) + TimeDelta::milliseconds(ahead_ms),
            after: elapsed,
        }
    }

    fn truth(elapsed_ms: u64) -> Timestamp {
        let start: Timestamp = "2026-11-24T02:00:00Z".parse().expect("instant");
        start + Duration::from_millis(elapsed_ms)
    }

    fn sample(asked_ms: u64, round_trip_ms: u64, ahead_ms: i64) -> Sample {
        Sample {
            asked: reading(asked_ms, ahead_ms),
            server: truth(asked_ms + round_trip_ms / 2),
            answered: reading(asked_ms + round_trip_ms, ahead_ms),
        }
    }

    fn compared() -> ClockCheck {
        ClockCheck::default().after_sample(sample(0, 2, 0))
    }

    #[test]
    fn a_clock_is_believed_only_while_it_agrees_with_the_servers() {
        let ms = TimeDelta::milliseconds;
        for (round_trip_ms, ahead_ms, suspicion, warns) in [
            (2, 0, None, false),
            (2, 400, None, false),
            (2, -400, None, false),
            (2, 600, None, true),
            (2, -4_900, None, true),
            (2, 5_100, Some(Suspicion::Off(ms(5_100))), true),
            (2, -5_100, Some(Suspicion::Off(ms(-5_100))), true),
            (2, 3_600_000, Some(Suspicion::Off(ms(3_600_000))), true),
            // Asked for long: 3 s ahead, give or take one.
            (2_000, 3_000, None, true),
            // 5 s, give or take one: it cannot be told, so what was believed before stays.
            (2_000, 5_000, Some(Suspicion::NeverCompared), false),
            (2_000, 7_000, Some(Suspicion::Off(ms(7_000))), true),
        ] {
            let check = ClockCheck::default().after_sample(sample(1_000, round_trip_ms, ahead_ms));
            let seen = (check.suspicion(), check.is_worth_a_warning());
            assert_eq!(seen, (suspicion, warns), "{ahead_ms} ms ahead, asked in {round_trip_ms} ms");
        }
    }

    #[test]
    fn a_clock_that_was_never_compared_is_not_believed() {
        assert_eq!(ClockCheck::default().suspicion(), Some(Suspicion::NeverCompared));
        assert_eq!(compared().suspicion(), None);
    }

    #[test]
    fn wall_time_that_moves_on_by_more_than_time_has_passed_was_set() {
        for (passed_ms, ahead_ms, by_ms) in [
            (500, 0, None),
            (500, 500, None),
            (500, 501, Some(501)),
            (500, 31_536_000_000, Some(31_536_000_000)),
            // Set back, or slept through: elapsed time counts suspension.
            (500, -3_600_000, None),
            (1_800_000, 0, None),
        ] {
            let check =
                compared().after_reading(reading(100, 0)).after_reading(reading(100 + passed_ms, ahead_ms));
            let expected = by_ms.map(|by| Suspicion::Stepped(TimeDelta::milliseconds(by)));
            assert_eq!(check.suspicion(), expected, "{passed_ms} ms passed, {ahead_ms} ms ahead");
        }
    }

    #[test]
    fn a_process_that_is_held_up_while_it_reads_the_clock_suspects_nothing() {
        let held_up = Reading { before: Duration::from_millis(100), ..reading(3_100, 0) };
        assert_eq!(compared().after_reading(held_up).after_reading(reading(3_200, 0)).suspicion(), None);
        assert_eq!(compared().after_reading(reading(50, 0)).after_reading(held_up).suspicion(), None);
    }

    #[test]
    fn a_step_is_settled_by_a_comparison_that_was_asked_for_after_it() {
        let stepped = compared().after_reading(reading(1_000, 0)).after_reading(reading(1_100, 2_000));
        assert!(matches!(stepped.suspicion(), Some(Suspicion::Stepped(_))));
        assert_eq!(stepped.after_sample(sample(1_050, 2, 0)), stepped, "asked for before the step");
        assert_eq!(
            stepped.after_sample(sample(1_200, 2, 2_000)).suspicion(),
            None,
            "wrong by less than the limit"
        );
        let off = stepped.after_sample(sample(1_200, 2, 60_000));
        assert_eq!(off.suspicion(), Some(Suspicion::Off(TimeDelta::minutes(1))));
        let back = off.after_reading(reading(1_300, 0)).after_sample(sample(1_400, 2, 0));
        assert_eq!(back.suspicion(), None, "set right again");
    }

    #[test]
    fn a_comparison_during_which_the_clock_was_set_says_nothing() {
        let forward = Sample { answered: reading(1_002, 60_000), ..sample(1_000, 2, 0) };
        let back = Sample { answered: reading(1_002, -60_000), ..sample(1_000, 2, 0) };
        for torn in [forward, back] {
            assert_eq!(ClockCheck::default().after_sample(torn), ClockCheck::default());
        }
    }
}
