//! Fetching by credit: a worker asks for exactly as many runs as it has free places, so it never holds one that another
//! worker could be at.

use std::time::Duration;

use futures::future::join_all;
use shared::names::QueueName;
use streams::{
    Streams,
    tasks::{Pulled, Queue},
};
use tokio::task::JoinSet;

use crate::{Stop, serve::Server};

/// Waits before a queue that was lost is opened anew: quick at first, never in a hot loop.
const REOPEN_WAIT: Duration = Duration::from_millis(200);
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(5);

/// While nothing is asked for, a few free places wait this long for others before they are asked for.
const GATHER: Duration = Duration::from_millis(1);
/// This part of all places is asked for at once.
const ASKED_AT_ONCE_PART: usize = 8;

/// When free places are asked for.
#[derive(Debug, PartialEq, Eq)]
enum When {
    Now,
    Soon,
    Later,
}

/// Each ask costs the server as much as several tasks, so the small ones are gathered: no run waits for that longer than
/// [`GATHER`].
fn when(places: usize, free: usize, outstanding: usize) -> When {
    if free == 0 {
        When::Later
    } else if free >= (places / ASKED_AT_ONCE_PART).max(1) {
        When::Now
    } else if outstanding == 0 {
        When::Soon
    } else {
        // What comes next is asked for already.
        When::Later
    }
}

/// Fetches from one queue.
pub(crate) struct Fetch {
    pub(crate) streams: Streams,
    pub(crate) queue: QueueName,
    pub(crate) places: usize,
    pub(crate) server: Server,
}

impl Fetch {
    /// Fetches and serves until it is told to drain; returns when the last run has ended or was handed back.
    pub(crate) async fn run(self, stop: Stop) {
        let mut running = JoinSet::new();
        let mut wait = REOPEN_WAIT;
        while !stop.drain.is_cancelled() && !stop.abort.is_cancelled() {
            match self.streams.open_queue(&self.queue).await {
                Ok(queue) => {
                    let begun = self.streams.clock().elapsed();
                    self.fetch_from(queue, &mut running, &stop).await;
                    if self.streams.clock().elapsed().saturating_sub(begun) > REOPEN_WAIT_MAX {
                        wait = REOPEN_WAIT;
                    }
                }
                Err(error) => {
                    tracing::warn!(queue = %self.queue, %error, "Queue `{}` cannot be opened: {error}", self.queue);
                }
            }
            tokio::select! {
                () = stop.drain.cancelled() => {}
                () = stop.abort.cancelled() => {}
                () = self.streams.clock().sleep(wait) => wait = (wait * 2).min(REOPEN_WAIT_MAX),
            }
        }
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    }

    /// Fetches until the queue is lost or we are told to stop.
    async fn fetch_from(&self, mut queue: Queue, running: &mut JoinSet<()>, stop: &Stop) {
        let ack_wait = queue.ack_wait();
        let clock = self.streams.clock();
        let mut gather_until = None;
        loop {
            let free = self.places.saturating_sub(running.len()).saturating_sub(queue.outstanding());
            let now = clock.elapsed();
            let is_over = gather_until.is_some_and(|until| until <= now);
            match when(self.places, free, queue.outstanding()) {
                When::Later => gather_until = None,
                When::Soon if !is_over => gather_until = gather_until.or(Some(now + GATHER)),
                When::Soon | When::Now => {
                    gather_until = None;
                    if queue.ask(free).await.is_err() {
                        break;
                    }
                }
            }
            tokio::select! {
                () = clock.sleep(gather_until.unwrap_or(now).saturating_sub(now)), if gather_until.is_some() => {}
                () = stop.drain.cancelled() => break,
                () = stop.abort.cancelled() => break,
                Some(ended) = running.join_next(), if !running.is_empty() => report(ended),
                pulled = queue.next() => match pulled {
                    Pulled::Task(delivery) => {
                        let (server, queue, abort) = (self.server.clone(), self.queue.clone(), stop.abort.clone());
                        running.spawn(server.serve(delivery, queue, ack_wait, abort));
                    }
                    Pulled::Returned => {}
                    Pulled::Lost(why) => {
                        tracing::info!(queue = %self.queue, why, "Queue `{}` is opened anew: {why}", self.queue);
                        break;
                    }
                },
            }
        }
        // What came and was not looked at goes back at once; nothing of it was spent.
        let unread = queue.close().await;
        join_all(unread.iter().map(|delivery| self.server.give_back(delivery, &self.queue, Duration::ZERO)))
            .await;
    }
}

/// A task that panicked takes its run with it: the run comes out again after the acknowledge wait.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(%panic, "A run's task ended in a panic: {panic}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_free_places_are_asked_for_at_once_and_few_are_gathered_while_nothing_is_asked_for() {
        for (places, free, outstanding, expected) in [
            (256, 0, 0, When::Later),
            (256, 256, 0, When::Now),
            (256, 32, 100, When::Now),
            (256, 31, 100, When::Later),
            (256, 31, 0, When::Soon),
            // Whoever has few places waits for none of them.
            (1, 1, 0, When::Now),
            (8, 1, 3, When::Now),
        ] {
            assert_eq!(when(places, free, outstanding), expected, "{free} of {places}, {outstanding}");
        }
    }
}
