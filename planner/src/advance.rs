//! Moving lines on: the first run of each goes as soon as its schedule's lock is free.
//!
//! A planner does this for the partitions it holds; that only saves work. Two may do it at once: the server takes one
//! task under a lock, the ledger lets a run be begun once, and a line is written by compare-and-set. What a planner
//! leaves half done, a run that was published and stands in line, its successor finds published.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use shared::{
    names::{MemberId, Name},
    run_record::{Reason, RunRecord},
};
use streams::Streams;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    holdings::Holdings,
    machine::turn::{Step, Turning},
    per_schedule::PerSchedule,
    perform::drive,
};

/// A lock is looked at this often although nothing was heard: what is heard over core NATS may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Moves the lines of one planner's partitions on.
#[derive(Clone)]
pub(crate) struct Advance {
    streams: Streams,
    holdings: Arc<Holdings>,
    id: MemberId,
}

impl Advance {
    pub(crate) fn new(streams: Streams, holdings: Arc<Holdings>, id: MemberId) -> Self {
        Self { streams, holdings, id }
    }

    /// Moves lines on until it is told to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let lines = PerSchedule {
            streams: self.streams.clone(),
            holdings: Arc::clone(&self.holdings),
            lists: self.streams.lines(),
            what: "lines",
        };
        lines.follow(|name, changed| self.clone().advance(name, changed), stop).await
    }

    /// Moves one line on until it is empty, or its partition is not ours any more.
    async fn advance(self, name: Name, changed: Arc<Notify>) {
        // Subscribed before the first look, so that the end of a run cannot fall between looking and waiting.
        let mut results = match self.streams.results(Some(&name)).await {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                return;
            }
        };
        while self.holdings.is_trusted(&name, self.streams.clock().elapsed()) {
            match drive(&self.streams, Turning::new(self.id.clone(), name.clone())).await {
                Ok(Step::Empty) => return,
                Ok(Step::Moved) => continue,
                Ok(Step::Waits) => {}
                Err(error) => {
                    tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                }
            }
            tokio::select! {
                () = changed.notified() => {}
                () = end_of_a_run(&mut results) => {}
                () = self.streams.clock().sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// Returns when a run of the schedule has ended that may have held the lock or stood in line.
async fn end_of_a_run(results: &mut (impl Stream<Item = RunRecord> + Unpin)) {
    while let Some(record) = results.next().await {
        if record.status.is_final() && record.reason != Some(Reason::SkippedOverlap) {
            return;
        }
    }
    std::future::pending::<()>().await;
}
