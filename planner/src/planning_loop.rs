//! The planning loop: brings what happens to [`Planning`], and does what it says.
//!
//! The timer is a hint, the clock decides: woken early, nothing is due and the loop waits again; woken late, the window
//! is wider. The wall clock stepping back dispatches nothing twice, because the cursor does not step back with it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use shared::{clock::SharedClock, cron::tzdb_version};
use streams::Streams;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    backlog::Backlog,
    clock_guard::ClockGuard,
    definitions::Change,
    holdings::Holdings,
    machine::{AskId, Effect, Event, Note, Now, Planning, ask::Answer},
    perform::perform,
    status::Status,
};

/// What a stopping planner waits for what is on its way, and again for its last cursors to be taken: others wait for its
/// partitions, and find done what it did.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_millis(100);
/// Changes of definitions taken in before what is due is looked at again: a million come at the start.
const CHANGES_AT_ONCE_MAX: usize = 4_096;

/// Answers taken in before anything else that happened.
const ANSWERS_AT_ONCE_MAX: usize = 256;

/// The planning loop.
pub(crate) struct PlanningLoop {
    streams: Streams,
    clock: SharedClock,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    guard: Arc<ClockGuard>,
    backlog: Backlog,
    planning: Planning,
    /// Which version of the holdings planning was told last.
    told: u64,
    on_its_way: FuturesUnordered<Abortable<BoxFuture<'static, (AskId, Answer)>>>,
    /// By which an ask that is forgotten is left off: its place is needed for others.
    handles: HashMap<AskId, AbortHandle>,
}

impl PlanningLoop {
    pub(crate) fn new(
        streams: Streams,
        holdings: Arc<Holdings>,
        status: Arc<Status>,
        guard: Arc<ClockGuard>,
    ) -> Self {
        Self {
            clock: streams.clock().clone(),
            streams,
            holdings,
            backlog: Backlog::new(Arc::clone(&status)),
            planning: Planning::new(status.id().clone()),
            status,
            guard,
            told: 0,
            on_its_way: FuturesUnordered::new(),
            handles: HashMap::new(),
        }
    }

    /// Plans until it is told to stop; then it writes the cursors a last time.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        stop: CancellationToken,
    ) -> Result<(), PlannerError> {
        while !stop.is_cancelled() {
            self.tell_holdings();
            let rest = self.planning.rests_for(self.now());
            let (clock, holdings) = (self.clock.clone(), Arc::clone(&self.holdings));
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = self.on_its_way.next(), if !self.on_its_way.is_empty() => {
                    self.answer(done);
                    // So many, and not all that come: definitions want to be heard, too.
                    for _ in 0..ANSWERS_AT_ONCE_MAX {
                        let Some(Some(done)) = self.on_its_way.next().now_or_never() else { break };
                        self.answer(done);
                    }
                }
                () = holdings.changed() => {}
                change = changes.recv() => match change {
                    Some(change) => self.hear(change, &mut changes),
                    None => break,
                },
                () = clock.sleep(rest) => self.step(Event::Woke),
            }
        }
        self.stop().await;
        Ok(())
    }

    fn answer(&mut self, done: Result<(AskId, Answer), Aborted>) {
        if let Ok((id, answer)) = done {
            self.handles.remove(&id);
            self.step(Event::Answered(id, answer));
        }
    }

    fn hear(&mut self, first: Change, changes: &mut mpsc::Receiver<Change>) {
        self.step(Event::Heard(first));
        for _ in 0..CHANGES_AT_ONCE_MAX {
            let Ok(change) = changes.try_recv() else { break };
            self.step(Event::Heard(change));
        }
        self.step(Event::Woke);
        if let Some(census) = self.planning.census() {
            self.status.note_schedules(census);
        }
    }

    fn tell_holdings(&mut self) {
        if let Some((partitions, trusted_until, version)) = self.holdings.news_since(self.told) {
            self.told = version;
            self.step(Event::Holds(partitions, trusted_until));
        }
    }

    /// A server that cannot be reached does not hold us up: a successor repeats what it finds done.
    async fn stop(&mut self) {
        for event in [Event::Stops, Event::LastWords] {
            self.step(event);
            let clock = self.clock.clone();
            let give_up = clock.sleep(LAST_WORDS_WAIT_MAX);
            tokio::pin!(give_up);
            while !self.planning.is_idle() {
                tokio::select! {
                    Some(done) = self.on_its_way.next() => self.answer(done),
                    () = &mut give_up => break,
                    else => break,
                }
            }
        }
    }

    fn now(&self) -> Now {
        let believed = self.guard.now();
        let wall = believed.unwrap_or_else(|| self.clock.now());
        Now { wall, is_believed: believed.is_some(), elapsed: self.clock.elapsed() }
    }

    fn step(&mut self, event: Event) {
        for effect in self.planning.step(event, self.now()) {
            match effect {
                Effect::Ask(id, ask) => {
                    let streams = self.streams.clone();
                    let performing = async move { (id, perform(&streams, ask).await) }.boxed();
                    let (performing, handle) = abortable(performing);
                    self.handles.insert(id, handle);
                    self.on_its_way.push(performing);
                }
                Effect::Forget(id) => {
                    if let Some(handle) = self.handles.remove(&id) {
                        handle.abort();
                    }
                }
                Effect::Note(note) => self.tell(note),
            }
        }
    }

    fn tell(&self, note: Note) {
        match note {
            Note::Dispatched { late_by } => self.status.note_lateness(late_by),
            Note::Waits { schedule, slots, oldest, why } => {
                self.backlog.note(&schedule, slots, oldest, &why);
            }
            Note::AllWaitsSaid => self.backlog.end_of_round(self.clock.elapsed()),
            Note::NotOpened { partition, why } => {
                tracing::warn!(partition, why, "Partition {partition} cannot be opened yet: {why}");
            }
            Note::CursorWrong(partition) => tracing::error!(
                partition,
                "Partition {partition}'s cursor cannot be right; looking back a day"
            ),
            Note::CursorMoved(partition, by) => {
                tracing::info!(partition, %by, "Partition {partition}'s cursor was moved by `{by}`");
            }
            Note::CursorStays { partition, why } => {
                tracing::warn!(
                    partition,
                    why,
                    "The cursor of partition {partition} stays where it is: {why}"
                );
            }
            Note::OtherZoneData { theirs, by } => {
                let ours = tzdb_version();
                tracing::warn!(
                    theirs, ours, %by,
                    "Slots were computed with IANA {theirs} by `{by}`, from here on with {ours}: those near a change of \
                     clocks may differ"
                );
            }
        }
    }
}
