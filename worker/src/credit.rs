//! How many runs are asked for, from which queue. Pure: what happened and when in, what is to be asked for out.
//!
//! A *credit* is a free place that was asked for. Credits and runs together are never more than places. Places are shared
//! by weight among queues that have work, as the server tells with each run how many are behind it; a queue without work
//! lends its share, and is asked every [`PROBE`] whether it has some. If none has any, the credits stand at all of them.

use std::time::Duration;

/// While others have work, a queue that had none is asked this often, with one credit that comes back at once.
pub(crate) const PROBE: Duration = Duration::from_millis(100);
/// How long credits stand at the only queue.
const STAND_ALONE: Duration = Duration::from_secs(30);
/// How long credits stand where nothing is, before they are shared anew.
const STAND: Duration = Duration::from_secs(2);
/// How long, if some queue has none of them: there are fewer places than queues, or it is not open yet.
const STAND_SCARCE: Duration = Duration::from_millis(300);
/// How long credits stand at a queue that has work, if there are others: another worker may have been faster.
const FILL: Duration = Duration::from_millis(250);

/// While nothing is asked for, a few free places wait this long for others before they are asked for.
const GATHER: Duration = Duration::from_millis(1);
/// This part of all places is asked for at once.
const ASKED_AT_ONCE_PART: usize = 8;

/// One place of a queue of weight 1, in units of its share.
const SHARE: u64 = 1_000_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A queue can be asked.
    Opened(usize),
    /// A queue cannot be asked any more; its credits are back.
    Lost(usize),
    /// A run came, and so many are behind it.
    Came(usize, u64),
    /// So many credits came back without a run.
    Returned(usize, usize),
    /// A run has ended.
    Ended,
    /// Time has passed.
    Woken,
}

/// So many runs are to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// From which queue.
    pub(crate) queue: usize,
    /// How many.
    pub(crate) runs: usize,
    /// How long the server may wait for them; none: it says at once if there are none.
    pub(crate) stand: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    weight: u64,
    is_open: bool,
    credits: usize,
    /// Runs that lie there for certain, by the server's latest word.
    left: u64,
    /// What it has had of its share: the next place goes to whoever has had least.
    had: u64,
    /// When it was last asked.
    asked_at: Duration,
}

/// Places, and where they are.
#[derive(Debug)]
pub(crate) struct Credit {
    places: usize,
    queues: Vec<Queue>,
    running: usize,
    gather_until: Option<Duration>,
}

impl Credit {
    pub(crate) fn new(places: usize, weights: impl IntoIterator<Item = u32>) -> Self {
        let queue = |weight: u32| Queue {
            weight: u64::from(weight.max(1)),
            is_open: false,
            credits: 0,
            left: 0,
            had: 0,
            asked_at: Duration::ZERO,
        };
        Self { places, queues: weights.into_iter().map(queue).collect(), running: 0, gather_until: None }
    }

    /// Runs that are under way.
    #[cfg(test)]
    fn running(&self) -> usize {
        self.running
    }

    fn free(&self) -> usize {
        let credits: usize = self.queues.iter().map(|queue| queue.credits).sum();
        self.places.saturating_sub(self.running).saturating_sub(credits)
    }

    /// What is to be asked for after this.
    pub(crate) fn step(&mut self, event: Event, now: Duration) -> Vec<Ask> {
        match event {
            Event::Opened(number) => self.queues[number].is_open = true,
            Event::Lost(number) => {
                let queue = &mut self.queues[number];
                (queue.is_open, queue.credits, queue.left) = (false, 0, 0);
            }
            Event::Came(number, left) => self.came(number, left),
            Event::Returned(number, credits) => {
                let queue = &mut self.queues[number];
                let credits = credits.min(queue.credits);
                queue.credits -= credits;
                queue.left = 0;
            }
            Event::Ended => self.running = self.running.saturating_sub(1),
            Event::Woken => {}
        }
        self.asks(now)
    }

    fn came(&mut self, number: usize, left: u64) {
        self.running += 1;
        // Whoever had no work has no claim to what others have had meanwhile.
        let others = self.queues.iter().enumerate().filter(|(n, queue)| *n != number && queue.left > 0);
        let least = others.map(|(_, queue)| queue.had).min();
        let queue = &mut self.queues[number];
        if queue.left == 0 {
            queue.had = queue.had.max(least.unwrap_or(0));
        }
        queue.credits = queue.credits.saturating_sub(1);
        queue.left = left;
        queue.had += SHARE / queue.weight;
    }

