//! Moving lines on: the first run of each goes as soon as its schedule's lock is free.
//!
//! A planner does this for the partitions it holds; that only saves work. Two may do it at once: the server takes one
//! task under a lock, the ledger lets a run be begun once, and a line is written by compare-and-set. What a planner
//! leaves half done, a run that was published and stands in line, its successor finds published.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use shared::{
    hash::partition_of,
    limits::{LATE_AFTER, ROUND_SLEEP_MAX},
    names::{MemberId, Name},
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::{Overlap, Schedule},
    task::Task,
    trace::TraceContext,
};
use streams::{
    ReadError, Streams,
    bucket::Stored,
    cancel::{CancelRequest, Cancelling},
    ledger::Update,
    lines::{Line, LineSeen},
    tasks::{DueTask, Holder},
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    dispatch::{DispatchError, Dispatcher},
    leases::Holdings,
    lock::{Contention, Placing},
};

/// A lock is looked at this often although nothing was heard: what is heard over core NATS may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Before a watch that was lost is begun anew.
const REWATCH_WAIT: Duration = Duration::from_millis(500);

/// What is to be done about the first run of a line.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is not waiting any more: it leaves the line.
    Leave,
    /// It will not run, for this reason, and leaves the line.
    Cancel(Reason),
    /// It goes as soon as the lock is free.
    Go,
}

/// What is to be done about the first run of a line, with so many behind it. `in_force` is the schedule's policy now;
/// none if it was deleted. Pure.
fn judge(first: Option<RunState>, behind: usize, in_force: Option<Overlap>) -> Next {
    match (first, in_force) {
        (Some(RunState::Pending), None) => Next::Cancel(Reason::ScheduleDeleted),
        (Some(RunState::Pending), Some(Overlap::Replace)) if behind > 0 => Next::Cancel(Reason::Replaced),
        (Some(RunState::Pending), Some(_)) => Next::Go,
        _ => Next::Leave,
    }
}

/// What came of a look at a line.
enum Step {
    /// Nobody stands in it.
    Empty,
    /// Something was done: look again at once.
    Moved,
    /// The lock is held.
    Waits,
}

/// Moves the lines of one planner's partitions on.
#[derive(Clone)]
pub(crate) struct Advance {
    pub(crate) streams: Streams,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) id: MemberId,
}

/// A line that is being moved on.
struct AtWork {
    task: AbortHandle,
    changed: Arc<Notify>,
}

/// The lines that somebody stands in, and those being moved on here.
#[derive(Default)]
struct Known {
    waiting: BTreeSet<Name>,
    at_work: HashMap<Name, AtWork>,
    running: JoinSet<()>,
}

