//! `guard` (hidden): runs a command for a worker and ends it when the worker dies.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;
use worker::executors::local::guard::{self, EXIT_USAGE, GuardSettings};

use crate::output::talk;

/// The arguments of `guard`, as a worker writes them: `cronfleet guard [--grace 5s] … -- PROGRAM [ARGUMENT]...`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Options, two dashes, the program, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    pub words: Vec<OsString>,
}

impl GuardArgs {
    /// Those of this process, if it was started as a guard. Every command is begun through two of them, so they do without
    /// all that reads the other verbs.
    pub fn of_this_process() -> Option<Self> {
        let mut words = std::env::args_os().skip(1);
        (words.next()? == "guard").then(|| Self { words: words.collect() })
    }
}

/// Runs the command; ends as it ends.
pub fn run(args: GuardArgs) -> ExitCode {
    match GuardSettings::from_args(args.words) {
        Ok(settings) => guard::run(&settings),
        Err(error) => {
            talk(format!("{}{error}", guard::WORDS_PREFIX));
            ExitCode::from(EXIT_USAGE)
        }
    }
}
