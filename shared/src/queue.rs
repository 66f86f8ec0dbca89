//! A queue: a named lane of runs that a pool of workers serves.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    human_duration::HumanDuration,
    limits,
    names::{NameError, QueueName},
};

/// How much of a run's life a queue keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recording {
    /// Every change of state is its own record.
    #[default]
    All,
    /// An ad-hoc run that goes well at its first attempt, within a quarter of a second, leaves no record: for floods of tasks whose
    /// success nobody asks about. Its key is not remembered, its output is lost, no result is told. Planned runs are recorded as ever.
    Failures,
}

/// When the claim of a run that a worker gets for the first time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Claiming {
    /// With its end, or after a quarter of a second if it has not ended by then. Only where nobody else can have the run.
    #[default]
    Late,
    /// Before each attempt: whoever looks sees RUNNING, however short it is.
    Each,
}

/// The settings of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// Runs of this queue in flight over the whole fleet, enforced by the server: 1 to 100000, default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
    /// A worker silent for this long has lost its run: 2s to 1h, default 30s.
    pub ack_wait: HumanDuration,
    /// How much of a run's life is kept: `all` (default), or `failures`: an ad-hoc run that goes well at once leaves no record.
    pub record: Recording,
    /// When RUNNING is written: `late` (default), only of attempts that take longer than 250 ms, or `each`, before each attempt.
    pub claim: Claiming,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max_in_flight: limits::MAX_IN_FLIGHT_DEFAULT,
            ack_wait: limits::ACK_WAIT_DEFAULT.into(),
            record: Recording::All,
            claim: Claiming::Late,
        }
    }
}

/// Settings of a queue that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Zero, or more than the server should track.
    #[error("max_in_flight is {0}; it is 1 to {max}", max = limits::MAX_IN_FLIGHT_MAX)]
    MaxInFlight(u32),
    /// Too short for a heartbeat, or too long for a dead worker to be noticed.
    #[error("ack_wait is {0}; it is {min} to {max}", min = HumanDuration(limits::ACK_WAIT_MIN), max = HumanDuration(limits::ACK_WAIT_MAX))]
    AckWait(HumanDuration),
    /// A claim is a record, and who makes one for each attempt has every success recorded.
    #[error(
        "record: failures does not go with claim: each, which records every attempt; leave out one of them"
    )]
    EachRecorded,
}

impl QueueSettings {
    /// Checks what serde cannot: ranges.
    pub fn check(&self) -> Result<(), QueueError> {
        if !(1..=limits::MAX_IN_FLIGHT_MAX).contains(&self.max_in_flight) {
            return Err(QueueError::MaxInFlight(self.max_in_flight));
        }
        if !(limits::ACK_WAIT_MIN..=limits::ACK_WAIT_MAX).contains(&self.ack_wait.0) {
            return Err(QueueError::AckWait(self.ack_wait));
        }
        if (self.record, self.claim) == (Recording::Failures, Claiming::Each) {
            return Err(QueueError::EachRecorded);
        }
        Ok(())
    }
}

/// A queue that a worker serves, and its weight among the others there: `critical=6`, or `default` for a weight of 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueShare {
    /// The queue.
    pub queue: QueueName,
    /// When places are scarce, it gets so many for each one that a queue of weight 1 gets: 1 to 1000.
    pub weight: u32,
}

/// A share that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// No queue.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No weight.
    #[error("the weight of queue {queue} is {text:?}; it is a number from 1 to {max}, as in {queue}=3", max = limits::QUEUE_WEIGHT_MAX)]
    Weight {
        /// The queue.
        queue: QueueName,
        /// What was given.
        text: String,
    },
}

impl FromStr for QueueShare {
    type Err = ShareError;
    fn from_str(text: &str) -> Result<Self, ShareError> {
        let Some((name, weight)) = text.split_once('=') else {
            return Ok(Self { queue: text.parse()?, weight: 1 });
        };
        let queue: QueueName = name.parse()?;
        match weight.parse() {
            Ok(weight) if (1..=limits::QUEUE_WEIGHT_MAX).contains(&weight) => Ok(Self { queue, weight }),
            _ => Err(ShareError::Weight { queue, text: weight.to_owned() }),
        }
    }
}

impl From<QueueName> for QueueShare {
    fn from(queue: QueueName) -> Self {
        Self { queue, weight: 1 }
    }
}

impl fmt::Display for QueueShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weight == 1 { self.queue.fmt(f) } else { write!(f, "{}={}", self.queue, self.weight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_queue_with_a_weight_or_without() {
        for (text, weight) in [("default", 1), ("critical=6", 6)] {
            let share: QueueShare = text.parse().expect(text);
            assert_eq!((share.weight, share.to_string().as_str()), (weight, text));
        }
        for (text, part) in
            [("critical=0", "1 to 1000"), ("critical=much", "critical=3"), ("a b=1", "only A-Z")]
        {
            let message = text.parse::<QueueShare>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
