//! What planning asks of the outside, and what it is answered: every effect it has is one of these, and nothing else.
//!
//! Each may be asked again. A write whose answer was lost may have happened: whoever asks takes that into account.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use shared::{
    calendar::Calendar,
    names::{CalendarName, Name, QueueName},
    pause::PauseEpoch,
    run::RunId,
    run_record::RunRecord,
    schedule::{Overlap, Schedule},
    trace::TraceContext,
};
use streams::{
    bucket::Stored,
    cancel::CancelRequest,
    leases::Cursor,
    ledger::{Creation, Update},
    lines::Line,
    schedules::Version,
    tasks::{DueTask, Holder},
};

/// One thing that planning asks for. What decides is read from the leader.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// Create the record of a run, once. Answered by [`Answer::Created`].
    CreateRecord(Arc<RunRecord>),
    /// Write a record over exactly this revision. Answered by [`Answer::Updated`].
    UpdateRecord {
        /// The record as it is to be.
        record: Box<RunRecord>,
        /// The revision it is written over.
        over: u64,
    },
    /// The record of a run. Answered by [`Answer::Record`].
    ReadRecord(RunId),
    /// Put a run's task into its queue. Answered by [`Answer::Published`].
    Publish {
        /// The run and its task.
        due: DueTask,
        /// The revision of its record, by which its first claim needs no read.
        revision: u64,
        /// Whether its subject is its schedule's lock, or its own.
        overlap: Overlap,
        /// Its place in its trace.
        trace: Option<TraceContext>,
    },
    /// Make the parts of a sharded run. Answered by [`Answer::Is`]: whether it runs, and was not skipped.
    FanOut {
        /// The whole and its task.
        due: DueTask,
        /// The revision of its record.
        revision: u64,
        /// The policy in force.
        overlap: Overlap,
    },
    /// The newest task of a schedule that is queued or running. Answered by [`Answer::Holder`].
    FindHolder(Name),
    /// The schedules of which a run is queued or running. Answered by [`Answer::Schedules`].
    FindLive,
    /// Whether a failed run has its dead letter. Answered by [`Answer::Is`].
    IsBuried(Box<RunRecord>),
    /// Take the message of a run that has ended out of the queue. Answered by [`Answer::Done`].
    RemoveTask(u64),
    /// The runs that wait for a schedule's lock. Answered by [`Answer::Line`].
    ReadLine(Name),
    /// Write a line over exactly this revision. Answered by [`Answer::Updated`].
    WriteLine {
        /// Whose line.
        schedule: Name,
        /// Who stands in it, in order.
        runs: Vec<RunId>,
        /// The revision it is written over.
        over: u64,
    },
    /// Whether a queue is declared. Answered by [`Answer::Is`].
    IsDeclared(QueueName),
    /// A calendar. Answered by [`Answer::Calendar`].
    ReadCalendar(CalendarName),
    /// The revision of what was last said of a schedule's pause. Answered by [`Answer::Revision`].
    PauseRevision(Name),
    /// All that was said of a schedule's pause. Answered by [`Answer::Pauses`].
    ReadPauses(Name),
    /// The definition of a schedule in force now. Answered by [`Answer::Definition`].
    ReadDefinition(Name),
    /// One version of a schedule, by its revision. Answered by [`Answer::Version`].
    ReadVersion(Name, u64),
    /// The parameters with which a run was asked for by hand. Answered by [`Answer::Wish`].
    ReadWish(RunId),
    /// Have a run cancelled. Answered by [`Answer::Is`]: whether it is over.
    Cancel(Box<CancelRequest>),
    /// All versions of a schedule. Answered by [`Answer::Versions`].
    ReadHistory(Name),
    /// All versions of all schedules of a partition. Answered by [`Answer::Versions`].
    ReadHistories(u16),
    /// A partition's cursor. Answered by [`Answer::Cursor`].
    ReadCursor(u16),
    /// Write a cursor over exactly this revision. Answered by [`Answer::Updated`].
    WriteCursor {
        /// Whose cursor.
        partition: u16,
        /// What it is to say.
        cursor: Cursor,
        /// The revision it is written over.
        over: u64,
    },
    /// Nothing, for a while. Answered by [`Answer::Done`].
    Wait(Duration),
}

