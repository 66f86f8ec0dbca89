//! Ranges of slots that are run afterwards.
//!
//! A request lies in the control stream until it is done, and one planner at a time is at it. How far it is stands in
//! a bucket, so a successor goes on where the last one was; what that one did and could not write down any more it
//! finds in the ledger, because each run it makes carries the backfill's id. Two planners that both believe to be at
//! it do no harm: a slot has one record, and the compare-and-set over it has one winner.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use shared::{
    Timestamp,
    backfill::{BackfillOverlap, Fate, RangeSlot, slots_of},
    limits,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::{Overlap, Schedule},
    slot::Slot,
    trace::TraceContext,
};
use streams::{
    ReadError, Streams, WriteError,
    backfills::{BackfillDelivery, BackfillProgress, BackfillRequest, BackfillState},
    bucket::Stored,
    ledger::Update,
    tasks::DueTask,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    clock_guard::ClockGuard,
    dispatch::{DispatchError, Dispatcher, Outcome, describe, undeclared},
};

const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Before requests that cannot be read are asked for again: not a hot loop, nor a full log.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// What a stopping planner gives its backfills to write down how far they are.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_secs(3);

/// Works on backfills until it is told to stop.
pub(crate) async fn follow(
    streams: Streams,
    dispatcher: Dispatcher,
    guard: Arc<ClockGuard>,
    stop: CancellationToken,
) -> Result<(), PlannerError> {
    let clock = streams.clock().clone();
    while !stop.is_cancelled() {
        if let Err(error) = take(&streams, &dispatcher, &guard, &stop).await {
            tracing::warn!(%error, "Backfills cannot be read just now: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(READ_AGAIN) => {}
        }
    }
    Ok(())
}

async fn take(
    streams: &Streams,
    dispatcher: &Dispatcher,
    guard: &Arc<ClockGuard>,
    stop: &CancellationToken,
) -> Result<(), ReadError> {
    let mut requests = streams.backfill_requests().await?;
    let mut working = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            // One that is lost with its connection, or that panicked, is handed out again by the server.
            _ = working.join_next(), if !working.is_empty() => {}
            delivery = requests.next() => {
                let Some(delivery) = delivery else { break };
                let (streams, dispatcher) = (streams.clone(), dispatcher.clone());
                working.spawn(answer(streams, dispatcher, Arc::clone(guard), delivery?, stop.clone()));
            }
        }
    }
    tokio::select! {
        () = async { while working.join_next().await.is_some() {} } => {}
        () = streams.clock().sleep(LAST_WORDS_WAIT_MAX) => {}
    }
    Ok(())
}

/// Why a planner leaves a backfill.
enum Left {
    /// All is done, or it never can be.
    Ended,
    /// The planner is told to stop.
    Stopped,
    /// An earlier backfill of the schedule is not done.
    NotItsTurn,
}

async fn answer(
    streams: Streams,
    dispatcher: Dispatcher,
    guard: Arc<ClockGuard>,
    delivery: BackfillDelivery,
    stop: CancellationToken,
) {
    let request = match &delivery.request {
        Ok(request) => request.clone(),
        Err(error) => {
            tracing::warn!(%error, "A backfill cannot be understood and is dropped: {error}");
            return delivery.done().await;
        }
    };
    let id = request.id.clone();
    let work =
        async { Work::begin(&streams, &dispatcher, &guard, &delivery, request).await?.finish(&stop).await };
    match work.await {
        Ok(Left::Ended) => delivery.done().await,
        Ok(Left::Stopped) => delivery.later(Duration::ZERO).await,
        Ok(Left::NotItsTurn) => delivery.later(TRY_AGAIN).await,
        // Another planner is at it, because we were not heard for long: our word would only make the server hand it out
        // once more.
        Err(DispatchError::Write(WriteError::Conflict { .. })) => {
            tracing::info!(backfill.id = %id, "Backfill `{id}` is another planner's now");
        }
        Err(error) => {
            tracing::warn!(backfill.id = %id, %error, "Backfill `{id}` cannot go on just now: {error}");
            delivery.later(TRY_AGAIN).await;
        }
    }
}

/// What is to be done, as the definition says it.
struct Plan {
    schedule: Schedule,
    slots: Vec<RangeSlot>,
}

