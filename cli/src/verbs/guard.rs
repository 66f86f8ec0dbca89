//! `guard` (hidden): runs a command for a worker and ends it when the worker dies.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;
use shared::{human_duration::HumanDuration, limits::KILL_GRACE};
use worker::executors::local::guard;

/// The arguments of `guard`: `cronfleet guard [--grace 5s] -- PROGRAM [ARGUMENT]...`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Between asking the command's process group to end and ending it
    #[arg(long, default_value_t = HumanDuration(KILL_GRACE))]
    pub grace: HumanDuration,

    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Runs the command; ends as it ends.
pub fn run(args: GuardArgs) -> ExitCode {
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    guard::run(&guard::GuardSettings { grace: args.grace.0, program, args: words.collect() })
}