impl Advance {
    /// Moves lines on until it is told to stop. What is half done then a successor finds.
    pub(crate) async fn follow(self, stop: CancellationToken) -> Result<(), PlannerError> {
        let mut known = Known::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.watch(&mut known) => if let Err(error) = ended {
                    tracing::warn!(%error, "The watch of lines is lost: {error}");
                },
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.streams.clock().sleep(REWATCH_WAIT) => {}
            }
        }
    }

    async fn watch(&self, known: &mut Known) -> Result<(), ReadError> {
        let mut seen = self.streams.lines().watch().await?;
        loop {
            tokio::select! {
                line = seen.next() => match line {
                    Some(line) => known.note(line?),
                    None => return Ok(()),
                },
                // Only reaped. If its line is not empty it is begun again at the next look.
                Some(ended) = known.running.join_next() => {
                    if let Err(panic) = ended {
                        tracing::error!(%panic, "Moving a line on ended in a panic: {panic}");
                    }
                    continue;
                }
                () = self.streams.clock().sleep(ROUND_SLEEP_MAX) => {}
            }
            self.begin(known);
        }
    }

    /// Begins to move on every line that somebody stands in and whose partition is held.
    fn begin(&self, known: &mut Known) {
        known.at_work.retain(|_, at_work| !at_work.task.is_finished());
        let held = self.holdings.trusted(self.streams.clock().elapsed());
        for name in &known.waiting {
            if held.contains(&partition_of(name.as_str())) && !known.at_work.contains_key(name) {
                let changed = Arc::new(Notify::new());
                let task = known.running.spawn(self.clone().advance(name.clone(), Arc::clone(&changed)));
                known.at_work.insert(name.clone(), AtWork { task, changed });
            }
        }
    }

    fn holds(&self, name: &Name) -> bool {
        self.holdings.trusted(self.streams.clock().elapsed()).contains(&partition_of(name.as_str()))
    }

    /// Moves one line on until it is empty, or its partition is not ours any more.
    async fn advance(self, name: Name, changed: Arc<Notify>) {
        // Subscribed before the first look, so that the end of a run cannot fall between looking and waiting.
        let mut results = match self.streams.results(Some(&name)).await {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                return;
            }
        };
        while self.holds(&name) {
            match self.step(&name).await {
                Ok(Step::Empty) => return,
                Ok(Step::Moved) => continue,
                Ok(Step::Waits) => {}
                Err(error) => {
                    tracing::warn!(schedule.name = %name, %error, "The line of `{name}` stands still: {error}");
                }
            }
            tokio::select! {
                () = changed.notified() => {}
                () = end_of_a_run(&mut results) => {}
                () = self.streams.clock().sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Looks at the first run of a line, and does what is to be done about it.
    async fn step(&self, name: &Name) -> Result<Step, DispatchError> {
        let line = self.dispatcher.lines.get(name).await?;
        let Some(run) = line.runs.first() else { return Ok(Step::Empty) };
        let first = match self.streams.ledger().get(run).await {
            // A stranger's writing in the place of its record: there is nothing to run by.
            Err(ReadError::Corrupt { .. }) => None,
            first => first?,
        };
        let in_force = self.in_force(name).await?;
        let overlap = in_force.as_ref().map(InForce::overlap);
        match (judge(first.as_ref().map(|first| first.value.status), line.runs.len() - 1, overlap), first) {
            (Next::Go, Some(first)) => {
                self.go(name, &line, first, in_force.unwrap_or(InForce::Unreadable)).await
            }
            (Next::Cancel(reason), Some(first)) => {
                self.dispatcher.end(&first.value, first.revision, RunEvent::Cancelled, reason, None).await?;
                self.leave(name, &line).await
            }
            _ => self.leave(name, &line).await,
        }
    }

    /// Takes the first run out of a line. If somebody came or went meanwhile, the next look does it.
    async fn leave(&self, name: &Name, line: &Line) -> Result<Step, DispatchError> {
        self.dispatcher.lines.write(name, line.runs.get(1..).unwrap_or_default(), line.revision).await?;
        Ok(Step::Moved)
    }

    /// The definition by which a line is treated now; none if the schedule was deleted.
    async fn in_force(&self, name: &Name) -> Result<Option<InForce>, ReadError> {
        match self.streams.schedules().get(name).await {
            Ok(stored) => Ok(stored.map(|stored| InForce::Definition(Box::new(stored)))),
            Err(ReadError::Corrupt { .. }) => Ok(Some(InForce::Unreadable)),
            Err(error) => Err(error),
        }
    }

    /// Publishes the first run of a line if the lock is free.
    async fn go(
        &self,
        name: &Name,
        line: &Line,
        first: Stored<RunRecord>,
        in_force: InForce,
    ) -> Result<Step, DispatchError> {
        let run = &first.value.id;
        // Looked at before anything is published: a task may be large, and most looks find the lock held.
        match self.dispatcher.locks.contend(run).await? {
            Contention::Ours => return self.leave(name, line).await,
            Contention::Held(holder) if in_force.overlap().is_exclusive() => {
                return self.meet(&holder, in_force.overlap()).await;
            }
            Contention::Freed => return Ok(Step::Moved),
            Contention::Held(_) | Contention::Free => {}
        }
        let task = match self.task_of(&first.value, &in_force).await? {
            Ok(task) => task,
            Err(why) => {
                self.dispatcher.reject(&first.value, first.revision, why).await?;
                return self.leave(name, line).await;
            }
        };
        let Some(ready) = self.made_ready(first, &in_force).await? else { return Ok(Step::Moved) };
        let due = DueTask { run: ready.value, task };
        let trace = due.run.trace_id.as_deref().and_then(TraceContext::within).map(|trace| trace.to_string());
        let (overlap, definition) = (in_force.overlap(), in_force.revision());
        let placing =
            self.dispatcher.locks.place(&due, ready.revision, overlap, definition, trace.as_deref()).await?;
        match placing {
            Placing::Placed => self.leave(name, line).await,
            Placing::Held(holder) => self.meet(&holder, overlap).await,
            Placing::Refused(why) => {
                self.dispatcher.reject(&due.run, ready.revision, why).await?;
                self.leave(name, line).await
            }
        }
    }

    /// The run that holds the lock is waited for, or told to go.
    async fn meet(&self, holder: &Holder, overlap: Overlap) -> Result<Step, DispatchError> {
        let Some(run) = holder.run.as_ref().filter(|_| overlap == Overlap::Replace) else {
            return Ok(Step::Waits);
        };
        let request = CancelRequest {
            run: run.clone(),
            reason: Reason::Replaced,
            by: self.id.to_string(),
            at: self.streams.clock().now(),
        };
        Ok(match self.streams.cancel(&request).await? {
            Cancelling::Ended(_) | Cancelling::Cancelled(_) => Step::Moved,
            // Its worker stops it; one that is dead is found out by who takes the run over.
            Cancelling::Asked(_) | Cancelling::Unknown => Step::Waits,
        })
    }

    /// The record as the run goes: on the queue of the definition in force, and late if it is by now. None: somebody
    /// else wrote it meanwhile.
    async fn made_ready(
        &self,
        first: Stored<RunRecord>,
        in_force: &InForce,
    ) -> Result<Option<Stored<RunRecord>>, DispatchError> {
        let now = self.streams.clock().now();
        let Ok(waiting) = first.value.apply(RunEvent::Buffered, now) else { return Ok(None) };
        let is_late =
            waiting.slot.is_some_and(|slot| (now - slot).to_std().is_ok_and(|late| late > LATE_AFTER));
        let queue =
            in_force.schedule().map_or_else(|| waiting.queue.clone(), |schedule| schedule.queue.clone());
        let ready = RunRecord { late: waiting.late || is_late, queue, ..waiting }.because(Reason::Buffered);
        if ready == first.value {
            return Ok(Some(first));
        }
        Ok(match self.streams.ledger().update(&ready, first.revision).await? {
            Update::Stored(revision) => Some(Stored { value: ready, revision, ..first }),
            Update::Stale => None,
        })
    }

    /// What a run was made to do: the task of the definition it was made from, with the parameters it was asked for
    /// with. `Err` says why that is not known any more.
    async fn task_of(
        &self,
        record: &RunRecord,
        in_force: &InForce,
    ) -> Result<Result<Task, String>, ReadError> {
        let name = &record.id.name;
        let known = in_force.schedule().filter(|_| record.definition_revision == in_force.revision());
        let task = match (known, record.definition_revision) {
            (Some(schedule), _) => Some(schedule.task.clone()),
            (None, Some(revision)) => {
                let made_from = self.streams.schedules().at(name, revision).await?;
                made_from.as_ref().or(in_force.schedule()).map(|schedule| schedule.task.clone())
            }
            (None, None) => None,
        };
        let Some(mut task) = task else {
            return Ok(Err(format!(
                "the definition of {name} that it was made from cannot be read any more"
            )));
        };
        if record.slot.is_none() {
            let Some(trigger) = self.streams.trigger_of(&record.id).await? else {
                return Ok(Err("what it was asked for with is not known any more; ask again".to_owned()));
            };
            task.parameters.extend(trigger.parameters);
        }
        Ok(Ok(task))
    }
}

/// The definition by which a line is treated now.
enum InForce {
    Definition(Box<Stored<Schedule>>),
    /// It cannot be understood; those who wait go in their order.
    Unreadable,
}

impl InForce {
    fn schedule(&self) -> Option<&Schedule> {
        match self {
            InForce::Definition(stored) => Some(&stored.value),
            InForce::Unreadable => None,
        }
    }

    fn overlap(&self) -> Overlap {
        self.schedule().map_or(Overlap::BufferAll, |schedule| schedule.overlap)
    }

    fn revision(&self) -> Option<u64> {
        match self {
            InForce::Definition(stored) => Some(stored.revision),
            InForce::Unreadable => None,
        }
    }
}

impl Known {
    fn note(&mut self, line: LineSeen) {
        if let Some(at_work) = self.at_work.get(&line.schedule) {
            at_work.changed.notify_one();
        }
        if line.is_empty {
            self.waiting.remove(&line.schedule);
        } else {
            self.waiting.insert(line.schedule);
        }
    }
}

/// Returns when a run of the schedule has ended that may have held the lock or stood in line.
async fn end_of_a_run(results: &mut (impl Stream<Item = RunRecord> + Unpin)) {
    while let Some(record) = results.next().await {
        if record.status.is_final() && record.reason != Some(Reason::SkippedOverlap) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_the_first_in_line_is_said_by_its_record_and_the_policy_in_force() {
        use Overlap::{Allow, BufferAll, BufferOne, Replace, Skip};
        let pending = Some(RunState::Pending);
        for (first, behind, in_force, expected) in [
            (pending, 0, Some(BufferOne), Next::Go),
            (pending, 7, Some(BufferAll), Next::Go),
            (pending, 7, Some(BufferOne), Next::Go),
            (pending, 7, Some(Skip), Next::Go),
            (pending, 7, Some(Allow), Next::Go),
            (pending, 0, Some(Replace), Next::Go),
            (pending, 1, Some(Replace), Next::Cancel(Reason::Replaced)),
            (pending, 0, None, Next::Cancel(Reason::ScheduleDeleted)),
            (Some(RunState::Running), 1, Some(Replace), Next::Leave),
            (Some(RunState::Success), 0, Some(BufferAll), Next::Leave),
            (Some(RunState::Cancelled), 0, None, Next::Leave),
            (None, 3, Some(BufferAll), Next::Leave),
        ] {
            assert_eq!(judge(first, behind, in_force), expected, "{first:?} {behind} {in_force:?}");
        }
    }
}