/// A planner at a backfill.
struct Work<'a> {
    streams: &'a Streams,
    dispatcher: &'a Dispatcher,
    guard: &'a ClockGuard,
    delivery: &'a BackfillDelivery,
    progress: BackfillProgress,
    /// The revision of the progress as it is stored.
    revision: u64,
    /// When the progress was written last, and whether it has changed since.
    reported_at: Duration,
    has_news: bool,
}

impl<'a> Work<'a> {
    async fn begin(
        streams: &'a Streams,
        dispatcher: &'a Dispatcher,
        guard: &'a ClockGuard,
        delivery: &'a BackfillDelivery,
        request: BackfillRequest,
    ) -> Result<Self, DispatchError> {
        let (progress, revision) = match streams.backfills().get(&request.schedule, &request.id).await {
            Ok(Some(Stored { value, revision, .. })) => (value, revision),
            Ok(None) => (BackfillProgress::new(request), 0),
            // A stranger's writing; the ledger knows what was done.
            Err(ReadError::Corrupt { revision, .. }) => (BackfillProgress::new(request), revision),
            Err(error) => return Err(error.into()),
        };
        let reported_at = streams.clock().elapsed();
        Ok(Self { streams, dispatcher, guard, delivery, progress, revision, reported_at, has_news: false })
    }

    async fn finish(mut self, stop: &CancellationToken) -> Result<Left, DispatchError> {
        if self.progress.is_ended() {
            return Ok(Left::Ended);
        }
        if !self.is_its_turn().await? {
            if self.revision == 0 {
                self.report(BackfillState::Waiting).await?;
            }
            return Ok(Left::NotItsTurn);
        }
        let plan = match self.plan().await? {
            Ok(plan) => plan,
            Err(problem) => {
                self.progress.problem = Some(problem);
                self.report(BackfillState::Failed).await?;
                return Ok(Left::Ended);
            }
        };
        self.progress.slots = plan.slots.len();
        self.report(BackfillState::Running).await?;
        let mut look = limits::BACKFILL_LOOK;
        loop {
            let before = self.progress.clone();
            let state = self.pass(&plan).await?;
            let is_due = self.streams.clock().elapsed() >= self.reported_at + limits::BACKFILL_REPORT;
            let has_ended = matches!(state, BackfillState::Done | BackfillState::Failed);
            if has_ended || stop.is_cancelled() || is_due {
                self.report(state).await?;
            }
            if has_ended {
                return Ok(Left::Ended);
            }
            // Runs that take long are not looked at all the time.
            let moved = self.progress != before;
            look = if moved { limits::BACKFILL_LOOK } else { (look * 2).min(limits::BACKFILL_REPORT) };
            tokio::select! {
                () = stop.cancelled() => {
                    self.report(state).await?;
                    return Ok(Left::Stopped);
                }
                () = self.streams.clock().sleep(look) => {}
            }
        }
    }

    /// One of a schedule at a time, in the order in which they were asked for.
    async fn is_its_turn(&self) -> Result<bool, ReadError> {
        let mine = (self.progress.request.at, &self.progress.request.id);
        let all = self.streams.backfills().of(&self.progress.request.schedule).await?;
        let earlier = |other: &&BackfillProgress| (other.request.at, &other.request.id) < mine;
        Ok(all.iter().filter(earlier).all(BackfillProgress::is_ended))
    }

    /// The slots of the range by the definition it was asked with, or why there are none to be had.
    async fn plan(&self) -> Result<Result<Plan, String>, ReadError> {
        let BackfillRequest { schedule: name, revision, from, to, .. } = &self.progress.request;
        let versions = self.streams.schedules().history(name).await?;
        if !versions.last().is_some_and(|version| !matches!(version.definition, Ok(None))) {
            return Ok(Err(format!("schedule {name} does not exist any more")));
        }
        let found = versions.into_iter().find(|version| version.revision == *revision);
        let Some(schedule) = found.and_then(|version| version.definition.ok().flatten()) else {
            let problem = format!("revision {revision} of schedule {name} is not kept any more; ask again");
            return Ok(Err(problem));
        };
        let calendar = match &schedule.calendar {
            Some(calendar) => self.streams.catalog().calendar(calendar).await?,
            None => None,
        };
        let slots = slots_of(&schedule, calendar.as_ref(), *from, *to, limits::BACKFILL_SLOTS_MAX + 1);
        if slots.len() > limits::BACKFILL_SLOTS_MAX {
            let max = limits::BACKFILL_SLOTS_MAX;
            return Ok(Err(format!("the range has more than {max} slots; ask for it in parts")));
        }
        if self.streams.catalog().queue(&schedule.queue).await?.is_none() {
            return Ok(Err(undeclared(&schedule.queue)));
        }
        Ok(Ok(Plan { schedule, slots }))
    }

