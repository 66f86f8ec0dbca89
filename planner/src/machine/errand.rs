//! The slots of one schedule that are due, accounted for in their order, up to the first that fails or waits its turn.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shared::{
    Timestamp,
    names::{MemberId, Name, QueueName},
    pause::{PauseEpoch, pause_at},
    run_record::{ErrorKind, Reason, RunError, RunRecord},
    run_state::RunEvent,
    trace::TraceContext,
};

use super::{
    Note, Now,
    alone::Alone,
    ask::{Answer, Ask, Flow, Next, wants},
    dispatching::{Dispatching, IfPending, Wanted, closed},
};
use crate::{
    book::{Book, DueSlots},
    catch_up::Allowance,
    dispatch::{DispatchError, Outcome, describe, undeclared},
    due::Due,
    missed::{Days, Decision, decide, was_missed},
    pauses::Pauses,
    planted::planted,
};

/// What an errand looks up in memory.
pub(super) struct Known<'a> {
    pub(super) me: &'a MemberId,
    pub(super) book: &'a Book,
    pub(super) pauses: &'a Pauses,
    pub(super) alone: &'a Alone,
}

impl<'a> Known<'a> {
    fn is_alone(&self, name: &Name, due: &Due) -> bool {
        self.book.newest_revision(name) == Some(due.revision) && self.alone.is_known(name, due)
    }

    fn days(&self, due: &Due) -> Days<'a> {
        let calendar = due.schedule.calendar.as_ref();
        calendar.map_or(Days::Every, |calendar| Days::of(self.book.calendars.get(calendar)))
    }
}

/// What was done for one schedule.
#[derive(Debug)]
pub(super) struct Accounted {
    /// Every slot up to here has its record.
    pub(super) upto: Timestamp,
    /// What went wrong, if something did, and how many slots wait for it, the first of them since when.
    pub(super) failed: Option<(String, usize, Timestamp)>,
    pub(super) allowed: Allowance,
    /// Missed slots that were run.
    pub(super) caught_up: u32,
    /// Some are left for later.
    pub(super) some_wait: bool,
    /// The revision of its definition of which no run is under another lock.
    pub(super) alone: Option<u64>,
}

/// The due slots of one schedule on their way.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) name: Name,
    pub(super) begun_at: Duration,
    slots: Vec<Due>,
    /// When all slots are accounted for, the schedule is up to here.
    upto: Timestamp,
    index: usize,
    /// Whether the present slot is a missed one that runs after all.
    catches_up: bool,
    /// Since when a newer definition is in force, if one came meanwhile.
    cut_at: Option<Timestamp>,
    at: At,
    done: Accounted,
}

#[derive(Debug)]
enum At {
    Deciding,
    /// Whether we know the newest word on its pause. What the watch tells late must not skip a slot for good.
    CheckingPause,
    ReadingPauses,
    /// The calendar as the leader has it, for the same reason.
    ReadingCalendar,
    /// Whether its queue is declared by now.
    CheckingQueue(Decision),
    Dispatching(Box<Dispatching>),
}

/// What comes of a turn of an errand.
enum Turn {
    Ask(Ask),
    /// The slot is accounted for.
    Accounted(Outcome),
    /// A missed slot waits for its turn, and with it the later ones.
    Waits,
}

impl Errand {
    pub(super) fn new(due: DueSlots, allowed: Allowance, begun_at: Duration) -> Self {
        Self {
            name: due.name,
            begun_at,
            slots: due.slots,
            upto: due.upto,
            index: 0,
            catches_up: false,
            cut_at: None,
            at: At::Deciding,
            done: Accounted {
                upto: Timestamp::MIN_UTC,
                failed: None,
                allowed,
                caught_up: 0,
                some_wait: false,
                alone: None,
            },
        }
    }

    /// Goes on until it has to ask. None: it has come to its end.
    pub(super) fn step(
        &mut self,
        answer: Option<Answer>,
        now: Now,
        known: &Known<'_>,
        notes: &mut Vec<Note>,
    ) -> Option<Ask> {
        let mut answer = answer;
        while let Some(due) = self.slots.get(self.index).cloned() {
            match self.turn(&due, answer.take(), now, known) {
                Ok(Turn::Ask(ask)) => return Some(ask),
                Ok(Turn::Accounted(outcome)) => self.account(&due, outcome, now, notes),
                Ok(Turn::Waits) => {
                    self.done.some_wait = true;
                    return None;
                }
                Err(error) => {
                    self.fail(error.to_string());
                    return None;
                }
            }
        }
        // What did not fit comes in the next errand: then the catching up goes on.
        self.done.some_wait = self.upto < now.wall && self.slots.len() >= shared::limits::SLOTS_PER_ROUND_MAX;
        self.done.upto = self.upto;
        None
    }

