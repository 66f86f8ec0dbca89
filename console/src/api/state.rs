//! What all verbs share.

use std::sync::Arc;

use shared::clock::SharedClock;
use streams::Streams;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use shared::limits::{CONSOLE_REQUESTS_MAX, CONSOLE_STREAMS_MAX, CONSOLE_WAITS_MAX};

use crate::schedule_book::ScheduleBook;

/// What all verbs share.
pub struct Api {
    /// The fleet.
    pub streams: Streams,
    /// All schedules, in memory.
    pub book: ScheduleBook,
    /// Asks targets how they are.
    pub http: reqwest::Client,
    /// Ends what goes on: streams, and whoever waits for the end of a run.
    pub stop: CancellationToken,
    /// Places of requests that are worked on.
    pub requests: Arc<Semaphore>,
    /// Places of those that wait for the end of a run.
    pub waits: Arc<Semaphore>,
    /// Places of streams.
    pub event_streams: Arc<Semaphore>,
}

impl Api {
    /// As told.
    pub fn new(streams: Streams, book: ScheduleBook, stop: CancellationToken) -> Self {
        Self {
            streams,
            book,
            http: reqwest::Client::new(),
            stop,
            requests: Arc::new(Semaphore::new(CONSOLE_REQUESTS_MAX)),
            waits: Arc::new(Semaphore::new(CONSOLE_WAITS_MAX)),
            event_streams: Arc::new(Semaphore::new(CONSOLE_STREAMS_MAX)),
        }
    }

    /// The one clock.
    pub fn clock(&self) -> &SharedClock {
        self.streams.clock()
    }
}
