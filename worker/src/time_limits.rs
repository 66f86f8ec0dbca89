//! The time limits of a run as a whole, as far as a worker sees to them. What they mean is in `shared::time_limits`.

use shared::{clock::SharedClock, run_record::RunRecord, task::Task};
use streams::{
    ReadError, Streams, WriteError,
    ledger::{Creation, Update},
};

use crate::identify::Identified;

/// Ends a run that has waited longer than it may. Its record then; none if it may be begun. For tasks with limits: others
/// need no read.
pub(crate) async fn end_if_expired(
    streams: &Streams,
    run: &Identified,
) -> Result<Option<RunRecord>, ExpiryError> {
    let now = streams.clock().now();
    let found = match streams.ledger().get(&run.record.id).await {
        Ok(found) => found,
        // A stranger's writing: the claim replaces it.
        Err(ReadError::Corrupt { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (record, revision) =
        found.as_ref().map_or((&run.record, 0), |stored| (&stored.value, stored.revision));
    let Some(expired) = run.task.expired(record, now).filter(|_| record.queue == run.record.queue) else {
        return Ok(None);
    };
    let is_ours = if revision == 0 {
        matches!(streams.ledger().create(&expired).await?, Creation::Created(_))
    } else {
        matches!(streams.ledger().update(&expired, revision).await?, Update::Stored(_))
    };
    if is_ours {
        let why = expired.note.as_deref().unwrap_or_default();
        tracing::info!(run.id = %expired.id, why, "`{}` has expired: {why}", expired.id);
    }
    // If somebody wrote it meanwhile, the claim says what is to be done.
    Ok(is_ours.then_some(expired))
}

/// Returns when the run has to have ended. Never, if it has all the time.
pub(crate) async fn deadline_passes(clock: &SharedClock, record: &RunRecord, task: &Task) {
    let Some(deadline) = task.deadline_of(record) else { return std::future::pending().await };
    while let Ok(left) = (deadline - clock.now()).to_std() {
        if left.is_zero() {
            break;
        }
        // The timer is a hint, the clock decides.
        clock.sleep(left).await;
    }
}

/// What went wrong while it was looked whether a run has expired; it is looked again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpiryError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}
