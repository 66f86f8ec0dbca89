//! Workers: they claim, run, end, are slow to acknowledge, fail with and without a dead letter, and die in the middle.

use shared::{
    names::Name,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
};
use streams::{bucket::Stored, cancel::CancelRequest, ledger::Update};

use super::{
    Ms,
    checks::Violation,
    world::{Coming, World},
};
use crate::machine::{
    ask::{Answer, Ask, Flow, Next},
    turn::{Step, Turning},
};

/// A task whose worker is silent is handed to another.
const ACK_WAIT: Ms = 3_000;
/// All lines are looked at this often.
const LOOK_AT_LINES: Ms = 1_000;

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Work {
    /// One gets the task.
    Takes(u64),
    /// The attempt that was claimed under this revision ends.
    Ends { sequence: u64, run: RunId, revision: u64 },
    /// The task leaves the queue.
    Acks(u64),
    /// The dead letter of a run that failed is stored.
    Buries(u64, RunId),
}

impl World {
    /// A task is in the queue: some worker gets it.
    pub(super) fn hands_out(&mut self, sequence: u64) {
        let most = if self.weather.is_calm || !self.random.one_in(8) { 40 } else { 1_500 };
        let takes = self.random.between(1, most);
        self.send(takes, Coming::Works(Work::Takes(sequence)));
    }

    pub(super) fn works(&mut self, work: Work) -> Result<(), Violation> {
        let (now, weather) = (self.now, &self.weather);
        let away = weather.server_down_until.max(weather.workers_away_until).saturating_sub(now);
        if away > 0 {
            let later = away + self.random.between(1, 300);
            self.send(later, Coming::Works(work));
            return Ok(());
        }
        self.tell(|| format!("a worker: {work:?}"));
        match work {
            Work::Takes(sequence) => self.takes(sequence),
            Work::Ends { sequence, run, revision } => self.ends(sequence, &run, revision),
            Work::Acks(sequence) => self.acks(sequence),
            Work::Buries(sequence, run) => {
                self.store.dead.insert(run);
                self.acks(sequence)
            }
        }
    }

    fn acks(&mut self, sequence: u64) -> Result<(), Violation> {
        let Some(message) = self.store.tasks.message(sequence).cloned() else { return Ok(()) };
        self.performs(None, &Ask::RemoveTask(sequence))?;
        self.send(2, Coming::LooksAtLines(Some(message.run.name)));
        Ok(())
    }

    fn takes(&mut self, sequence: u64) -> Result<(), Violation> {
        let Some(message) = self.store.tasks.message(sequence).cloned() else { return Ok(()) };
        let Some(found) = self.store.records.get(&message.run) else { return self.acks(sequence) };
        match found.value.status {
            RunState::Pending | RunState::Retry => self.claims(sequence, &found),
            RunState::Running => {
                let Some(revision) = self.moves(&found, RunEvent::Lost, Some(Reason::Lost))? else {
                    return Ok(());
                };
                let Some(lost) = self.store.records.get(&message.run) else { return Ok(()) };
                self.claims(sequence, &Stored { revision, ..lost })
            }
            RunState::Failed if !self.store.dead.contains(&message.run) => {
                self.works(Work::Buries(sequence, message.run))
            }
            RunState::Failed | RunState::Success | RunState::Cancelled => self.acks(sequence),
        }
    }

    fn claims(&mut self, sequence: u64, found: &Stored<RunRecord>) -> Result<(), Violation> {
        let Some(revision) = self.moves(found, RunEvent::Started, None)? else { return self.takes(sequence) };
        let run = found.value.id.clone();
        let takes = match self.random.below(6) {
            _ if self.weather.is_calm => self.random.between(5, 40),
            0 => self.random.between(1_000, 5_000),
            _ => self.random.between(10, 400),
        };
        self.send(takes, Coming::Works(Work::Ends { sequence, run, revision }));
        Ok(())
    }

    /// Moves a run on, over what was read. None: somebody else did.
    fn moves(
        &mut self,
        found: &Stored<RunRecord>,
        event: RunEvent,
        reason: Option<Reason>,
    ) -> Result<Option<u64>, Violation> {
        let time = self.time();
        let Ok(next) = found.value.apply(event, time) else { return Ok(None) };
        let next = RunRecord { reason, ..next };
        let ask = Ask::UpdateRecord { record: Box::new(next), over: found.revision };
        Ok(match self.performs(None, &ask)? {
            Answer::Updated(Update::Stored(revision)) => Some(revision),
            _ => None,
        })
    }

