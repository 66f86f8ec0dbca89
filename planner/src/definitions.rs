//! Following the buckets of definitions. A watch that is lost begins anew, with everything that is there: the book
//! knows what it has seen before.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use shared::{
    calendar::Calendar,
    definition::Definition,
    names::{CalendarName, QueueName},
};
use streams::{
    ReadError, Streams,
    catalog::CatalogChange,
    pauses::PauseVersion,
    schedules::{Seen, Version},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{PlannerError, chain::Links};

/// Waits before a lost watch is begun anew: quick at first, never in a hot loop (each watch is a consumer).
const REWATCH_WAIT: Duration = Duration::from_millis(250);
const REWATCH_WAIT_MAX: Duration = Duration::from_secs(5);

/// A change for the planning loop.
#[derive(Debug)]
pub(crate) enum Change {
    /// A watch of schedules begins. It tells the newest version of each and no older one: of those that came while there was
    /// no watch some may never be told.
    SchedulesBegin,
    /// A version of a schedule.
    Schedule(Box<Version<Definition>>),
    /// A schedule was paused, or resumed.
    Pause(Box<PauseVersion>),
    /// All schedules that were there at the start have been seen.
    SchedulesCurrent,
    /// A queue is declared, or no longer.
    Queue(QueueName, bool),
    /// A calendar is declared, or no longer.
    Calendar(CalendarName, Option<Calendar>),
    /// All of the catalog that was there at the start has been seen.
    CatalogCurrent,
}

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bucket {
    Schedules,
    Catalog,
}

/// Hands every change of a bucket to the planning loop until it is told to stop.
pub(crate) async fn follow(
    bucket: Bucket,
    streams: Streams,
    changes: mpsc::Sender<Change>,
    links: Arc<Links>,
    stop: CancellationToken,
) -> Result<(), PlannerError> {
    let mut wait = REWATCH_WAIT;
    loop {
        let begun = streams.clock().elapsed();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = watch(bucket, &streams, &changes, &links) => if let Err(error) = ended {
                tracing::warn!(%error, ?bucket, "The watch of {bucket:?} is lost: {error}");
            },
        }
        let lasted = streams.clock().elapsed().saturating_sub(begun);
        wait = if lasted > REWATCH_WAIT_MAX { REWATCH_WAIT } else { (wait * 2).min(REWATCH_WAIT_MAX) };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = streams.clock().sleep(wait) => {}
        }
    }
}

async fn watch(
    bucket: Bucket,
    streams: &Streams,
    changes: &mpsc::Sender<Change>,
    links: &Links,
) -> Result<(), ReadError> {
    match bucket {
        Bucket::Schedules => watch_schedules(streams, changes, links).await,
        Bucket::Catalog => watch_catalog(streams, changes).await,
    }
}

async fn watch_schedules(
    streams: &Streams,
    changes: &mpsc::Sender<Change>,
    links: &Links,
) -> Result<(), ReadError> {
    links.note_watch_begins();
    let mut watch = streams.schedules().watch_definitions().await?;
    let _ = changes.send(Change::SchedulesBegin).await;
    while let Some(seen) = watch.next().await {
        let change = match seen? {
            Seen::Version(version) => {
                links.note(&version);
                Change::Schedule(version)
            }
            Seen::Pause(pause) => Change::Pause(pause),
            Seen::Current => {
                links.note_current();
                Change::SchedulesCurrent
            }
        };
        let _ = changes.send(change).await;
    }
    Ok(())
}

async fn watch_catalog(streams: &Streams, changes: &mpsc::Sender<Change>) -> Result<(), ReadError> {
    let mut watch = streams.catalog().watch().await?;
    let known = streams.catalog().all().await?;
    for queue in known.queues.into_keys() {
        let _ = changes.send(Change::Queue(queue, true)).await;
    }
    for (name, calendar) in known.calendars {
        let _ = changes.send(Change::Calendar(name, Some(calendar))).await;
    }
    let _ = changes.send(Change::CatalogCurrent).await;
    while let Some(change) = watch.next().await {
        let change = match change? {
            CatalogChange::Queue(name, queue) => Change::Queue(name, queue.is_some()),
            CatalogChange::Calendar(name, calendar) => Change::Calendar(name, calendar),
            CatalogChange::Target(..) => continue,
        };
        let _ = changes.send(change).await;
    }
    Ok(())
}