    /// When to wake, if nothing happens before.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let has_work = self.queues.iter().any(|queue| queue.left > 0);
        let is_idle = |queue: &&Queue| queue.is_open && queue.left == 0 && queue.credits == 0;
        let probe = self.queues.iter().filter(is_idle).map(|queue| queue.asked_at + PROBE).min();
        let probe = probe.filter(|_| has_work && self.free() > 0);
        [self.gather_until, probe].into_iter().flatten().min()
    }

    fn asks(&mut self, now: Duration) -> Vec<Ask> {
        let mut free = self.free();
        let mut wanted = vec![0; self.queues.len()];
        if free == 0 {
            self.gather_until = None;
            return Vec::new();
        }
        let mut asks = Vec::new();
        if self.queues.iter().any(|queue| queue.is_open && queue.left > 0) {
            for (number, queue) in self.queues.iter_mut().enumerate() {
                let is_due = queue.left == 0 && queue.credits == 0 && queue.asked_at + PROBE <= now;
                if queue.is_open && is_due && free > 0 {
                    free -= 1;
                    queue.credits += 1;
                    queue.asked_at = now;
                    asks.push(Ask { queue: number, runs: 1, stand: None });
                }
            }
            self.share(free, &mut wanted, |queue, wanted| queue.left > (queue.credits + wanted) as u64);
        } else {
            // Nobody is known to have work: wherever some comes first, a credit is there.
            self.spread(free, &mut wanted);
        }
        asks.extend(self.gathered(&wanted, now));
        asks
    }

    /// Gives places to queues that want them, one after another to whoever has had least.
    fn share(&self, free: usize, wanted: &mut [usize], wants: impl Fn(&Queue, usize) -> bool) {
        for _ in 0..free {
            let due = |(number, queue): &(usize, &Queue)| {
                queue.had + (queue.credits + wanted[*number]) as u64 * (SHARE / queue.weight)
            };
            let open = self.queues.iter().enumerate().filter(|(_, queue)| queue.is_open);
            let Some((number, _)) = open.filter(|(n, queue)| wants(queue, wanted[*n])).min_by_key(due) else {
                return;
            };
            wanted[number] += 1;
        }
    }

    fn spread(&self, free: usize, wanted: &mut [usize]) {
        for _ in 0..free {
            let order = |(number, queue): &(usize, &Queue)| {
                ((queue.credits + wanted[*number]) as u64 * (SHARE / queue.weight), queue.asked_at)
            };
            let open = self.queues.iter().enumerate().filter(|(_, queue)| queue.is_open);
            let Some((number, _)) = open.min_by_key(order) else { return };
            wanted[number] += 1;
        }
    }

    /// Each ask costs the server as much as several tasks, so small ones are gathered: no run waits for that longer than
    /// [`GATHER`].
    fn gathered(&mut self, wanted: &[usize], now: Duration) -> Vec<Ask> {
        let at_once = (self.places / ASKED_AT_ONCE_PART).max(1);
        let is_over = self.gather_until.is_some_and(|until| until <= now);
        let (stand_idle, mut waits) = (self.stand(), false);
        let mut asks = Vec::new();
        for (number, runs) in wanted.iter().copied().enumerate().filter(|(_, runs)| *runs > 0) {
            let queue = &mut self.queues[number];
            // What comes next is asked for already.
            if runs < at_once && queue.credits > 0 {
                continue;
            }
            if runs < at_once && !is_over {
                waits = true;
                continue;
            }
            queue.credits += runs;
            queue.asked_at = now;
            let stand = if queue.left > 0 && stand_idle < STAND_ALONE { FILL } else { stand_idle };
            asks.push(Ask { queue: number, runs, stand: Some(stand) });
        }
        self.gather_until =
            if waits { self.gather_until.filter(|_| !is_over).or(Some(now + GATHER)) } else { None };
        asks
    }

    /// How long credits stand where nothing is. A queue that is being opened must not wait long for those that stand elsewhere.
    fn stand(&self) -> Duration {
        let are_open = self.queues.iter().all(|queue| queue.is_open);
        match self.queues.len() {
            1 => STAND_ALONE,
            queues if queues > self.places || !are_open => STAND_SCARCE,
            _ => STAND,
        }
    }
}

#[cfg(test)]
#[path = "credit_tests.rs"]
mod tests;
