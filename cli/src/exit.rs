//! Exit codes, and how an error is said.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use shared::run_record::RunRecord;
use shared::run_state::RunState;

use crate::output::printable;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked for.
    Done = 0,
    /// An error, which is on stderr; for `diff` and `doctor` also: there is something to look at.
    Error = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The run that was waited for did not succeed.
    RunNotSuccessful = 3,
    /// What was waited for did not come in time, as `timeout(1)` says it.
    TimedOut = 124,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// How a run that was waited for makes its verb end.
    pub fn of_run(run: &RunRecord) -> Self {
        if run.status == RunState::Success { Exit::Done } else { Exit::RunNotSuccessful }
    }
}

/// Says an error on stderr and gives the code for it. A reader that went away (`| head`) is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return Exit::Done.into();
    }
    let _ = writeln!(io::stderr(), "error: {}", explain(error));
    Exit::Error.into()
}

/// An error with its causes, each said once: many errors repeat their cause in their own words.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_that_the_error_repeats_is_said_once() {
        let error = anyhow!("no such file").context("jobs.yaml: no such file").context("cannot apply");
        assert_eq!(explain(&error), "cannot apply: jobs.yaml: no such file");
    }

    #[test]
    fn an_error_cannot_write_to_the_terminal_what_a_stranger_wrote_into_it() {
        assert_eq!(explain(&anyhow!("target said \u{1b}[2J!\nand left")), "target said ␛[2J!\nand left");
    }
}
