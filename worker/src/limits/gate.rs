//! Who passes a gate, and who has left it. Pure: a gate in, a gate out.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    limit::{Limit, Rate},
    limits::RATE_WAIT_MAX,
    run::RunId,
};
use streams::gates::{Gate, Permit};

/// A next turn that lies further ahead than the rate itself and this was written under a clock that has been set since.
const TURN_AHEAD_MAX: TimeDelta = TimeDelta::minutes(1);

/// What comes of asking to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Passing {
    /// It passes, if the gate is written so; by a rate, at its turn.
    Passed(Gate, Option<Timestamp>),
    /// As many are inside as may be.
    Full,
    /// Its turn by the rate is too far ahead to wait for it here.
    NotYet(Duration),
}

/// Asks to pass. A run that is inside already passes once more: its earlier attempt is dead, or it is this very one.
pub(super) fn pass(gate: &Gate, limit: &Limit, permit: &Permit, now: Timestamp) -> Passing {
    let mut next = Gate { label: limit.label.clone(), max: limit.max.map(NonZeroU32::get), ..gate.clone() };
    if let Some(max) = next.max {
        let others = runs_inside(gate).into_iter().filter(|run| **run != permit.run).count();
        if others >= max as usize {
            return Passing::Full;
        }
        next.held.retain(|held| !is_same(held, permit));
        next.held.push(permit.clone());
    }
    let Some(rate) = limit.rate else {
        next.next_at = None;
        return Passing::Passed(next, None);
    };
    let turn = turn(gate, rate, now);
    let wait = (turn - now).to_std().unwrap_or_default();
    if wait > RATE_WAIT_MAX {
        return Passing::NotYet(wait);
    }
    next.next_at = Some(turn + spacing(rate));
    Passing::Passed(next, Some(turn))
}

fn turn(gate: &Gate, rate: Rate, now: Timestamp) -> Timestamp {
    let ahead_max = spacing(rate) + TURN_AHEAD_MAX;
    let known = gate.next_at.filter(|next| *next - now <= ahead_max);
    known.unwrap_or(now).max(now)
}

fn spacing(rate: Rate) -> TimeDelta {
    TimeDelta::from_std(rate.spacing()).unwrap_or(TimeDelta::MAX)
}

/// The gate without these permits; none if it has none of them.
pub(super) fn leave(gate: &Gate, permits: &[Permit]) -> Option<Gate> {
    let mut next = gate.clone();
    next.held.retain(|held| !permits.iter().any(|permit| is_same(held, permit)));
    (next.held.len() < gate.held.len()).then_some(next)
}

/// How many more could pass, under these limits.
pub(super) fn room(gate: &Gate, max: Option<u32>, rate: Option<Rate>, now: Timestamp) -> u32 {
    let inside = u32::try_from(runs_inside(gate).len()).unwrap_or(u32::MAX);
    let places = max.map_or(u32::MAX, |max| max.saturating_sub(inside));
    let turns = rate.map_or(u32::MAX, |rate| {
        let wait = (turn(gate, rate, now) - now).to_std().unwrap_or_default();
        let Some(left) = RATE_WAIT_MAX.checked_sub(wait) else { return 0 };
        let more = left.as_micros() / rate.spacing().as_micros().max(1);
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    });
    places.min(turns)
}

/// The other permits of a run: those of its earlier attempts.
pub(super) fn earlier(gate: &Gate, permit: &Permit) -> Vec<Permit> {
    gate.held.iter().filter(|held| held.run == permit.run && !is_same(held, permit)).cloned().collect()
}

/// Runs, not permits: of the attempts of one run only the newest counts, and that there is no other alive its claim sees to.
fn runs_inside(gate: &Gate) -> BTreeSet<&RunId> {
    gate.held.iter().map(|permit| &permit.run).collect()
}

