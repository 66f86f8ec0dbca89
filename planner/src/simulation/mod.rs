//! Planning, simulated: planners as they are, a server in memory ([`crate::model`]), and everything that may befall them, by
//! a seed. Nothing waits: virtual time goes from one event to the next.
//!
//! `SIM_SEED=n` runs one seed again and tells what happened last, `SIM_TOLD` events of it. `SIM_SEEDS` is how many are run,
//! `SIM_FROM` the first.
//!
//! | file | what is in it |
//! |---|---|
//! | `world.rs` | what happens next, and the server |
//! | `process.rs` | a planner: table, planning and clocks |
//! | `keeper.rs` | what keeps its seat and its leases |
//! | `weather.rs` | the network, the watches, outages |
//! | `people.rs` | definitions, pauses, and what befalls machines |
//! | `workers.rs` | workers, and the lines |
//! | `checks.rs` | what must hold |
//! | `expected.rs` | which slots there must be |
//! | `bugs.rs` | bugs that are planted, and found |

mod bugs;
mod checks;
mod expected;
mod keeper;
mod people;
mod process;
mod weather;
mod workers;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use self::{
    checks::{Checks, Violation},
    world::World,
};
use crate::model::random::Random;

/// Milliseconds since the beginning.
type Ms = u64;

/// Seeds in every run of the tests.
const SEEDS: u64 = 300;
/// How long all is well before everything is looked through.
const CALM: Ms = 30_000;

/// What came of one seed.
type Outcome = Result<BTreeMap<&'static str, u64>, (Violation, VecDeque<String>)>;

fn simulate(seed: u64, is_told: bool) -> Outcome {
    let mut random = Random::new(seed ^ 0x5eed);
    let begun = people::beginning(&mut random);
    let calm_at = random.between(8_000, 40_000);
    let mut world = World::new(seed, begun);
    world.told = is_told.then(VecDeque::new);
    world.is_furnished(calm_at);
    let ran = world.pass(calm_at).and_then(|()| {
        world.is_calmed();
        let calm_since = world.now;
        world.pass(calm_since + CALM)?;
        Checks::at_the_end(&world, calm_since)
    });
    match ran {
        Ok(()) => {
            world.checks.counts.insert("events", world.steps);
            world.checks.counts.insert("seconds", world.now / 1_000);
            Ok(world.checks.counts)
        }
        Err(violation) => Err((violation, world.told.unwrap_or_default())),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_befalls_planners_every_slot_has_one_record_and_every_promise_holds() {
    if let Some(seed) = number("SIM_SEED") {
        match simulate(seed, true) {
            Ok(counts) => println!("SIM_SEED={seed}: all holds; {counts:?}"),
            Err((violation, told)) => {
                let told: Vec<String> = told.into();
                panic!("SIM_SEED={seed}: {violation}\nwhat happened last:\n{}", told.join("\n"));
            }
        }
        return;
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(0);
    let totals = Mutex::new(BTreeMap::<&str, u64>::new());
    let broken = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds || broken.lock().expect("lock").len() > 8 {
                return;
            }
            let seed = from.wrapping_add(number);
            match simulate(seed, false) {
                Ok(counts) => {
                    let mut totals = totals.lock().expect("lock");
                    for (what, count) in counts {
                        *totals.entry(what).or_default() += count;
                    }
                }
                Err((violation, _)) => broken.lock().expect("lock").push((seed, violation)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{seeds} seeds from {from}: {:?}", totals.lock().expect("lock"));
    let broken = broken.into_inner().expect("lock");
    for (seed, violation) in &broken {
        println!("SIM_SEED={seed}: {violation}");
    }
    if let Some((seed, _)) = broken.first() {
        let Err((violation, told)) = simulate(*seed, true) else {
            panic!("SIM_SEED={seed} is not the same the second time");
        };
        let told: Vec<String> = told.into();
        panic!("SIM_SEED={seed} runs it again: {violation}\nwhat happened last:\n{}", told.join("\n"));
    }
}
