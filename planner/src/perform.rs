//! What planning asks for, done: the one place where it meets the server.

use shared::{
    clock::SharedClock,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    schedule::Overlap,
    trace::TraceContext,
};
use streams::{
    ReadError, Streams, WriteError,
    cancel::Cancelling,
    ledger::{Creation, Update},
    tasks::DueTask,
};

use crate::{
    dispatch::{DispatchError, Dispatcher, Outcome},
    lines::Lines,
    machine::ask::{Answer, Ask, CursorFound, Definition, Flow, Next, Publishing},
    shards,
};

/// Does what is asked for, and answers. Whatever goes wrong is an answer too.
pub(crate) async fn perform(streams: &Streams, ask: Ask) -> Answer {
    let done = match ask {
        Ask::CreateRecord(record) => create(streams, &record).await,
        Ask::UpdateRecord { record, over } => update(streams, &record, over).await,
        Ask::Publish { due, revision, overlap, trace } => {
            publish(streams, &due, revision, overlap, trace).await
        }
        // Put aside: hundreds of asks are on their way at once, each with room for the largest of them.
        other => Box::pin(do_any(streams, other)).await,
    };
    done.unwrap_or_else(|error| Answer::Failed(error.to_string()))
}

/// Does any of them.
async fn do_any(streams: &Streams, ask: Ask) -> Result<Answer, DispatchError> {
    Ok(match ask {
        Ask::CreateRecord(record) => create(streams, &record).await?,
        Ask::UpdateRecord { record, over } => update(streams, &record, over).await?,
        Ask::Publish { due, revision, overlap, trace } => {
            publish(streams, &due, revision, overlap, trace).await?
        }
        Ask::FanOut { due, revision, overlap } => {
            let dispatcher = Dispatcher::new(streams.clone());
            // Each part goes the way of a run, which may be to here again: but a part has no parts.
            let outcome = Box::pin(shards::fan_out(streams, &dispatcher, &due, revision, overlap)).await?;
            Answer::Is(outcome != Outcome::Closed)
        }
        Ask::RemoveTask(sequence) => {
            streams.remove_finished(sequence).await?;
            Answer::Done
        }
        Ask::WriteLine { schedule, runs, over } => {
            Answer::Updated(streams.lines().write(&schedule, &runs, over).await?)
        }
        Ask::WriteCursor { partition, cursor, over } => {
            match streams.partitions().write_cursor(partition, &cursor, over).await {
                Ok(revision) => Answer::Updated(Update::Stored(revision)),
                Err(WriteError::Conflict { .. }) => Answer::Updated(Update::Stale),
                Err(error) => return Err(error.into()),
            }
        }
        Ask::Cancel(request) => Answer::Is(match streams.cancel(&request).await? {
            Cancelling::Ended(_) | Cancelling::Cancelled(_) => true,
            Cancelling::Asked(_) | Cancelling::Unknown => false,
        }),
        Ask::Wait(wait) => {
            streams.clock().sleep(wait).await;
            Answer::Done
        }
        Ask::ReadRecord(run) => match streams.ledger().get(&run).await {
            Ok(found) => Answer::Record(found.map(Box::new)),
            // A stranger's writing in the place of a record.
            Err(ReadError::Corrupt { .. }) => Answer::Record(None),
            Err(error) => return Err(error.into()),
        },
        Ask::FindHolder(schedule) => Answer::Holder(streams.live_run(&schedule).await?),
        Ask::FindLive => Answer::Schedules(streams.live_schedules().await?),
        Ask::IsBuried(run) => Answer::Is(streams.is_buried(&run).await?),
        Ask::ReadLine(schedule) => Answer::Line(Lines::new(streams.clone()).get(&schedule).await?),
        // What nobody understands declares nothing: to wait for its mending would stop everything behind it.
        Ask::IsDeclared(queue) => Answer::Is(understood(streams.catalog().queue(&queue).await)?.is_some()),
        Ask::ReadCalendar(calendar) => {
            Answer::Calendar(understood(streams.catalog().calendar(&calendar).await)?)
        }
        Ask::PauseRevision(name) => Answer::Revision(streams.schedules().pause(&name).await?.revision),
        Ask::ReadPauses(name) => Answer::Pauses(streams.schedules().pause_history(&name).await?),
        Ask::ReadHistory(name) => Answer::Versions(streams.schedules().history(&name).await?),
        Ask::ReadHistories(partition) => {
            Answer::Versions(streams.schedules().history_of_partition(partition).await?)
        }
        Ask::ReadCursor(partition) => Answer::Cursor(match streams.partitions().cursor(partition).await {
            Ok(None) => CursorFound::None,
            Ok(Some(stored)) => CursorFound::Cursor(stored.value, stored.revision),
            Err(ReadError::Corrupt { revision, .. }) => CursorFound::Corrupt(revision),
            Err(error) => return Err(error.into()),
        }),
        Ask::ReadDefinition(name) => Answer::Definition(match streams.schedules().get(&name).await {
            Ok(None) => Definition::None,
            Ok(Some(stored)) => Definition::Known(Box::new(stored.value), stored.revision),
            Err(ReadError::Corrupt { .. }) => Definition::Unreadable,
            Err(error) => return Err(error.into()),
        }),
        Ask::ReadVersion(name, revision) => {
            Answer::Version(streams.schedules().at(&name, revision).await?.map(Box::new))
        }
        Ask::ReadWish(run) => Answer::Wish(streams.trigger_of(&run).await?.map(|wish| wish.parameters)),
    })
}

