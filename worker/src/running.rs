//! The runs this worker executes now.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use shared::{run::RunId, run_record::Reason};
use streams::delivery::Delivery;
use tokio::sync::watch;

/// The runs this worker executes now, with the delivery each of them answers to.
#[derive(Clone, Default)]
pub(crate) struct Running {
    table: Arc<Mutex<HashMap<RunId, Entry>>>,
    /// The claims begun here of late, by their fence.
    begun: Arc<Mutex<Begun>>,
    /// Whose end was asked for of late, wherever they run.
    cancelled: Arc<Mutex<Cancelled>>,
}

/// Claims that were begun here: each is begun once, although two deliveries of a run may find the same claim (one whose
/// answer was lost and is read back, and one that came again meanwhile).
#[derive(Default)]
struct Begun {
    fences: HashSet<u64>,
    order: VecDeque<u64>,
}

/// Claims remembered; more than a worker begins within an acknowledge wait in which it cannot be heard.
const BEGUN_KEPT_MAX: usize = 4_096;

/// Requests to cancel that were heard: one may come between the claim of its run and the run's entry here.
#[derive(Default)]
struct Cancelled {
    reasons: HashMap<RunId, Reason>,
    order: VecDeque<RunId>,
}

/// Requests remembered; one that is forgotten is found in the control stream.
const CANCELLED_KEPT_MAX: usize = 1_024;

struct Entry {
    attempt: u32,
    delivery: Delivery,
    cancel: watch::Sender<Option<Reason>>,
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

    /// Enters a run under its claim; nothing if this claim was begun here before.
    pub(crate) fn enter(&self, run: &RunId, attempt: u32, fence: u64, delivery: &Delivery) -> Option<Place> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !begun.fences.insert(fence) {
            return None;
        }
        begun.order.push_back(fence);
        if begun.order.len() > BEGUN_KEPT_MAX
            && let Some(oldest) = begun.order.pop_front()
        {
            begun.fences.remove(&oldest);
        }
        drop(begun);
        let (cancel, _) = watch::channel(None);
        self.lock().insert(run.clone(), Entry { attempt, delivery: delivery.clone(), cancel });
        // Looked up only now: a request that comes later finds the entry.
        if let Some(reason) = self.lock_cancelled().reasons.get(run).copied() {
            self.stop(run, reason);
        }
        Some(Place { running: self.clone(), run: run.clone() })
    }

    fn lock_cancelled(&self) -> std::sync::MutexGuard<'_, Cancelled> {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops a run if it is under way here, and remembers that its end was asked for.
    pub(crate) fn cancel(&self, run: &RunId, reason: Reason) {
        let mut cancelled = self.lock_cancelled();
        if cancelled.reasons.insert(run.clone(), reason).is_none() {
            cancelled.order.push_back(run.clone());
        }
        if cancelled.order.len() > CANCELLED_KEPT_MAX
            && let Some(oldest) = cancelled.order.pop_front()
        {
            cancelled.reasons.remove(&oldest);
        }
        drop(cancelled);
        self.stop(run, reason);
    }

    fn stop(&self, run: &RunId, reason: Reason) {
        if let Some(entry) = self.lock().get(run) {
            entry.cancel.send_replace(Some(reason));
        }
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

    /// Whether the attempt of a claim was begun here.
    pub(crate) fn has_begun(&self, fence: u64) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).fences.contains(&fence)
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

    /// Returns when a request to cancel the run was heard, with its reason. Never, if none is.
    pub(crate) async fn cancelled(&self) -> Reason {
        let asked = self.running.lock().get(&self.run).map(|entry| entry.cancel.subscribe());
        if let Some(mut asked) = asked
            && let Ok(reason) = asked.wait_for(Option::is_some).await
            && let Some(reason) = *reason
        {
            return reason;
        }
        std::future::pending().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.run);
    }
}
