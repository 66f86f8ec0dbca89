//! Tending open runs: how far their parts are, and their end.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use shared::{
    limits::{SHARDS_IN_FLIGHT_MAX, SHARDS_LOOK},
    names::{MemberId, Name},
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    shard::shard_of,
};
use streams::{
    ReadError, Streams,
    bucket::Stored,
    cancel::{CancelRequest, Cancelling},
    ledger::{Creation, Update},
};

use super::{
    fan::{list_of, part_of},
    tally::Tally,
};
use crate::dispatch::DispatchError;

/// What is heard of the schedule's runs: hints, of which any may be lost.
type Heard<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Tends the open runs of one schedule.
pub(super) struct Tender {
    streams: Streams,
    id: MemberId,
    name: Name,
    tallies: HashMap<RunId, Open>,
    results: Heard<RunRecord>,
    cancels: Heard<CancelRequest>,
}

/// An open run, as far as it is known here.
struct Open {
    /// What the leader said.
    tally: Tally,
    /// Parts of which it was heard that they have ended: a hint, which may be wrong, or anybody's.
    hinted: BTreeSet<u16>,
    /// When its progress was written last.
    written_at: Duration,
}

impl Tender {
    pub(super) async fn begin(streams: &Streams, id: &MemberId, name: &Name) -> Result<Self, ReadError> {
        // Subscribed before the first look, so that the end of a part cannot fall between looking and waiting.
        let results = streams.results(Some(name)).await?.boxed();
        let cancels = streams.cancels().await?.boxed();
        let tallies = HashMap::new();
        Ok(Self { streams: streams.clone(), id: id.clone(), name: name.clone(), tallies, results, cancels })
    }

    /// Looks at each open run. Whether there is any.
    pub(super) async fn look(&mut self) -> Result<bool, DispatchError> {
        let list = list_of(&self.streams, &self.name).await?;
        self.tallies.retain(|run, _| list.runs.contains(run));
        let mut over = Vec::new();
        for run in &list.runs {
            if self.look_at(run).await? {
                over.push(run.clone());
            }
        }
        if over.is_empty() {
            return Ok(!list.runs.is_empty());
        }
        let open: Vec<RunId> = list.runs.into_iter().filter(|run| !over.contains(run)).collect();
        // Stale: somebody entered another one meanwhile. The next look finds these over again.
        self.streams.sharded_runs().write(&self.name, &open, list.revision).await?;
        Ok(true)
    }

    /// Returns when there is something to look at: a part has ended, somebody asked for an end, or time has passed.
    pub(super) async fn wait(&mut self) {
        let clock = self.streams.clock().clone();
        let look_again = clock.sleep(SHARDS_LOOK);
        tokio::pin!(look_again);
        loop {
            tokio::select! {
                Some(record) = self.results.next() => {
                    let mut is_news = self.hear(&record);
                    while let Some(Some(record)) = self.results.next().now_or_never() {
                        is_news |= self.hear(&record);
                    }
                    if is_news {
                        return;
                    }
                }
                Some(request) = self.cancels.next() => {
                    if request.run.name == self.name {
                        return;
                    }
                }
                () = &mut look_again => return,
            }
        }
    }

    /// Notes what was heard of a run. Whether it is worth a look: a whole run came or was cancelled, or the last of its parts
    /// has ended. The others are counted at the next look.
    fn hear(&mut self, record: &RunRecord) -> bool {
        let Some(shard) = &record.shard else { return record.shards.is_some() };
        let Some(open) = self.tallies.get_mut(&shard.parent) else { return false };
        let is_news = record.status.is_final() && open.hinted.insert(shard.index);
        is_news && open.tally.missing().iter().all(|index| open.hinted.contains(index))
    }

