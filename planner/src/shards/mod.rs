//! Sharded runs: one record for the whole, and a run for each part.
//!
//! Promise: the record of the whole ends when all parts have, whatever planners crash. How it is kept: before its parts are
//! made, the whole is entered in its schedule's list of open runs, one value in the planners' bucket, written by
//! compare-and-set, as a line is. Who holds the partition tends the runs in that list: it reads the records of the parts from
//! the leader, woken by their results, and every two seconds although nothing was heard. A run leaves the list only when
//! its end is recorded, and that of all its parts; so nothing that is lost leaves it open for ever, and a list in which it stands
//! is never a lock that leaked: whoever meets it looks at the record.
//!
//! Making the parts is done by whoever dispatches the slot, record first, then task, and is repeated until it is done
//! ([`fan_out`]); only then is the whole RUNNING.

mod fan;
mod tally;
mod tend;

use std::sync::Arc;

use shared::names::{MemberId, Name};
use streams::Streams;
use tokio_util::sync::CancellationToken;

pub(crate) use self::fan::fan_out;
use self::tend::Tender;
use crate::{PlannerError, holdings::Holdings, per_schedule::PerSchedule};

/// Tends the sharded runs of one planner's partitions.
#[derive(Clone)]
pub(crate) struct Shepherd {
    streams: Streams,
    holdings: Arc<Holdings>,
    id: MemberId,
}

impl Shepherd {
    pub(crate) fn new(streams: Streams, holdings: Arc<Holdings>, id: MemberId) -> Self {
        Self { streams, holdings, id }
    }

    /// Tends open runs until it is told to stop.
    pub(crate) async fn follow(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let open = PerSchedule {
            streams: self.streams.clone(),
            holdings: Arc::clone(&self.holdings),
            lists: self.streams.sharded_runs(),
            what: "sharded runs",
        };
        // It hears of its list by the results of the runs in it.
        open.follow(|name, _| self.clone().tend(name), stop).await
    }

    /// Tends the open runs of one schedule until there are none, or its partition is not ours any more.
    async fn tend(self, name: Name) {
        let mut tender = match Tender::begin(&self.streams, &self.id, &name).await {
            Ok(tender) => tender,
            Err(error) => {
                tracing::warn!(schedule.name = %name, %error, "The shards of `{name}` are not looked at: {error}");
                return;
            }
        };
        while self.holdings.is_trusted(&name, self.streams.clock().elapsed()) {
            match tender.look().await {
                Ok(true) => tender.wait().await,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(schedule.name = %name, %error, "The shards of `{name}` cannot be looked at: {error}");
                    tender.wait().await;
                }
            }
        }
    }
}
