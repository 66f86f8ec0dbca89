//! The keeper of leases, as `leases.rs` is: what the table decides is written at the server, and what comes of it is told.

use chrono::TimeDelta;
use shared::clock_check::Sample;
use streams::{
    leases::{Seat, Seen},
    ledger::Update,
};

use super::{
    Ms,
    checks::Violation,
    process::{Life, Process},
    world::{Coming, World},
};
use crate::table::{self, Write};

impl World {
    /// A look of a planner's keeper, and what comes of it.
    pub(super) fn looks(&mut self, at: usize) -> Result<(), Violation> {
        let writes = self.planners[at].look(self.now);
        // First it stops working on what it gives up, then it says so.
        self.tells_holdings(at)?;
        for write in writes {
            self.sends_write(at, write);
        }
        Ok(())
    }

    pub(super) fn sends_write(&mut self, from: usize, write: Write) {
        self.table_writes += 1;
        let (number, asked) = (self.table_writes, self.planners[from].reading(self.now));
        self.planners[from].writes.insert(number, (write, asked));
        let (takes, is_lost) = self.transit(from);
        if let Some(takes) = takes {
            self.send(takes, Coming::Written { from, number, is_lost });
        }
        self.send(900, Coming::WriteUnanswered { to: from, number });
    }

    pub(super) fn serves_write(&mut self, from: usize, number: u64, is_lost: bool) {
        // Its planner may be dead by now; the write is on its way all the same.
        let Some((write, _)) = self.planners[from].writes.get(&number).cloned() else { return };
        if self.weather.is_server_down(self.now) {
            return;
        }
        let time = self.time();
        let update = match &write {
            Write::Seat { number, seat, revision } => {
                self.store.planners.write_seat(*number, seat, *revision, time)
            }
            Write::Lease { partition, lease, revision } => {
                self.store.planners.write_lease(*partition, lease, *revision, time)
            }
        };
        let answer = match update {
            Update::Stored(revision) => {
                self.tell(|| format!("planner {from} writes {write:?}"));
                let seen = match write {
                    Write::Seat { number, seat, .. } => Seen::Seat(number, Some(seat), revision),
                    Write::Lease { partition, lease, .. } => Seen::Lease(partition, Some(lease), revision),
                };
                for to in 0..self.planners.len() {
                    self.shows(to, seen.clone());
                }
                table::Answer::Stored(revision)
            }
            Update::Stale => table::Answer::Otherwise(Some(self.found(&write))),
        };
        if let (false, Some(takes)) = (is_lost, self.way_back(from)) {
            let at_server = self.now;
            self.send(takes, Coming::WriteAnswered { to: from, number, answer, at_server });
        }
    }

    fn found(&self, write: &Write) -> Seen {
        match write {
            Write::Seat { number, .. } => match self.store.planners.seat(*number) {
                Some((seat, revision, _)) => Seen::Seat(*number, seat, revision),
                None => Seen::Seat(*number, None, 0),
            },
            Write::Lease { partition, .. } => match self.store.planners.lease(*partition) {
                Some((lease, revision)) => Seen::Lease(*partition, lease, revision),
                None => Seen::Lease(*partition, None, 0),
            },
        }
    }

    pub(super) fn write_unanswered(&mut self, to: usize, number: u64) {
        let Some((write, _)) = self.planners[to].writes.get(&number).cloned() else { return };
        let answer = match self.transit(to) {
            (Some(takes), false) if takes < 800 && !self.weather.is_server_down(self.now) => {
                table::Answer::Otherwise(Some(self.found(&write)))
            }
            _ => table::Answer::Otherwise(None),
        };
        self.write_answered(to, number, answer, self.now);
    }

    pub(super) fn write_answered(&mut self, to: usize, number: u64, answer: table::Answer, at_server: Ms) {
        let Some((write, asked)) = self.planners[to].writes.remove(&number) else { return };
        let (now, begun) = (self.now, self.begun);
        let planner = &mut self.planners[to];
        if let (Write::Seat { seat: Seat { planner: Some(_), .. }, .. }, table::Answer::Stored(_)) =
            (&write, &answer)
            && planner.compares(now)
        {
            let server = begun + TimeDelta::milliseconds(at_server.cast_signed());
            let sample = Sample { asked, server, answered: planner.reading(now) };
            self.send(5, Coming::Compared { to, sample });
        }
        let planner = &mut self.planners[to];
        planner.table.answered(write, answer, asked.before, Process::elapsed(now));
        planner.looks_soon(now);
    }

    /// Tells planning what it holds, and checks that nobody else trusts himself with it.
    fn tells_holdings(&mut self, at: usize) -> Result<(), Violation> {
        let Some(event) = self.planners[at].holds() else { return Ok(()) };
        if self.planners[at].trusts(self.now) {
            for (other, planner) in self.planners.iter().enumerate() {
                let both = planner.told_mask & self.planners[at].told_mask;
                if other != at && planner.trusts(self.now) && both != 0 {
                    return Err(Violation::two_trust_themselves(at, other, both));
                }
            }
        }
        self.step(at, event)
    }

    pub(super) fn leaves(&mut self, at: usize) {
        self.tell(|| format!("planner {at} leaves"));
        if let Some((number, revision)) = self.planners[at].table.my_seat() {
            let seat = Seat { planner: None, aside: false };
            self.sends_write(at, Write::Seat { number, seat, revision });
        }
        self.planners[at].life = Life::Dead;
    }
}
