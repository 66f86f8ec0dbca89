//! Whose turn it is: a look at the first run of a schedule's line, and what is to be done about it.

use std::sync::Arc;

use shared::{
    Timestamp,
    limits::LATE_AFTER,
    names::{MemberId, Name},
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::{Overlap, Schedule},
    task::Task,
    trace::TraceContext,
};
use streams::{
    bucket::Stored,
    cancel::CancelRequest,
    ledger::Update,
    lines::Line,
    tasks::{DueTask, Holder},
};

use super::{
    ask::{Answer, Ask, Definition, Flow, Next, wants},
    contending::{Contending, Contention},
    dispatching::ended,
    placing::{Placed, Placement, Placing},
};
use crate::dispatch::DispatchError;

/// What is to be done about the first run of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not waiting any more: it leaves the line.
    Leave,
    /// It will not run, for this reason, and leaves the line.
    Cancel(Reason),
    /// It goes as soon as the lock is free.
    Go,
}

/// What is to be done about the first run of a line, with so many behind it. `in_force` is the schedule's policy now;
/// none if it was deleted.
fn judge(first: Option<RunState>, behind: usize, in_force: Option<Overlap>) -> Verdict {
    match (first, in_force) {
        (Some(RunState::Pending), None) => Verdict::Cancel(Reason::ScheduleDeleted),
        (Some(RunState::Pending), Some(Overlap::Replace)) if behind > 0 => Verdict::Cancel(Reason::Replaced),
        (Some(RunState::Pending), Some(_)) => Verdict::Go,
        _ => Verdict::Leave,
    }
}

/// What came of a look at a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nobody stands in it.
    Empty,
    /// Something was done: look again at once.
    Moved,
    /// The lock is held.
    Waits,
}

/// A look at a line on its way.
#[derive(Debug)]
pub(crate) struct Turning {
    me: MemberId,
    schedule: Name,
    line: Line,
    /// The run whose turn it is, and the definition by which its line is treated now.
    first: Option<Box<Stored<RunRecord>>>,
    in_force: Definition,
    task: Option<Arc<Task>>,
    at: At,
}

#[derive(Debug)]
enum At {
    ReadingLine,
    ReadingFirst,
    ReadingDefinition,
    /// Looked at before anything is published: a task may be large, and most looks find the lock held.
    Contending(Contending),
    /// Reading the version that it was made from, which is not the one in force any more.
    ReadingVersion,
    /// Reading the wish of who asked for it.
    ReadingWish,
    /// Writing on which queue it goes, and that it is late by now.
    MakingReady(Box<RunRecord>),
    Placing(Box<Placing>),
    /// Asking the run that holds the lock to go.
    Replacing,
    /// Writing that it will not run.
    Ending,
    Leaving,
}

impl Turning {
    /// A look at a schedule's line; `me` is who says so if a run has to make place.
    pub(crate) fn new(me: MemberId, schedule: Name) -> Self {
        let line = Line { runs: Vec::new(), revision: 0 };
        let (in_force, at) = (Definition::None, At::ReadingLine);
        Self { me, schedule, line, first: None, in_force, task: None, at }
    }

    fn overlap(&self) -> Overlap {
        // Of a definition nobody understands those who wait go in their order.
        self.in_force.schedule().map_or(Overlap::BufferAll, |schedule| schedule.overlap)
    }

    fn found_line(&mut self, line: Line) -> Next<Step> {
        self.line = line;
        let Some(run) = self.line.runs.first() else { return Next::End(Step::Empty) };
        self.at = At::ReadingFirst;
        Next::Ask(Ask::ReadRecord(run.clone()))
    }

    fn begin(&mut self, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let status = self.first.as_ref().map(|first| first.value.status);
        let in_force = match &self.in_force {
            Definition::None => None,
            Definition::Known(..) | Definition::Unreadable => Some(self.overlap()),
        };
        match judge(status, self.line.runs.len().saturating_sub(1), in_force) {
            Verdict::Leave => Ok(self.leave()),
            Verdict::Cancel(reason) => Ok(self.end(RunEvent::Cancelled, reason, None, now)),
            Verdict::Go => {
                let run = self.line.runs.first().cloned();
                match run {
                    Some(run) => self.go_on_contending(Contending::new(run), None, now),
                    None => Ok(Next::End(Step::Empty)),
                }
            }
        }
    }

    /// Takes the first run out of the line. If somebody came or went meanwhile, the next look does it.
    fn leave(&mut self) -> Next<Step> {
        self.at = At::Leaving;
        let runs = self.line.runs.get(1..).unwrap_or_default().to_vec();
        Next::Ask(Ask::WriteLine { schedule: self.schedule.clone(), runs, over: self.line.revision })
    }

