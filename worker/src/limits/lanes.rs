//! The lanes where somebody waits, as this worker knows them, and which of them is next. Pure.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    limit::{GateKey, Lane, Scope},
    limits::LIMIT_LOOK,
};
use streams::gates::LaneSeen;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    scopes: BTreeMap<Scope, BTreeMap<Option<Lane>, Waits>>,
    /// Counts what is done, so that what was done longest ago is known.
    turns: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    /// The revision of the word that somebody waits there.
    revision: u64,
    served: u64,
    looked_at: u64,
    /// When this worker last said that somebody waits there; by our clock.
    said_at: Option<Duration>,
    /// When nobody was found there first, since somebody was; by our clock.
    empty_since: Option<Duration>,
}

impl Lanes {
    /// A watch begins: it tells everything anew.
    pub(super) fn clear(&mut self) {
        self.scopes.clear();
    }

    pub(super) fn note(&mut self, seen: LaneSeen) {
        let GateKey { scope, lane } = seen.lane;
        match seen.waiting {
            Some(revision) => {
                // A lane that is new goes behind those that have been served.
                let served = self.turns;
                let lanes = self.scopes.entry(scope).or_default();
                let waits = lanes.entry(lane).or_insert(Waits { served, ..Waits::default() });
                if waits.revision < revision {
                    (waits.revision, waits.empty_since) = (revision, None);
                }
            }
            // What comes after it is told after it.
            None => self.remove(&GateKey { scope, lane }),
        }
    }

    fn remove(&mut self, key: &GateKey) {
        if let Some(lanes) = self.scopes.get_mut(&key.scope) {
            lanes.remove(&key.lane);
            if lanes.is_empty() {
                self.scopes.remove(&key.scope);
            }
        }
    }

    /// This worker says that somebody waits in a lane.
    pub(super) fn said(&mut self, key: &GateKey, revision: u64, at: Duration) {
        self.note(LaneSeen { lane: key.clone(), waiting: Some(revision) });
        if let Some(waits) = self.scopes.get_mut(&key.scope).and_then(|lanes| lanes.get_mut(&key.lane)) {
            waits.said_at = Some(at);
        }
    }

    /// Whether what this worker said holds for one that came just now, too: nobody takes it back before that one is seen,
    /// because a lane must have been empty for longer.
    pub(super) fn is_said(&self, key: &GateKey, now: Duration) -> bool {
        let waits = self.scopes.get(&key.scope).and_then(|lanes| lanes.get(&key.lane));
        let said_at = waits.and_then(|waits| waits.said_at);
        said_at.is_some_and(|at| now.saturating_sub(at) < LIMIT_LOOK / 2)
    }

    /// Nobody was found in a lane. The revision to take back that somebody waits, once that has been so for a while: a
    /// server that has just become the leader may not show yet what is there.
    pub(super) fn found_empty(&mut self, key: &GateKey, revision: u64, now: Duration) -> Option<u64> {
        let waits = self.scopes.get_mut(&key.scope)?.get_mut(&key.lane)?;
        if waits.revision != revision {
            return None;
        }
        let since = *waits.empty_since.get_or_insert(now);
        (now.saturating_sub(since) >= LIMIT_LOOK).then_some(revision)
    }

    /// A lane was found empty, and that was written over this revision.
    pub(super) fn emptied(&mut self, key: &GateKey, revision: u64) {
        if self.revision_of(key) == Some(revision) {
            self.remove(key);
        }
    }

    pub(super) fn revision_of(&self, key: &GateKey) -> Option<u64> {
        self.scopes.get(&key.scope)?.get(&key.lane).map(|waits| waits.revision)
    }

    pub(super) fn anybody_in(&self, scope: &Scope) -> bool {
        self.scopes.contains_key(scope)
    }

    /// A run of this lane was let go.
    pub(super) fn served(&mut self, key: &GateKey) {
        self.turns += 1;
        let turns = self.turns;
        if let Some(waits) = self.scopes.get_mut(&key.scope).and_then(|lanes| lanes.get_mut(&key.lane)) {
            waits.served = turns;
        }
    }

