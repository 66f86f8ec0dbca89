//! Credit against a server in memory, by seeds: whatever comes and goes, in whatever order.

use std::collections::VecDeque;

use shared::hash::mixed_64;

use super::*;

/// A server with queues, a worker with places, and time.
struct World {
    credit: Credit,
    now: Duration,
    /// Runs that lie in each queue.
    lie: Vec<u64>,
    /// Pulls that stand at each queue: how many runs are asked for, until when.
    pulls: Vec<VecDeque<(usize, Duration)>>,
    /// When each run that is under way ends.
    under_way: Vec<Duration>,
    /// Runs that each queue has had.
    served: Vec<u64>,
    /// Since when each queue has had work and was not served.
    waits_since: Vec<Option<Duration>>,
    longest_wait: Duration,
    run_takes: Duration,
    seed: u64,
    draws: u64,
}

const MS: Duration = Duration::from_millis(1);

impl World {
    fn new(seed: u64, places: usize, weights: &[u32], run_takes: Duration) -> Self {
        let count = weights.len();
        let mut world = Self {
            credit: Credit::new(places, weights.iter().copied()),
            now: Duration::from_secs(1),
            lie: vec![0; count],
            pulls: vec![VecDeque::new(); count],
            under_way: Vec::new(),
            served: vec![0; count],
            waits_since: vec![None; count],
            longest_wait: Duration::ZERO,
            run_takes,
            seed,
            draws: 0,
        };
        for number in 0..count {
            world.tell(Event::Opened(number));
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        mixed_64(&[&self.seed.to_string(), &self.draws.to_string()]) % below
    }

    fn tell(&mut self, event: Event) {
        let asks = self.credit.step(event, self.now);
        for ask in asks {
            match ask.stand {
                Some(stand) => self.pulls[ask.queue].push_back((ask.runs, self.now + stand)),
                None if self.lie[ask.queue] > 0 => self.pulls[ask.queue].push_back((ask.runs, self.now + MS)),
                None => self.tell(Event::Returned(ask.queue, ask.runs)),
            }
        }
        let credits: usize = self.credit.queues.iter().map(|queue| queue.credits).sum();
        assert!(
            credits + self.credit.running() <= self.credit.places,
            "seed {}: more than places",
            self.seed
        );
    }

    fn add(&mut self, queue: usize, runs: u64) {
        self.lie[queue] += runs;
    }

    /// One millisecond: runs end, pulls expire, runs are handed out.
    fn pass(&mut self) {
        self.now += MS;
        let now = self.now;
        let ended = self.under_way.iter().filter(|end| **end <= now).count();
        self.under_way.retain(|end| *end > now);
        for _ in 0..ended {
            self.tell(Event::Ended);
        }
        for queue in 0..self.lie.len() {
            while let Some((runs, until)) = self.pulls[queue].front().copied() {
                if self.lie[queue] > 0 {
                    self.hand_out(queue);
                } else if until <= now {
                    self.pulls[queue].pop_front();
                    self.tell(Event::Returned(queue, runs));
                } else {
                    break;
                }
            }
            match (self.lie[queue] > 0, self.waits_since[queue]) {
                (true, None) => self.waits_since[queue] = Some(now),
                (true, Some(since)) => self.longest_wait = self.longest_wait.max(now.saturating_sub(since)),
                (false, _) => self.waits_since[queue] = None,
            }
        }
        if self.credit.wake_at().is_some_and(|at| at <= now) {
            self.tell(Event::Woken);
        }
    }

    fn hand_out(&mut self, queue: usize) {
        self.lie[queue] -= 1;
        let front = self.pulls[queue].front_mut().expect("a pull");
        front.0 -= 1;
        if front.0 == 0 {
            self.pulls[queue].pop_front();
        }
        self.served[queue] += 1;
        self.waits_since[queue] = None;
        let takes = self.run_takes / 2
            + MS * u32::try_from(self.draw(self.run_takes.as_millis() as u64)).expect("small");
        self.under_way.push(self.now + takes);
        let left = self.lie[queue];
        self.tell(Event::Came(queue, left));
    }
}

#[test]
fn scarce_places_are_shared_by_weight() {
    for (seed, (places, weights)) in
        [(9, vec![6, 3]), (16, vec![6, 3, 1]), (2, vec![5, 1]), (1, vec![3, 2, 1]), (100, vec![1, 1, 8])]
            .into_iter()
            .enumerate()
    {
        let mut world = World::new(seed as u64, places, &weights, 20 * MS);
        for queue in 0..weights.len() {
            world.add(queue, 10_000_000);
        }
        for _ in 0..20_000 {
            world.pass();
        }
        let (all, weight): (u64, u32) = (world.served.iter().sum(), weights.iter().sum());
        for (queue, served) in world.served.iter().enumerate() {
            let due = all as f64 * f64::from(weights[queue]) / f64::from(weight);
            let part = *served as f64 / due;
            assert!((0.9..1.1).contains(&part), "{places} places, {weights:?}: {:?}", world.served);
        }
    }
}

#[test]
fn a_queue_without_work_lends_all_its_places_and_gets_its_share_back_at_once() {
    let mut world = World::new(7, 8, &[1, 7], 10 * MS);
    world.add(0, 10_000_000);
    for _ in 0..5_000 {
        world.pass();
    }
    let alone = world.served[0];
    assert!(alone as f64 > 0.9 * 8.0 * 5_000.0 / 10.0, "{alone}: nearly all places are used");
    world.add(1, 10_000_000);
    for _ in 0..200 {
        world.pass();
    }
    let came_back = world.served[1];
    assert!(came_back > 50, "{came_back} in the first 200 ms");
    world.served = vec![0, 0];
    for _ in 0..2_000 {
        world.pass();
    }
    let part = world.served[1] as f64 / world.served.iter().sum::<u64>() as f64;
    assert!((0.8..0.95).contains(&part), "{part}");
}

#[test]
fn no_queue_with_work_waits_for_ever_whatever_comes_and_goes() {
    for seed in 0..300 {
        let mut world = World::new(seed, 1, &[1], 10 * MS);
        let count = 1 + world.draw(4) as usize;
        let places = 1 + world.draw(12) as usize;
        let weights: Vec<u32> = (0..count).map(|_| 1 + world.draw(9) as u32).collect();
        let run_takes = MS * (4 + world.draw(40) as u32);
        let mut world = World::new(seed, places, &weights, run_takes);
        for _ in 0..4_000 {
            match world.draw(200) {
                0 => {
                    let (queue, runs) = (world.draw(count as u64) as usize, 1 + world.draw(300));
                    world.add(queue, runs);
                }
                1 => {
                    // The consumer is deleted under it, and opened anew.
                    let queue = world.draw(count as u64) as usize;
                    world.pulls[queue].clear();
                    world.tell(Event::Lost(queue));
                    world.tell(Event::Opened(queue));
                }
                _ => {}
            }
            world.pass();
        }
        // A turn of all others by weight, and what a credit may stand elsewhere, twice.
        let turn = 2 * run_takes * weights.iter().sum::<u32>() + 2 * STAND + 4 * PROBE;
        assert!(
            world.longest_wait <= turn,
            "seed {seed}: waited {:?} with {places} places, {weights:?}",
            world.longest_wait
        );
        let work = world.lie.iter().sum::<u64>() * run_takes.as_millis() as u64 * 3 / 2;
        for _ in 0..work / places as u64 + 10_000 {
            world.pass();
        }
        assert_eq!(world.lie.iter().sum::<u64>(), 0, "seed {seed}: all are served");
        for _ in 0..5_000 {
            world.pass();
        }
        let standing: usize = world.credit.queues.iter().map(|queue| queue.credits).sum();
        assert!(
            standing + places / ASKED_AT_ONCE_PART >= places,
            "seed {seed}: {standing} of {places} credits stand"
        );
    }
}

#[test]
fn many_free_places_are_asked_for_at_once_and_few_are_gathered_while_nothing_is_asked_for() {
    let mut credit = Credit::new(256, [1]);
    let asks = credit.step(Event::Opened(0), MS);
    assert_eq!(asks, [Ask { queue: 0, runs: 256, stand: Some(STAND_ALONE) }]);
    for n in 0..256 {
        assert_eq!(credit.step(Event::Came(0, 1_000 - n), MS), []);
    }
    assert_eq!(credit.step(Event::Ended, 2 * MS), [], "one is gathered with others");
    assert_eq!(credit.wake_at(), Some(3 * MS));
    let asks = credit.step(Event::Woken, 3 * MS);
    assert_eq!(asks.iter().map(|ask| ask.runs).sum::<usize>(), 1);
    for _ in 0..31 {
        assert_eq!(credit.step(Event::Ended, 3 * MS), [], "what comes next is asked for already");
    }
    assert_eq!(credit.step(Event::Ended, 3 * MS).len(), 1);
    // Whoever has few places waits for none of them.
    let mut single = Credit::new(1, [1]);
    assert_eq!(single.step(Event::Opened(0), MS).len(), 1);
}

#[test]
fn places_do_not_stand_long_at_one_queue_while_another_is_not_open_yet() {
    let mut credit = Credit::new(4, [3, 1]);
    let asks = credit.step(Event::Opened(0), Duration::ZERO);
    assert_eq!(asks, [Ask { queue: 0, runs: 4, stand: Some(STAND_SCARCE) }]);
    assert_eq!(credit.step(Event::Opened(1), Duration::ZERO), [], "there is no place left for it");
    let asks = credit.step(Event::Returned(0, 4), STAND_SCARCE);
    let (heavy, light) = (Some(STAND), Some(STAND));
    assert_eq!(
        asks,
        [Ask { queue: 0, runs: 3, stand: heavy }, Ask { queue: 1, runs: 1, stand: light }],
        "and soon there is"
    );
}
