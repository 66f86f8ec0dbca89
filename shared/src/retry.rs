//! When to try again: exponential backoff with jitter, bounded in attempts and in time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    hash::mixed_64,
    human_duration::HumanDuration,
    limits,
    run::RunId,
    time_limits::{TimeLimitError, check_range},
};

/// How often, and how far apart, a run is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included: 1 to 100, default 3. 1 means no retry.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one. Default 5s.
    pub backoff: HumanDuration,
    /// The longest wait between two attempts, at most 1h. Default 10m.
    pub max_backoff: HumanDuration,
    /// No attempt but the first begins when the run is older than this, at most 30 days. Left out: only the number of
    /// attempts counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<HumanDuration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: limits::ATTEMPTS_DEFAULT,
            backoff: Duration::from_secs(5).into(),
            max_backoff: Duration::from_mins(10).into(),
            max_age: None,
        }
    }
}

/// A retry policy that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// Zero, or more than anybody would wait for.
    #[error("retry.attempts is {0}; it is 1 (no retry) to {max}", max = limits::ATTEMPTS_MAX)]
    Attempts(u32),
    /// Longer than runs may hold their place in a queue.
    #[error("retry.{field} is {value}; at most {max} is allowed", max = HumanDuration(limits::BACKOFF_MAX))]
    TooLong {
        /// Which of the two.
        field: &'static str,
        /// What was given.
        value: HumanDuration,
    },
    /// An age that nothing has, or that nobody waits for.
    #[error(transparent)]
    MaxAge(#[from] TimeLimitError),
    /// The first wait is longer than the longest.
    #[error(
        "retry.backoff ({backoff}) exceeds retry.max_backoff ({max_backoff}); raise the second or lower the first"
    )]
    Order {
        /// The first wait.
        backoff: HumanDuration,
        /// The longest wait.
        max_backoff: HumanDuration,
    },
}

impl RetryPolicy {
    /// Checks what serde cannot: ranges, and the pair.
    pub fn check(&self) -> Result<(), RetryError> {
        if !(1..=limits::ATTEMPTS_MAX).contains(&self.attempts) {
            return Err(RetryError::Attempts(self.attempts));
        }
        for (field, value) in [("backoff", self.backoff), ("max_backoff", self.max_backoff)] {
            if value.0 > limits::BACKOFF_MAX {
                return Err(RetryError::TooLong { field, value });
            }
        }
        if let Some(max_age) = self.max_age {
            check_range("retry.max_age", max_age)?;
        }
        if self.backoff > self.max_backoff {
            return Err(RetryError::Order { backoff: self.backoff, max_backoff: self.max_backoff });
        }
        Ok(())
    }

    /// Whether another attempt may follow this one.
    pub fn allows_after(&self, attempt: u32) -> bool {
        attempt < self.attempts
    }

    /// The wait after a failed attempt (from 1): doubled each time, bounded, and then shortened by up to a fifth, so
    /// that runs that failed together do not come back together. The same run and attempt always wait the same.
    pub fn wait_after(&self, attempt: u32, run: &RunId) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.backoff.0.saturating_mul(1 << doublings).min(self.max_backoff.0);
        let spread = mixed_64(&[&run.to_string(), &attempt.to_string()]) % 1_000;
        full.mul_f64(1.0 - 0.2 * (spread as f64 / 1_000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        "reindex.4711".parse().expect("id")
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_is_never_longer_nor_much_shorter() {
        let policy = RetryPolicy {
            attempts: 10,
            backoff: Duration::from_secs(10).into(),
            max_backoff: Duration::from_mins(1).into(),
            ..RetryPolicy::default()
        };
        for (attempt, full) in [(1, 10), (2, 20), (3, 40), (4, 60), (9, 60), (u32::MAX, 60)] {
            let wait = policy.wait_after(attempt, &run()).as_secs_f64();
            let full = f64::from(full);
            assert!(wait <= full && wait >= full * 0.8, "attempt {attempt}: {wait}");
        }
        assert!(policy.allows_after(9) && !policy.allows_after(10));
    }

    #[test]
    fn two_runs_that_failed_together_do_not_come_back_together() {
        let policy = RetryPolicy::default();
        let waits: std::collections::HashSet<Duration> =
            (0..100).map(|n| policy.wait_after(1, &format!("reindex.{n}").parse().expect("id"))).collect();
        assert!(waits.len() > 80, "{}", waits.len());
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_refused_with_the_repair() {
        let policy = |json: &str| serde_json::from_str::<RetryPolicy>(json).expect("parses").check();
        assert_eq!(policy(r#"{"attempts":0}"#), Err(RetryError::Attempts(0)));
        let error = policy(r#"{"backoff":"10m","max_backoff":"1m"}"#).expect_err("order").to_string();
        assert!(error.contains("raise the second"), "{error}");
        assert!(policy(r#"{"max_backoff":"2h"}"#).is_err());
    }
}