    /// Looks at one open run, and does what is to be done about it. Whether it is over.
    async fn look_at(&mut self, run: &RunId) -> Result<bool, DispatchError> {
        let parent = match self.streams.ledger().get(run).await {
            Ok(Some(parent)) => parent,
            Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        match parent.value.status {
            // Its parts are being made, by who dispatches it.
            RunState::Pending | RunState::Retry => Ok(false),
            RunState::Success | RunState::Failed => Ok(true),
            RunState::Cancelled => self.stop_parts(&parent.value).await,
            RunState::Running => self.count(&parent).await,
        }
    }

    /// Counts the parts of a run that have ended, and ends it when all have.
    async fn count(&mut self, parent: &Stored<RunRecord>) -> Result<bool, DispatchError> {
        let run = &parent.value.id;
        let asked = self.streams.cancel_asked(&parent.value).await?;
        let total = parent.value.shards.map_or(0, |shards| shards.parts());
        let now = self.streams.clock().elapsed();
        let (streams, fresh) = (&self.streams, || Open {
            tally: Tally::new(run, total),
            hinted: BTreeSet::new(),
            written_at: now,
        });
        let open = self.tallies.entry(run.clone()).or_insert_with(fresh);
        let mut alive = Vec::new();
        for (index, part) in parts(streams, run, open.tally.missing()).await? {
            match part {
                Some(part) => {
                    open.tally.note(index, &part);
                    alive.extend((!part.status.is_final()).then_some(part));
                }
                // All were made before the whole was said to run.
                None => open.tally.note_gone(index),
            }
        }
        if let Some(request) = &asked {
            stop(streams, request, alive).await?;
        }
        let end = open.tally.end_of(&parent.value, asked.as_ref(), streams.clock().now());
        let Ok(end) = end else { return Ok(false) };
        if let Some(end) = end {
            let stored = streams.ledger().update(&end, parent.revision).await?;
            if stored != Update::Stale {
                tracing::info!(run.id = %run, status = %end.status, "All shards of `{run}` have ended: it is {}", end.status);
            }
            return Ok(stored != Update::Stale);
        }
        let progress = Some(open.tally.progress());
        if progress != parent.value.shards && now.saturating_sub(open.written_at) >= SHARDS_LOOK {
            open.written_at = now;
            let seen = RunRecord { shards: progress, ..parent.value.clone() };
            streams.ledger().update(&seen, parent.revision).await?;
        }
        Ok(false)
    }

    /// Stops the parts of a run that was cancelled before it was said to run, those that are still to be made included. Whether
    /// all have ended.
    async fn stop_parts(&mut self, parent: &RunRecord) -> Result<bool, DispatchError> {
        let total = parent.shards.map_or(0, |shards| shards.parts());
        if parent.reason == Some(Reason::SkippedOverlap) {
            return Ok(true);
        }
        let now = self.streams.clock().now();
        let request = match self.streams.cancel_asked(parent).await? {
            Some(request) => request,
            // The record says that somebody did it, in whatever way.
            None => CancelRequest {
                run: parent.id.clone(),
                reason: parent.reason.unwrap_or(Reason::ByOperator),
                by: self.id.to_string(),
                at: now,
            },
        };
        let (mut alive, mut all_are_made) = (Vec::new(), true);
        for (index, part) in parts(&self.streams, &parent.id, (0..total).collect()).await? {
            if let Some(part) = part {
                alive.extend((!part.status.is_final()).then_some(part));
                continue;
            }
            // Who makes the parts just now finds this one ended.
            let Ok(ended) = part_of(parent, index, now).apply(RunEvent::Cancelled, now) else { continue };
            let created = self.streams.ledger().create(&ended.because(request.reason)).await?;
            all_are_made &= matches!(created, Creation::Created(_));
        }
        Ok(stop(&self.streams, &request, alive).await? && all_are_made)
    }
}

/// Cancels these runs as somebody asked for the whole. Those that wait first: what a running one leaves free, they would take.
/// Whether all have ended.
async fn stop(
    streams: &Streams,
    request: &CancelRequest,
    mut runs: Vec<RunRecord>,
) -> Result<bool, DispatchError> {
    runs.sort_by_key(|run| run.status == RunState::Running);
    let mut all_have_ended = true;
    for run in runs {
        let request = CancelRequest { run: run.id, at: streams.clock().now(), ..request.clone() };
        let cancelling = streams.cancel(&request).await?;
        all_have_ended &= matches!(cancelling, Cancelling::Cancelled(_) | Cancelling::Ended(_));
    }
    Ok(all_have_ended)
}

/// The records of these parts of a run, from the leader. A stranger's writing is none that has ended: its worker replaces it.
async fn parts(
    streams: &Streams,
    parent: &RunId,
    of: Vec<u16>,
) -> Result<Vec<(u16, Option<RunRecord>)>, ReadError> {
    let read = |index: u16| async move {
        let run = shard_of(parent, index);
        match streams.ledger().get(&run).await {
            Ok(found) => Ok(Some((index, found.map(|stored| stored.value)))),
            Err(ReadError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let found = stream::iter(of).map(read).buffer_unordered(SHARDS_IN_FLIGHT_MAX);
    let found: Vec<Option<_>> = found.try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
