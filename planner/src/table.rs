//! What a planner knows of all seats and leases, and what it does about them. Pure: events come in with their time,
//! writes go out; waiting and writing are the keeper's.
//!
//! A planner without a seat holds nothing. That one rule makes a planner's death, its leaving, and its being thought
//! dead the same: its seat is emptied, by one write, and from then on all its leases are free.
//!
//! Seats and leases are in one stream and are watched together, so everybody sees them in the same order: whoever has
//! seen a lease has seen its holder sit down. A planner acts on what it sees only once it has seen *itself*: then it
//! has seen everything that was there before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    Timestamp,
    limits::{LEASE, LEASE_MARGIN, LEASE_RENEW, PARTITIONS, SEATS_MAX},
    names::MemberId,
};
use streams::leases::{Lease, Seat, Seen};

use crate::share::shares;

/// Before it sits down a planner listens this long for others.
const LISTEN_FIRST: Duration = Duration::from_millis(300);

/// One write, over exactly one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    Seat { number: u16, seat: Seat, revision: u64 },
    Lease { partition: u16, lease: Lease, revision: u64 },
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored, under this revision.
    Stored(u64),
    /// It was refused, or nobody knows. What the leader has there instead, if it could be asked.
    Otherwise(Option<Seen>),
}

#[derive(Debug, Clone)]
struct SeatSeen {
    seat: Option<Seat>,
    revision: u64,
    /// When this revision was first seen, by our own clock without our absences.
    since: Duration,
}

/// The seat we have.
#[derive(Debug, Clone, Copy)]
struct Mine {
    number: u16,
    revision: u64,
    /// When we asked for it, or found that we have it.
    since: Duration,
    /// When the latest renewal that was stored was asked for; none if none was.
    renewed_at: Option<Duration>,
}

/// How far what we see can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// There is no watch.
    Nothing,
    /// The watch stands since then; what was there before is still coming.
    Since(Duration),
    /// Everything up to this revision, which is ours, must have come.
    UpTo(u64),
    /// Everything has come. Others' silence counts from then on, by our own clock without our absences.
    All(Duration),
}

/// Seats and leases as one planner sees them.
pub(crate) struct Table {
    me: MemberId,
    seats: BTreeMap<u16, SeatSeen>,
    leases: BTreeMap<u16, (Option<Lease>, u64)>,
    mine: Option<Mine>,
    held: BTreeSet<u16>,
    /// Who sits and who holds what is as it was when there was nothing to take and nothing to give up.
    is_settled: bool,
    hearing: Hearing,
    /// The newest revision that the watch has shown.
    shown: u64,
    looked_at: Option<Duration>,
    /// For how long in all we stood still: time that does not count as others' silence.
    absent: Duration,
    /// When we last asked for our seat, and for what.
    asked: Option<(Duration, Seat)>,
    seats_asked: BTreeSet<u16>,
    leases_asked: BTreeSet<u16>,
    lost: Vec<&'static str>,
}

impl Table {
    pub(crate) fn new(me: MemberId) -> Self {
        Self {
            me,
            seats: BTreeMap::new(),
            leases: BTreeMap::new(),
            mine: None,
            held: BTreeSet::new(),
            is_settled: false,
            hearing: Hearing::Nothing,
            shown: 0,
            looked_at: None,
            absent: Duration::ZERO,
            asked: None,
            seats_asked: BTreeSet::new(),
            leases_asked: BTreeSet::new(),
            lost: Vec::new(),
        }
    }

    /// The partitions we hold.
    pub(crate) fn held(&self) -> &BTreeSet<u16> {
        &self.held
    }

    /// Until when that may be trusted: counted from when we *asked*, so that a slow answer lengthens nothing.
    pub(crate) fn trusted_until(&self) -> Duration {
        let renewed_at = self.mine.and_then(|mine| mine.renewed_at);
        renewed_at.map_or(Duration::ZERO, |at| at + LEASE.saturating_sub(LEASE_MARGIN))
    }

