//! Taking, renewing and giving up partitions.
//!
//! A holder trusts itself only until *the moment it asked* plus the lease minus a margin, on a clock that counts
//! suspension: a slow answer does not lengthen its term, and a machine that slept knows it. A candidate waits until it
//! has seen the same revision for a whole lease. Neither alone is the guarantee that nothing is dispatched twice; that
//! is the ledger.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use shared::{
    Timestamp,
    limits::{LEASE, LEASE_MARGIN, LEASE_RENEW, MEMBER_GONE, MEMBER_HEARTBEAT, PARTITIONS},
    names::MemberId,
};
use streams::{
    ReadError, Streams, WriteError,
    leases::{Lease, LeaseSeen},
    members::PlannerStatus,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{PlannerError, share::share_of, status::Status};

/// How often the keeper looks at everything, if nothing wakes it before.
const LOOK: Duration = Duration::from_millis(250);
/// Before it takes its first partition a planner listens this long for others.
const LISTEN_FIRST: Duration = Duration::from_millis(300);
/// Giving up the leases may not keep a planner from ending.
const GIVE_UP_WAIT_MAX: Duration = Duration::from_secs(3);

/// The partitions this planner holds, and until when it may trust that.
#[derive(Default)]
pub(crate) struct Holdings {
    held: Mutex<BTreeMap<u16, Duration>>,
    changed: Notify,
}

impl Holdings {
    /// The partitions held, trusted or not.
    pub(crate) fn all(&self) -> BTreeSet<u16> {
        self.lock().keys().copied().collect()
    }

    /// The partitions whose lease has certainly not run out at this elapsed time.
    pub(crate) fn trusted(&self, elapsed: Duration) -> Vec<u16> {
        self.lock().iter().filter(|(_, until)| elapsed < **until).map(|(partition, _)| *partition).collect()
    }

    /// Returns when a partition came or went.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn hold(&self, partition: u16, until: Duration) {
        if self.lock().insert(partition, until).is_none() {
            self.changed.notify_one();
        }
    }

    fn release(&self, partition: u16) {
        if self.lock().remove(&partition).is_some() {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Duration>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease as it was last seen.
#[derive(Debug, Clone)]
struct Seen {
    lease: Option<Lease>,
    revision: u64,
    /// When this revision was first seen, by our own clock.
    since: Duration,
}

/// A partition we hold.
#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    revision: u64,
    renewed_at: Duration,
}

/// What to do about a partition. Pure: see [`Keeper::step_for`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Nothing,
    Take { lease: Lease, revision: u64 },
    Renew { lease: Lease, revision: u64 },
    GiveUp { lease: Lease, revision: u64 },
}

/// Keeps the leases of one planner.
pub(crate) struct Keeper {
    streams: Streams,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    seen: HashMap<u16, Seen>,
    held: HashMap<u16, Held>,
    planners: HashMap<MemberId, Duration>,
}

impl Keeper {
    pub(crate) fn new(streams: Streams, holdings: Arc<Holdings>, status: Arc<Status>) -> Self {
        Self {
            streams,
            holdings,
            status,
            seen: HashMap::new(),
            held: HashMap::new(),
            planners: HashMap::new(),
        }
    }

    /// Holds this planner's share until it is told to stop; then gives everything up.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), PlannerError> {
        let clock = self.streams.clock().clone();
        let mut news = News::follow(self.streams.clone());
        let listen_until = clock.elapsed() + LISTEN_FIRST;
        let mut heartbeat_at = Duration::ZERO;
        while !stop.is_cancelled() {
            if clock.elapsed() >= heartbeat_at {
                heartbeat_at = clock.elapsed() + MEMBER_HEARTBEAT;
                self.heartbeat().await;
            }
            if clock.elapsed() >= listen_until && news.is_listening() {
                self.look().await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(LOOK) => {}
                Some(item) = news.items.recv() => {
                    self.note(item);
                    while let Ok(item) = news.items.try_recv() {
                        self.note(item);
                    }
                }
            }
        }
        self.status.note_stopping();
        tokio::select! {
            () = self.give_up_all() => {}
            () = clock.sleep(GIVE_UP_WAIT_MAX) => tracing::warn!("The leases could not be given up in time; they run out"),
        }
        Ok(())
    }

    async fn heartbeat(&self) {
        if let Err(error) = self.streams.members().heartbeat(&self.status.member()).await {
            tracing::warn!(%error, "A heartbeat was not taken: {error}");
        }
    }

    fn note(&mut self, item: Item) {
        let now = self.streams.clock().elapsed();
        match item {
            Item::Lease(seen) => {
                let known =
                    self.seen.get(&seen.partition).is_some_and(|known| known.revision >= seen.revision);
                if !known {
                    self.compare_with_held(&seen);
                    let fresh = Seen { lease: seen.lease, revision: seen.revision, since: now };
                    self.seen.insert(seen.partition, fresh);
                }
            }
            Item::Planner(id, Some(planner)) if !planner.stopping => {
                self.planners.insert(id, now);
            }
            Item::Planner(id, _) => {
                self.planners.remove(&id);
            }
        }
    }

    /// A newer revision of a lease we hold: ours, whose answer was lost, or somebody else's.
    fn compare_with_held(&mut self, seen: &LeaseSeen) {
        let me = self.status.id();
        let is_ours = seen.lease.as_ref().is_some_and(|lease| lease.holder.as_ref() == Some(me));
        match self.held.get_mut(&seen.partition) {
            Some(held) if held.revision < seen.revision && is_ours => held.revision = seen.revision,
            Some(held) if held.revision < seen.revision => self.lose(seen.partition, "somebody else took it"),
            _ => {}
        }
    }

    fn lose(&mut self, partition: u16, why: &str) {
        if self.held.remove(&partition).is_some() {
            tracing::warn!(partition, "Partition {partition} is lost: {why}");
            self.holdings.release(partition);
        }
    }

    /// One look at all partitions: what is to be done is decided first, then done at once for all.
    async fn look(&mut self) {
        let now = self.streams.clock().elapsed();
        self.planners.retain(|_, heard| now.saturating_sub(*heard) < MEMBER_GONE);
        let others: BTreeSet<MemberId> = self.planners.keys().cloned().collect();
        let share = share_of(self.status.id(), &others);
        let wall = self.streams.clock().now();
        let steps: Vec<(u16, Step)> = (0..PARTITIONS)
            .map(|partition| (partition, self.step_for(partition, share.contains(&partition), now, wall)))
            .filter(|(_, step)| *step != Step::Nothing)
            .collect();
        for (partition, step) in &steps {
            if matches!(step, Step::GiveUp { .. }) {
                // First we stop working on it, then we say so.
                self.held.remove(partition);
                self.holdings.release(*partition);
            }
        }
        let partitions = self.streams.partitions();
        let mut writes: FuturesUnordered<_> = steps
            .into_iter()
            .map(|(partition, step)| {
                let partitions = partitions.clone();
                async move {
                    let (Step::Take { lease, revision }
                    | Step::Renew { lease, revision }
                    | Step::GiveUp { lease, revision }) = step
                    else {
                        return None;
                    };
                    let result = partitions.write_lease(partition, &lease, revision).await;
                    Some((partition, lease, result))
                }
            })
            .collect();
        // Trust is counted from here, when we asked: not from when the answers came. Each counts as it comes: one lost
        // answer must not let the others' terms run out.
        while let Some(written) = writes.next().await {
            let Some((partition, lease, result)) = written else { continue };
            if matches!(result, Err(WriteError::Conflict { .. })) {
                self.look_up(partition).await;
            }
            self.written(partition, lease, result, now);
        }
        for partition in self.held.keys().copied().collect::<Vec<_>>() {
            let renewed_at = self.held.get(&partition).map_or(Duration::ZERO, |held| held.renewed_at);
            if self.streams.clock().elapsed() >= renewed_at + LEASE {
                self.lose(partition, "it could not be renewed");
            }
        }
        self.status.note_partitions(self.holdings.all().into_iter().collect());
    }

    fn step_for(&self, partition: u16, wanted: bool, now: Duration, wall: Timestamp) -> Step {
        let me = self.status.id();
        if let Some(held) = self.held.get(&partition) {
            let (lease, revision) = (held.lease.clone(), held.revision);
            return if !wanted {
                Step::GiveUp { lease: Lease { holder: None, ..lease }, revision }
            } else if now.saturating_sub(held.renewed_at) >= LEASE_RENEW {
                Step::Renew { lease, revision }
            } else {
                Step::Nothing
            };
        }
        if !wanted {
            return Step::Nothing;
        }
        let take = |term, revision| Step::Take {
            lease: Lease { holder: Some(me.clone()), term, since: wall },
            revision,
        };
        match self.seen.get(&partition) {
            None => take(1, 0),
            Some(Seen { lease: Some(lease), revision, since }) => {
                let is_free = lease.holder.is_none() || now.saturating_sub(*since) >= LEASE;
                if is_free { take(lease.term.saturating_add(1), *revision) } else { Step::Nothing }
            }
            // Deleted by hand, or nonsense: nobody's.
            Some(Seen { lease: None, revision, .. }) => take(1, *revision),
        }
    }

    /// What we know of a lease was not so. Its newest revision is asked for: if the bucket was made anew it is lower
    /// than the one we knew, and no watch would ever correct us.
    async fn look_up(&mut self, partition: u16) {
        let since = self.streams.clock().elapsed();
        match self.streams.partitions().lease(partition).await {
            Ok(Some(found)) => {
                let known = self.seen.get(&partition).is_some_and(|seen| seen.revision == found.revision);
                if !known {
                    let seen = Seen { lease: Some(found.value), revision: found.revision, since };
                    self.seen.insert(partition, seen);
                }
            }
            Ok(None) => {
                self.seen.remove(&partition);
            }
            Err(ReadError::Corrupt { revision, .. }) => {
                self.seen.insert(partition, Seen { lease: None, revision, since });
            }
            Err(_) => {}
        }
    }

    fn written(&mut self, partition: u16, lease: Lease, result: Result<u64, WriteError>, asked_at: Duration) {
        match result {
            Ok(revision) => {
                let seen = Seen { lease: Some(lease.clone()), revision, since: asked_at };
                self.seen.insert(partition, seen);
                if lease.holder.is_some() {
                    self.holdings.hold(partition, asked_at + LEASE.saturating_sub(LEASE_MARGIN));
                    self.held.insert(partition, Held { lease, revision, renewed_at: asked_at });
                }
            }
            Err(WriteError::Conflict { .. }) => self.lose(partition, "somebody else wrote its lease"),
            // Unknown: if it was stored the watch shows it with our name, and the next renewal goes over it.
            Err(error) => tracing::debug!(partition, %error, "A lease was not written: {error}"),
        }
    }

    async fn give_up_all(&mut self) {
        let partitions = self.streams.partitions();
        let held = std::mem::take(&mut self.held);
        let writes = held.into_iter().map(|(partition, held)| {
            self.holdings.release(partition);
            let partitions = partitions.clone();
            async move {
                let free = Lease { holder: None, ..held.lease };
                // A conflict means that somebody has it already, which is what we want.
                let _ = partitions.write_lease(partition, &free, held.revision).await;
            }
        });
        // First the word that we go, so that the others share our partitions among themselves.
        let _ = self.streams.members().leave(&self.status.member()).await;
        join_all(writes).await;
    }
}

