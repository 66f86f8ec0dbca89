//! Turns schedules into dispatched runs.
//!
//! Promise: every slot of every schedule gets exactly one record in the ledger, dispatched or skipped with its reason,
//! whatever planners crash, pause or disagree.
//!
//! How it is kept: schedules are divided into 64 partitions. A partition's *lease* says which planner works on it and
//! only saves work, and counts while that planner renews its *seat*; its *cursor* says up to which instant every slot has its record. A slot is dispatched by creating
//! its record, which succeeds once, and then publishing its task, which may be repeated. The cursor moves only when all
//! slots before it are accounted for, so a successor that starts from the cursor repeats what may not have been done
//! and finds done what was.
//!
//! | file | what it decides or does |
//! |---|---|
//! | `due.rs` | which slots are due in a window (pure) |
//! | `missed.rs` | whether a slot runs, late or not, or is skipped (pure) |
//! | `catch_up.rs` | how fast missed slots are run (pure) |
//! | `pauses.rs` | what was said of each schedule's pause, and since when (pure) |
//! | `held_back.rs` | schedules that failed lately, for which the others do not wait (pure) |
//! | `share.rs` | which planner should hold which partition (pure) |
//! | `book.rs`, `book/` | the schedules in memory, by the million, and which is due next (pure) |
//! | `machine/` | planning as a state machine: what happened in, what is to be done out (pure) |
//! | `perform.rs` | doing what it asks for |
//! | `planning_loop.rs` | carrying both ways |
//! | `dispatch.rs` | runs that are made outside of it, in the same way |
//! | `lines.rs` | the runs that wait for a lock: who stands where |
//! | `per_schedule.rs` | one piece of work for each schedule with a list of runs |
//! | `advance.rs` | which lines are moved on here, and when they are looked at |
//! | `table.rs` | who lives, which partitions to take, to keep and to give up (pure) |
//! | `leases.rs` | writing what the table decides; comparing our clock with the server's |
//! | `news.rs` | following the bucket of seats and leases |
//! | `holdings.rs` | what the planning loop is told to hold, and until when it may trust that |
//! | `clock_guard.rs` | the wall clock, while it can be believed |
//! | `backlog.rs` | slots that have to wait, and how that is seen |
//! | `status.rs` | what the planner says of itself at each heartbeat |
//! | `definitions.rs` | following the buckets of definitions |
//! | `trigger.rs` | runs asked for by hand |
//! | `chain/` | runs that follow the ends of other schedules' runs |
//! | `shards/` | runs in several parts: making the parts, and the end of the whole |
//! | `backfill.rs` | ranges of slots asked for by hand |
//! | `delayed/` | submissions that wait for their instant |

mod advance;
mod backfill;
mod backlog;
mod book;
mod catch_up;
mod chain;
mod clock_guard;
mod definitions;
mod delayed;
mod dispatch;
mod due;
mod held_back;
mod holdings;
mod leases;
mod lines;
mod machine;
mod missed;
#[cfg(any(test, feature = "model"))]
mod model;
mod news;
mod pauses;
mod per_schedule;
mod perform;
mod planning_loop;
mod planted;
mod shards;
mod share;
#[cfg(test)]
mod simulation;
mod status;
mod table;
mod trigger;

#[cfg(feature = "model")]
#[doc(hidden)]
pub use crate::model::conformance;

use std::sync::Arc;

use shared::names::MemberId;
use streams::{ReadError, Streams, WriteError};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    clock_guard::ClockGuard, definitions::Bucket, dispatch::Dispatcher, holdings::Holdings, status::Status,
};

/// Changes of definitions that wait for the planning loop; the watch waits when it is full.
const CHANGES_WAITING_MAX: usize = 1_024;

/// What a planner is told at its start.
#[derive(Debug, Clone)]
pub struct PlannerSettings {
    /// The name of its machine, for its id.
    pub host: String,
}

/// Why a planner ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    /// Something it needs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something it needs cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// One of its parts ended without being told to.
    #[error("the planner's {part} ended unexpectedly: {detail}")]
    Part {
        /// Which part.
        part: &'static str,
        /// How it ended.
        detail: String,
    },
}

/// A planner.
pub struct Planner {
    id: MemberId,
    streams: Streams,
}

impl Planner {
    /// A planner with an id of its own; it does nothing before it is run.
    pub fn new(settings: &PlannerSettings, streams: Streams) -> Self {
        Self { id: MemberId::new("planner", &settings.host), streams }
    }

    /// The id it has among the members.
    pub fn id(&self) -> &MemberId {
        &self.id
    }

