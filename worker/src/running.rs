//! The runs this worker executes now.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{limits::ACK_WAIT_MAX, run::RunId, run_record::RunRecord};
use streams::{cancel::CancelRequest, delivery::Delivery};
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
    /// Those that are over, by the moment from which they need not be remembered.
    over: BTreeSet<(Duration, u64)>,
}

impl Begun {
    fn forget_until(&mut self, now: Duration) {
        while let Some((until, fence)) = self.over.first().copied().filter(|(until, _)| *until < now) {
            self.over.remove(&(until, fence));
            self.fences.remove(&fence);
        }
    }
}

/// How long a claim is remembered whose end is recorded: a delivery that read the record just before may still come to
/// ask.
const RECORDED_KEPT: Duration = Duration::from_mins(2);
/// How long a claim is remembered whose end is not: the record names it until the server brings the run again.
const LOST_KEPT: Duration = ACK_WAIT_MAX.saturating_mul(2);

/// Requests to cancel that were heard: one may come between the claim of its run and the run's entry here.
#[derive(Default)]
struct Cancelled {
    requests: HashMap<RunId, CancelRequest>,
    order: VecDeque<RunId>,
}

/// Requests remembered; one that is forgotten is found in the control stream.
const CANCELLED_KEPT_MAX: usize = 1_024;

struct Entry {
    attempt: u32,
    delivery: Arc<Delivery>,
    cancel: watch::Sender<Option<CancelRequest>>,
}

impl Entry {
    fn new(attempt: u32, delivery: &Arc<Delivery>) -> Self {
        let (cancel, _) = watch::channel(None);
        Self { attempt, delivery: Arc::clone(delivery), cancel }
    }
}

/// A run's place in the table; given up when it is dropped, whatever ended the attempt.
pub(crate) struct Place {
    running: Running,
    run: RunId,
    /// None: begun without a claim.
    fence: Option<u64>,
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a run under its claim; nothing if this claim was begun here before.
    pub(crate) fn enter(
        &self,
        run: &RunId,
        attempt: u32,
        fence: u64,
        delivery: &Arc<Delivery>,
        now: Duration,
    ) -> Option<Place> {
        let mut begun = self.begun();
        begun.forget_until(now);
        if !begun.fences.insert(fence) {
            return None;
        }
        self.lock().insert(run.clone(), Entry::new(attempt, delivery));
        // Whoever sees the claim as begun finds its entry.
        drop(begun);
        Some(self.place(run, Some(fence)))
    }

    /// Enters a run that is begun without a claim; nothing if it is under way here, which then answers to this delivery.
    pub(crate) fn enter_unclaimed(
        &self,
        run: &RunId,
        attempt: u32,
        delivery: &Arc<Delivery>,
    ) -> Option<Place> {
        match self.lock().entry(run.clone()) {
            hash_map::Entry::Occupied(mut under_way) => {
                under_way.get_mut().delivery = Arc::clone(delivery);
                return None;
            }
            hash_map::Entry::Vacant(free) => free.insert(Entry::new(attempt, delivery)),
        };
        Some(self.place(run, None))
    }

    fn place(&self, run: &RunId, fence: Option<u64>) -> Place {
        // Looked up after the entry was made: a request that comes later finds that.
        let request = self.lock_cancelled().requests.get(run).cloned();
        if let Some(request) = request {
            self.stop(request);
        }
        Place { running: self.clone(), run: run.clone(), fence }
    }

    fn lock_cancelled(&self) -> std::sync::MutexGuard<'_, Cancelled> {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops a run if it is under way here, and remembers that its end was asked for.
    pub(crate) fn cancel(&self, request: CancelRequest) {
        let mut cancelled = self.lock_cancelled();
        if cancelled.requests.insert(request.run.clone(), request.clone()).is_none() {
            cancelled.order.push_back(request.run.clone());
        }
        if cancelled.order.len() > CANCELLED_KEPT_MAX
            && let Some(oldest) = cancelled.order.pop_front()
        {
            cancelled.requests.remove(&oldest);
        }
        drop(cancelled);
        self.stop(request);
    }

    fn stop(&self, request: CancelRequest) {
        if let Some(entry) = self.lock().get(&request.run) {
            entry.cancel.send_replace(Some(request));
        }
    }

    /// Hands a newer delivery of a run to the attempt that is under way here. Whether there is one.
    pub(crate) fn adopt(&self, run: &RunId, delivery: &Arc<Delivery>) -> bool {
        match self.lock().get_mut(run) {
            Some(entry) => {
                entry.delivery = Arc::clone(delivery);
                true
            }
            None => false,
        }
    }

    /// Whether an attempt of a run is under way here.
    pub(crate) fn has(&self, run: &RunId) -> bool {
        self.lock().contains_key(run)
    }

    /// Whether the attempt of a claim was begun here.
    pub(crate) fn has_begun(&self, fence: u64) -> bool {
        self.begun().fences.contains(&fence)
    }

    /// All runs with their attempts.
    pub(crate) fn list(&self) -> Vec<(RunId, u32)> {
        self.lock().iter().map(|(run, entry)| (run.clone(), entry.attempt)).collect()
    }
}

impl Place {
    /// The attempt is over: its end is in the ledger, or is not for us to write.
    pub(crate) fn over(&self, recorded: bool, now: Duration) {
        let Some(fence) = self.fence else { return };
        let kept = if recorded { RECORDED_KEPT } else { LOST_KEPT };
        self.running.begun().over.insert((now + kept, fence));
    }

    /// The newest delivery of the run: the one whose answers count.
    pub(crate) fn delivery(&self) -> Option<Arc<Delivery>> {
        self.running.lock().get(&self.run).map(|entry| Arc::clone(&entry.delivery))
    }

    /// Returns when a request to cancel this run was heard. Never, if none is.
    pub(crate) async fn cancelled(&self, record: &RunRecord) -> CancelRequest {
        let asked = self.running.lock().get(&self.run).map(|entry| entry.cancel.subscribe());
        if let Some(mut asked) = asked
            && let Ok(request) =
                asked.wait_for(|asked| asked.as_ref().is_some_and(|asked| asked.is_about(record))).await
            && let Some(request) = request.clone()
        {
            return request;
        }
        std::future::pending().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_remembered_until_nobody_can_ask_for_it_any_more_and_not_longer() {
        let mut begun = Begun::default();
        for fence in 1..=3 {
            begun.fences.insert(fence);
        }
        begun.over.insert((Duration::from_secs(10) + RECORDED_KEPT, 1));
        begun.over.insert((Duration::from_secs(10) + LOST_KEPT, 2));
        begun.forget_until(Duration::from_secs(11) + RECORDED_KEPT);
        assert_eq!(begun.fences, HashSet::from([2, 3]), "what is not recorded is remembered longer");
        begun.forget_until(Duration::from_secs(11) + LOST_KEPT);
        assert_eq!(begun.fences, HashSet::from([3]), "what is under way is never forgotten");
        assert!(begun.over.is_empty());
    }
}