    fn ends(&mut self, sequence: u64, run: &RunId, revision: u64) -> Result<(), Violation> {
        let Some(found) = self.store.records.get(run) else { return Ok(()) };
        if found.revision != revision {
            // It was stopped, or thought lost: only who owns the attempt acknowledges.
            return if found.value.status.is_final() { self.takes(sequence) } else { Ok(()) };
        }
        let dice = if self.weather.is_calm { 0 } else { self.random.below(100) };
        match dice {
            // It dies before it can say what came of it.
            92.. => self.send(ACK_WAIT, Coming::Works(Work::Takes(sequence))),
            86..92 => {
                self.moves(&found, RunEvent::Interrupted, Some(Reason::Drained))?;
                self.send(50, Coming::Works(Work::Takes(sequence)));
            }
            76..86 => {
                self.moves(&found, RunEvent::FailedWithRetry, None)?;
                let backoff = self.random.between(200, 2_000);
                self.send(backoff, Coming::Works(Work::Takes(sequence)));
            }
            66..76 => {
                self.moves(&found, RunEvent::FailedForGood, Some(Reason::Permanent))?;
                let next = if self.random.one_in(3) {
                    (ACK_WAIT, Work::Takes(sequence))
                } else {
                    (self.random.between(1, 1_500), Work::Buries(sequence, run.clone()))
                };
                self.send(next.0, Coming::Works(next.1));
            }
            _ => {
                self.moves(&found, RunEvent::Succeeded, None)?;
                let lingers = !self.weather.is_calm && self.random.one_in(5);
                let takes = if lingers { self.random.between(600, 4_000) } else { self.random.between(1, 5) };
                self.send(takes, Coming::Works(Work::Acks(sequence)));
            }
        }
        Ok(())
    }

    /// The lines, moved on by some planner that lives, one turn at a time.
    pub(super) fn looks_at_lines(&mut self, name: Option<Name>) -> Result<(), Violation> {
        if name.is_none() {
            self.send(LOOK_AT_LINES, Coming::LooksAtLines(None));
        }
        if self.weather.is_server_down(self.now) || self.living().is_empty() {
            return Ok(());
        }
        for name in name.map_or_else(|| self.names.clone(), |name| vec![name]) {
            if self.moves_line_on(&name)? {
                let soon = self.random.between(3, 15);
                self.send(soon, Coming::LooksAtLines(Some(name)));
            }
        }
        Ok(())
    }

    /// Whether the line of a schedule stands still because its queue is not declared: who waits goes by the definition in
    /// force, and does so when the queue is there.
    pub(super) fn is_stuck(&self, name: &Name) -> bool {
        let in_force = self.versions(name).pop().and_then(|version| version.definition.ok().flatten());
        let is_declared = in_force.is_none_or(|schedule| self.store.tasks.is_declared(&schedule.queue));
        !is_declared && !self.store.planners.line(name).runs.is_empty()
    }

    /// One turn of a line, as planning takes it; whether something was done. It may be broken off after any of its effects,
    /// as by a death, and an answer may be lost.
    fn moves_line_on(&mut self, name: &Name) -> Result<bool, Violation> {
        let me = "planner-line".parse().expect("a member's id");
        let mut turning = Turning::new(me, name.clone());
        let mut answer = None;
        loop {
            let ask = match turning.step(answer.take(), self.time()) {
                Next::Ask(ask) => ask,
                Next::End(step) => return Ok(matches!(step, Ok(Step::Moved))),
            };
            self.tell(|| format!("the line of {name}: {ask:?}"));
            let done = match &ask {
                Ask::Cancel(request) => Answer::Is(self.cancels(request)?),
                _ => self.performs(None, &ask)?,
            };
            let is_rough = !self.weather.is_calm;
            if is_rough && self.random.one_in(40) {
                return Ok(false);
            }
            let is_lost = is_rough && self.random.one_in(30);
            answer = Some(if is_lost { Answer::Failed("no answer".to_owned()) } else { done });
        }
    }

    /// Has a run cancelled in the steps of which that consists. Whether it is over.
    fn cancels(&mut self, request: &CancelRequest) -> Result<bool, Violation> {
        let Some(found) = self.store.records.get(&request.run) else { return Ok(false) };
        if found.value.status.is_final() {
            return Ok(true);
        }
        if found.value.status == RunState::Running {
            return self.stops(&request.run).map(|()| false);
        }
        let Ok(cancelled) = request.end(&found.value, self.time()) else { return Ok(false) };
        let ask = Ask::UpdateRecord { record: Box::new(cancelled), over: found.revision };
        if !matches!(self.performs(None, &ask)?, Answer::Updated(Update::Stored(_))) {
            return Ok(false);
        }
        let holder = self.store.tasks.newest_of(&request.run.name);
        match holder.filter(|holder| holder.run.as_ref() == Some(&request.run)) {
            Some(holder) => self.performs(None, &Ask::RemoveTask(holder.sequence)).map(|_| true),
            None => Ok(true),
        }
    }

    /// A worker hears that the run it is at shall stop.
    fn stops(&mut self, run: &RunId) -> Result<(), Violation> {
        let Some(found) = self.store.records.get(run) else { return Ok(()) };
        let message = self.store.tasks.newest_of(&run.name);
        if self.moves(&found, RunEvent::Cancelled, Some(Reason::Replaced))?.is_some()
            && let Some(holder) = message
        {
            self.send(5, Coming::Works(Work::Acks(holder.sequence)));
        }
        Ok(())
    }
}
