//! When the connection was interrupted last: a server that was killed may have forgotten what it handed out before.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::Event;

/// Whether the connection stands, and since when after an interruption.
#[derive(Clone, Default)]
pub(crate) struct Link {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
enum State {
    #[default]
    NeverInterrupted,
    Down,
    UpSince(Duration),
}

impl Link {
    /// Notes what happened to the connection, at this moment of elapsed time.
    pub(crate) fn note(&self, event: &Event, now: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Disconnected => *state = State::Down,
            Event::Connected if matches!(*state, State::Down) => *state = State::UpSince(now),
            _ => {}
        }
    }

    /// Whether it is interrupted, or was within this time.
    pub(crate) fn was_interrupted_within(&self, time: Duration, now: Duration) -> bool {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::NeverInterrupted => false,
            State::Down => true,
            State::UpSince(since) => now.saturating_sub(since) < time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_remembered_from_when_it_is_over() {
        let link = Link::default();
        let within =
            |now: u64| link.was_interrupted_within(Duration::from_secs(10), Duration::from_secs(now));
        link.note(&Event::Connected, Duration::from_secs(1));
        assert!(!within(2), "the first connection interrupts nothing");
        link.note(&Event::Disconnected, Duration::from_secs(3));
        assert!(within(60));
        link.note(&Event::Connected, Duration::from_mins(1));
        assert!(within(69) && !within(70));
    }
}