    /// The lanes of a scope that are next, those first that were served longest ago; before all of them the one that has
    /// just got room.
    pub(super) fn next(&self, scope: &Scope, first: Option<Lane>, at_most: usize) -> Vec<GateKey> {
        let Some(lanes) = self.scopes.get(scope) else { return Vec::new() };
        let mut order: Vec<(bool, u64, Option<Lane>)> = lanes
            .iter()
            .map(|(lane, waits)| (first.is_none() || *lane != first, waits.served, *lane))
            .collect();
        order.sort_unstable();
        order.into_iter().take(at_most).map(|(.., lane)| GateKey { scope: scope.clone(), lane }).collect()
    }

    /// The lanes that were looked at longest ago, in whatever scope.
    pub(super) fn next_to_look_at(&mut self, at_most: usize) -> Vec<GateKey> {
        self.turns += 1;
        let turns = self.turns;
        let mut all: Vec<(u64, GateKey)> = self
            .scopes
            .iter()
            .flat_map(|(scope, lanes)| {
                lanes
                    .iter()
                    .map(|(lane, waits)| (waits.looked_at, GateKey { scope: scope.clone(), lane: *lane }))
            })
            .collect();
        all.sort_unstable();
        let chosen: Vec<GateKey> = all.into_iter().take(at_most).map(|(_, key)| key).collect();
        for key in &chosen {
            if let Some(waits) = self.scopes.get_mut(&key.scope).and_then(|lanes| lanes.get_mut(&key.lane)) {
                waits.looked_at = turns;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lane: u64) -> GateKey {
        GateKey { scope: "t-a".parse().expect("scope"), lane: format!("{lane:x}").parse().ok() }
    }

    fn lanes(count: u64) -> Lanes {
        let mut lanes = Lanes::default();
        for lane in 0..count {
            lanes.note(LaneSeen { lane: key(lane), waiting: Some(lane + 1) });
        }
        lanes
    }

    #[test]
    fn lanes_take_turns_whatever_waits_in_each_of_them() {
        let mut lanes = lanes(4);
        let scope = key(0).scope;
        let mut served = Vec::new();
        for _ in 0..8 {
            let next = lanes.next(&scope, None, 1).remove(0);
            lanes.served(&next);
            served.push(next);
        }
        for lane in 0..4 {
            assert_eq!(served.iter().filter(|found| **found == key(lane)).count(), 2, "{served:?}");
        }
        assert_eq!(lanes.next(&scope, key(2).lane, 1), [key(2)], "the one that has just got room is first");
    }

    #[test]
    fn a_lane_is_empty_only_if_nobody_has_come_since_that_was_found() {
        let mut lanes = lanes(1);
        lanes.said(&key(0), 9, Duration::from_secs(1));
        assert!(
            lanes.is_said(&key(0), Duration::from_millis(1_900)),
            "one word is enough for many that come"
        );
        assert!(!lanes.is_said(&key(0), Duration::from_secs(1) + LIMIT_LOOK / 2));
        lanes.emptied(&key(0), 1);
        assert!(lanes.anybody_in(&key(0).scope));
        let seconds = Duration::from_secs;
        assert_eq!(lanes.found_empty(&key(0), 9, seconds(1)), None, "a leader may be new");
        assert_eq!(lanes.found_empty(&key(0), 9, seconds(1) + LIMIT_LOOK), Some(9));
        lanes.note(LaneSeen { lane: key(0), waiting: Some(10) });
        assert_eq!(lanes.found_empty(&key(0), 10, seconds(9)), None, "somebody came since");
        lanes.note(LaneSeen { lane: key(0), waiting: Some(9) });
        assert_eq!(lanes.revision_of(&key(0)), Some(10), "what is old says nothing");
        lanes.emptied(&key(0), 10);
        assert!(!lanes.anybody_in(&key(0).scope));
    }

    #[test]
    fn every_lane_is_looked_at_in_its_turn() {
        let mut lanes = lanes(40);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            seen.extend(lanes.next_to_look_at(16));
        }
        assert_eq!(seen.len(), 40);
    }
}
