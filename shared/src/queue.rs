//! A queue: a named lane of runs that a pool of workers serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{human_duration::HumanDuration, limits};

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
