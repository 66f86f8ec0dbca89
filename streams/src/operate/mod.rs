//! What people and programs do to a fleet by hand, in one place for the command line and the console: both say the same of it and do
//! the same.
//!
//! | file | what |
//! |---|---|
//! | `fleet.rs` | what the fleet has, what definitions say, and how they differ |
//! | `apply.rs` | writing definitions, one after the other |
//! | `schedules.rs` | schedules as they are listed; their earlier versions |
//! | `pausing.rs` | pausing and resuming |
//! | `progress.rs` | runs with how far they are |
//! | `members.rs` | queues, workers and targets as they are listed |
//! | `submit.rs` | submitting an ad-hoc task, with the checks before it |
//! | `backfill.rs` | what a backfill would do |
//! | `refusals.rs` | why a run is not retried |
//! | `wait.rs` | waiting for the end of a run |

pub mod apply;
pub mod backfill;
pub mod fleet;
pub mod members;
pub mod pausing;
pub mod progress;
pub mod refusals;
pub mod schedules;
pub mod submit;
pub mod wait;

use shared::suggest::nearest;

pub use apply::patiently;

/// What to say of a name that is not there, with the nearest one that is.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {kind} {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => {
            format!("there is no {kind} {name:?}; there are none at all: `cronfleet apply -f FILE` adds them")
        }
        None => format!("there is no {kind} {name:?}; `cronfleet get {kind}s` lists those there are"),
    }
}