    /// Ends the first run, which then leaves the line; not if somebody wrote its record meanwhile: then the next look
    /// judges by that.
    fn end(
        &mut self,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
        now: Timestamp,
    ) -> Next<Step> {
        let first = self.first.as_ref();
        let ended =
            first.and_then(|first| Some((ended(&first.value, event, reason, error, now)?, first.revision)));
        let Some((ended, over)) = ended else { return Next::End(Step::Moved) };
        self.at = At::Ending;
        Next::Ask(Ask::UpdateRecord { record: Box::new(ended), over })
    }

    fn reject(&mut self, why: String, now: Timestamp) -> Next<Step> {
        let error = RunError::new(ErrorKind::Malformed, why);
        self.end(RunEvent::Rejected, Reason::Malformed, Some(error), now)
    }

    fn go_on_contending(
        &mut self,
        mut contending: Contending,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Step>, DispatchError> {
        let found = match contending.step(answer, now) {
            Next::Ask(ask) => {
                self.at = At::Contending(contending);
                return Ok(Next::Ask(ask));
            }
            Next::End(found) => found?,
        };
        Ok(match found {
            Contention::Ours => self.leave(),
            Contention::Held(holder) if self.overlap().is_exclusive() => self.meet(&holder, now),
            Contention::Freed => Next::End(Step::Moved),
            Contention::ToBeBuried => Next::End(Step::Waits),
            Contention::Held(_) | Contention::Free => return self.find_task(now),
        })
    }

    /// The run that holds the lock is waited for, or told to go.
    fn meet(&mut self, holder: &Holder, now: Timestamp) -> Next<Step> {
        let Some(run) = holder.run.clone().filter(|_| self.overlap() == Overlap::Replace) else {
            return Next::End(Step::Waits);
        };
        self.at = At::Replacing;
        let by = self.me.to_string();
        Next::Ask(Ask::Cancel(Box::new(CancelRequest { run, reason: Reason::Replaced, by, at: now })))
    }

    /// Finds what the first run was made to do: the task of the definition it was made from, with the parameters it was
    /// asked for with.
    fn find_task(&mut self, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let made_from = self.first.as_ref().and_then(|first| first.value.definition_revision);
        match (&self.in_force, made_from) {
            (Definition::Known(schedule, revision), Some(made_from)) if *revision == made_from => {
                let task = Arc::clone(&schedule.task);
                self.found_task(Some(task), now)
            }
            (_, Some(made_from)) => {
                self.at = At::ReadingVersion;
                Ok(Next::Ask(Ask::ReadVersion(self.schedule.clone(), made_from)))
            }
            (_, None) => self.found_task(None, now),
        }
    }

    fn found_version(
        &mut self,
        version: Option<&Schedule>,
        now: Timestamp,
    ) -> Result<Next<Step>, DispatchError> {
        let made_from = version.or(self.in_force.schedule());
        let task = made_from.map(|schedule| Arc::clone(&schedule.task));
        self.found_task(task, now)
    }

    fn found_task(&mut self, task: Option<Arc<Task>>, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let Some(task) = task else {
            let name = &self.schedule;
            let why = format!("the definition of {name} that it was made from cannot be read any more");
            return Ok(self.reject(why, now));
        };
        self.task = Some(task);
        match &self.first {
            // A run that follows another's end has no slot either, and was asked for by nobody.
            Some(first) if first.value.slot.is_none() && first.value.upstream.is_none() => {
                self.at = At::ReadingWish;
                Ok(Next::Ask(Ask::ReadWish(first.value.id.clone())))
            }
            _ => self.make_ready(now),
        }
    }

    fn found_wish(
        &mut self,
        wish: Option<serde_json::Map<String, serde_json::Value>>,
        now: Timestamp,
    ) -> Result<Next<Step>, DispatchError> {
        let Some(parameters) = wish else {
            let why = "what it was asked for with is not known any more; ask again".to_owned();
            return Ok(self.reject(why, now));
        };
        if let Some(task) = &mut self.task {
            Arc::make_mut(task).parameters.extend(parameters);
        }
        self.make_ready(now)
    }

    /// The record as the run goes: on the queue of the definition in force, and late if it is by now.
    fn make_ready(&mut self, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let first = self.first.as_ref();
        let waiting = first.and_then(|first| Some((first, first.value.apply(RunEvent::Buffered, now).ok()?)));
        let Some((first, waiting)) = waiting else { return Ok(Next::End(Step::Moved)) };
        let is_late =
            waiting.slot.is_some_and(|slot| (now - slot).to_std().is_ok_and(|late| late > LATE_AFTER));
        let queue =
            self.in_force.schedule().map_or_else(|| waiting.queue.clone(), |schedule| schedule.queue.clone());
        let ready = RunRecord { late: waiting.late || is_late, queue, ..waiting }.because(Reason::Buffered);
        if ready == first.value {
            let revision = first.revision;
            return self.place(ready, revision, now);
        }
        let over = first.revision;
        self.at = At::MakingReady(Box::new(ready.clone()));
        Ok(Next::Ask(Ask::UpdateRecord { record: Box::new(ready), over }))
    }

    fn place(&mut self, run: RunRecord, revision: u64, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let Some(task) = self.task.take() else { return Ok(Next::End(Step::Moved)) };
        if let Some(first) = &mut self.first {
            (first.value, first.revision) = (run.clone(), revision);
        }
        let trace = TraceContext::of(self.me.as_str(), &run.id.to_string());
        let trace = run.trace_id.as_deref().and_then(|id| trace.in_trace(id));
        let placement = Placement {
            due: DueTask { run: Arc::new(run), task },
            revision,
            overlap: self.overlap(),
            definition: self.in_force.revision(),
            trace,
            is_alone: false,
        };
        self.go_on_placing(Box::new(Placing::new(placement)), None, now)
    }

    fn go_on_placing(
        &mut self,
        mut placing: Box<Placing>,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Step>, DispatchError> {
        let placed = match placing.step(answer, now) {
            Next::Ask(ask) => {
                self.at = At::Placing(placing);
                return Ok(Next::Ask(ask));
            }
            Next::End(placed) => placed?,
        };
        Ok(match placed {
            Placed::Queued => self.leave(),
            Placed::Held(holder) => self.meet(&holder, now),
            Placed::Refused(why) => self.reject(why, now),
        })
    }

    fn go_on(&mut self, answer: Option<Answer>, now: Timestamp) -> Result<Next<Step>, DispatchError> {
        let Some(answer) = answer else { return Ok(Next::Ask(Ask::ReadLine(self.schedule.clone()))) };
        Ok(match std::mem::replace(&mut self.at, At::Leaving) {
            At::ReadingLine => self.found_line(wants!(answer, Answer::Line(line) => line)),
            At::ReadingFirst => {
                self.first = wants!(answer, Answer::Record(record) => record);
                self.at = At::ReadingDefinition;
                Next::Ask(Ask::ReadDefinition(self.schedule.clone()))
            }
            At::ReadingDefinition => {
                self.in_force = wants!(answer, Answer::Definition(definition) => definition);
                return self.begin(now);
            }
            At::Contending(contending) => return self.go_on_contending(contending, Some(answer), now),
            At::ReadingVersion => {
                let version = wants!(answer, Answer::Version(version) => version);
                return self.found_version(version.as_deref(), now);
            }
            At::ReadingWish => {
                let wish = wants!(answer, Answer::Wish(wish) => wish);
                return self.found_wish(wish, now);
            }
            At::MakingReady(ready) => match wants!(answer, Answer::Updated(update) => update) {
                Update::Stored(revision) => return self.place(*ready, revision, now),
                Update::Stale => Next::End(Step::Moved),
            },
            At::Placing(placing) => return self.go_on_placing(placing, Some(answer), now),
            // Its worker stops it; one that is dead is found out by who takes the run over.
            At::Replacing => {
                let is_over = wants!(answer, Answer::Is(over) => over);
                Next::End(if is_over { Step::Moved } else { Step::Waits })
            }
            At::Ending => match wants!(answer, Answer::Updated(update) => update) {
                Update::Stored(_) => self.leave(),
                Update::Stale => Next::End(Step::Moved),
            },
            At::Leaving => wants!(answer, Answer::Updated(_) => Next::End(Step::Moved)),
        })
    }
}

impl Flow for Turning {
    type End = Result<Step, DispatchError>;

    fn step(&mut self, answer: Option<Answer>, now: Timestamp) -> Next<Self::End> {
        Next::of(self.go_on(answer, now))
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
            (pending, 0, Some(BufferOne), Verdict::Go),
            (pending, 7, Some(BufferAll), Verdict::Go),
            (pending, 7, Some(BufferOne), Verdict::Go),
            (pending, 7, Some(Skip), Verdict::Go),
            (pending, 7, Some(Allow), Verdict::Go),
            (pending, 0, Some(Replace), Verdict::Go),
            (pending, 1, Some(Replace), Verdict::Cancel(Reason::Replaced)),
            (pending, 0, None, Verdict::Cancel(Reason::ScheduleDeleted)),
            (Some(RunState::Running), 1, Some(Replace), Verdict::Leave),
            (Some(RunState::Success), 0, Some(BufferAll), Verdict::Leave),
            (Some(RunState::Cancelled), 0, None, Verdict::Leave),
            (None, 3, Some(BufferAll), Verdict::Leave),
        ] {
            assert_eq!(judge(first, behind, in_force), expected, "{first:?} {behind} {in_force:?}");
        }
    }
}