/// What came of putting a task into its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Publishing {
    /// It is there.
    Stored,
    /// Its subject is taken: by itself, or by another run under the same lock.
    Occupied,
    /// No stream takes this task, now or later; why.
    Never(String),
}

/// The definition of a schedule in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Definition {
    /// It was deleted.
    None,
    /// It says this, under this revision.
    Known(Box<Schedule>, u64),
    /// Nobody understands what it says.
    Unreadable,
}

impl Definition {
    pub(crate) fn schedule(&self) -> Option<&Schedule> {
        match self {
            Definition::Known(schedule, _) => Some(schedule),
            Definition::None | Definition::Unreadable => None,
        }
    }

    pub(crate) fn revision(&self) -> Option<u64> {
        match self {
            Definition::Known(_, revision) => Some(*revision),
            Definition::None | Definition::Unreadable => None,
        }
    }
}

/// A cursor as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorFound {
    /// Nobody ever wrote one.
    None,
    /// It says this, under this revision.
    Cursor(Cursor, u64),
    /// Nobody understands what it says.
    Corrupt(u64),
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Of a creation.
    Created(Creation),
    /// Of a compare-and-set.
    Updated(Update),
    /// A record; none if there is none, or a stranger's writing in its place.
    Record(Option<Box<Stored<RunRecord>>>),
    /// Of a publish.
    Published(Publishing),
    /// Who holds a lock.
    Holder(Option<Holder>),
    /// Schedules; none if they are too many to be told.
    Schedules(Option<BTreeSet<Name>>),
    /// Yes or no.
    Is(bool),
    /// A line.
    Line(Line),
    /// A calendar, if it is declared.
    Calendar(Option<Calendar>),
    /// A revision.
    Revision(u64),
    /// A definition.
    Definition(Definition),
    /// A version of a schedule; none if the history does not reach back to it any more, or nobody understands it.
    Version(Option<Box<Schedule>>),
    /// Parameters; none if the audit does not reach back to them any more.
    Wish(Option<Map<String, Value>>),
    /// What was said of a pause, oldest first.
    Pauses(Vec<PauseEpoch>),
    /// Versions of definitions, oldest first.
    Versions(Vec<Version>),
    /// A cursor.
    Cursor(CursorFound),
    /// It is done.
    Done,
    /// It was not done, or nobody knows: why.
    Failed(String),
}

/// An ask that was not answered with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unanswered(pub(crate) String);

impl Answer {
    /// Why this answer does not help whoever expected another.
    pub(crate) fn unexpected(self) -> Unanswered {
        Unanswered(match self {
            Answer::Failed(why) => why,
            other => format!("an answer to another question came: {other:?}"),
        })
    }
}

/// Takes what an answer must hold out of it, or returns why it holds something else.
macro_rules! wants {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => $value,
            other => return Err(other.unexpected().into()),
        }
    };
}
pub(crate) use wants;

/// A course of asks and answers that comes to an end.
pub(crate) trait Flow {
    /// What it ends with.
    type End;

    /// Goes on with the answer to its latest ask; none to begin with.
    fn step(&mut self, answer: Option<Answer>, now: shared::Timestamp) -> Next<Self::End>;
}

impl<F: Flow> Flow for &mut F {
    type End = F::End;

    fn step(&mut self, answer: Option<Answer>, now: shared::Timestamp) -> Next<Self::End> {
        (**self).step(answer, now)
    }
}

/// How a course goes on.
#[derive(Debug)]
pub(crate) enum Next<End> {
    /// It asks, and goes on with the answer.
    Ask(Ask),
    /// It has come to its end.
    End(End),
}

impl<Good> Next<Good> {
    /// How a course goes on whose way to its end may fail.
    pub(crate) fn of<Bad>(gone_on: Result<Next<Good>, Bad>) -> Next<Result<Good, Bad>> {
        match gone_on {
            Ok(Next::Ask(ask)) => Next::Ask(ask),
            Ok(Next::End(end)) => Next::End(Ok(end)),
            Err(bad) => Next::End(Err(bad)),
        }
    }
}
