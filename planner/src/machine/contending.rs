//! Who is in the way of a run under its schedule's lock, and helping what has ended out of it.

use std::time::Duration;

use chrono::TimeDelta;
use shared::{Timestamp, run::RunId, run_record::RunRecord, run_state::RunState};
use streams::{bucket::Stored, tasks::Holder};

use super::ask::{Answer, Ask, Flow, Next, Unanswered, wants};

/// A task younger than this is not removed when its run is found ended: on three replicas the removal of an acknowledged
/// message is a moment behind its ack. A worker that died in between leaves it for the acknowledge wait.
const LOCK_LINGER: TimeDelta = TimeDelta::milliseconds(500);
/// Between two looks at a lock whose holder is on its way out.
const LOCK_LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Who is in the way of a run.
#[derive(Debug, PartialEq)]
pub(crate) enum Contention {
    /// Nobody.
    Free,
    /// It is there itself.
    Ours,
    /// Another run of its schedule.
    Held(Holder),
    /// Somebody was, and is on the way out: look again.
    Freed,
    /// One that has failed, and is held until its dead letter is stored: look again later. That takes as long as its
    /// worker needs, or the acknowledge wait if it died.
    ToBeBuried,
}

/// One look at who holds a lock.
#[derive(Debug)]
pub(crate) struct Contending {
    run: RunId,
    at: At,
}

#[derive(Debug)]
enum At {
    Looking,
    /// Reading the record of who holds it.
    Judging(Holder),
    /// Asking whether the failed holder's dead letter is stored: its message is all there is to make it from.
    AskingForDeadLetter(Holder),
    /// The holder has ended and its message may still be on its way out: it gets a moment before it is helped.
    Waiting(Holder),
    Removing,
}

impl Contending {
    /// Looks who is in the way of this run.
    pub(crate) fn new(run: RunId) -> Self {
        Self { run, at: At::Looking }
    }

    fn found(&mut self, holder: Option<Holder>) -> Next<Contention> {
        let Some(holder) = holder else { return Next::End(Contention::Free) };
        match &holder.run {
            Some(run) if *run == self.run => Next::End(Contention::Ours),
            Some(run) => {
                let ask = Ask::ReadRecord(run.clone());
                self.at = At::Judging(holder);
                Next::Ask(ask)
            }
            // A message that names no run holds the lock, and nobody can say for how long.
            None => Next::End(Contention::Held(holder)),
        }
    }

    fn judge(&mut self, holder: Holder, record: Option<Box<Stored<RunRecord>>>) -> Next<Contention> {
        // A holder that the ledger does not know is thought to live: its worker replaces a record that is none.
        let Some(record) = record else { return Next::End(Contention::Held(holder)) };
        match record.value.status {
            RunState::Pending | RunState::Running | RunState::Retry => Next::End(Contention::Held(holder)),
            RunState::Failed => {
                self.at = At::AskingForDeadLetter(holder);
                Next::Ask(Ask::IsBuried(Box::new(record.value)))
            }
            RunState::Success | RunState::Cancelled => self.wait(holder),
        }
    }

    fn wait(&mut self, holder: Holder) -> Next<Contention> {
        self.at = At::Waiting(holder);
        Next::Ask(Ask::Wait(LOCK_LOOK_AGAIN))
    }

    fn help(&mut self, holder: &Holder, now: Timestamp) -> Next<Contention> {
        if now - holder.since <= LOCK_LINGER {
            return Next::End(Contention::Freed);
        }
        self.at = At::Removing;
        Next::Ask(Ask::RemoveTask(holder.sequence))
    }

    fn go_on(&mut self, answer: Option<Answer>, now: Timestamp) -> Result<Next<Contention>, Unanswered> {
        let Some(answer) = answer else { return Ok(Next::Ask(Ask::FindHolder(self.run.name.clone()))) };
        Ok(match std::mem::replace(&mut self.at, At::Looking) {
            At::Looking => self.found(wants!(answer, Answer::Holder(holder) => holder)),
            At::Judging(holder) => self.judge(holder, wants!(answer, Answer::Record(record) => record)),
            At::AskingForDeadLetter(holder) => {
                let is_buried = wants!(answer, Answer::Is(buried) => buried);
                if is_buried { self.wait(holder) } else { Next::End(Contention::ToBeBuried) }
            }
            At::Waiting(holder) => wants!(answer, Answer::Done => self.help(&holder, now)),
            At::Removing => wants!(answer, Answer::Done => Next::End(Contention::Freed)),
        })
    }
}

impl Flow for Contending {
    type End = Result<Contention, Unanswered>;

    fn step(&mut self, answer: Option<Answer>, now: Timestamp) -> Next<Self::End> {
        Next::of(self.go_on(answer, now))
    }
}
