//! The start of a command: a second stage of the guard, which gives itself a session and limits and then becomes the
//! command. So they hold from the command's first moment, and no code runs between fork and exec.

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Resource, Rlimit, nice, setrlimit, setsid};

use super::{
    EXIT_NOT_FOUND, EXIT_NOT_NOW, EXIT_NOT_STARTED, GuardSettings, Refusal, Stage, command::may_pass,
};

/// This very program, even if its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What each process of a command may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartLimits {
    /// Mebibytes of address space (`RLIMIT_AS`).
    pub address_space_mib: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// By how much it steps back behind others.
    pub nice: Option<u8>,
}

/// Starts the second stage. The reaper waits for it, as for every other child.
pub(super) fn command(settings: &GuardSettings, has_input: bool) -> io::Result<Child> {
    let mut command = if Path::new(THIS_PROGRAM).exists() {
        let stage = GuardSettings { stage: Stage::Start, ..settings.clone() };
        let mut command = Command::new(THIS_PROGRAM);
        command.arg("guard").args(stage.to_args());
        command
    } else if settings.limits == StartLimits::default() {
        // Without /proc there is no second stage; the command then stays in our session, and in a group of its own.
        let mut command = Command::new(&settings.program);
        command.args(&settings.args);
        command.process_group(0);
        command
    } else {
        return Err(io::Error::other("its limits cannot be set on a machine without /proc"));
    };
    command.stdin(if has_input { Stdio::piped() } else { Stdio::null() }).spawn()
}

/// Becomes the command; returns only if it cannot.
pub(super) fn become_command(settings: &GuardSettings) -> Refusal {
    match prepare(&settings.limits) {
        Ok(()) => refusal(settings, &Command::new(&settings.program).args(&settings.args).exec()),
        Err(error) => refusal(settings, &error),
    }
}

fn prepare(limits: &StartLimits) -> io::Result<()> {
    // A session of its own, and so a group: no terminal reaches it.
    setsid()?;
    if let Some(by) = limits.nice {
        nice(by.into())?;
    }
    let to = |resource, most: u64| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| {
            io::Error::new(
                io::Error::from(error).kind(),
                format!("its limit of {most} ({resource:?}) cannot be set: {error}; the worker itself may not have more"),
            )
        })
    };
    if let Some(files) = limits.open_files {
        to(Resource::Nofile, files)?;
    }
    // Last: from here on there is room for the command, and for little else.
    limits.address_space_mib.map_or(Ok(()), |mib| to(Resource::As, mib.saturating_mul(1024 * 1024)))
}

/// Why a command is not started, in words and as a code.
pub(super) fn refusal(settings: &GuardSettings, error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ if may_pass(error) => EXIT_NOT_NOW,
        _ => EXIT_NOT_STARTED,
    };
    Refusal { code, words: format!("{}: {error}", settings.program.display()) }
}
