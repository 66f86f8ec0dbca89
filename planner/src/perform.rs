//! What planning asks for, done: the one place where it meets the server.

use shared::{
    clock::SharedClock,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::{
    ReadError, Streams, WriteError,
    cancel::Cancelling,
    ledger::{Creation, Update},
};

use crate::{
    dispatch::{Dispatcher, Outcome},
    lines::Lines,
    machine::ask::{Answer, Ask, CursorFound, Definition, Flow, Next, Publishing},
    shards,
};

/// Does what is asked for, and answers. Whatever goes wrong is an answer too.
pub(crate) async fn perform(streams: &Streams, ask: Ask) -> Answer {
    match ask {
        Ask::CreateRecord(_)
        | Ask::UpdateRecord { .. }
        | Ask::Publish { .. }
        | Ask::RemoveTask(_)
        | Ask::WriteLine { .. }
        | Ask::WriteCursor { .. }
        | Ask::FanOut { .. }
        | Ask::Cancel(_) => write(streams, ask).await,
        Ask::Wait(wait) => {
            streams.clock().sleep(wait).await;
            Answer::Done
        }
        _ => read(streams, ask).await.unwrap_or_else(|error| Answer::Failed(error.to_string())),
    }
}

async fn write(streams: &Streams, ask: Ask) -> Answer {
    let updated = |written: Result<u64, WriteError>| match written {
        Ok(revision) => Answer::Updated(Update::Stored(revision)),
        Err(WriteError::Conflict { .. }) => Answer::Updated(Update::Stale),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let failed = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
    match ask {
        Ask::CreateRecord(record) => match streams.ledger().create(&record).await {
            Ok(creation) => {
                if matches!(creation, Creation::Created(_)) {
                    tell(&record);
                }
                Answer::Created(creation)
            }
            Err(error) => failed(&error),
        },
        Ask::UpdateRecord { record, over } => match streams.ledger().update(&record, over).await {
            Ok(update) => {
                if matches!(update, Update::Stored(_)) {
                    tell(&record);
                }
                Answer::Updated(update)
            }
            Err(error) => failed(&error),
        },
        Ask::Publish { due, revision, overlap, traceparent } => {
            match streams.dispatch(&due, revision, overlap, traceparent.as_deref()).await {
                Ok(_) => {
                    let (run, late) = (&due.run.id, due.run.late);
                    tracing::info!(run.id = %run, late, "Dispatched `{run}`");
                    Answer::Published(Publishing::Stored)
                }
                Err(WriteError::Occupied { .. }) => Answer::Published(Publishing::Occupied),
                Err(
                    error @ (WriteError::TooLarge { .. }
                    | WriteError::Refused { .. }
                    | WriteError::Header { .. }),
                ) => Answer::Published(Publishing::Never(error.to_string())),
                Err(error) => failed(&error),
            }
        }
        Ask::FanOut { due, revision, overlap } => {
            let dispatcher = Dispatcher::new(streams.clone());
            // Each part goes the way of a run, which may be to here again: but a part has no parts.
            match Box::pin(shards::fan_out(streams, &dispatcher, &due, revision, overlap)).await {
                Ok(outcome) => Answer::Is(outcome != Outcome::Closed),
                Err(error) => failed(&error),
            }
        }
        Ask::RemoveTask(sequence) => {
            streams.remove_finished(sequence).await.map_or_else(|error| failed(&error), |()| Answer::Done)
        }
        Ask::WriteLine { schedule, runs, over } => {
            let written = streams.lines().write(&schedule, &runs, over).await;
            written.map_or_else(|error| failed(&error), Answer::Updated)
        }
        Ask::WriteCursor { partition, cursor, over } => {
            updated(streams.partitions().write_cursor(partition, &cursor, over).await)
        }
        Ask::Cancel(request) => match streams.cancel(&request).await {
            Ok(Cancelling::Ended(_) | Cancelling::Cancelled(_)) => Answer::Is(true),
            Ok(Cancelling::Asked(_) | Cancelling::Unknown) => Answer::Is(false),
            Err(error) => failed(&error),
        },
        other => Answer::Failed(format!("{other:?} is no write")),
    }
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

async fn read(streams: &Streams, ask: Ask) -> Result<Answer, ReadError> {
    Ok(match ask {
        Ask::ReadRecord(run) => match streams.ledger().get(&run).await {
            Ok(found) => Answer::Record(found.map(Box::new)),
            // A stranger's writing in the place of a record.
            Err(ReadError::Corrupt { .. }) => Answer::Record(None),
            Err(error) => return Err(error),
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
            Err(error) => return Err(error),
        }),
        Ask::ReadDefinition(name) => Answer::Definition(match streams.schedules().get(&name).await {
            Ok(None) => Definition::None,
            Ok(Some(stored)) => Definition::Known(Box::new(stored.value), stored.revision),
            Err(ReadError::Corrupt { .. }) => Definition::Unreadable,
            Err(error) => return Err(error),
        }),
        Ask::ReadVersion(name, revision) => {
            Answer::Version(streams.schedules().at(&name, revision).await?.map(Box::new))
        }
        Ask::ReadWish(run) => Answer::Wish(streams.trigger_of(&run).await?.map(|wish| wish.parameters)),
        other => Answer::Failed(format!("{other:?} is no read")),
    })
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
