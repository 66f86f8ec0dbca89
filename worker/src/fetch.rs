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
        loop {
            let free = self.places.saturating_sub(running.len()).saturating_sub(queue.outstanding());
            if free > 0 && queue.ask(free).await.is_err() {
                break;
            }
            tokio::select! {
                () = stop.drain.cancelled() => break,
                () = stop.abort.cancelled() => break,
                Some(ended) = running.join_next(), if !running.is_empty() => report(ended),
                pulled = queue.next() => match pulled {
                    Pulled::Task(delivery) => {
                        let (server, queue, abort) = (self.server.clone(), self.queue.clone(), stop.abort.clone());
                        running.spawn(server.serve(*delivery, queue, ack_wait, abort));
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
        join_all(unread.iter().map(|delivery| delivery.hand_back(Duration::ZERO))).await;
    }
}

/// A task that panicked takes its run with it: the run comes out again after the acknowledge wait.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(%panic, "A run's task ended in a panic: {panic}");
    }
}
