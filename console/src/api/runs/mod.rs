//! Runs.
//!
//! | file | what |
//! |---|---|
//! | `reading.rs` | lists, one, its life, its log |
//! | `writing.rs` | submitting, cancelling, retrying |
//! | `bulk.rs` | cancelling and retrying many, with a count before |

pub mod bulk;
pub mod reading;
pub mod writing;

use shared::run::RunId;

use super::{
    kinds,
    parameter::{Kind, Parameter, path},
    problem::Problem,
};

/// The run that is meant.
pub const RUN: Parameter = path("run", Kind::Run, "The run: `<name>.<key>`.");

/// What to say of a run that is not there.
pub fn no_run(run: &RunId) -> Problem {
    let words = format!(
        "there is no record of run {run}; one that was submitted has its record when a worker takes it; \
         `GET /api/v1/runs?name={}` lists those of that name",
        run.name
    );
    Problem::new(&kinds::UNKNOWN, words).at("run")
}
