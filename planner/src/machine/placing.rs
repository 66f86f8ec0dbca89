//! Putting a run's task into its queue: under its schedule's lock, or, if runs may overlap, under a subject of its own.
//!
//! The lock is one subject in the task queue, on which the server takes one task.

use shared::{Timestamp, schedule::Overlap, trace::TraceContext};
use streams::tasks::{DueTask, Holder};

use super::{
    ask::{Answer, Ask, Flow, Next, Publishing, wants},
    contending::{Contending, Contention},
};
use crate::{dispatch::DispatchError, planted::planted};

/// Looks at a contended lock before the slot is left for later.
const LOCK_LOOKS_MAX: u32 = 60;

/// What came of putting a run's task into the queue.
#[derive(Debug, PartialEq)]
pub(crate) enum Placed {
    /// It is there, or was.
    Queued,
    /// Another run of the schedule is queued, running, or waits for its next attempt.
    Held(Holder),
    /// No stream takes this task, now or later; why.
    Refused(String),
}

/// A run that is to be put into its queue.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    /// The run and its task.
    pub(crate) due: DueTask,
    /// The revision of its record.
    pub(crate) revision: u64,
    /// The policy in force.
    pub(crate) overlap: Overlap,
    /// The revision of the definition whose queue and overlap these are.
    pub(crate) definition: Option<u64>,
    /// Its place in its trace.
    pub(crate) trace: Option<TraceContext>,
    /// Whether all live runs of the schedule are known to hold the one lock of this definition.
    pub(crate) is_alone: bool,
}

/// A run on its way into its queue.
#[derive(Debug)]
pub(crate) struct Placing {
    placement: Placement,
    looks: u32,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Whether another run is queued or running under *another* subject: from before its queue or its overlap was
    /// changed. Once that was found not to be it stays so: all later runs hold the one lock.
    LookingForOthers,
    Publishing,
    Contending(Contending),
}

impl Placing {
    pub(crate) fn new(placement: Placement) -> Self {
        Self { placement, looks: 0, at: At::LookingForOthers }
    }

    /// Whether all live runs of the schedule are known to hold its one lock.
    pub(crate) fn is_alone(&self) -> bool {
        self.placement.is_alone
    }

    fn begin(&mut self) -> Next<Placed> {
        let Placement { due, overlap, definition, is_alone, .. } = &self.placement;
        let is_alone = *is_alone || planted!(LockOfOtherQueueForgotten);
        if overlap.is_exclusive() && definition.is_some() && !is_alone {
            self.at = At::LookingForOthers;
            return Next::Ask(Ask::FindHolder(due.run.id.name.clone()));
        }
        self.publish()
    }

    fn publish(&mut self) -> Next<Placed> {
        let Placement { due, revision, overlap, trace, .. } = self.placement.clone();
        self.at = At::Publishing;
        Next::Ask(Ask::Publish { due, revision, overlap, trace })
    }

    fn found_others(
        &mut self,
        holder: Option<Holder>,
        now: Timestamp,
    ) -> Result<Next<Placed>, DispatchError> {
        match holder {
            // A message that names no run is no planner's: if it lies in our way, the publish says so.
            Some(Holder { run: None, .. }) => Ok(self.publish()),
            Some(holder) if holder.run.as_ref() != Some(&self.placement.due.run.id) => self.contend(now),
            _ => {
                self.placement.is_alone = true;
                Ok(self.publish())
            }
        }
    }

    fn published(&mut self, published: Publishing, now: Timestamp) -> Result<Next<Placed>, DispatchError> {
        match published {
            Publishing::Stored => Ok(Next::End(Placed::Queued)),
            // The subject of a run that may overlap is its own: whatever is there, it is this run.
            Publishing::Occupied if !self.placement.overlap.is_exclusive() => Ok(Next::End(Placed::Queued)),
            Publishing::Occupied => self.contend(now),
            // Trying again would not make it smaller or better.
            Publishing::Never(why) => Ok(Next::End(Placed::Refused(why))),
        }
    }

    fn contend(&mut self, now: Timestamp) -> Result<Next<Placed>, DispatchError> {
        let contending = Contending::new(self.placement.due.run.id.clone());
        self.go_on_contending(contending, None, now)
    }

    fn go_on_contending(
        &mut self,
        mut contending: Contending,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Next<Placed>, DispatchError> {
        match contending.step(answer, now) {
            Next::Ask(ask) => {
                self.at = At::Contending(contending);
                Ok(Next::Ask(ask))
            }
            Next::End(found) => match found? {
                Contention::Ours => Ok(Next::End(Placed::Queued)),
                Contention::Held(holder) => Ok(Next::End(Placed::Held(holder))),
                Contention::Free | Contention::Freed if self.looks < LOCK_LOOKS_MAX => {
                    self.looks += 1;
                    Ok(self.begin())
                }
                Contention::Free | Contention::Freed | Contention::ToBeBuried => {
                    Err(DispatchError::Contended(self.placement.due.run.id.name.clone()))
                }
            },
        }
    }

    fn go_on(&mut self, answer: Option<Answer>, now: Timestamp) -> Result<Next<Placed>, DispatchError> {
        let Some(answer) = answer else { return Ok(self.begin()) };
        match std::mem::replace(&mut self.at, At::Publishing) {
            At::LookingForOthers => {
                let holder = wants!(answer, Answer::Holder(holder) => holder);
                self.found_others(holder, now)
            }
            At::Publishing => {
                let published = wants!(answer, Answer::Published(published) => published);
                self.published(published, now)
            }
            At::Contending(contending) => self.go_on_contending(contending, Some(answer), now),
        }
    }
}

impl Flow for Placing {
    type End = Result<Placed, DispatchError>;

    fn step(&mut self, answer: Option<Answer>, now: Timestamp) -> Next<Self::End> {
        Next::of(self.go_on(answer, now))
    }
}
