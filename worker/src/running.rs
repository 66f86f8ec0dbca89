//! The runs this worker executes now.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::{clock::SharedClock, limits::ACK_WAIT_MAX, run::RunId, run_record::RunRecord};
use streams::{cancel::CancelRequest, delivery::Delivery};
use tokio::sync::watch;

/// The runs this worker executes now, with the delivery each of them answers to. Cheap to clone.
pub(crate) struct Running<D = Delivery> {
    inner: Arc<Inner<D>>,
}

struct Inner<D> {
    clock: SharedClock,
    table: Mutex<HashMap<RunId, Entry<D>>>,
    /// The claims begun here of late, by their fence.
    begun: Mutex<Begun>,
    /// Whose end was asked for of late, wherever they run.
    cancelled: Mutex<Cancelled>,
    /// Entries made so far: each has a number of its own.
    entered: AtomicU64,
}

impl<D> Clone for Running<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

struct Entry<D> {
    /// Whose it is: a run's next attempt may be entered while the last one still stops.
    number: u64,
    attempt: u32,
    delivery: Arc<D>,
    cancel: watch::Sender<Option<CancelRequest>>,
    /// Its attempt has lost its hold, and stops: it answers to nobody any more.
    is_lost: bool,
}

/// A run's place in the table; given up when it is dropped, whatever ended the attempt.
pub(crate) struct Place<D = Delivery> {
    running: Running<D>,
    run: RunId,
    number: u64,
    /// None: begun without a claim.
    fence: Option<u64>,
    is_recorded: AtomicBool,
}

