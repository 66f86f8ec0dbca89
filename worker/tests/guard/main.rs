//! Commands under a guard, which is a real process: this very program, run as `guard …`.
//!
//! It has its own `main` for that reason, and understands the arguments with which cargo and nextest list and choose
//! tests. Run as `stand-in …` it is a worker that can be killed without killing the tests.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod ends;
mod runner;
mod runs;
#[path = "../support/mod.rs"]
mod support;

use std::{
    ffi::OsString,
    process::{ExitCode, Stdio},
};

use worker::executors::local::guard::{self, GuardSettings, GuardedCommand};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "guard" => {
            guard::run(&GuardSettings::from_args(args).expect("arguments of a guard"))
        }
        Some(word) if word == "stand-in" => stand_in(args.next().expect("a script")),
        first => runner::run(&[runs::TESTS, ends::TESTS].concat(), first.into_iter().chain(args)),
    }
}

/// The words that start a guard.
fn guard_words() -> Vec<OsString> {
    vec![std::env::current_exe().expect("this program").into(), "guard".into()]
}

/// Runs a script under a guard, as a worker does, until it is killed.
fn stand_in(script: OsString) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let command = GuardedCommand::new(&guard_words(), "/bin/sh")
            .args(["-c".into(), script])
            .environment(std::env::vars_os())
            .outputs(Stdio::null(), Stdio::null());
        let mut running = command.spawn().expect("spawned");
        running.wait().await.expect("its end");
    });
    ExitCode::SUCCESS
}
