//! Finds permits whose attempt is over although nobody gave them back: their worker died.
//!
//! No clocks are compared. What counts is for how long this worker, by its own clock, has seen the same permit without
//! its run being executed, or its worker being alive. All workers look at a gate where somebody waits, but only one of them
//! asks what became of those inside.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use shared::{
    hash::mixed_64,
    limit::GateKey,
    limits::{MEMBER_GONE, MEMBER_HEARTBEAT, PERMIT_GRACE},
    names::MemberId,
    run_state::RunState,
};
use streams::{
    Streams,
    gates::{Gate, Permit},
    members::Member,
};

use super::{
    gate::leave,
    keeper::{GateError, Keeper, Step},
};
use crate::member::Status;

/// Permits of one gate that are looked at when it is not known whether anybody was left behind.
const DOUBTED_MAX: usize = 8;

pub(super) struct Reaper {
    streams: Streams,
    keeper: Arc<Keeper>,
    status: Arc<Status>,
    seen: HashMap<(GateKey, MemberId, u64), Seen>,
    /// The workers that were alive when this look began.
    alive: BTreeSet<MemberId>,
}

struct Seen {
    since: Duration,
    /// Since when its worker is silent; none if it is not.
    silent_since: Option<Duration>,
    looked_at: Duration,
}

/// What is known of a permit. Ages by our own clock.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    /// For how long it has been seen.
    age: Duration,
    /// Whether the record says that its worker executes its run.
    is_executed: bool,
    /// For how long its worker has been silent, while we were heard ourselves; none if it speaks.
    silent_for: Option<Duration>,
    /// After how much silence its worker has stopped the attempt.
    hold: Duration,
}

/// Whether a permit's attempt is over for certain.
fn is_over(evidence: Evidence) -> bool {
    // Between taking it and the claim its run is not executed yet; a worker that is slower than this takes another.
    let not_executed = !evidence.is_executed && evidence.age >= PERMIT_GRACE;
    not_executed || evidence.silent_for.is_some_and(|silent| silent >= evidence.hold)
}

/// Whether this worker is the one of those that are alive who asks what became of the permits at a gate. One that is not among
/// them cannot know what the others think, and asks.
fn asks_for(gate: &GateKey, me: &MemberId, alive: &BTreeSet<MemberId>) -> bool {
    let lane = gate.lane.map(|lane| lane.to_string()).unwrap_or_default();
    let weight = |id: &MemberId| mixed_64(&[&gate.scope.to_string(), &lane, id.as_str()]);
    let heaviest = alive.iter().max_by_key(|id| (weight(id), *id));
    heaviest == Some(me) || !alive.contains(me)
}

impl Reaper {
    pub(super) fn new(streams: Streams, keeper: Arc<Keeper>, status: Arc<Status>) -> Self {
        Self { streams, keeper, status, seen: HashMap::new(), alive: BTreeSet::new() }
    }

    /// A look at gates begins: who is alive is asked once for all of them.
    pub(super) async fn begin(&mut self) -> Result<(), GateError> {
        let members = self.streams.members().list().await?;
        let workers = members.into_iter().filter_map(|member| match member {
            Member::Worker(worker) => Some(worker.id),
            Member::Planner(_) => None,
        });
        self.alive = workers.collect();
        Ok(())
    }

    /// Looks at who is inside, and takes out whose attempt is over. `is_told`: others know of this gate, too, and one of us is
    /// enough to ask.
    pub(super) async fn look_at(
        &mut self,
        key: &GateKey,
        gate: &Gate,
        is_told: bool,
    ) -> Result<(), GateError> {
        let now = self.streams.clock().elapsed();
        let asks = !is_told || asks_for(key, self.status.id(), &self.alive);
        for permit in &gate.held {
            let id = (key.clone(), permit.worker.clone(), permit.token);
            let fresh = Seen { since: now, silent_since: None, looked_at: now };
            let seen = self.seen.entry(id).or_insert(fresh);
            seen.looked_at = now;
            let age = now.saturating_sub(seen.since);
            // Whoever asks tomorrow knows since when it is there.
            if age < PERMIT_GRACE || !asks {
                continue;
            }
            let is_executed = is_executed(&self.streams, permit).await?;
            // After an outage of the server nobody has an entry: then silence means nothing, until we are heard ourselves.
            let is_heard = self.status.heard_for(now) >= MEMBER_GONE + MEMBER_HEARTBEAT;
            // Who was in the list speaks. That one who was not is silent the leader has to say.
            let is_silent = is_heard
                && !self.alive.contains(&permit.worker)
                && self.streams.members().worker(&permit.worker).await?.is_none();
            seen.silent_since = is_silent.then(|| seen.silent_since.unwrap_or(now));
            let evidence = Evidence {
                age,
                is_executed,
                silent_for: seen.silent_since.map(|since| now.saturating_sub(since)),
                hold: Duration::from_millis(permit.hold_ms),
            };
            if is_over(evidence) {
                self.take_out(key, permit).await?;
            }
        }
        Ok(())
    }

