//! Schedules that could not be accounted for just now: they are tried again after a moment, and the others do not wait
//! for them.

use std::{collections::BTreeMap, time::Duration};

use shared::{Timestamp, names::Name};

/// Between two tries at a schedule whose slot failed.
pub(crate) const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What waits of a schedule that failed lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// It is left alone until then, in elapsed time.
    until: Duration,
    /// What for.
    pub(crate) why: String,
    /// How many of its slots.
    pub(crate) slots: usize,
    /// The first of them.
    pub(crate) oldest: Timestamp,
}

/// Schedules that failed lately and did not succeed since.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    waiting: BTreeMap<Name, Waiting>,
}

impl HeldBack {
    /// Notes what came of a schedule: if it failed, why, how many of its slots wait, and the first of them.
    pub(crate) fn note(
        &mut self,
        name: &Name,
        failed: Option<(String, usize, Timestamp)>,
        elapsed: Duration,
    ) {
        match failed {
            Some((why, slots, oldest)) => {
                let waiting = Waiting { until: elapsed + TRY_AGAIN, why, slots, oldest };
                self.waiting.insert(name.clone(), waiting);
            }
            None => {
                self.waiting.remove(name);
            }
        }
    }

    /// Forgets the schedules for which this holds.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&Name) -> bool) {
        self.waiting.retain(|name, _| !is_gone(name));
    }

    /// Whether a schedule is left alone for now.
    pub(crate) fn holds(&self, name: &Name, elapsed: Duration) -> bool {
        self.waiting.get(name).is_some_and(|waiting| waiting.until > elapsed)
    }

    /// All that waits, be it left alone or being tried again.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Name, &Waiting)> {
        self.waiting.iter()
    }

    /// When the next of them is tried again.
    pub(crate) fn soonest(&self, elapsed: Duration) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > elapsed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_left_alone_for_a_moment_and_is_known_to_wait_until_it_succeeds() {
        let (one, other): (Name, Name) = ("one".parse().expect("name"), "other".parse().expect("name"));
        let mut held = HeldBack::default();
        let (at, oldest) = (Duration::from_secs(7), "2026-11-24T02:00:00Z".parse().expect("instant"));
        held.note(&one, Some(("no answer".to_owned(), 2, oldest)), at);
        held.note(&other, None, at);
        assert!(held.holds(&one, at) && !held.holds(&other, at));
        assert_eq!(held.soonest(at), Some(at + TRY_AGAIN));
        assert!(!held.holds(&one, at + TRY_AGAIN), "it is tried again");
        assert_eq!(held.soonest(at + TRY_AGAIN), None);
        let waits: Vec<_> = held.all().map(|(name, waiting)| (name, waiting.slots, &*waiting.why)).collect();
        assert_eq!(waits, [(&one, 2, "no answer")]);
        held.note(&one, None, at + TRY_AGAIN);
        assert_eq!(held.all().count(), 0);
    }
}
