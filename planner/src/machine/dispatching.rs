//! Record, then task. Both may be repeated; together they make one run of a slot, whoever does them and how often.
//!
//! What a crash leaves behind, and who mends it: nothing (the successor starts from the cursor); a record that is
//! PENDING without a task (the successor publishes it); a task without our knowing (the server refuses the second, or
//! the worker's claim drops it).

use std::sync::Arc;

use shared::{
    Timestamp,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::Overlap,
    task::Task,
    trace::TraceContext,
};
use streams::{
    ledger::{Creation, Update},
    tasks::DueTask,
};

use super::{
    ask::{Answer, Ask, Flow, Next, Unanswered, wants},
    contending::{Contending, Contention},
    lining_up::LiningUp,
    placing::{Placed, Placement, Placing},
};
use crate::{
    dispatch::{DispatchError, Outcome},
    planted::planted,
};

/// A run that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its record, PENDING.
    pub(crate) record: Arc<RunRecord>,
    /// What it is to do.
    pub(crate) task: Arc<Task>,
    /// The policy in force.
    pub(crate) overlap: Overlap,
    /// Whether all live runs of the schedule are known to hold the one lock of this definition.
    pub(crate) is_alone: bool,
}

/// What is done if a run that is to be closed turns out to be PENDING: it was to run when a predecessor, or we, saw it
/// first, and its task may not be in the queue.
#[derive(Debug, Clone)]
pub(crate) enum IfPending {
    /// That decision stands, however late it has become.
    Publish(Box<Wanted>),
    /// It cannot run: it fails, for this reason.
    Reject(Reason, RunError),
}

/// A run on its way: into the ledger and its queue, into a line, or to its end.
#[derive(Debug)]
pub(crate) struct Dispatching {
    at: At,
    is_alone: bool,
    /// The record was made by another definition, which may have another lock: what was found of that says nothing of ours.
    is_of_another: bool,
}

#[derive(Debug)]
enum At {
    /// To create the record.
    Making(Box<Wanted>, TraceContext),
    /// To create the record of what will not run.
    Closing(Arc<RunRecord>, IfPending),
    /// To put the task into its queue: nobody goes past those who wait.
    Beginning(Placement),
    /// Somebody waits; but a run that is asked for again may lie in the queue already.
    LookingInQueue(Placement, Contending),
    Placing(Placement, Placing),
    /// Its parts are being made: it is no task itself.
    FanningOut,
    LiningUp(Box<LiningUp>),
    /// To end a run that no worker has had: its record as it ends, over this revision.
    Ending(Box<RunRecord>, u64),
    Over,
}

impl Dispatching {
    /// Creates the record of a run and publishes its task; both may have been done before.
    pub(crate) fn run(wanted: Wanted, trace: TraceContext) -> Self {
        let is_alone = wanted.is_alone;
        let mut wanted = wanted;
        Arc::make_mut(&mut wanted.record).trace_id = Some(trace.trace_id_text());
        Self { at: At::Making(Box::new(wanted), trace), is_alone, is_of_another: false }
    }

    /// Publishes the task of a record that is PENDING; it may have been done before.
    pub(crate) fn publish(placement: Placement) -> Self {
        let is_alone = placement.is_alone;
        Self { at: At::Beginning(placement), is_alone, is_of_another: false }
    }

    /// Records a run that will never be dispatched. `closed` is its record as it ends.
    pub(crate) fn close(closed: RunRecord, if_pending: IfPending) -> Self {
        let is_alone = matches!(&if_pending, IfPending::Publish(wanted) if wanted.is_alone);
        Self { at: At::Closing(Arc::new(closed), if_pending), is_alone, is_of_another: false }
    }