    /// Plans until it is told to stop; then it gives up its partitions at once and returns.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let status = Arc::new(Status::new(self.id.clone(), self.streams.clock().now()));
        let holdings = Arc::new(Holdings::default());
        let guard = Arc::new(ClockGuard::new(self.streams.clock().clone(), Arc::clone(&status)));
        let dispatcher = Dispatcher::new(self.streams.clone());
        let (changes, waiting) = mpsc::channel(CHANGES_WAITING_MAX);
        // Parts stop in two steps: first planning, so that its last cursors are written; then the leases are given up.
        let (planning, holding) = (CancellationToken::new(), CancellationToken::new());

        let mut parts = Parts::default();
        let streams = || self.streams.clone();
        let links = Arc::new(chain::Links::default());
        for bucket in [Bucket::Schedules, Bucket::Catalog] {
            let links = Arc::clone(&links);
            let following = definitions::follow(bucket, streams(), changes.clone(), links, planning.clone());
            parts.spawn("watch of definitions", following);
        }
        drop(changes);
        let shepherd = shards::Shepherd::new(streams(), Arc::clone(&holdings), self.id.clone());
        parts.spawn("shards", shepherd.follow(planning.clone()));
        let id = self.id.clone();
        let advance = advance::Advance::new(streams(), Arc::clone(&holdings), id);
        parts.spawn("lines", advance.follow(planning.clone()));
        let plans = planning_loop::PlanningLoop::new(
            streams(),
            Arc::clone(&holdings),
            Arc::clone(&status),
            Arc::clone(&guard),
        );
        parts.spawn("planning loop", plans.run(waiting, planning.clone()));
        let chains = chain::Chains::new(
            streams(),
            dispatcher.clone(),
            Arc::clone(&holdings),
            Arc::clone(&status),
            Arc::clone(&guard),
            links,
        );
        parts.spawn("chains", chains.run(planning.clone()));
        parts.spawn("triggers", trigger::follow(streams(), dispatcher.clone(), planning.clone()));
        parts.spawn(
            "backfills",
            backfill::follow(streams(), dispatcher, Arc::clone(&guard), planning.clone()),
        );
        let delays = delayed::run(
            streams(),
            Arc::clone(&holdings),
            Arc::clone(&status),
            Arc::clone(&guard),
            planning.clone(),
        );
        parts.spawn("delayed submissions", delays);
        let beating = AbortOnDropHandle::new(tokio::spawn(status::beat(
            streams(),
            Arc::clone(&status),
            holding.clone(),
        )));
        let keeper = leases::Keeper::new(streams(), holdings, Arc::clone(&status), guard);
        // Whoever drops us ends it too: a keeper on its own would hold partitions that nobody plans.
        let mut keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run(holding.clone())));
        tracing::info!(planner.id = %self.id, "Planner `{}` is at work", self.id);

        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = parts.first_end() => ended,
            // It ends by itself only in a panic. Without it the leases run out: somebody must start us anew.
            ended = &mut keeper => {
                planning.cancel();
                let detail = ended.map_or_else(|panic| panic.to_string(), |_| "without an error".to_owned());
                parts.all_ends().await.ok();
                return Err(PlannerError::Part { part: "leases", detail });
            }
        };
        planning.cancel();
        let stopped = parts.all_ends().await;
        holding.cancel();
        let kept =
            keeper.await.map_err(|error| PlannerError::Part { part: "leases", detail: error.to_string() });
        let _ = beating.await;
        tracing::info!(planner.id = %self.id, "Planner `{}` has stopped", self.id);
        ended.and(stopped).and(kept?)
    }
}

/// The running parts of a planner. A part that ends by itself ends the planner: its supervisor starts a new one.
#[derive(Default)]
struct Parts {
    running: JoinSet<(&'static str, Result<(), PlannerError>)>,
}

impl Parts {
    fn spawn(
        &mut self,
        part: &'static str,
        work: impl Future<Output = Result<(), PlannerError>> + Send + 'static,
    ) {
        self.running.spawn(async move { (part, work.await) });
    }

    async fn first_end(&mut self) -> Result<(), PlannerError> {
        match self.running.join_next().await {
            Some(Ok((part, Ok(())))) => {
                Err(PlannerError::Part { part, detail: "without an error".to_owned() })
            }
            Some(Ok((part, Err(error)))) => Err(PlannerError::Part { part, detail: error.to_string() }),
            Some(Err(panic)) => Err(PlannerError::Part { part: "task", detail: panic.to_string() }),
            None => Ok(()),
        }
    }

    async fn all_ends(&mut self) -> Result<(), PlannerError> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            if let Ok((part, Err(error))) = ended {
                result = Err(PlannerError::Part { part, detail: error.to_string() });
            }
        }
        result
    }
}
