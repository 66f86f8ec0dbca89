//! The partitions this planner holds, as the keeper of the leases tells the planning loop.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{hash::partition_of, names::Name};
use tokio::sync::Notify;

/// The partitions this planner holds, and until when it may trust that.
#[derive(Default)]
pub(crate) struct Holdings {
    now: Mutex<Held>,
    changed: Notify,
}

#[derive(Default)]
struct Held {
    partitions: BTreeSet<u16>,
    trusted_until: Duration,
    /// How often they were set.
    version: u64,
}

impl Holdings {
    /// The partitions held, trusted or not.
    pub(crate) fn all(&self) -> BTreeSet<u16> {
        self.lock().partitions.clone()
    }

    /// The partitions held, and until when that may be trusted, if they were set since this version; and the version now.
    pub(crate) fn news_since(&self, version: u64) -> Option<(BTreeSet<u16>, Duration, u64)> {
        let held = self.lock();
        (held.version != version).then(|| (held.partitions.clone(), held.trusted_until, held.version))
    }

    /// The partitions held, if at this elapsed time they are certainly still ours.
    pub(crate) fn trusted(&self, elapsed: Duration) -> Vec<u16> {
        let held = self.lock();
        if elapsed < held.trusted_until { held.partitions.iter().copied().collect() } else { Vec::new() }
    }

    /// Whether the partition of a schedule is held, and certainly still ours at this elapsed time.
    pub(crate) fn is_trusted(&self, schedule: &Name, elapsed: Duration) -> bool {
        let held = self.lock();
        elapsed < held.trusted_until && held.partitions.contains(&partition_of(schedule.as_str()))
    }

    /// Returns when a partition came or went, or when what was in doubt is trusted again.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is held from now on. Whether that is news.
    pub(crate) fn set(&self, partitions: BTreeSet<u16>, trusted_until: Duration, elapsed: Duration) -> bool {
        let mut held = self.lock();
        let is_new = held.partitions != partitions;
        let was_in_doubt = held.trusted_until <= elapsed && elapsed < trusted_until;
        *held = Held { partitions, trusted_until, version: held.version + 1 };
        drop(held);
        if is_new || was_in_doubt {
            self.changed.notify_one();
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
