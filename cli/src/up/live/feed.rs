//! What the fleet says, as events for the picture. Each follower begins anew when its stream is lost.

use std::time::Duration;

use futures::StreamExt as _;
use shared::run_record::RunRecord;
use streams::{
    ReadError, Streams,
    bucket::Stored,
    members::Member,
    schedules::{Seen, Version},
};
use tokio::{sync::mpsc::Sender, task::JoinSet};

use super::model::Counts;

const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Members and queues change rarely, and are read as a whole.
const COUNT_EVERY: Duration = Duration::from_secs(3);

/// Something the fleet said.
pub(super) enum Event {
    /// A schedule was put, changed or deleted, or was there when we began.
    Schedule(Box<Version>),
    /// All schedules that were there have been told.
    SchedulesTold,
    /// A run changed its state.
    Run(Box<RunRecord>),
    /// The runs of the ledger.
    Ledger(Vec<Stored<RunRecord>>),
    /// Who is there.
    Counts(Counts),
}

/// Follows everything, until the followers are dropped.
pub(super) fn follow(streams: &Streams, events: &Sender<Event>, with_ledger: bool) -> JoinSet<()> {
    let mut followers = JoinSet::new();
    followers.spawn(schedules(streams.clone(), events.clone()));
    followers.spawn(runs(streams.clone(), events.clone(), with_ledger));
    followers.spawn(counts(streams.clone(), events.clone()));
    followers
}

async fn schedules(streams: Streams, events: Sender<Event>) {
    loop {
        if let Err(error) = schedules_once(&streams, &events).await {
            tracing::debug!(%error, "The watch of schedules was lost: {error}");
        }
        streams.clock().sleep(AGAIN_AFTER).await;
    }
}

async fn schedules_once(streams: &Streams, events: &Sender<Event>) -> Result<(), ReadError> {
    let mut watch = streams.schedules().watch().await?;
    while let Some(seen) = watch.next().await {
        let event = match seen? {
            Seen::Version(version) => Event::Schedule(version),
            Seen::Current => Event::SchedulesTold,
            // The runs of the picture say it: its slots are CANCELLED, and why.
            Seen::Pause(_) => continue,
        };
        let _ = events.send(event).await;
    }
    Ok(())
}

async fn runs(streams: Streams, events: Sender<Event>, with_ledger: bool) {
    loop {
        match streams.results(None).await {
            Ok(mut results) => {
                // Subscribed first: what changes while the ledger is read comes too.
                let reading = with_ledger.then(|| tokio::spawn(ledger(streams.clone(), events.clone())));
                while let Some(record) = results.next().await {
                    let _ = events.send(Event::Run(Box::new(record))).await;
                }
                if let Some(reading) = reading {
                    reading.abort();
                }
            }
            Err(error) => tracing::debug!(%error, "Results cannot be followed: {error}"),
        }
        streams.clock().sleep(AGAIN_AFTER).await;
    }
}

/// Reads the ledger now, and again after each time the server was away: changes of that time were not heard.
async fn ledger(streams: Streams, events: Sender<Event>) {
    let mut is_missing = true;
    while !events.is_closed() {
        if !streams.is_connected() {
            is_missing = true;
        } else if is_missing {
            match streams.ledger().list(">").await {
                Ok(runs) => {
                    is_missing = false;
                    let _ = events.send(Event::Ledger(runs)).await;
                }
                Err(error) => tracing::debug!(%error, "The ledger cannot be read: {error}"),
            }
        }
        streams.clock().sleep(AGAIN_AFTER).await;
    }
}

async fn counts(streams: Streams, events: Sender<Event>) {
    while !events.is_closed() {
        if let Ok(counts) = count(&streams).await {
            let _ = events.send(Event::Counts(counts)).await;
        }
        streams.clock().sleep(COUNT_EVERY).await;
    }
}

async fn count(streams: &Streams) -> Result<Counts, ReadError> {
    let members = streams.members().list().await?;
    let planners = members.iter().filter(|member| matches!(member, Member::Planner(_))).count();
    let queues = streams.catalog().queues().await?.len();
    Ok(Counts { planners, workers: members.len() - planners, queues })
}