impl<D> Running<D> {
    pub(crate) fn new(clock: SharedClock) -> Self {
        let inner = Inner {
            clock,
            table: Mutex::default(),
            begun: Mutex::default(),
            cancelled: Mutex::default(),
            entered: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Entry<D>>> {
        lock(&self.inner.table)
    }

    /// Enters a run under its claim; nothing if this claim was begun here before.
    pub(crate) fn enter(&self, run: &RunId, attempt: u32, fence: u64, delivery: &Arc<D>) -> Option<Place<D>> {
        let mut begun = lock(&self.inner.begun);
        begun.forget_until(self.inner.clock.elapsed());
        if !begun.fences.insert(fence) {
            return None;
        }
        let entry = self.entry(attempt, delivery);
        let number = entry.number;
        self.lock().insert(run.clone(), entry);
        // Whoever sees the claim as begun finds its entry.
        drop(begun);
        Some(self.place(run, number, Some(fence)))
    }

    /// Enters a run that is begun without a claim; nothing if it is under way here, which then answers to this delivery.
    pub(crate) fn enter_unclaimed(&self, run: &RunId, attempt: u32, delivery: &Arc<D>) -> Option<Place<D>> {
        let entry = self.entry(attempt, delivery);
        let number = entry.number;
        match self.lock().entry(run.clone()) {
            hash_map::Entry::Occupied(mut under_way) => {
                under_way.get_mut().delivery = Arc::clone(delivery);
                return None;
            }
            hash_map::Entry::Vacant(free) => free.insert(entry),
        };
        Some(self.place(run, number, None))
    }

    fn entry(&self, attempt: u32, delivery: &Arc<D>) -> Entry<D> {
        let number = self.inner.entered.fetch_add(1, Ordering::Relaxed);
        let (cancel, _) = watch::channel(None);
        Entry { number, attempt, delivery: Arc::clone(delivery), cancel, is_lost: false }
    }

    fn place(&self, run: &RunId, number: u64, fence: Option<u64>) -> Place<D> {
        // Looked up after the entry was made: a request that comes later finds that.
        let request = lock(&self.inner.cancelled).requests.get(run).cloned();
        if let Some(request) = request {
            self.stop(request);
        }
        Place { running: self.clone(), run: run.clone(), number, fence, is_recorded: AtomicBool::new(false) }
    }

    /// Stops a run if it is under way here, and remembers that its end was asked for.
    pub(crate) fn cancel(&self, request: CancelRequest) {
        let mut cancelled = lock(&self.inner.cancelled);
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

    /// Hands a newer delivery of a run to the attempt that is under way here. Whether there is one that still has its hold.
    pub(crate) fn adopt(&self, run: &RunId, delivery: &Arc<D>) -> bool {
        match self.lock().get_mut(run).filter(|entry| !entry.is_lost) {
            Some(entry) => {
                entry.delivery = Arc::clone(delivery);
                true
            }
            None => false,
        }
    }

    /// Whether an attempt of a run is under way here, be it one that only has to stop yet.
    pub(crate) fn has(&self, run: &RunId) -> bool {
        self.lock().contains_key(run)
    }

    /// Whether the attempt of a claim was begun here.
    pub(crate) fn has_begun(&self, fence: u64) -> bool {
        lock(&self.inner.begun).fences.contains(&fence)
    }

    /// All runs with their attempts.
    pub(crate) fn list(&self) -> Vec<(RunId, u32)> {
        self.lock().iter().map(|(run, entry)| (run.clone(), entry.attempt)).collect()
    }
}

impl<D> Place<D> {
    /// Its end is in the ledger, or is not for us to write: so a delivery of it finds that there, and the claim may be
    /// forgotten sooner.
    pub(crate) fn note_recorded(&self) {
        self.is_recorded.store(true, Ordering::Relaxed);
    }

    /// The hold is lost: the attempt is told to stop, and takes no newer delivery over meanwhile.
    pub(crate) fn note_lost(&self) {
        if let Some(entry) =
            self.running.lock().get_mut(&self.run).filter(|entry| entry.number == self.number)
        {
            entry.is_lost = true;
        }
    }

    /// The newest delivery of the run: the one whose answers count. None, if the run is entered anew for a later attempt.
    pub(crate) fn delivery(&self) -> Option<Arc<D>> {
        let table = self.running.lock();
        let entry = table.get(&self.run).filter(|entry| entry.number == self.number)?;
        Some(Arc::clone(&entry.delivery))
    }

    /// Returns when a request to cancel this run was heard. Never, if none is.
    pub(crate) async fn cancelled(&self, record: &RunRecord) -> CancelRequest {
        let asked = {
            let table = self.running.lock();
            let entry = table.get(&self.run).filter(|entry| entry.number == self.number);
            entry.map(|entry| entry.cancel.subscribe())
        };
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

impl<D> Drop for Place<D> {
    fn drop(&mut self) {
        let inner = &self.running.inner;
        {
            let mut table = self.running.lock();
            if table.get(&self.run).is_some_and(|entry| entry.number == self.number) {
                table.remove(&self.run);
            }
        }
        let Some(fence) = self.fence else { return };
        let kept = if self.is_recorded.load(Ordering::Relaxed) { RECORDED_KEPT } else { LOST_KEPT };
        lock(&inner.begun).over.insert((inner.clock.elapsed() + kept, fence));
    }
}

#[cfg(test)]
mod tests {
    use shared::{Timestamp, clock::ManualClock};

    use super::*;

    /// With numbers for deliveries.
    fn running() -> (Running<u32>, Arc<ManualClock>) {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        (Running::new(clock.clone()), clock)
    }

    fn run() -> RunId {
        "twice.1".parse().expect("a run")
    }

    #[test]
    fn an_attempt_that_still_stops_takes_nothing_from_the_next_one_of_its_run() {
        let (running, _) = running();
        let first = running.enter(&run(), 1, 11, &Arc::new(1)).expect("a place");
        first.note_lost();
        assert!(!running.adopt(&run(), &Arc::new(2)), "it answers to nobody any more");
        assert_eq!(running.list(), [(run(), 1)], "but its worker says that it is there");
        let third = running.enter(&run(), 3, 33, &Arc::new(3)).expect("a place");
        assert_eq!(first.delivery(), None);
        drop(first);
        assert_eq!(running.list(), [(run(), 3)]);
        assert!(running.adopt(&run(), &Arc::new(4)));
        assert_eq!(third.delivery().as_deref(), Some(&4));
        drop(third);
        assert!(!running.has(&run()));
    }

    #[test]
    fn a_claim_is_forgotten_however_its_attempt_ended_and_later_if_nobody_recorded_that() {
        let (running, clock) = running();
        let delivery = Arc::new(1);
        let recorded = running.enter(&run(), 1, 1, &delivery).expect("a place");
        recorded.note_recorded();
        drop(recorded);
        // One that panicked, for instance.
        drop(running.enter(&run(), 2, 2, &delivery).expect("a place"));
        let _under_way = running.enter(&run(), 3, 3, &delivery).expect("a place");
        assert!(running.enter(&run(), 1, 1, &delivery).is_none(), "each claim is begun once");
        clock.advance(RECORDED_KEPT + Duration::from_secs(1));
        drop(running.enter(&run(), 4, 4, &delivery));
        assert_eq!([1, 2, 3].map(|fence| running.has_begun(fence)), [false, true, true]);
        clock.advance(LOST_KEPT);
        drop(running.enter(&run(), 5, 5, &delivery));
        assert_eq!([1, 2, 3].map(|fence| running.has_begun(fence)), [false, false, true]);
    }

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