    /// Counts the runs that have ended, and fills the places that are free. How it stands now.
    async fn pass(&mut self, plan: &Plan) -> Result<BackfillState, DispatchError> {
        self.settle().await?;
        let next = |upto: Option<Timestamp>| {
            let slots = plan.slots.iter().copied();
            slots.skip_while(move |slot| upto.is_some_and(|upto| slot.slot.instant() <= upto))
        };
        let rest: Vec<RangeSlot> = next(self.progress.upto).collect();
        if rest.is_empty() && self.progress.open.is_empty() {
            return Ok(BackfillState::Done);
        }
        // A clock that is not believed says of no slot that it has come.
        let Some(now) = self.guard.now() else { return Ok(BackfillState::Running) };
        if !rest.is_empty() && self.is_deleted().await? {
            self.progress.problem = Some("its schedule was deleted meanwhile".to_owned());
            return Ok(BackfillState::Failed);
        }
        let paused = self.streams.schedules().pause(&self.progress.request.schedule).await?;
        if !rest.is_empty() && paused.standing(now).is_some() {
            return Ok(BackfillState::Paused);
        }
        // No run starts before its slot, whatever the clock of whoever asked.
        for RangeSlot { slot, is_open } in rest.into_iter().take_while(|one| one.slot.instant() <= now) {
            // A long range in which nothing is to be done is no reason to be silent.
            let is_due = self.streams.clock().elapsed() >= self.reported_at + limits::BACKFILL_REPORT;
            if is_due || !self.deal_with(plan, slot, is_open).await? {
                break;
            }
            self.progress.upto = Some(slot.instant());
            self.has_news = true;
        }
        Ok(BackfillState::Running)
    }