    /// Whether all live runs of the schedule are known to hold the one lock of the run's definition.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone && !self.is_of_another
    }

    fn begin(&mut self, now: Timestamp) -> Result<Next<Outcome>, DispatchError> {
        match std::mem::replace(&mut self.at, At::Over) {
            At::Making(wanted, trace) => {
                let ask = if planted!(TaskBeforeRecord) {
                    let due = DueTask { run: Arc::clone(&wanted.record), task: Arc::clone(&wanted.task) };
                    Ask::Publish { due, revision: 0, overlap: wanted.overlap, trace: None }
                } else {
                    Ask::CreateRecord(Arc::clone(&wanted.record))
                };
                self.at = At::Making(wanted, trace);
                Ok(Next::Ask(ask))
            }
            At::Closing(closed, if_pending) => {
                let ask = Ask::CreateRecord(Arc::clone(&closed));
                self.at = At::Closing(closed, if_pending);
                Ok(Next::Ask(ask))
            }
            At::Beginning(placement) => self.place_or_look(placement, now),
            At::Ending(ended, over) => {
                let ask = Ask::UpdateRecord { record: ended.clone(), over };
                self.at = At::Ending(ended, over);
                Ok(Next::Ask(ask))
            }
            at => Err(Unanswered(format!("begun in the middle: {at:?}")).into()),
        }
    }

    fn made(
        &mut self,
        wanted: Wanted,
        trace: TraceContext,
        creation: Creation,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        let Wanted { record, task, overlap, is_alone } = wanted;
        let wanted_by = record.definition_revision;
        let (run, revision, trace) = match creation {
            Creation::Created(revision) => (record, revision, Some(trace)),
            Creation::Exists(stored) if stored.value.status.is_final() && planted!(RecordMadeAnew) => {
                self.at = At::Ending(Box::new(Arc::unwrap_or_clone(record)), stored.revision);
                return self.begin(now);
            }
            // Made before, by us or by a predecessor. Past PENDING: a worker had it, so it was published.
            Creation::Exists(stored) if stored.value.status != RunState::Pending => {
                return Ok(Next::End(Outcome::Dispatched));
            }
            Creation::Exists(stored) => (Arc::new(stored.value), stored.revision, None),
        };
        let definition = run.definition_revision;
        self.is_of_another = definition != wanted_by;
        let is_alone = is_alone && !self.is_of_another;
        let due = DueTask { run, task };
        self.place_or_look(Placement { due, revision, overlap, definition, trace, is_alone }, now)
    }

    fn closed(
        &mut self,
        closed: &RunRecord,
        if_pending: IfPending,
        creation: Creation,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        let found = match creation {
            Creation::Created(_) => return Ok(Next::End(Outcome::Closed)),
            // Somebody accounted for it before us, perhaps otherwise: theirs counts.
            Creation::Exists(found) if found.value.status != RunState::Pending => {
                return Ok(Next::End(Outcome::Dispatched));
            }
            Creation::Exists(found) => found,
        };
        match if_pending {
            IfPending::Publish(wanted) => {
                let Wanted { task, overlap, is_alone, .. } = *wanted;
                let definition = found.value.definition_revision;
                self.is_of_another = definition != closed.definition_revision;
                let is_alone = is_alone && !self.is_of_another;
                let due = DueTask { run: Arc::new(found.value), task };
                let revision = found.revision;
                self.place_or_look(
                    Placement { due, revision, overlap, definition, trace: None, is_alone },
                    now,
                )
            }
            IfPending::Reject(reason, error) => {
                let at = closed.created_at;
                self.finish(&found.value, found.revision, RunEvent::Rejected, reason, Some(error), at)
            }
        }
    }

    fn place_or_look(
        &mut self,
        placement: Placement,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        if placement.due.run.shards.is_some() {
            self.at = At::FanningOut;
            let Placement { due, revision, overlap, .. } = placement;
            return Ok(Next::Ask(Ask::FanOut { due, revision, overlap }));
        }
        if placement.overlap.waiting_max() == 0 {
            return self.place(placement, now);
        }
        let ask = Ask::ReadLine(placement.due.run.id.name.clone());
        self.at = At::Beginning(placement);
        Ok(Next::Ask(ask))
    }

    fn place(&mut self, placement: Placement, now: Timestamp) -> Result<Next<Outcome>, DispatchError> {
        let placing = Placing::new(placement.clone());
        self.go_on_placing(placement, placing, None, now)
    }

    fn go_on_placing(
        &mut self,
        placement: Placement,
        mut placing: Placing,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        let next = placing.step(answer, now);
        self.is_alone = placing.is_alone();
        let placed = match next {
            Next::Ask(ask) => {
                self.at = At::Placing(placement, placing);
                return Ok(Next::Ask(ask));
            }
            Next::End(placed) => placed?,
        };
        match placed {
            Placed::Queued => Ok(Next::End(Outcome::Dispatched)),
            Placed::Refused(why) => {
                let error = RunError::new(ErrorKind::Malformed, why);
                let (rejected, reason) = (RunEvent::Rejected, Reason::Malformed);
                self.finish(&placement.due.run, placement.revision, rejected, reason, Some(error), now)
            }
            Placed::Held(_) if placement.overlap.waiting_max() > 0 => self.line_up(placement, now),
            Placed::Held(_) => {
                let reason = Reason::SkippedOverlap;
                self.finish(&placement.due.run, placement.revision, RunEvent::Skipped, reason, None, now)
            }
        }
    }

    fn look_in_queue(
        &mut self,
        placement: Placement,
        mut contending: Contending,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        match contending.step(answer, now) {
            Next::Ask(ask) => {
                self.at = At::LookingInQueue(placement, contending);
                Ok(Next::Ask(ask))
            }
            Next::End(found) => match found? {
                Contention::Ours => Ok(Next::End(Outcome::Dispatched)),
                _ => self.line_up(placement, now),
            },
        }
    }

    fn line_up(&mut self, placement: Placement, now: Timestamp) -> Result<Next<Outcome>, DispatchError> {
        let Placement { due, revision, overlap, .. } = placement;
        let lining_up = Box::new(LiningUp::new(Arc::unwrap_or_clone(due.run), revision, overlap));
        self.go_on_lining_up(lining_up, None, now)
    }

    fn go_on_lining_up(
        &mut self,
        mut lining_up: Box<LiningUp>,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        match lining_up.step(answer, now) {
            Next::Ask(ask) => {
                self.at = At::LiningUp(lining_up);
                Ok(Next::Ask(ask))
            }
            Next::End(end) => end.map(Next::End),
        }
    }

    fn finish(
        &mut self,
        record: &RunRecord,
        over: u64,
        event: RunEvent,
        reason: Reason,
        error: Option<RunError>,
        now: Timestamp,
    ) -> Result<Next<Outcome>, DispatchError> {
        let Some(ended) = ended(record, event, reason, error, now) else {
            return Ok(Next::End(Outcome::Dispatched));
        };
        self.at = At::Ending(Box::new(ended), over);
        self.begin(now)
    }

    fn go_on(&mut self, answer: Option<Answer>, now: Timestamp) -> Result<Next<Outcome>, DispatchError> {
        let Some(answer) = answer else { return self.begin(now) };
        match std::mem::replace(&mut self.at, At::Over) {
            At::Making(wanted, trace)
                if matches!(answer, Answer::Published(_)) && planted!(TaskBeforeRecord) =>
            {
                let ask = Ask::CreateRecord(Arc::clone(&wanted.record));
                self.at = At::Making(wanted, trace);
                Ok(Next::Ask(ask))
            }
            At::Making(wanted, trace) => {
                let creation = wants!(answer, Answer::Created(creation) => creation);
                self.made(*wanted, trace, creation, now)
            }
            At::Closing(closed, if_pending) => {
                let creation = wants!(answer, Answer::Created(creation) => creation);
                self.closed(&closed, if_pending, creation, now)
            }
            At::Beginning(placement) => {
                let waiting = wants!(answer, Answer::Line(line) => line.runs);
                let run = &placement.due.run.id;
                if waiting.is_empty() {
                    self.place(placement, now)
                } else if waiting.contains(run) {
                    self.line_up(placement, now)
                } else {
                    let contending = Contending::new(run.clone());
                    self.look_in_queue(placement, contending, None, now)
                }
            }
            At::LookingInQueue(placement, contending) => {
                self.look_in_queue(placement, contending, Some(answer), now)
            }
            At::Placing(placement, placing) => self.go_on_placing(placement, placing, Some(answer), now),
            At::FanningOut => {
                let runs = wants!(answer, Answer::Is(runs) => runs);
                Ok(Next::End(if runs { Outcome::Dispatched } else { Outcome::Closed }))
            }
            At::LiningUp(lining_up) => self.go_on_lining_up(lining_up, Some(answer), now),
            At::Ending(..) => Ok(Next::End(match wants!(answer, Answer::Updated(update) => update) {
                Update::Stored(_) => Outcome::Closed,
                // A worker or another planner moved it on.
                Update::Stale => Outcome::Dispatched,
            })),
            At::Over => Err(answer.unexpected().into()),
        }
    }
}

impl Flow for Dispatching {
    type End = Result<Outcome, DispatchError>;

    fn step(&mut self, answer: Option<Answer>, now: Timestamp) -> Next<Self::End> {
        Next::of(self.go_on(answer, now))
    }
}

/// The record of a run that no worker has had, as it ends; none if it cannot end so any more.
pub(crate) fn ended(
    record: &RunRecord,
    event: RunEvent,
    reason: Reason,
    error: Option<RunError>,
    now: Timestamp,
) -> Option<RunRecord> {
    let ended = record.apply(event, now).ok()?;
    Some(RunRecord { error, ..ended.because(reason) })
}

/// The record of a run that never was, as it ends: what the change of its state leaves out, a note that came with the
/// record, belongs to the reason.
pub(crate) fn closed(
    record: &RunRecord,
    event: RunEvent,
    reason: Reason,
    error: Option<RunError>,
) -> Option<RunRecord> {
    let closed = ended(record, event, reason, error, record.created_at)?;
    Some(RunRecord { note: record.note.clone(), ..closed })
}
