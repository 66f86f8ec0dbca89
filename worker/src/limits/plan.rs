//! Where somebody is to be let go, how many, and when. Pure.
//!
//! What a rate plans lies up to a day ahead and belongs to the worker: it ends with it, and others plan for themselves.

use std::{collections::BTreeMap, time::Duration};

use shared::limit::{GateKey, Scope};

use super::room::LET_GO_AT_ONCE_MAX;

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Gates that were left, and how often since they were looked at.
    soon: BTreeMap<GateKey, u32>,
    /// When the next turn of a rate comes near, in elapsed time; the first that was said counts.
    turns: BTreeMap<Scope, Duration>,
}

impl Plan {
    pub(super) fn soon(&mut self, gate: &GateKey) {
        let left = self.soon.entry(gate.clone()).or_default();
        *left = left.saturating_add(1);
    }

    /// Whether that is new: somebody may wait for that scope's turn already.
    pub(super) fn at(&mut self, scope: &Scope, at: Duration) -> bool {
        let is_new = !self.turns.contains_key(scope);
        if is_new {
            self.turns.insert(scope.clone(), at);
        }
        is_new
    }

    /// What is to be done now, with how many may go at most; and when to look again.
    pub(super) fn due(&mut self, now: Duration) -> (Vec<(GateKey, u32)>, Option<Duration>) {
        let mut due: Vec<(GateKey, u32)> = std::mem::take(&mut self.soon).into_iter().collect();
        self.turns.retain(|scope, at| {
            let is_due = *at <= now;
            if is_due {
                due.push((GateKey { scope: scope.clone(), lane: None }, LET_GO_AT_ONCE_MAX));
            }
            !is_due
        });
        (due, self.turns.values().min().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(scope: &str, lane: Option<&str>) -> GateKey {
        let lane = lane.map(|lane| lane.parse().expect("a lane"));
        GateKey { scope: scope.parse().expect("a scope"), lane }
    }

    #[test]
    fn as_many_go_as_have_left_and_a_turn_is_waited_for_once() {
        let (a, b) = (gate("t-a", Some("1")), gate("t-b", None));
        let seconds = Duration::from_secs;
        let mut plan = Plan::default();
        for gate in [&a, &b, &a] {
            plan.soon(gate);
        }
        assert!(plan.at(&a.scope, seconds(5)));
        assert!(!plan.at(&a.scope, seconds(9)), "it is waited for already");
        assert!(plan.at(&b.scope, seconds(7)));
        assert_eq!(plan.due(seconds(1)), (vec![(a.clone(), 2), (b.clone(), 1)], Some(seconds(5))));
        assert_eq!(plan.due(seconds(4)), (vec![], Some(seconds(5))), "nothing is done twice");
        let turn = |gate: &GateKey| (GateKey { lane: None, ..gate.clone() }, LET_GO_AT_ONCE_MAX);
        assert_eq!(plan.due(seconds(6)), (vec![turn(&a)], Some(seconds(7))));
        assert_eq!(plan.due(seconds(7)), (vec![turn(&b)], None));
        assert!(plan.at(&a.scope, seconds(12)), "the next turn is another");
    }
}