    /// Whether somebody inside may have been left behind, so that it is to be looked at until that is known. Of many only some
    /// are looked at: where many are inside, it is written often, or refuses somebody.
    pub(super) async fn is_doubtful(&self, gate: &Gate) -> Result<bool, GateError> {
        for permit in gate.held.iter().take(DOUBTED_MAX) {
            if !is_executed(&self.streams, permit).await?
                || self.streams.members().worker(&permit.worker).await?.is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Permits that were not seen at the latest look are no longer there.
    pub(super) fn forget(&mut self) {
        let now = self.streams.clock().elapsed();
        self.seen.retain(|_, seen| now.saturating_sub(seen.looked_at) < 6 * PERMIT_GRACE);
    }

    async fn take_out(&self, key: &GateKey, permit: &Permit) -> Result<(), GateError> {
        // A token is used once: whoever still needs the permit has taken another since.
        let taken_out = self
            .keeper
            .change(key, |gate| match leave(gate, std::slice::from_ref(permit)) {
                Some(next) => Step::Write(next, true),
                None => Step::Leave(false),
            })
            .await?;
        if taken_out {
            tracing::warn!(
                run.id = %permit.run, worker.id = %permit.worker,
                "The permit of `{}` at {} is free again: worker `{}` is not at it any more", permit.run, key.scope, permit.worker
            );
        }
        Ok(())
    }
}

/// Whether its record says that its worker executes its run.
async fn is_executed(streams: &Streams, permit: &Permit) -> Result<bool, GateError> {
    let record = streams.ledger().get(&permit.run).await?;
    Ok(record.is_some_and(|stored| {
        stored.value.status == RunState::Running && stored.value.worker.as_ref() == Some(&permit.worker)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_workers_one_asks_for_a_gate_and_another_when_that_one_is_gone() {
        let id = |n: u32| format!("worker-{n}").parse::<MemberId>().expect("an id");
        let alive: BTreeSet<MemberId> = (0..5).map(id).collect();
        let mut asked = [0; 5];
        for lane in 0..1_000_u64 {
            let gate =
                GateKey { scope: "t-a".parse().expect("a scope"), lane: format!("{lane:x}").parse().ok() };
            let asks: Vec<u32> = (0..5).filter(|n| asks_for(&gate, &id(*n), &alive)).collect();
            assert_eq!(asks.len(), 1, "{gate:?}");
            asked[asks[0] as usize] += 1;
            let rest: BTreeSet<MemberId> =
                alive.iter().filter(|other| **other != id(asks[0])).cloned().collect();
            let others = (0..5).filter(|n| *n != asks[0] && asks_for(&gate, &id(*n), &rest));
            assert_eq!(others.count(), 1);
            assert!(asks_for(&gate, &id(asks[0]), &rest), "who is not heard cannot rely on others");
        }
        assert!(asked.iter().all(|count| (100..300).contains(count)), "{asked:?}");
    }

    #[test]
    fn a_permit_is_over_when_its_run_is_not_executed_or_its_worker_has_surely_stopped() {
        let seconds = Duration::from_secs;
        let evidence = |age, is_executed, silent: Option<u64>| Evidence {
            age: seconds(age),
            is_executed,
            silent_for: silent.map(seconds),
            hold: seconds(30),
        };
        for (found, expected, words) in [
            (evidence(11, true, None), false, "it is executed"),
            (evidence(3_600, true, None), false, "for a long time"),
            (evidence(5, false, None), false, "it may be about to be claimed"),
            (evidence(11, false, None), true, "it was left behind"),
            (evidence(60, true, Some(29)), false, "its worker may still hold it"),
            (evidence(60, true, Some(30)), true, "its worker has stopped it, or is gone"),
        ] {
            assert_eq!(is_over(found), expected, "{words}");
        }
    }
}
