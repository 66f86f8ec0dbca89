//! The promises, as sentences that are checked. `docs/GUARANTEES.md` names for each promise the spec that proves it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod adhoc;
mod bad_input;
mod cluster;
mod control;
mod drain;
mod example;
mod generated;
mod layout;
mod mending;
mod overlap;
mod planning;
mod results;
mod server;
mod targets;
mod time;
mod topology;
mod up;
