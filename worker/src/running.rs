//! The runs this worker executes now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use shared::run::RunId;
use streams::delivery::Delivery;

/// The runs this worker executes now, with the delivery each of them answers to.
#[derive(Clone, Default)]
pub(crate) struct Running {
    table: Arc<Mutex<HashMap<RunId, Entry>>>,
}

struct Entry {
    attempt: u32,
    delivery: Delivery,
}

/// A run's place in the table; given up when it is dropped, whatever ended the attempt.
pub(crate) struct Place {
    running: Running,
    run: RunId,
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a run.
    pub(crate) fn enter(&self, run: &RunId, attempt: u32, delivery: &Delivery) -> Place {
        self.lock().insert(run.clone(), Entry { attempt, delivery: delivery.clone() });
        Place { running: self.clone(), run: run.clone() }
    }

    /// Hands a newer delivery of a run to the attempt that is under way here. Whether there is one.
    pub(crate) fn adopt(&self, run: &RunId, delivery: &Delivery) -> bool {
        match self.lock().get_mut(run) {
            Some(entry) => {
                entry.delivery = delivery.clone();
                true
            }
            None => false,
        }
    }

    /// All runs with their attempts.
    pub(crate) fn list(&self) -> Vec<(RunId, u32)> {
        self.lock().iter().map(|(run, entry)| (run.clone(), entry.attempt)).collect()
    }
}

impl Place {
    /// The newest delivery of the run: the one whose answers count.
    pub(crate) fn delivery(&self) -> Option<Delivery> {
        self.running.lock().get(&self.run).map(|entry| entry.delivery.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.run);
    }
}
