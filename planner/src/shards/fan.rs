//! Making the parts of a sharded run. Each step may be repeated: whoever does them again finds what was done.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use shared::{
    limits::{SHARDED_OPEN_MAX, SHARDS_IN_FLIGHT_MAX},
    names::Name,
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::Overlap,
    shard::{Shard, shard_of},
    task::Task,
};
use streams::{ReadError, Streams, ledger::Update, lines::Line, tasks::DueTask};

use crate::{
    dispatch::{DispatchError, Dispatcher, Outcome},
    lines::read_or_mend,
    machine::contending::Contention,
    perform::understood,
};

/// Writes to a list of open runs, each over a newer one, before the slot is left to the next round.
const LIST_WRITES_MAX: u32 = 10;

/// Makes the parts of a run whose record is PENDING under this revision; it may have been done before, in part.
pub(crate) async fn fan_out(
    streams: &Streams,
    dispatcher: &Dispatcher,
    due: &DueTask,
    revision: u64,
    overlap: Overlap,
) -> Result<Outcome, DispatchError> {
    let parent = &due.run;
    let Some(shards) = parent.shards else { return Ok(Outcome::Dispatched) };
    // Entered first: from here on somebody sees to it that it comes to an end.
    if let Some(why) = enter(streams, dispatcher, &parent.id, overlap).await? {
        let error = RunError::new(ErrorKind::Overlap, why);
        let reason = Reason::SkippedOverlap;
        return dispatcher.end(parent, revision, RunEvent::Skipped, reason, Some(error)).await;
    }
    let made: Vec<bool> = stream::iter(0..shards.parts())
        .map(|index| make(streams, dispatcher, (parent, revision), &due.task, index))
        .buffer_unordered(SHARDS_IN_FLIGHT_MAX)
        .try_collect()
        .await?;
    if made.contains(&false) {
        return Ok(Outcome::Dispatched);
    }
    let Ok(running) = parent.apply(RunEvent::Started, streams.clock().now()) else {
        return Ok(Outcome::Dispatched);
    };
    match streams.ledger().update(&running, revision).await? {
        Update::Stored(_) => {
            tracing::info!(run.id = %parent.id, shards = shards.total, "Dispatched `{}` in {} shards", parent.id, shards.total);
        }
        // Another planner was faster, or somebody cancelled it: then its parts are cancelled, too, by who tends it.
        Update::Stale => {}
    }
    Ok(Outcome::Dispatched)
}

/// Makes one part. False: somebody wrote the record of the whole meanwhile, be it to cancel it, and no more is made. What was
/// on its way just then is cancelled by who tends it.
async fn make(
    streams: &Streams,
    dispatcher: &Dispatcher,
    (parent, revision): (&RunRecord, u64),
    task: &Arc<Task>,
    index: u16,
) -> Result<bool, DispatchError> {
    let found = streams.ledger().get(&parent.id).await?;
    if found.is_none_or(|found| found.revision != revision) {
        return Ok(false);
    }
    let record = part_of(parent, index, streams.clock().now());
    dispatcher.run(record, Arc::clone(task), Overlap::Allow).await.map(|_| true)
}

/// The record of a part of a run.
pub(super) fn part_of(parent: &RunRecord, index: u16, now: shared::Timestamp) -> RunRecord {
    let total = parent.shards.map_or(0, |shards| shards.parts());
    RunRecord {
        schedule: parent.schedule.clone(),
        slot: parent.slot,
        upstream: parent.upstream.clone(),
        late: parent.late,
        by: parent.by.clone(),
        backfill: parent.backfill.clone(),
        target_service: parent.target_service.clone(),
        action: parent.action.clone(),
        definition_revision: parent.definition_revision,
        shard: Some(Shard { parent: parent.id.clone(), index, total }),
        ..RunRecord::pending(shard_of(&parent.id, index), parent.queue.clone(), now)
    }
}

/// Enters a run in its schedule's list of open runs; why it may not be, if the policy says so.
async fn enter(
    streams: &Streams,
    dispatcher: &Dispatcher,
    run: &RunId,
    overlap: Overlap,
) -> Result<Option<String>, DispatchError> {
    let name = &run.name;
    for _ in 0..LIST_WRITES_MAX {
        let list = list_of(streams, name).await?;
        if list.runs.contains(run) {
            return Ok(None);
        }
        let mut open = Vec::new();
        for other in &list.runs {
            if !is_over(streams, other).await? {
                open.push(other.clone());
            }
        }
        if let (Overlap::Skip, Some(other)) = (overlap, open.first()) {
            return Ok(Some(format!("{other} has not ended, nor all of its shards")));
        }
        if open.len() >= SHARDED_OPEN_MAX {
            return Ok(Some(format!(
                "{} sharded runs of the schedule have not ended; at most {SHARDED_OPEN_MAX} may be open: make the task \
                 quicker, or its slots fewer",
                open.len()
            )));
        }
        // From before the schedule had shards one may live under its one lock; a part of none of these is another's.
        if overlap == Overlap::Skip
            && let Contention::Held(holder) = dispatcher.contend(run).await?
            && !is_part_of(streams, holder.run.as_ref(), run).await?
        {
            let holder = holder.run.map_or_else(|| "another run".to_owned(), |run| run.to_string());
            return Ok(Some(format!("{holder} has not ended")));
        }
        open.push(run.clone());
        if let Update::Stored(_) = streams.sharded_runs().write(name, &open, list.revision).await? {
            return Ok(None);
        }
    }
    Err(DispatchError::Contended(name.clone()))
}

/// The list of a schedule's open runs. One that cannot be understood is made anew from the records of those runs.
pub(super) async fn list_of(streams: &Streams, name: &Name) -> Result<Line, ReadError> {
    let is_open = |run: &RunRecord| {
        run.shards.is_some() && (!run.status.is_final() || run.status == RunState::Cancelled)
    };
    read_or_mend(streams, &streams.sharded_runs(), name, is_open).await
}

/// Whether a run has ended, and all of its parts, so that it is in nobody's way.
async fn is_over(streams: &Streams, run: &RunId) -> Result<bool, ReadError> {
    let record = match streams.ledger().get(run).await {
        Ok(Some(stored)) => stored.value,
        // Nobody made it, or a stranger wrote in its place: there is nothing to wait for.
        Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    if record.status != RunState::Cancelled {
        return Ok(record.status.is_final());
    }
    // Cancelled at once; its parts may need a moment, or a worker, to stop.
    let total = record.shards.map_or(0, |shards| shards.parts());
    for index in 0..total {
        match streams.ledger().get(&shard_of(run, index)).await {
            Ok(Some(part)) if !part.value.status.is_final() => return Ok(false),
            Ok(_) | Err(ReadError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether the run that is in the way is a part of this one, made before.
async fn is_part_of(streams: &Streams, holder: Option<&RunId>, run: &RunId) -> Result<bool, ReadError> {
    let Some(holder) = holder else { return Ok(false) };
    let found = understood(streams.ledger().get(holder).await)?;
    Ok(found.and_then(|found| found.value.shard).is_some_and(|shard| shard.parent == *run))
}