async fn create(streams: &Streams, record: &RunRecord) -> Result<Answer, DispatchError> {
    let creation = streams.ledger().create(record).await?;
    if matches!(creation, Creation::Created(_)) {
        tell(record);
    }
    Ok(Answer::Created(creation))
}

async fn update(streams: &Streams, record: &RunRecord, over: u64) -> Result<Answer, DispatchError> {
    let update = streams.ledger().update(record, over).await?;
    if matches!(update, Update::Stored(_)) {
        tell(record);
    }
    Ok(Answer::Updated(update))
}

async fn publish(
    streams: &Streams,
    due: &DueTask,
    revision: u64,
    overlap: Overlap,
    trace: Option<TraceContext>,
) -> Result<Answer, DispatchError> {
    Ok(Answer::Published(match streams.dispatch(due, revision, overlap, trace).await {
        Ok(_) => {
            let (run, late) = (&due.run.id, due.run.late);
            tracing::info!(run.id = %run, late, "Dispatched `{run}`");
            Publishing::Stored
        }
        Err(WriteError::Occupied { .. }) => Publishing::Occupied,
        Err(
            error @ (WriteError::TooLarge { .. } | WriteError::Refused { .. } | WriteError::Header { .. }),
        ) => Publishing::Never(error.to_string()),
        Err(error) => return Err(error.into()),
    }))
}

/// What is stored, if anybody understands it.
pub(crate) fn understood<T>(read: Result<Option<T>, ReadError>) -> Result<Option<T>, ReadError> {
    match read {
        Err(ReadError::Corrupt { .. }) => Ok(None),
        read => read,
    }
}

/// Says what a record says that will not run now, or not at all.
fn tell(record: &RunRecord) {
    let run = &record.id;
    match (record.status, record.reason) {
        (RunState::Pending, Some(Reason::Buffered)) => {
            tracing::info!(run.id = %run, "`{run}` waits for its schedule's lock");
        }
        (status, Some(reason)) if status.is_final() => {
            tracing::info!(run.id = %run, ?reason, "Run `{run}` will not run: {reason:?}");
        }
        _ => {}
    }
}

/// Takes a course to its end, doing one by one what it asks for.
pub(crate) async fn drive<F: Flow>(streams: &Streams, mut flow: F) -> F::End {
    let clock: SharedClock = streams.clock().clone();
    let mut answer = None;
    loop {
        match flow.step(answer.take(), clock.now()) {
            Next::Ask(ask) => answer = Some(perform(streams, ask).await),
            Next::End(end) => return end,
        }
    }
}
