//! Schedules that could not be accounted for just now: they are tried again after a moment, and the others do not wait
//! for them.

use std::{collections::HashMap, time::Duration};

use shared::names::Name;

/// Between two tries at a schedule whose slot failed.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Schedules that failed lately, until when each is left alone, in elapsed time, and why.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    until: HashMap<Name, (Duration, String)>,
}

impl HeldBack {
    /// Notes what came of a schedule: why it failed, if it did.
    pub(crate) fn note(&mut self, name: &Name, failed: Option<String>, elapsed: Duration) {
        match failed {
            Some(why) => self.until.insert(name.clone(), (elapsed + TRY_AGAIN, why)),
            None => self.until.remove(name),
        };
    }

    /// Forgets those whose time has come. Then [`HeldBack::holds`] tells the others.
    pub(crate) fn release(&mut self, elapsed: Duration) {
        self.until.retain(|_, (until, _)| *until > elapsed);
    }

    /// Whether a schedule is left alone for now.
    pub(crate) fn holds(&self, name: &Name) -> bool {
        self.until.contains_key(name)
    }

    /// Why a schedule is left alone for now; none if it is not.
    pub(crate) fn why(&self, name: &Name) -> Option<&String> {
        self.until.get(name).map(|(_, why)| why)
    }

    /// How long until the first of them is tried again.
    pub(crate) fn soonest(&self, elapsed: Duration) -> Option<Duration> {
        self.until.values().map(|(until, _)| until.saturating_sub(elapsed)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_left_alone_for_a_moment_and_nobody_else_is() {
        let (one, other): (Name, Name) = ("one".parse().expect("name"), "other".parse().expect("name"));
        let mut held = HeldBack::default();
        let at = Duration::from_secs(7);
        held.note(&one, Some("no answer".to_owned()), at);
        held.note(&other, None, at);
        held.release(at);
        assert!(held.holds(&one) && !held.holds(&other));
        assert_eq!(held.why(&one).map(String::as_str), Some("no answer"));
        assert_eq!(held.soonest(at + Duration::from_millis(100)), Some(Duration::from_millis(400)));
        held.release(at + TRY_AGAIN);
        assert!(!held.holds(&one));
        assert_eq!(held.soonest(at), None);
    }
}