    /// A newer definition is in force since then: what is due after it is left to the next errand, even what is being
    /// dispatched already, which is then found done.
    pub(super) fn cut(&mut self, since: Timestamp) {
        let later = |due: &Due| due.slot.instant() > since;
        let begun = self.index + usize::from(matches!(self.at, At::Dispatching(_)));
        let rest = self.slots.iter().skip(begun).take_while(|due| !later(due)).count();
        self.slots.truncate(begun + rest);
        self.upto = self.upto.min(since);
        self.cut_at = Some(self.cut_at.map_or(since, |cut| cut.min(since)));
    }

    /// What has come of it.
    pub(super) fn end(mut self) -> (Name, Accounted) {
        self.done.upto = self.done.upto.min(self.cut_at.unwrap_or(Timestamp::MAX_UTC));
        (self.name, self.done)
    }

    /// Gives it up in the middle, as a crash would: the next try repeats what it finds undone.
    pub(super) fn give_up(&mut self, why: String) {
        if self.done.upto > Timestamp::MIN_UTC {
            // There are many of them, and it gets on.
            self.done.some_wait = true;
        } else {
            self.fail(why);
        }
    }

    fn fail(&mut self, why: String) {
        let oldest = self.slots.get(self.index).map_or(self.upto, |due| due.slot.instant());
        self.done.failed = Some((why, self.slots.len() - self.index, oldest));
    }

    fn account(&mut self, due: &Due, outcome: Outcome, now: Now, notes: &mut Vec<Note>) {
        if let At::Dispatching(dispatching) = &self.at
            && dispatching.is_alone()
        {
            self.done.alone = Some(due.revision);
        }
        self.done.caught_up += u32::from(self.catches_up);
        if outcome == Outcome::Dispatched {
            notes.push(Note::Dispatched { late_by: now.wall - due.slot.instant() });
        }
        self.done.upto = due.slot.instant();
        self.index += 1;
        self.at = At::Deciding;
    }

    fn turn(
        &mut self,
        due: &Due,
        answer: Option<Answer>,
        now: Now,
        known: &Known<'_>,
    ) -> Result<Turn, DispatchError> {
        let pauses = known.pauses.of(&self.name);
        let Some(answer) = answer else {
            let decision = self.decide(due, known.days(due), pauses);
            return self.check(due, decision, now, known);
        };
        match std::mem::replace(&mut self.at, At::Deciding) {
            At::Deciding => Err(answer.unexpected().into()),
            At::CheckingPause => {
                let newest = wants!(answer, Answer::Revision(revision) => revision);
                if pauses.last().is_some_and(|known| known.revision == newest) {
                    // Decided anew: the newest word may have come while we asked.
                    let decision = self.decide(due, known.days(due), pauses);
                    return self.decided(due, decision, now, known);
                }
                self.at = At::ReadingPauses;
                Ok(Turn::Ask(Ask::ReadPauses(self.name.clone())))
            }
            At::ReadingPauses => {
                let said = wants!(answer, Answer::Pauses(said) => said);
                let decision = self.decide(due, known.days(due), &said);
                self.decided(due, decision, now, known)
            }
            At::ReadingCalendar => {
                let calendar = wants!(answer, Answer::Calendar(calendar) => calendar);
                let decision = self.decide(due, Days::of(calendar.as_ref()), pauses);
                self.decided(due, decision, now, known)
            }
            At::CheckingQueue(decision) => {
                let is_declared = wants!(answer, Answer::Is(declared) => declared);
                self.dispatch(due, decision, is_declared, now, known)
            }
            At::Dispatching(dispatching) => self.go_on_dispatching(dispatching, Some(answer), now.wall),
        }
    }

    fn decide(&self, due: &Due, days: Days<'_>, pauses: &[PauseEpoch]) -> Decision {
        decide(&due.schedule, due.slot, self.done.allowed.seen_at, days, pauses)
    }

