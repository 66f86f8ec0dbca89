//! What all verbs share.

use std::{sync::Arc, time::Duration};

use shared::clock::SharedClock;
use streams::Streams;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use shared::limits::{CONSOLE_REQUESTS_MAX, CONSOLE_STREAMS_MAX, CONSOLE_WAITS_MAX};

use super::{kinds, problem::Problem};
use crate::{read_model::ReadModel, schedule_book::ScheduleBook};

/// How often, and how long apart, it is looked whether NATS is connected again.
const CONNECTED_LOOKS: u32 = 20;
const CONNECTED_LOOK: Duration = Duration::from_millis(100);

/// What all verbs share.
pub struct Api {
    /// The fleet.
    pub streams: Streams,
    /// All schedules, in memory.
    pub book: ScheduleBook,
    /// The ledger as tables.
    pub model: ReadModel,
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
    pub fn new(streams: Streams, book: ScheduleBook, model: ReadModel, stop: CancellationToken) -> Self {
        // A target that leads elsewhere is not followed there. What cannot be built asks nobody.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        Self {
            streams,
            book,
            model,
            http: http.unwrap_or_default(),
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

    /// Refuses, soon, what would wait long for a server that is away. A reconnect is waited for.
    pub async fn reached(&self) -> Result<(), Problem> {
        for _ in 0..CONNECTED_LOOKS {
            if self.streams.is_connected() {
                return Ok(());
            }
            self.clock().sleep(CONNECTED_LOOK).await;
        }
        Err(Problem::new(&kinds::UNAVAILABLE, "NATS is not connected; nothing was done"))
    }

    /// What lists of runs wait for, if the read model does not answer for the whole ledger yet.
    pub fn runs_wait_for(&self) -> Option<String> {
        let status = self.model.status();
        let trouble = status.trouble.map(|trouble| format!("the read model does not get on: {trouble}"));
        let rebuilding = || {
            format!("the read model is being built ({} runs so far, {} to come)", status.runs, status.behind)
        };
        trouble.or_else(|| status.is_rebuilding.then(rebuilding))
    }
}
