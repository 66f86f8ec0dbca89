//! The settings of the queues as the fleet knows them; `targets.rs` keeps them up to date by its watch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use shared::{names::QueueName, queue::QueueSettings};

/// The settings of the queues this worker knows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Queues {
    known: Arc<Mutex<HashMap<QueueName, QueueSettings>>>,
}

impl Queues {
    /// The settings of a queue; the usual ones, if none are known.
    pub(crate) fn settings(&self, name: &QueueName) -> QueueSettings {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    /// Notes what the catalog says of a queue.
    pub(crate) fn note(&self, name: QueueName, settings: Option<QueueSettings>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match settings {
            Some(settings) => known.insert(name, settings),
            None => known.remove(&name),
        };
    }
}
