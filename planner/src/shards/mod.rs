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

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use shared::{
    hash::partition_of,
    limits::ROUND_SLEEP_MAX,
    names::{MemberId, Name},
};
use streams::{ReadError, Streams};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use self::fan::fan_out;
use self::tend::Tender;
use crate::{PlannerError, holdings::Holdings};

/// How long a watch may take to begin.
const WATCH_BEGINS_WAIT: Duration = Duration::from_secs(5);
/// Before a watch that was lost is begun anew.
const REWATCH_WAIT: Duration = Duration::from_millis(500);

/// Tends the sharded runs of one planner's partitions.
#[derive(Clone)]
pub(crate) struct Shepherd {
    streams: Streams,
    holdings: Arc<Holdings>,
    id: MemberId,
}

/// The schedules that have open runs, and those being tended here.
#[derive(Default)]
struct Known {
    open: BTreeSet<Name>,
    tended: HashMap<Name, AbortHandle>,
    running: JoinSet<()>,
}

impl Shepherd {
    pub(crate) fn new(streams: Streams, holdings: Arc<Holdings>, id: MemberId) -> Self {
        Self { streams, holdings, id }
    }

    /// Tends open runs until it is told to stop. What is half done then a successor finds.
    pub(crate) async fn follow(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.watch(&mut known) => if let Err(error) = ended {
                    tracing::warn!(%error, "The watch of sharded runs is lost: {error}");
                },
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.streams.clock().sleep(REWATCH_WAIT) => {}
            }
        }
    }

    async fn watch(&self, known: &mut Known) -> Result<(), ReadError> {
        let clock = self.streams.clock();
        let lists = self.streams.sharded_runs();
        let mut seen = tokio::select! {
            seen = lists.watch() => seen?,
            () = clock.sleep(WATCH_BEGINS_WAIT) => return Err(lost("it does not begin")),
        };
        loop {
            tokio::select! {
                list = seen.next() => match list {
                    Some(list) => {
                        let list = list?;
                        if list.is_empty { known.open.remove(&list.schedule) } else { known.open.insert(list.schedule) };
                    }
                    None => return Err(lost("it has ended")),
                },
                // Only reaped. If its list is not empty it is begun again at the next look.
                Some(ended) = known.running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(%panic, "Tending sharded runs ended in a panic: {panic}");
                    }
                    continue;
                }
                () = clock.sleep(ROUND_SLEEP_MAX) => {}
            }
            known.tended.retain(|_, task| !task.is_finished());
            for name in &known.open {
                if self.holds(name) && !known.tended.contains_key(name) {
                    let task = known.running.spawn(self.clone().tend(name.clone()));
                    known.tended.insert(name.clone(), task);
                }
            }
        }
    }

    fn holds(&self, name: &Name) -> bool {
        self.holdings.trusted(self.streams.clock().elapsed()).contains(&partition_of(name.as_str()))
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
        while self.holds(&name) {
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

fn lost(detail: &str) -> ReadError {
    ReadError::Unavailable { what: "watch of sharded runs".to_owned(), detail: detail.to_owned() }
}
