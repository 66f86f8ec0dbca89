//! What is logged of the connection to the server: each news at once, and what goes on only now and then, with the addresses that are
//! tried and that it goes on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::Event;

/// The same is not said again before this.
const AGAIN: Duration = Duration::from_secs(10);

/// What was said last, and when, in elapsed time.
#[derive(Clone, Default)]
pub(crate) struct Said {
    last: Arc<Mutex<Option<(String, Duration)>>>,
}

impl Said {
    /// Logs an event, unless it was logged a moment ago.
    pub(crate) fn say(&self, event: &Event, addresses: &str, now: Duration) {
        let (is_ill, words) = in_words(event, addresses);
        if !self.is_news(&words, now) {
            return;
        }
        if is_ill {
            tracing::warn!(%event, "{words}");
        } else {
            tracing::info!(%event, "{words}");
        }
    }

    fn is_news(&self, words: &str, now: Duration) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(said, at)| said == words && now.saturating_sub(*at) < AGAIN) {
            return false;
        }
        *last = Some((words.to_owned(), now));
        true
    }
}

/// What happened, and whether somebody should know. Pure.
fn in_words(event: &Event, addresses: &str) -> (bool, String) {
    match event {
        Event::Connected => (false, format!("Connected to nats-server at {addresses}")),
        Event::Disconnected => {
            (true, format!("The connection to nats-server at {addresses} is lost; connecting again"))
        }
        Event::ClientError(error) => (
            true,
            format!(
                "nats-server at {addresses} cannot be reached ({error}); trying again until it can. Check the address (--url, \
                 NATS_URL) and that the server runs"
            ),
        ),
        Event::ServerError(error) => (true, format!("nats-server at {addresses} says: {error}")),
        event => (false, format!("NATS: {event}")),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ClientError;

    use super::*;

    #[test]
    fn what_goes_on_is_said_now_and_then_and_news_at_once() {
        let said = Said::default();
        let news = |words: &str, now: u64| said.is_news(words, Duration::from_secs(now));
        assert!(news("lost", 1) && !news("lost", 2) && !news("lost", 10));
        assert!(news("lost", 11) && news("connected", 12) && news("lost", 13));
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_named_with_what_is_done_about_it() {
        let event = Event::ClientError(ClientError::Other("IO error".to_owned()));
        let (is_ill, words) = in_words(&event, "nats://127.0.0.1:4999");
        assert!(is_ill);
        for part in ["nats://127.0.0.1:4999 cannot be reached", "IO error", "trying again until it can"] {
            assert!(words.contains(part), "{words}");
        }
    }
}