/// What the keeper hears.
enum Item {
    Lease(LeaseSeen),
    Planner(MemberId, Option<PlannerStatus>),
}

/// What is heard of leases and members, from a task of its own: nothing that interrupts the keeper interrupts a watch
/// that is just being opened.
struct News {
    items: mpsc::Receiver<Item>,
    listening: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

const REWATCH_WAIT: Duration = Duration::from_secs(1);
/// What was heard and not looked at; the watch waits when it is full.
const ITEMS_WAITING_MAX: usize = 1_024;

impl News {
    fn follow(streams: Streams) -> Self {
        let (sender, items) = mpsc::channel(ITEMS_WAITING_MAX);
        let listening = Arc::new(AtomicBool::new(false));
        let is_listening = Arc::clone(&listening);
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = Self::watch(&streams, &sender, &is_listening).await {
                    tracing::warn!(%error, "Leases cannot be watched just now: {error}");
                }
                is_listening.store(false, Ordering::Relaxed);
                streams.clock().sleep(REWATCH_WAIT).await;
            }
        });
        Self { items, listening, _task: AbortOnDropHandle::new(task) }
    }

    async fn watch(
        streams: &Streams,
        sender: &mpsc::Sender<Item>,
        listening: &AtomicBool,
    ) -> Result<(), ReadError> {
        let leases = streams.partitions().watch_leases().await?.map(|seen| seen.map(Item::Lease));
        let planners = streams.members().watch_planners().await?;
        let planners = planners.map(|member| member.map(|(id, planner)| Item::Planner(id, planner)));
        let mut items = futures::stream::select(leases, planners);
        listening.store(true, Ordering::Relaxed);
        while let Some(item) = items.next().await {
            if sender.send(item?).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the watches stand. A planner that hears nothing takes nothing.
    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }
}
