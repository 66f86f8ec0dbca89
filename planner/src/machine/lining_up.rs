//! Putting a run at the end of its schedule's line, if one more may wait. Record first, then line: a crash in between
//! leaves a slot that is not accounted for, or a wish that is not answered, and so is done again.

use shared::{
    Timestamp,
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::Overlap,
};
use streams::{ledger::Update, lines::Line};

use super::{
    ask::{Answer, Ask, Flow, Next, wants},
    dispatching::ended,
};
use crate::{
    dispatch::{DispatchError, Outcome},
    lines::{Standing, stand},
};

/// Writes to a line, each over a newer one, before the slot is left for later.
const LINE_WRITES_MAX: u32 = 10;

/// A run on its way into a line.
#[derive(Debug)]
pub(crate) struct LiningUp {
    record: RunRecord,
    revision: u64,
    overlap: Overlap,
    looks: u32,
    at: At,
}

#[derive(Debug)]
enum At {
    Looking,
    /// Writing into its record that it waits; the line with it and the line's revision.
    Marking(Box<RunRecord>, Line),
    Joining,
    /// There is no place for it.
    Skipping,
    /// Somebody wrote its record meanwhile: reading what it says now.
    Rereading,
}

impl LiningUp {
    /// A run whose record is PENDING under this revision.
    pub(crate) fn new(record: RunRecord, revision: u64, overlap: Overlap) -> Self {
        Self { record, revision, overlap, looks: 0, at: At::Looking }
    }

    fn look(&mut self) -> Result<Next<Outcome>, DispatchError> {
        self.looks += 1;
        if self.looks > LINE_WRITES_MAX {
            return Err(DispatchError::Contended(self.record.id.name.clone()));
        }
        self.at = At::Looking;
        Ok(Next::Ask(Ask::ReadLine(self.record.id.name.clone())))
    }

    fn found(&mut self, line: &Line, now: Timestamp) -> Next<Outcome> {
        let place = match stand(&line.runs, &self.record.id, self.overlap.waiting_max()) {
            Standing::Stands => return Next::End(Outcome::Waits),
            Standing::Full => {
                let error = RunError::new(ErrorKind::Overlap, full(self.overlap, line.runs.len()));
                let (skipped, reason) = (RunEvent::Skipped, Reason::SkippedOverlap);
                let Some(ended) = ended(&self.record, skipped, reason, Some(error), now) else {
                    return Next::End(Outcome::Dispatched);
                };
                self.at = At::Skipping;
                return Next::Ask(Ask::UpdateRecord { record: Box::new(ended), over: self.revision });
            }
            Standing::Joins(runs) => Line { runs, revision: line.revision },
        };
        if self.record.reason == Some(Reason::Buffered) {
            return self.join(place);
        }
        let Ok(waits) = self.record.apply(RunEvent::Buffered, now) else {
            return Next::End(Outcome::Dispatched);
        };
        let waits = Box::new(waits.because(Reason::Buffered));
        self.at = At::Marking(waits.clone(), place);
        Next::Ask(Ask::UpdateRecord { record: waits, over: self.revision })
    }

    fn join(&mut self, place: Line) -> Next<Outcome> {
        self.at = At::Joining;
        let schedule = self.record.id.name.clone();
        Next::Ask(Ask::WriteLine { schedule, runs: place.runs, over: place.revision })
    }

    fn go_on(&mut self, answer: Option<Answer>, now: Timestamp) -> Result<Next<Outcome>, DispatchError> {
        let Some(answer) = answer else { return self.look() };
        if let At::Rereading = self.at {
            return match wants!(answer, Answer::Record(record) => record) {
                // A predecessor of ours, whose write was late: it waits, and may stand nowhere.
                Some(found) if found.value.status == RunState::Pending => {
                    (self.record, self.revision) = (found.value, found.revision);
                    self.look()
                }
                // It was cancelled, or another planner was faster.
                _ => Ok(Next::End(Outcome::Dispatched)),
            };
        }
        let update = match (std::mem::replace(&mut self.at, At::Looking), answer) {
            (At::Looking, answer) => {
                let line = wants!(answer, Answer::Line(line) => line);
                return Ok(self.found(&line, now));
            }
            (at, answer) => {
                self.at = at;
                wants!(answer, Answer::Updated(update) => update)
            }
        };
        match (std::mem::replace(&mut self.at, At::Looking), update) {
            (At::Marking(record, place), Update::Stored(revision)) => {
                (self.record, self.revision) = (*record, revision);
                Ok(self.join(place))
            }
            (At::Joining, Update::Stored(_)) => Ok(Next::End(Outcome::Waits)),
            (At::Skipping, Update::Stored(_)) => Ok(Next::End(Outcome::Closed)),
            (At::Marking(..) | At::Skipping, Update::Stale) => {
                self.at = At::Rereading;
                Ok(Next::Ask(Ask::ReadRecord(self.record.id.clone())))
            }
            // Somebody came or went meanwhile.
            (At::Joining | At::Looking | At::Rereading, _) => self.look(),
        }
    }
}

impl Flow for LiningUp {
    type End = Result<Outcome, DispatchError>;

    fn step(&mut self, answer: Option<Answer>, now: Timestamp) -> Next<Self::End> {
        Next::of(self.go_on(answer, now))
    }
}

fn full(overlap: Overlap, waiting: usize) -> String {
    let overlap_word = overlap.as_str();
    format!(
        "{waiting} run(s) of the schedule wait for the one that runs; with overlap {overlap_word} at most {} may: make \
         the task quicker, or its slots fewer",
        overlap.waiting_max()
    )
}