    /// What the watch has not told yet, or tells late, must not skip a slot for good: the leader is asked.
    fn check(
        &mut self,
        due: &Due,
        decision: Decision,
        now: Now,
        known: &Known<'_>,
    ) -> Result<Turn, DispatchError> {
        if decision == Decision::Skip(Reason::Paused) && !planted!(PauseByHearsay) {
            self.at = At::CheckingPause;
            return Ok(Turn::Ask(Ask::PauseRevision(self.name.clone())));
        }
        let is_unheard = decision == Decision::NoSlot && matches!(known.days(due), Days::Undeclared);
        let is_closed = decision == Decision::Skip(Reason::SkippedCalendar);
        if let (true, Some(calendar)) = (is_unheard || is_closed, &due.schedule.calendar) {
            self.at = At::ReadingCalendar;
            return Ok(Turn::Ask(Ask::ReadCalendar(calendar.clone())));
        }
        self.decided(due, decision, now, known)
    }

    fn decided(
        &mut self,
        due: &Due,
        decision: Decision,
        now: Now,
        known: &Known<'_>,
    ) -> Result<Turn, DispatchError> {
        // A missed slot that runs after all does so in its turn; its schedule's later slots wait behind it.
        self.catches_up = decision == Decision::Run && was_missed(due.slot, self.done.allowed.seen_at);
        if decision == Decision::NoSlot {
            return Ok(Turn::Accounted(Outcome::Closed));
        }
        if self.catches_up && self.done.caught_up >= self.done.allowed.runs {
            return Ok(Turn::Waits);
        }
        let declared: &BTreeSet<QueueName> = &known.book.queues;
        if declared.contains(&due.schedule.queue) {
            return self.dispatch(due, decision, true, now, known);
        }
        self.at = At::CheckingQueue(decision);
        Ok(Turn::Ask(Ask::IsDeclared(due.schedule.queue.clone())))
    }

    fn dispatch(
        &mut self,
        due: &Due,
        decision: Decision,
        is_declared: bool,
        now: Now,
        known: &Known<'_>,
    ) -> Result<Turn, DispatchError> {
        let schedule = &due.schedule;
        let record = RunRecord {
            definition_revision: Some(due.revision),
            shards: schedule.shards(),
            ..RunRecord::planned(&self.name, due.slot, schedule.queue.clone(), now.wall)
        };
        let record = describe(record, &schedule.task);
        let wanted = |record: RunRecord| Wanted {
            record: Arc::new(record),
            task: Arc::clone(&schedule.task),
            overlap: schedule.overlap,
            is_alone: known.is_alone(&self.name, due),
        };
        let undeclared = || RunError::new(ErrorKind::Malformed, undeclared(&schedule.queue));
        let dispatching = match decision {
            Decision::Run if is_declared => {
                let trace = TraceContext::of(known.me.as_str(), &record.id.to_string());
                Dispatching::run(wanted(record), trace)
            }
            Decision::Run => {
                let (event, reason) = (RunEvent::Rejected, Reason::Unknown);
                let Some(closed) = closed(&record, event, reason, Some(undeclared())) else {
                    return Ok(Turn::Accounted(Outcome::Closed));
                };
                Dispatching::close(closed, IfPending::Reject(Reason::Malformed, undeclared()))
            }
            Decision::Skip(reason) => {
                let pause = pause_at(known.pauses.of(&self.name), due.slot.instant());
                let note = pause.map(|found| found.pause.words());
                let record = RunRecord { note, ..record.clone() };
                let Some(closed) = closed(&record, RunEvent::Skipped, reason, None) else {
                    return Ok(Turn::Accounted(Outcome::Closed));
                };
                let if_pending = if is_declared {
                    IfPending::Publish(Box::new(wanted(record)))
                } else {
                    IfPending::Reject(Reason::Malformed, undeclared())
                };
                Dispatching::close(closed, if_pending)
            }
            Decision::NoSlot => return Ok(Turn::Accounted(Outcome::Closed)),
        };
        self.go_on_dispatching(Box::new(dispatching), None, now.wall)
    }

    fn go_on_dispatching(
        &mut self,
        mut dispatching: Box<Dispatching>,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<Turn, DispatchError> {
        let next = dispatching.step(answer, now);
        self.at = At::Dispatching(dispatching);
        Ok(match next {
            Next::Ask(ask) => Turn::Ask(ask),
            Next::End(outcome) => Turn::Accounted(outcome?),
        })
    }
}
