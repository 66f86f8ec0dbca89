//! Turns schedules into dispatched runs.
//!
//! Promise: every slot of every schedule gets exactly one record in the ledger, dispatched or skipped with its reason,
//! whatever planners crash, pause or disagree.
//!
//! How it is kept: schedules are divided into 64 partitions. A partition's *lease* says which planner works on it and
//! only saves work; its *cursor* says up to which instant every slot has its record. A slot is dispatched by creating
//! its record, which succeeds once, and then publishing its task, which may be repeated. The cursor moves only when all
//! slots before it are accounted for, so a successor that starts from the cursor repeats what may not have been done
//! and finds done what was.
//!
//! | file | what it decides or does |
//! |---|---|
//! | `due.rs` | which slots are due in a window (pure) |
//! | `missed.rs` | whether a slot runs, late or not, or is skipped (pure) |
//! | `share.rs` | which planner should hold which partition (pure) |
//! | `book.rs` | the schedules in memory, and which is due next (pure) |
//! | `dispatch.rs` | record, then task; who holds a schedule's lock |
//! | `round.rs` | one pass over what is due; the cursors |
//! | `leases.rs` | taking, renewing and giving up partitions |
//! | `definitions.rs` | following the buckets of definitions |
//! | `trigger.rs` | runs asked for by hand |
//! | `delayed/` | submissions that wait for their instant |

mod book;
mod definitions;
mod delayed;
mod dispatch;
mod due;
mod leases;
mod missed;
mod round;
mod share;
mod status;
mod trigger;

use std::sync::Arc;

use shared::names::MemberId;
use streams::{ReadError, Streams, WriteError};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{definitions::Bucket, dispatch::Dispatcher, leases::Holdings, status::Status};

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
        let dispatcher = Dispatcher::new(self.streams.clone());
        let (changes, waiting) = mpsc::channel(CHANGES_WAITING_MAX);
        // Parts stop in two steps: first planning, so that its last cursors are written; then the leases are given up.
        let (planning, holding) = (CancellationToken::new(), CancellationToken::new());

        let mut parts = Parts::default();
        let streams = || self.streams.clone();
        for bucket in [Bucket::Schedules, Bucket::Catalog] {
            let following = definitions::follow(bucket, streams(), changes.clone(), planning.clone());
            parts.spawn("watch of definitions", following);
        }
        drop(changes);
        let rounds =
            round::Rounds::new(streams(), dispatcher.clone(), Arc::clone(&holdings), Arc::clone(&status));
        parts.spawn("planning loop", rounds.run(waiting, planning.clone()));
        parts.spawn("triggers", trigger::follow(streams(), dispatcher, planning.clone()));
        let delays = delayed::run(streams(), Arc::clone(&holdings), Arc::clone(&status), planning.clone());
        parts.spawn("delayed submissions", delays);
        let keeper = leases::Keeper::new(streams(), holdings, Arc::clone(&status));
        let mut keeper = tokio::spawn(keeper.run(holding.clone()));
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
