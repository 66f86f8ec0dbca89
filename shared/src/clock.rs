//! The one clock. Everything that needs the time is handed one; clippy refuses every other way to ask.
//!
//! It has two hands. *Wall time* ([`Clock::now`]) is for what people wrote ("every day at 02:00") and may jump
//! either way. *Elapsed time* ([`Clock::elapsed`]) is for leases, heartbeats and deadlines: it never goes back and it
//! counts while the machine is suspended, which Rust's `Instant` does not on Linux.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::SubsecRound;

use crate::Timestamp;

/// A boxed future, as the clock's sleeps return it.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What tells the time. See the module's words for which hand to read.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, in milliseconds.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment, counting suspension; never goes back.
    fn elapsed(&self) -> Duration;
    /// Waits this long. May wake early or late: look at the clock again.
    fn sleep(&self, duration: Duration) -> Sleep<'_>;
}

/// How processes share a clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to be handed down.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
        let now = chrono::Utc::now();
        now.trunc_subsecs(3)
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until a test moves it. Sleepers wake when their time has come.
#[derive(Debug)]
pub struct ManualClock {
    hands: Mutex<Hands>,
    moved: tokio::sync::watch::Sender<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Hands {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that shows this wall time.
    pub fn at(now: Timestamp) -> Arc<Self> {
        let hands = Mutex::new(Hands { now, elapsed: Duration::ZERO });
        Arc::new(Self { hands, moved: tokio::sync::watch::channel(0).0 })
    }

    /// Lets time pass: both hands move.
    pub fn advance(&self, by: Duration) {
        self.turn(|hands| {
            hands.now += by;
            hands.elapsed += by;
        });
    }

    /// Sets the wall clock, as an operator or NTP would: elapsed time does not move.
    pub fn step_to(&self, now: Timestamp) {
        self.turn(|hands| hands.now = now);
    }

    fn turn(&self, change: impl FnOnce(&mut Hands)) {
        change(&mut self.hands.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.send_modify(|count| *count += 1);
    }

    fn read(&self) -> Hands {
        *self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.read().now
    }

    fn elapsed(&self) -> Duration {
        self.read().elapsed
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        let until = self.elapsed() + duration;
        Box::pin(async move {
            let mut moved = self.moved.subscribe();
            while self.elapsed() < until {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_on_the_manual_clock_wakes_when_its_time_has_come_and_not_before() {
        let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("instant"));
        let sleeper = Arc::clone(&clock);
        let task = tokio::spawn(async move { sleeper.sleep(Duration::from_secs(10)).await });
        tokio::task::yield_now().await; // it sleeps from here on
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        clock.step_to("2027-01-01T00:00:00Z".parse().expect("instant"));
        tokio::task::yield_now().await;
        assert!(!task.is_finished(), "a step of the wall clock is no passing of time");
        clock.advance(Duration::from_secs(1));
        task.await.expect("woken");
    }

    #[test]
    fn the_machines_elapsed_time_does_not_go_back() {
        let clock = SystemClock;
        let before = clock.elapsed();
        assert!(clock.elapsed() >= before);
    }
}
