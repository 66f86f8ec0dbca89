//! Writing definitions: what is referred to first, each by compare-and-set over what was just read.

use std::time::Duration;

use shared::{clock::Clock, definitions::Definitions};

use super::fleet::{Change, Outcome};
use crate::{
    Streams, WriteError,
    topology::{QueueChange, TopologyError},
};

/// How often a write that may go through a moment later is repeated.
const WRITES_MAX: u32 = 3;
const WRITE_WAIT: Duration = Duration::from_millis(300);

/// Repeats a write that may go through a moment later; all writes here are compare-and-set over what was just read.
pub async fn patiently<T, F: Future<Output = Result<T, WriteError>>>(
    clock: &dyn Clock,
    write: impl Fn() -> F,
) -> Result<T, WriteError> {
    for attempt in 1..WRITES_MAX {
        match write().await {
            Err(error) if error.is_temporary() => clock.sleep(WRITE_WAIT * attempt).await,
            answer => return answer,
        }
    }
    write().await
}

/// A definition that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The server did not take it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A queue that could not be made.
    #[error(transparent)]
    Queue(#[from] TopologyError),
    /// It is not among the definitions any more.
    #[error("{0} is no longer in the files")]
    Gone(String),
}

/// Does one change. A write whose answer was lost, and that is found done when it is repeated, is `Unchanged`.
pub async fn write(streams: &Streams, files: &Definitions, change: &Change) -> Result<Outcome, ApplyError> {
    let clock = streams.clock().as_ref();
    let (catalog, schedules) = (streams.catalog(), streams.schedules());
    let gone = || ApplyError::Gone(change.path());
    let applied = match change.kind {
        "queue" => {
            let name = change.name.parse().map_err(|_| gone())?;
            let settings = files.queues.get(&name).ok_or_else(gone)?;
            return Ok(match streams.declare_queue(&name, settings).await? {
                QueueChange::Created => Outcome::Created,
                QueueChange::Changed => Outcome::Changed,
                QueueChange::Unchanged => Outcome::Unchanged,
            });
        }
        "target" => {
            let name = change.name.parse().map_err(|_| gone())?;
            let target = files.targets.get(&name).ok_or_else(gone)?;
            patiently(clock, || catalog.apply_target(&name, target)).await?
        }
        "calendar" => {
            let name = change.name.parse().map_err(|_| gone())?;
            let calendar = files.calendars.get(&name).ok_or_else(gone)?;
            patiently(clock, || catalog.apply_calendar(&name, calendar)).await?
        }
        _ => {
            let name = change.name.parse().map_err(|_| gone())?;
            if change.change == Outcome::Deleted {
                patiently(clock, || schedules.delete(&name)).await?;
                return Ok(Outcome::Deleted);
            }
            let schedule = files.schedules.get(&name).ok_or_else(gone)?;
            patiently(clock, || schedules.apply(&name, schedule)).await?
        }
    };
    Ok(applied.into())
}

/// What was done, and what then went wrong, if something did.
pub struct Done {
    /// The changes that were made, in their order.
    pub changes: Vec<Change>,
    /// The one that could not be made, and why; those after it were not tried.
    pub failed: Option<(Change, ApplyError)>,
}

/// Does one change after the other. An error ends it: what was done stays, and the same again goes on from there.
pub async fn write_all(streams: &Streams, files: &Definitions, planned: Vec<Change>) -> Done {
    let mut changes = Vec::new();
    for change in planned {
        match write(streams, files, &change).await {
            // A write whose answer was lost, and that is found done when it is repeated, is what was planned.
            Ok(Outcome::Unchanged) => changes.push(change),
            Ok(outcome) => changes.push(Change { change: outcome, ..change }),
            Err(error) => return Done { changes, failed: Some((change, error)) },
        }
    }
    Done { changes, failed: None }
}