    async fn is_deleted(&self) -> Result<bool, ReadError> {
        match self.streams.schedules().get(&self.progress.request.schedule).await {
            Ok(found) => Ok(found.is_none()),
            // Somebody's nonsense is not the word that it is gone.
            Err(ReadError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the runs that have ended off the list.
    async fn settle(&mut self) -> Result<(), ReadError> {
        for slot in std::mem::take(&mut self.progress.open) {
            let found = self.record_of(Slot::at(slot)).await?;
            if found
                .as_ref()
                .is_some_and(|stored| !stored.value.status.is_final() && self.is_mine(&stored.value))
            {
                self.progress.open.push(slot);
            } else {
                self.count(found.map(|stored| stored.value).as_ref());
            }
        }
        Ok(())
    }

    /// Counts a slot of which nothing more is expected.
    fn count(&mut self, found: Option<&RunRecord>) {
        self.has_news = true;
        match found {
            Some(record) if self.is_mine(record) && record.status == RunState::Success => {
                self.progress.succeeded += 1;
            }
            Some(record) if self.is_mine(record) => self.progress.unsuccessful += 1,
            // A planner, or another backfill, came first.
            _ => self.progress.left += 1,
        }
    }

    /// The record of a slot. A stranger's writing in its place is none: whoever makes the run replaces it.
    async fn record_of(&self, slot: Slot) -> Result<Option<Stored<RunRecord>>, ReadError> {
        let run = RunId::planned(&self.progress.request.schedule, slot);
        match self.streams.ledger().get(&run).await {
            Err(ReadError::Corrupt { .. }) => Ok(None),
            found => found,
        }
    }

    fn is_mine(&self, record: &RunRecord) -> bool {
        record.backfill.as_ref() == Some(&self.progress.request.id)
    }

    /// Deals with one slot; false if it must wait.
    async fn deal_with(&mut self, plan: &Plan, slot: Slot, is_open: bool) -> Result<bool, DispatchError> {
        let overlap = self.progress.request.overlap;
        let found = self.record_of(slot).await?;
        let record = found.as_ref().map(|stored| &stored.value);
        let is_left_over = record.is_some_and(|record| self.is_mine(record));
        let fate = Fate::of(record, is_open);
        // One that lost the lock while others wait for it has its turn still to come; with `skip` that was its turn.
        let runs = fate.runs() && !(is_left_over && overlap == BackfillOverlap::Skip);
        // What we, or a planner before us, made of it and could not write down any more: its task may be missing.
        let is_to_be_published = is_left_over && fate == Fate::UnderWay(RunState::Pending);
        if !runs && !is_to_be_published {
            if is_left_over && matches!(fate, Fate::UnderWay(_)) {
                self.progress.open.push(slot.instant());
            } else {
                self.count(record);
            }
            return Ok(true);
        }
        if !is_to_be_published && !self.has_place(overlap).await? {
            return Ok(false);
        }
        let Some(outcome) = self.start(plan, slot, found).await? else { return Ok(false) };
        if outcome == Outcome::Closed
            && overlap == BackfillOverlap::BufferAll
            && self.lost_the_lock(slot).await?
        {
            return Ok(false);
        }
        self.progress.open.push(slot.instant());
        Ok(true)
    }

    /// Whether another run may be queued now.
    async fn has_place(&self, overlap: BackfillOverlap) -> Result<bool, DispatchError> {
        let is_bounded = self.progress.open.len() < overlap.in_flight_max();
        let waits = overlap == BackfillOverlap::BufferAll;
        if !is_bounded || !waits {
            return Ok(is_bounded);
        }
        // Behind those who wait in the schedule's line, not past them.
        let schedule = &self.progress.request.schedule;
        Ok(self.dispatcher.lines.get(schedule).await?.runs.is_empty()
            && self.dispatcher.is_free(schedule).await?)
    }

    /// Whether a regular slot took the lock between our look and our publish.
    async fn lost_the_lock(&self, slot: Slot) -> Result<bool, ReadError> {
        let found = self.record_of(slot).await?;
        Ok(found.is_some_and(|stored| stored.value.skipped_because() == Some(Reason::SkippedOverlap)))
    }

    /// Makes a run of a slot: under a new record, or under the one that says that it was skipped. None if that was
    /// changed by somebody meanwhile.
    async fn start(
        &self,
        plan: &Plan,
        slot: Slot,
        found: Option<Stored<RunRecord>>,
    ) -> Result<Option<Outcome>, DispatchError> {
        let (request, task) = (&self.progress.request, Arc::clone(&plan.schedule.task));
        let overlap = match request.overlap {
            BackfillOverlap::Allow => Overlap::Allow,
            BackfillOverlap::BufferAll | BackfillOverlap::Skip => Overlap::Skip,
        };
        let now = self.streams.clock().now();
        let marked = |record: RunRecord| {
            let record = RunRecord {
                late: true,
                by: Some(request.by.clone()),
                backfill: Some(request.id.clone()),
                definition_revision: Some(request.revision),
                queue: plan.schedule.queue.clone(),
                shards: plan.schedule.shards(),
                ..record
            };
            describe(record, &task)
        };
        let Some(Stored { value, revision, .. }) = found else {
            let queue = plan.schedule.queue.clone();
            let record = marked(RunRecord::planned(&request.schedule, slot, queue, now));
            return self.dispatcher.run(record, task, overlap).await.map(Some);
        };
        let (run, revision, trace) = if value.status == RunState::Pending {
            (value, revision, None)
        } else {
            let Ok(again) = value.apply(RunEvent::Backfilled, now) else { return Ok(None) };
            let trace = TraceContext::root();
            let again = RunRecord { trace_id: Some(trace.trace_id_text()), ..marked(again) };
            match self.streams.ledger().update(&again, revision).await? {
                Update::Stored(revision) => (again, revision, Some(trace)),
                Update::Stale => return Ok(None),
            }
        };
        let due = DueTask { run: Arc::new(run), task };
        self.dispatcher.publish(due, revision, overlap, trace).await.map(Some)
    }

    /// Writes down how far it is, and tells the server that somebody is at it.
    async fn report(&mut self, state: BackfillState) -> Result<(), WriteError> {
        self.delivery.working().await;
        self.reported_at = self.streams.clock().elapsed();
        if self.progress.state != state || self.has_news || self.revision == 0 {
            self.progress.state = state;
            self.revision = self.streams.backfills().write(&self.progress, self.revision).await?;
            self.has_news = false;
        }
        Ok(())
    }
}