fn is_same(a: &Permit, b: &Permit) -> bool {
    a.token == b.token && a.worker == b.worker
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use shared::{hash::mixed_64, limit::GateKey};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_700_000_000_000 + ms).expect("instant")
    }

    fn limit(max: Option<u32>, rate: Option<&str>) -> Limit {
        let rate = rate.map(|rate| rate.parse().expect("rate"));
        let gate = GateKey { scope: "t-a".parse().expect("scope"), lane: None };
        Limit { gate, max: max.and_then(NonZeroU32::new), rate, label: None }
    }

    fn permit(run: u64, worker: u64, token: u64) -> Permit {
        Permit {
            run: format!("r.{run}").parse().expect("run"),
            worker: format!("worker-{worker}").parse().expect("worker"),
            token,
            hold_ms: 30_000,
        }
    }

    fn passed(passing: Passing) -> Gate {
        let Passing::Passed(gate, _) = passing else { panic!("{passing:?}") };
        gate
    }

    #[test]
    fn as_many_runs_pass_as_may_and_the_next_when_one_has_left() {
        let limit = limit(Some(2), None);
        let first = passed(pass(&Gate::default(), &limit, &permit(1, 1, 1), at(0)));
        assert_eq!(room(&first, Some(2), None, at(0)), 1);
        let both = passed(pass(&first, &limit, &permit(2, 2, 1), at(0)));
        assert_eq!(room(&both, Some(2), None, at(0)), 0);
        assert_eq!(room(&both, Some(5), None, at(0)), 3, "it was raised");
        assert_eq!(pass(&both, &limit, &permit(3, 1, 2), at(0)), Passing::Full);
        let one = leave(&both, &[permit(1, 1, 1)]).expect("it was inside");
        passed(pass(&one, &limit, &permit(3, 1, 2), at(0)));
        assert_eq!(leave(&one, &[permit(1, 1, 1)]), None, "nobody leaves twice");
    }

    #[test]
    fn a_run_whose_worker_died_passes_in_its_own_place_and_takes_nobody_elses() {
        let limit = limit(Some(1), None);
        let dead = passed(pass(&Gate::default(), &limit, &permit(1, 1, 1), at(0)));
        let taken_over = passed(pass(&dead, &limit, &permit(1, 2, 9), at(0)));
        assert_eq!(taken_over.held.len(), 2, "until the claim has decided, both are written down");
        assert_eq!(pass(&taken_over, &limit, &permit(2, 2, 10), at(0)), Passing::Full);
        // The owner lives after all: who came in vain leaves alone.
        let owners = leave(&taken_over, &[permit(1, 2, 9)]).expect("left");
        assert_eq!(owners.held, [permit(1, 1, 1)]);
        let earlier = earlier(&taken_over, &permit(1, 2, 9));
        assert_eq!(leave(&taken_over, &[vec![permit(1, 2, 9)], earlier].concat()).expect("left").held, []);
    }

    #[test]
    fn turns_by_a_rate_are_evenly_apart_and_a_far_one_is_not_waited_for() {
        let limit = limit(None, Some("10/s"));
        let mut gate = Gate::default();
        for n in 0..=5 {
            let Passing::Passed(next, turn) = pass(&gate, &limit, &permit(n, 1, n), at(0)) else {
                panic!("{n}")
            };
            assert_eq!(turn, Some(at(100 * n.cast_signed())));
            gate = next;
        }
        assert!(gate.held.is_empty(), "a rate alone holds nobody's place");
        assert_eq!(pass(&gate, &limit, &permit(9, 1, 9), at(0)), Passing::NotYet(Duration::from_millis(600)));
        assert_eq!((room(&gate, None, limit.rate, at(0)), room(&gate, None, limit.rate, at(100))), (0, 1));
        assert_eq!(room(&gate, None, limit.rate, at(900)), 6);
        let Passing::Passed(_, turn) = pass(&gate, &limit, &permit(9, 1, 9), at(5_000)) else {
            panic!("late")
        };
        assert_eq!(turn, Some(at(5_000)), "what was not used is not made up for");
        let ahead = Gate { next_at: Some(at(86_400_000)), ..gate };
        passed(pass(&ahead, &limit, &permit(9, 1, 9), at(0)));
    }

    /// Any order of coming, leaving, dying and being taken over: never more runs inside than may be, and nobody leaves for
    /// another.
    #[test]
    fn whatever_happens_never_more_are_inside_than_may_be() {
        for seed in 0..500_u64 {
            let mut draws = 0_u64;
            let mut draw = |below: u64| {
                draws += 1;
                mixed_64(&[&seed.to_string(), &draws.to_string()]) % below
            };
            let max = 1 + draw(3) as u32;
            let limit = limit(Some(max), None);
            let (mut gate, mut tokens) = (Gate::default(), 0);
            let mut inside: BTreeMap<u64, Vec<Permit>> = BTreeMap::new();
            for _ in 0..200 {
                let run = draw(6);
                if draw(2) == 0 {
                    tokens += 1;
                    let permit = permit(run, draw(3), tokens);
                    match pass(&gate, &limit, &permit, at(0)) {
                        Passing::Passed(next, _) => {
                            gate = next;
                            inside.entry(run).or_default().push(permit);
                        }
                        Passing::Full => assert!(
                            !inside.contains_key(&run) && inside.len() >= max as usize,
                            "seed {seed}: refused with room"
                        ),
                        Passing::NotYet(_) => panic!("seed {seed}: there is no rate"),
                    }
                } else if let Some(permits) = inside.remove(&run) {
                    gate = leave(&gate, &permits).expect("they were inside");
                }
                assert_eq!(runs_inside(&gate).len(), inside.len(), "seed {seed}");
                assert!(inside.len() <= max as usize, "seed {seed}: {inside:?}");
            }
        }
    }
}
