//! The target service of all scenarios: it answers at once, and notes when each run began.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use shared::Timestamp;
use streams::{Bytes, Streams};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The subject prefix it answers on, and the name schedules know it by.
pub(crate) const PREFIX: &str = "svc.bench";
pub(crate) const NAME: &str = "bench";

/// A run as the target saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    pub(crate) began: Timestamp,
    pub(crate) slot: Option<Timestamp>,
    pub(crate) times: u32,
}

impl Seen {
    /// How long after its slot it began, in milliseconds.
    pub(crate) fn late_ms(&self) -> Option<f64> {
        Some((self.began - self.slot?).num_milliseconds() as f64)
    }
}

#[derive(Deserialize)]
struct Request {
    run: String,
    slot: Option<Timestamp>,
}

/// The running target service.
pub(crate) struct Target {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    _answering: AbortOnDropHandle<()>,
}

impl Target {
    pub(crate) fn start(streams: &Streams) -> Self {
        let seen: Arc<Mutex<HashMap<String, Seen>>> = Arc::default();
        let (streams, noted) = (streams.clone(), Arc::clone(&seen));
        let answering = tokio::spawn(async move {
            let clock = streams.clock().clone();
            let note = move |_action: String, payload: Bytes| {
                let began = clock.now();
                if let Ok(request) = serde_json::from_slice::<Request>(&payload) {
                    let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    let fresh = Seen { began, slot: request.slot, times: 0 };
                    seen.entry(request.run).or_insert(fresh).times += 1;
                }
                std::future::ready(Ok(Bytes::from_static(b"{}")))
            };
            let _ = streams.respond(NAME, PREFIX, note, CancellationToken::new()).await;
        });
        Self { seen, _answering: AbortOnDropHandle::new(answering) }
    }

    /// How many runs began.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All runs that began, by their id.
    pub(crate) fn seen(&self) -> HashMap<String, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
