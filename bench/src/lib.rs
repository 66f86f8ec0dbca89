//! Scenarios that measure a fleet as its users feel it. Each ends with one report.
//!
//! Planners and workers are processes of their own, as in production; the target service is this process, reached by
//! NATS messages, and it alone says when a run began. Where a figure is a share of what the server can do at all, the raw
//! rate is measured in the same run, on a stream with the same settings.
//!
//! | file | what it does |
//! |---|---|
//! | `fleet.rs` | planners and workers as processes: started, measured, killed, ended |
//! | `target.rs` | the target service, which notes when each run began |
//! | `load.rs` | tasks, and schedules by the thousand |
//! | `report.rs` | what comes out |
//! | `scenarios/` | one file per scenario |

mod fleet;
mod load;
mod report;
mod scenarios;
mod target;

use std::{ffi::OsString, fmt, str::FromStr, time::Duration};

use shared::clock::Clock;
use streams::Streams;

pub use report::Report;

/// The action of a worker of `bench-worker` that does nothing.
pub const NOTHING: &str = "nothing";
/// The action of a worker of `bench-worker` that says when it was begun: `{"began_us": <microseconds>}`, in elapsed time, which
/// all processes of a machine share.
pub const STAMP: &str = "stamp";

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Schedules that are each due every second: how long after its slot a run begins.
    Lateness,
    /// Schedules that are all due in the same second: when the last run begins.
    Burst,
    /// Schedules that are all due in the same second and no worker: how fast a planner dispatches.
    Dispatch,
    /// Submissions that wait for their instants: how long after it a run begins.
    Delayed,
    /// Very many schedules: how long a planner reads them, how much memory they take, how idle it is.
    Schedules,
    /// A planner that is killed, or told to stop: how long nobody dispatches its slots.
    Failover,
    /// Ad-hoc runs that lie in a queue and do nothing: how many a second a worker comes to.
    Drain,
    /// Ad-hoc tasks published as fast as one client can.
    Submit,
    /// A hundred submissions a second: how long from the publish until the handler begins.
    Latency,
    /// Very many runs through one worker: whether its memory grows.
    WorkerMemory,
    /// A worker that is killed under load: how long until what it was at is begun again.
    WorkerKill,
}

impl Scenario {
    /// All of them, in the order of the documentation.
    pub const ALL: [Scenario; 11] = [
        Scenario::Lateness,
        Scenario::Burst,
        Scenario::Dispatch,
        Scenario::Delayed,
        Scenario::Schedules,
        Scenario::Failover,
        Scenario::Drain,
        Scenario::Submit,
        Scenario::Latency,
        Scenario::WorkerMemory,
        Scenario::WorkerKill,
    ];

    fn name(self) -> &'static str {
        match self {
            Scenario::Lateness => "lateness",
            Scenario::Burst => "burst",
            Scenario::Dispatch => "dispatch",
            Scenario::Delayed => "delayed",
            Scenario::Schedules => "schedules",
            Scenario::Failover => "failover",
            Scenario::Drain => "drain",
            Scenario::Submit => "submit",
            Scenario::Latency => "latency",
            Scenario::WorkerMemory => "worker-memory",
            Scenario::WorkerKill => "worker-kill",
        }
    }

    /// How many things it is measured with, when nobody says otherwise.
    pub fn usual_n(self) -> usize {
        match self {
            Scenario::Lateness => 1_000,
            Scenario::Burst => 10_000,
            Scenario::Dispatch => 50_000,
            Scenario::Delayed => 100_000,
            Scenario::Schedules | Scenario::WorkerMemory => 1_000_000,
            Scenario::WorkerKill => 20,
            Scenario::Failover => 200,
            Scenario::Drain | Scenario::Submit => 200_000,
            Scenario::Latency => 6_000,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A scenario nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownScenario(String);

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Scenario::ALL.map(Scenario::name).join(", ");
        write!(f, "there is no scenario {:?}; there are {known}", self.0)
    }
}

impl std::error::Error for UnknownScenario {}

impl FromStr for Scenario {
    type Err = UnknownScenario;
    fn from_str(text: &str) -> Result<Self, UnknownScenario> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| UnknownScenario(text.to_owned()))
    }
}

/// What a scenario is measured on: a server with nothing else on it.
pub struct Bench {
    /// A connection to it, with the streams made.
    pub streams: Streams,
    /// Its address.
    pub url: String,
    /// The program whose verbs `planner`, `worker` and `bench-worker` are measured.
    pub program: OsString,
    /// How many things to measure with.
    pub n: usize,
    /// For how long, where a scenario goes on for a while.
    pub seconds: u32,
    /// Says to a person how far it is.
    pub say: fn(&str),
}

impl Bench {
    /// Measures.
    pub async fn run(&self, scenario: Scenario) -> anyhow::Result<Report> {
        let began = self.streams.clock().elapsed();
        let mut report = match scenario {
            Scenario::Lateness => scenarios::lateness::run(self).await,
            Scenario::Burst => scenarios::burst::run(self).await,
            Scenario::Dispatch => scenarios::dispatch::run(self).await,
            Scenario::Delayed => scenarios::delayed::run(self).await,
            Scenario::Schedules => scenarios::schedules::run(self).await,
            Scenario::Failover => scenarios::failover::run(self).await,
            Scenario::Drain => scenarios::drain::run(self).await,
            Scenario::Submit => scenarios::submit::run(self).await,
            Scenario::Latency => scenarios::latency::run(self).await,
            Scenario::WorkerMemory => scenarios::worker_memory::run(self).await,
            Scenario::WorkerKill => scenarios::worker_kill::run(self).await,
        }?;
        report.scenario = scenario.to_string();
        report.server = self.streams.server_version();
        report.n = self.n;
        report.seconds = self.streams.clock().elapsed().saturating_sub(began).as_secs_f64();
        Ok(report)
    }

    fn clock(&self) -> &dyn Clock {
        self.streams.clock().as_ref()
    }

    /// Looks until something is there, for a bounded time.
    async fn wait_for<T, F, Fut>(&self, what: &str, patience: Duration, mut look: F) -> anyhow::Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<Option<T>>>,
    {
        let give_up_at = self.clock().elapsed() + patience;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if self.clock().elapsed() > give_up_at {
                anyhow::bail!("{what} did not come within {patience:?}");
            }
            self.clock().sleep(Duration::from_millis(20)).await;
        }
    }
}