    /// Whether a write of a seat is on its way.
    pub(crate) fn asks_for_a_seat(&self) -> bool {
        !self.seats_asked.is_empty()
    }

    /// Our seat and its revision.
    pub(crate) fn my_seat(&self) -> Option<(u16, u64)> {
        self.mine.map(|mine| (mine.number, mine.revision))
    }

    /// Who has a seat.
    pub(crate) fn planner_in(&self, number: u16) -> Option<&MemberId> {
        self.seats.get(&number).and_then(planner_of)
    }

    /// Why our seat was lost, if it was since this was last asked.
    pub(crate) fn take_lost(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.lost)
    }

    /// A watch has begun: it tells everything anew, also of a bucket that was made anew and counts from one again.
    pub(crate) fn watch_begins(&mut self, now: Duration) {
        self.seats.clear();
        self.leases.clear();
        self.is_settled = false;
        self.shown = 0;
        self.hearing = Hearing::Since(now);
    }

    /// The watch is lost: nobody's silence means anything.
    pub(crate) fn watch_ends(&mut self) {
        self.hearing = Hearing::Nothing;
    }

    /// The watch shows something.
    pub(crate) fn seen(&mut self, seen: Seen, now: Duration) {
        let (Seen::Seat(.., revision) | Seen::Lease(.., revision)) = &seen;
        self.shown = self.shown.max(*revision);
        self.take_in(seen, now);
        self.hear_ourselves(now);
    }

    /// What the watch, or the leader, shows. What is older than what we know is left aside.
    fn take_in(&mut self, seen: Seen, now: Duration) {
        match seen {
            Seen::Seat(number, seat, revision) => {
                if self.seats.get(&number).is_none_or(|known| known.revision < revision) {
                    self.note_seat(number, seat, revision, now);
                }
            }
            Seen::Lease(partition, lease, revision) => {
                if self.leases.get(&partition).is_none_or(|(_, known)| *known < revision) {
                    self.note_lease(partition, lease, revision);
                }
            }
        }
    }

    fn note_seat(&mut self, number: u16, seat: Option<Seat>, revision: u64, now: Duration) {
        let is_mine = seat.as_ref().is_some_and(|seat| seat.planner.as_ref() == Some(&self.me));
        match &mut self.mine {
            // Ours, whose answer was lost or is on its way. It lengthens nothing: that only an answer does.
            Some(mine) if mine.number == number && is_mine => mine.revision = mine.revision.max(revision),
            Some(mine) if mine.number == number => self.lose_seat("others did not hear us for a whole lease"),
            None if is_mine => self.mine = Some(Mine { number, revision, since: now, renewed_at: None }),
            _ => {}
        }
        let is_renewal = self.seats.get(&number).is_some_and(|known| known.seat == seat);
        self.is_settled &= is_renewal;
        self.seats.insert(number, SeatSeen { seat, revision, since: now.saturating_sub(self.absent) });
    }

    fn note_lease(&mut self, partition: u16, lease: Option<Lease>, revision: u64) {
        self.is_settled = false;
        let is_mine = lease.as_ref().is_some_and(|lease| lease.holder.as_ref() == Some(&self.me));
        if !is_mine && self.held.remove(&partition) {
            self.lost.push("somebody else wrote the lease of one of our partitions");
        }
        self.leases.insert(partition, (lease, revision));
    }

    fn lose_seat(&mut self, why: &'static str) {
        self.mine = None;
        self.held.clear();
        self.is_settled = false;
        self.lost.push(why);
        if let Hearing::All(_) | Hearing::UpTo(_) = self.hearing {
            // The watch stands, but what we shall be seen by next is not written yet.
            self.hearing = Hearing::Since(Duration::ZERO);
        }
    }

    /// Once the watch has shown us what we wrote after it began, it has shown all that was there before. That the write was
    /// answered says nothing of the watch.
    fn hear_ourselves(&mut self, now: Duration) {
        let Hearing::UpTo(revision) = self.hearing else { return };
        if self.shown >= revision {
            self.hearing = Hearing::All(now.saturating_sub(self.absent));
        }
    }

    /// What is to be written now. Each is on its way until [`Table::answered`] is told of it.
    pub(crate) fn writes(&mut self, now: Duration, wall: Timestamp, aside: bool) -> Vec<Write> {
        self.notice_own_absence(now);
        let mut writes = Vec::new();
        writes.extend(self.own_seat(now, aside));
        if matches!(self.hearing, Hearing::All(_)) {
            writes.extend(self.silent_seats(now));
            writes.extend(self.partitions(wall));
        }
        for write in &writes {
            match write {
                Write::Seat { number, .. } => self.seats_asked.insert(*number),
                Write::Lease { partition, .. } => self.leases_asked.insert(*partition),
            };
        }
        writes
    }

    /// Who stood still cannot tell another's silence from his own deafness.
    fn notice_own_absence(&mut self, now: Duration) {
        let away = now.saturating_sub(self.looked_at.replace(now).unwrap_or(now));
        if away > LEASE_RENEW {
            self.absent += away;
        }
    }

    fn own_seat(&mut self, now: Duration, aside: bool) -> Option<Write> {
        let seat = Seat { planner: Some(self.me.clone()), aside };
        let asked = self.asked.as_ref();
        if asked.is_some_and(|(at, wanted)| now.saturating_sub(*at) < LEASE_RENEW && *wanted == seat) {
            return None;
        }
        let (number, revision) = if let Some(mine) = self.mine {
            (mine.number, mine.revision)
        } else {
            let Hearing::Since(begun) = self.hearing else { return None };
            if now.saturating_sub(begun) < LISTEN_FIRST || !self.seats_asked.is_empty() {
                return None;
            }
            let free = |number: &u16| self.seats.get(number).is_none_or(|seen| planner_of(seen).is_none());
            let number = (0..SEATS_MAX).find(free)?;
            (number, self.seats.get(&number).map_or(0, |seen| seen.revision))
        };
        if self.seats_asked.contains(&number) {
            return None;
        }
        self.asked = Some((now, seat.clone()));
        Some(Write::Seat { number, seat, revision })
    }

    /// The seats of planners that were silent for a whole lease, while we heard everything.
    fn silent_seats(&self, now: Duration) -> Vec<Write> {
        let Hearing::All(heard_since) = self.hearing else { return Vec::new() };
        // Who is not heard himself judges nobody.
        if now >= self.trusted_until() {
            return Vec::new();
        }
        let now = now.saturating_sub(self.absent);
        let is_silent = |seen: &SeatSeen| {
            planner_of(seen).is_some_and(|planner| *planner != self.me)
                && now.saturating_sub(seen.since.max(heard_since)) >= LEASE
        };
        let silent =
            self.seats.iter().filter(|(number, seen)| !self.seats_asked.contains(*number) && is_silent(seen));
        silent
            .map(|(number, seen)| Write::Seat {
                number: *number,
                seat: Seat { planner: None, aside: false },
                revision: seen.revision,
            })
            .collect()
    }

    fn partitions(&mut self, wall: Timestamp) -> Vec<Write> {
        if self.mine.is_none() || self.is_settled {
            return Vec::new();
        }
        let seated: BTreeSet<MemberId> = self.seats.values().filter_map(planner_of).cloned().collect();
        let eager = self.seats.values().filter(|seen| seen.seat.as_ref().is_some_and(|seat| !seat.aside));
        let eager: BTreeSet<MemberId> = eager.filter_map(planner_of).cloned().collect();
        // What the leader told us the watch may not have shown yet, nor its holder sitting down.
        let is_ahead = |revision: u64, holder: &MemberId| revision > self.shown && *holder != self.me;
        let mut is_behind = false;
        let mut holders: BTreeMap<u16, MemberId> = BTreeMap::new();
        for (partition, (lease, revision)) in &self.leases {
            let Some(holder) = lease.as_ref().and_then(|lease| lease.holder.as_ref()) else { continue };
            is_behind |= is_ahead(*revision, holder);
            if seated.contains(holder) || is_ahead(*revision, holder) {
                holders.insert(*partition, holder.clone());
            }
        }
        let shares = shares(&eager, &holders);
        let mut writes = Vec::new();
        for partition in (0..PARTITIONS).filter(|partition| !self.leases_asked.contains(partition)) {
            let wanted = shares.get(&partition) == Some(&self.me);
            let holder = holders.get(&partition);
            let (known, revision) = self
                .leases
                .get(&partition)
                .map_or((None, 0), |(lease, revision)| (lease.as_ref(), *revision));
            let term = known.map_or(0, |lease| lease.term);
            let lease = if wanted && !self.held.contains(&partition) {
                // Nobody's; or ours by a write whose answer was lost.
                if holder.is_some_and(|holder| *holder != self.me) {
                    continue;
                }
                Lease { holder: Some(self.me.clone()), term: term.saturating_add(1), since: wall }
            } else if !wanted && holder == Some(&self.me) {
                // First we stop working on it, then we say so.
                self.held.remove(&partition);
                Lease { holder: None, term, since: known.map_or(wall, |lease| lease.since) }
            } else {
                continue;
            };
            writes.push(Write::Lease { partition, lease, revision });
        }
        self.is_settled = writes.is_empty() && self.leases_asked.is_empty() && !is_behind;
        writes
    }

    /// What came of a write that was asked for at a moment of our clock.
    pub(crate) fn answered(&mut self, write: Write, answer: Answer, asked_at: Duration, now: Duration) {
        match write {
            Write::Seat { number, .. } => self.seats_asked.remove(&number),
            Write::Lease { partition, .. } => {
                self.is_settled = false;
                self.leases_asked.remove(&partition)
            }
        };
        match (write, answer) {
            (Write::Seat { number, seat, .. }, Answer::Stored(revision)) => {
                self.seat_stored(number, seat, revision, asked_at, now);
            }
            (Write::Lease { partition, lease, .. }, Answer::Stored(revision)) => {
                let mine = lease.holder.as_ref() == Some(&self.me);
                let newest = self.leases.get(&partition).is_none_or(|(_, known)| *known <= revision);
                if newest {
                    self.note_lease(partition, Some(lease), revision);
                    // Asked for under a seat that is lost meanwhile, it is nobody's.
                    if mine && self.mine.is_some_and(|mine| mine.since <= asked_at) {
                        self.held.insert(partition);
                    }
                }
            }
            (_, Answer::Otherwise(found)) => self.found(found, now),
        }
        self.hear_ourselves(now);
    }

    fn seat_stored(&mut self, number: u16, seat: Seat, revision: u64, asked_at: Duration, now: Duration) {
        let is_mine = seat.planner.as_ref() == Some(&self.me);
        // It may be over already, if the watch was faster than the answer.
        if self.seats.get(&number).is_some_and(|known| known.revision > revision) {
            return;
        }
        self.note_seat(number, Some(seat), revision, now);
        if is_mine
            && now >= self.trusted_until()
            && let Hearing::All(since) = &mut self.hearing
        {
            // We were not heard for long, so others may not have been either, as when the server was away.
            *since = now.saturating_sub(self.absent);
        }
        if let (true, Some(mine)) = (is_mine, &mut self.mine) {
            mine.since = mine.since.min(asked_at);
            mine.renewed_at = Some(asked_at);
            if let Hearing::Since(begun) = self.hearing
                && begun <= asked_at
            {
                self.hearing = Hearing::UpTo(revision);
            }
        }
    }

    /// What the leader has, as it answered: a watch may have shown something newer meanwhile. Only of our own seat nobody
    /// can know better, because no other write of ours to it is on its way.
    fn found(&mut self, found: Option<Seen>, now: Duration) {
        match found {
            Some(Seen::Seat(number, seat, revision))
                if self.mine.is_some_and(|mine| mine.number == number) =>
            {
                self.note_seat(number, seat, revision, now);
            }
            Some(seen) => self.take_in(seen, now),
            None => {}
        }
    }
}

fn planner_of(seen: &SeatSeen) -> Option<&MemberId> {
    seen.seat.as_ref()?.planner.as_ref()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
