//! Whose turn it is: looks at the first run of a line, and does what is to be done about it.

use shared::{
    limits::LATE_AFTER,
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
    lines::Line,
    tasks::{DueTask, Holder},
};

use crate::{
    dispatch::{DispatchError, Dispatcher, Outcome},
    lock::{Contention, Placing},
};

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
pub(crate) enum Step {
    /// Nobody stands in it.
    Empty,
    /// Something was done: look again at once.
    Moved,
    /// The lock is held.
    Waits,
}

/// Gives the runs that wait their turns.
#[derive(Clone)]
pub(crate) struct Turns {
    pub(crate) streams: Streams,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) id: MemberId,
}

impl Turns {
    /// Looks at the first run of a line, and does what is to be done about it.
    pub(crate) async fn step(&self, name: &Name) -> Result<Step, DispatchError> {
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
                let cancelled = RunEvent::Cancelled;
                let ended =
                    self.dispatcher.end(&first.value, first.revision, cancelled, reason, None).await?;
                self.leave_if_closed(ended, name, &line).await
            }
            _ => self.leave(name, &line).await,
        }
    }

    /// Takes a run that was to be ended out of its line; not if somebody wrote its record meanwhile: then the next look
    /// judges by that.
    async fn leave_if_closed(&self, ended: Outcome, name: &Name, line: &Line) -> Result<Step, DispatchError> {
        if ended == Outcome::Closed { self.leave(name, line).await } else { Ok(Step::Moved) }
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
            Contention::ToBeBuried => return Ok(Step::Waits),
            Contention::Held(_) | Contention::Free => {}
        }
        let task = match self.task_of(&first.value, &in_force).await? {
            Ok(task) => task,
            Err(why) => {
                let ended = self.dispatcher.reject(&first.value, first.revision, why).await?;
                return self.leave_if_closed(ended, name, line).await;
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
                let ended = self.dispatcher.reject(&due.run, ready.revision, why).await?;
                self.leave_if_closed(ended, name, line).await
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
        // A run that follows another's end has no slot either, and was asked for by nobody.
        if record.slot.is_none() && record.upstream.is_none() {
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
