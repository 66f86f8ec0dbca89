use std::cmp::Reverse;

use super::*;

/// Milliseconds of a world with one server, in which everybody's elapsed time runs alike.
type Ms = u64;

/// What is on its way, and when it arrives.
enum Letter {
    /// A planner's write, at the server.
    Write { from: usize, write: Write, asked_at: Ms },
    /// The server's answer, at the planner.
    Answer { to: usize, write: Write, answer: Answer, asked_at: Ms },
    /// What a watch shows, at the planner.
    Shown { to: usize, seen: Seen },
}

struct Planner {
    table: Table,
    /// Dead, or standing still until then.
    away_until: Ms,
    /// What came while it stood still.
    unread: Vec<Letter>,
    looks_at: Ms,
}

impl Planner {
    /// The partitions it would plan at this moment.
    fn trusted(&self, now: Ms) -> impl Iterator<Item = u16> {
        let trusts = self.away_until != DEAD && Duration::from_millis(now) < self.table.trusted_until();
        self.table.held().iter().copied().filter(move |_| trusts)
    }
}

struct World {
    now: Ms,
    random: u64,
    seats: BTreeMap<u16, (Option<Seat>, u64)>,
    leases: BTreeMap<u16, (Option<Lease>, u64)>,
    revision: u64,
    writes: usize,
    planners: Vec<Planner>,
    /// By time of arrival, then in the order in which they were sent.
    letters: BTreeMap<(Reverse<Ms>, Reverse<u64>), Letter>,
    sent: u64,
    /// No letter arrives until then.
    cut_until: Ms,
    /// One of so many answers is lost; 0: none.
    lost_one_of: u64,
}

const DEAD: Ms = Ms::MAX;

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            seats: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 0,
            writes: 0,
            planners: Vec::new(),
            letters: BTreeMap::new(),
            sent: 0,
            cut_until: 0,
            lost_one_of: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn join(&mut self) {
        let id = format!("planner-{}", self.planners.len()).parse().expect("id");
        let mut table = Table::new(id);
        table.watch_begins(Duration::from_millis(self.now));
        let to = self.planners.len();
        self.planners.push(Planner { table, away_until: 0, unread: Vec::new(), looks_at: self.now });
        let mut there: Vec<(u64, Seen)> = Vec::new();
        there.extend(self.seats.iter().map(|(n, (seat, at))| (*at, Seen::Seat(*n, seat.clone(), *at))));
        there.extend(self.leases.iter().map(|(n, (lease, at))| (*at, Seen::Lease(*n, lease.clone(), *at))));
        there.sort_by_key(|(revision, _)| *revision);
        for (_, seen) in there {
            self.send(1, Letter::Shown { to, seen });
        }
    }

    fn send(&mut self, takes: Ms, letter: Letter) {
        self.sent += 1;
        let at = (self.now + takes).max(self.cut_until);
        self.letters.insert((Reverse(at), Reverse(self.sent)), letter);
    }

    /// Letters overtake each other, but not those of one watch: its stream has an order.
    fn store(&mut self, seen: impl FnOnce(u64) -> Seen) -> u64 {
        self.revision += 1;
        let seen = seen(self.revision);
        for to in 0..self.planners.len() {
            self.send(2, Letter::Shown { to, seen: seen.clone() });
        }
        self.revision
    }

    fn serve(&mut self, from: usize, write: Write, asked_at: Ms) {
        self.writes += 1;
        let answer = match &write {
            Write::Seat { number, seat, revision } => {
                let there = self.seats.get(number).cloned().unwrap_or((None, 0));
                if there.1 == *revision {
                    let stored = self.store(|at| Seen::Seat(*number, Some(seat.clone()), at));
                    self.seats.insert(*number, (Some(seat.clone()), stored));
                    Answer::Stored(stored)
                } else {
                    Answer::Otherwise(Some(Seen::Seat(*number, there.0, there.1)))
                }
            }
            Write::Lease { partition, lease, revision } => {
                let there = self.leases.get(partition).cloned().unwrap_or((None, 0));
                if there.1 == *revision {
                    let stored = self.store(|at| Seen::Lease(*partition, Some(lease.clone()), at));
                    self.leases.insert(*partition, (Some(lease.clone()), stored));
                    Answer::Stored(stored)
                } else {
                    Answer::Otherwise(Some(Seen::Lease(*partition, there.0, there.1)))
                }
            }
        };
        let is_lost = self.lost_one_of > 0 && self.random(self.lost_one_of) == 0;
        let takes = 1 + self.random(20);
        let (takes, answer) = if is_lost { (800, Answer::Otherwise(None)) } else { (takes, answer) };
        self.send(takes, Letter::Answer { to: from, write, answer, asked_at });
    }

    fn deliver(&mut self, letter: Letter) {
        let to = match letter {
            Letter::Write { from, write, asked_at } => return self.serve(from, write, asked_at),
            Letter::Answer { to, .. } | Letter::Shown { to, .. } => to,
        };
        let now = Duration::from_millis(self.now);
        let planner = &mut self.planners[to];
        if planner.away_until > self.now {
            return planner.unread.push(letter);
        }
        match letter {
            Letter::Answer { write, answer, asked_at, .. } => {
                planner.table.answered(write, answer, Duration::from_millis(asked_at), now);
            }
            Letter::Shown { seen, .. } => planner.table.seen(seen, now),
            Letter::Write { .. } => {}
        }
        planner.looks_at = self.now;
    }

    /// Lets time pass, and checks at every moment that no two planners trust themselves with one partition.
    fn pass(&mut self, ms: Ms) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 1;
            while let Some(entry) = self.letters.last_entry()
                && entry.key().0.0 <= self.now
            {
                let letter = entry.remove();
                self.deliver(letter);
            }
            for from in 0..self.planners.len() {
                let planner = &mut self.planners[from];
                if planner.away_until > self.now {
                    continue;
                }
                let unread = std::mem::take(&mut planner.unread);
                if planner.looks_at > self.now && unread.is_empty() {
                    continue;
                }
                // Who wakes up may look before it reads.
                self.look(from);
                for letter in unread {
                    self.deliver(letter);
                }
            }
            self.nobody_is_doubled();
        }
    }

    fn look(&mut self, from: usize) {
        let (now, wall) = (Duration::from_millis(self.now), Timestamp::UNIX_EPOCH);
        let planner = &mut self.planners[from];
        planner.looks_at = self.now + 100;
        for write in planner.table.writes(now, wall, false) {
            let takes = 1 + self.random(20);
            self.send(takes, Letter::Write { from, write, asked_at: self.now });
        }
    }

    fn nobody_is_doubled(&self) {
        let mut taken = [None; PARTITIONS as usize];
        for (number, planner) in self.planners.iter().enumerate() {
            for partition in planner.trusted(self.now) {
                let before = taken[usize::from(partition)].replace(number);
                assert_eq!(before, None, "at {} ms partition {partition} has {number} too", self.now);
            }
        }
    }

    /// How many partitions each living planner may plan.
    fn counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> =
            self.planners.iter().map(|planner| planner.trusted(self.now).count()).collect();
        counts.retain(|count| *count > 0);
        counts.sort_unstable();
        counts
    }
}

