//! The server as planning meets it, in memory: what every [`Ask`] is answered, without a server.
//!
//! It is exact where planning looks: revisions are the sequences of one stream for each bucket (seats, leases, cursors and
//! lines share one), a write over another revision changes nothing, a subject of the task queue takes one message. That it
//! is so the conformance suite shows, which asks it and a real server the same ([`conformance`]).
//!
//! It knows no time of its own, loses nothing and answers at once. Whatever a network, a slow or an absent server do to an
//! answer is left to who asks.
//!
//! | file | what is in it |
//! |---|---|
//! | `bucket.rs` | keys, revisions, history |
//! | `queue.rs` | the task queue, and the locks in it |
//! | `records.rs` | the ledger |
//! | `planners.rs` | seats, leases, cursors and lines |
//! | `definitions.rs` | schedules with their pauses, and the catalog |

mod bucket;
mod definitions;
mod planners;
mod queue;
pub(crate) mod random;
mod records;

#[cfg(feature = "model")]
pub mod conformance;

use std::collections::BTreeSet;

use shared::{Timestamp, run::RunId, run_state::RunState};
use streams::{cancel::CancelRequest, ledger::Update};

#[cfg(test)]
pub(crate) use self::queue::Message;
use self::{definitions::Definitions, planners::Planners, queue::TaskQueue, records::Records};
use crate::machine::ask::{Answer, Ask};

/// The server.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) records: Records,
    pub(crate) planners: Planners,
    pub(crate) definitions: Definitions,
    pub(crate) tasks: TaskQueue,
    /// The runs with a dead letter.
    pub(crate) dead: BTreeSet<RunId>,
}

impl Store {
    /// Does what is asked for, and answers, as [`crate::perform`] does with a real server. `now` is the server's clock.
    pub(crate) fn perform(&mut self, ask: &Ask, now: Timestamp) -> Answer {
        match ask {
            Ask::CreateRecord(record) => Answer::Created(self.records.create(record, now)),
            Ask::UpdateRecord { record, over } => Answer::Updated(self.records.update(record, *over, now)),
            Ask::ReadRecord(run) => Answer::Record(self.records.get(run).map(Box::new)),
            Ask::Publish { due, overlap, .. } => self.tasks.publish(due, *overlap, now),
            Ask::FindLive => Answer::Schedules(Some(self.tasks.live_schedules())),
            Ask::FindHolder(schedule) => Answer::Holder(self.tasks.newest_of(schedule)),
            Ask::IsBuried(record) => Answer::Is(self.dead.contains(&record.id)),
            Ask::RemoveTask(sequence) => {
                self.tasks.remove(*sequence);
                Answer::Done
            }
            Ask::ReadLine(schedule) => Answer::Line(self.planners.line(schedule)),
            Ask::WriteLine { schedule, runs, over } => {
                Answer::Updated(self.planners.write_line(schedule, runs, *over, now))
            }
            Ask::IsDeclared(queue) => Answer::Is(self.tasks.is_declared(queue)),
            Ask::ReadCalendar(calendar) => {
                Answer::Calendar(self.definitions.calendars.get(calendar).cloned())
            }
            Ask::PauseRevision(name) => Answer::Revision(self.definitions.pause_revision(name)),
            Ask::ReadPauses(name) => Answer::Pauses(self.definitions.pauses(name)),
            Ask::ReadDefinition(name) => Answer::Definition(self.definitions.in_force(name)),
            Ask::ReadVersion(name, revision) => {
                Answer::Version(self.definitions.at(name, *revision).map(Box::new))
            }
            // Nobody asks for a run by hand here.
            Ask::ReadWish(_) => Answer::Wish(None),
            Ask::Cancel(request) => Answer::Is(self.cancel(request, now)),
            Ask::ReadHistory(name) => Answer::Versions(self.definitions.history(name)),
            Ask::ReadHistories(partition) => Answer::Versions(self.definitions.histories(*partition)),
            Ask::ReadCursor(partition) => Answer::Cursor(self.planners.cursor(*partition)),
            Ask::WriteCursor { partition, cursor, over } => {
                Answer::Updated(self.planners.write_cursor(*partition, cursor, *over, now))
            }
            Ask::Wait(_) => Answer::Done,
            // The parts of runs are not in here: whoever needs them must know.
            Ask::FanOut { .. } => Answer::Failed("the model knows no sharded runs".to_owned()),
        }
    }

    /// Ends a run that no worker is at, and takes its task out of the queue. Whether it is over.
    fn cancel(&mut self, request: &CancelRequest, now: Timestamp) -> bool {
        let Some(found) = self.records.get(&request.run) else { return false };
        if found.value.status.is_final() {
            return true;
        }
        if found.value.status == RunState::Running {
            return false;
        }
        let Ok(cancelled) = request.end(&found.value, now) else { return false };
        let is_over = matches!(self.records.update(&cancelled, found.revision, now), Update::Stored(_));
        if is_over {
            self.tasks.remove_run(&request.run);
        }
        is_over
    }
}