#[test]
fn planners_share_evenly_soon_after_one_comes_dies_or_comes_back() {
    let mut world = World::new(1);
    world.join();
    world.pass(1_000);
    assert_eq!(world.counts(), [64]);
    world.join();
    world.join();
    world.pass(2_000);
    assert_eq!(world.counts(), [21, 21, 22]);
    world.planners[0].away_until = DEAD;
    let before = world.writes;
    world.pass(u64::try_from((LEASE + LEASE_RENEW).as_millis()).expect("short"));
    assert_eq!(world.counts(), [32, 32]);
    assert!(
        world.writes - before < 22 + 2 + 20,
        "its partitions, its seat and some renewals: {}",
        world.writes - before
    );
    // Ten seconds stand still: replaced, and welcome again.
    world.planners[1].away_until = world.now + 10_000;
    world.pass(9_000);
    assert_eq!(world.counts(), [64]);
    world.pass(3_000);
    assert_eq!(world.counts(), [32, 32]);
}

#[test]
fn a_planner_alone_keeps_what_it_has_through_an_outage_of_the_server() {
    let mut world = World::new(2);
    world.join();
    world.join();
    world.pass(2_000);
    let before = world.writes;
    world.cut_until = world.now + 20_000;
    world.pass(10_000);
    assert!(world.counts().is_empty(), "nobody trusts himself while nobody is heard");
    world.pass(12_000);
    assert_eq!(world.counts(), [32, 32]);
    assert!(world.writes - before < 40, "nobody took anything from anybody: {}", world.writes - before);
}

#[test]
fn whatever_stands_still_is_cut_off_or_lost_no_partition_has_two_who_trust_themselves() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        world.lost_one_of = 8;
        world.join();
        for _ in 0..25 {
            let planner = usize::try_from(world.random(world.planners.len() as u64)).expect("small");
            let now = world.now;
            match world.random(8) {
                0 if world.planners.len() < 6 => world.join(),
                1 if world.planners.len() > 3 && planner > 0 => world.planners[planner].away_until = DEAD,
                2 => {
                    // Never sooner than what is held back already: a watch keeps its order.
                    let until = now + world.random(4_000);
                    world.cut_until = world.cut_until.max(until);
                }
                3..6 if world.planners[planner].away_until != DEAD => {
                    world.planners[planner].away_until = now + world.random(5_000);
                }
                _ => {}
            }
            let ms = world.random(2_000);
            world.pass(ms);
        }
        world.lost_one_of = 0;
        world.pass(15_000);
        let living = world.planners.iter().filter(|planner| planner.away_until != DEAD).count();
        let counts = world.counts();
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (living, 64), "seed {seed}: {counts:?}");
        assert!(counts[living - 1] - counts[0] <= 1, "seed {seed}: {counts:?}");
    }
}
