//! The start of a command: a second stage of the guard, which gives itself a session and limits and then becomes the
//! command. So they hold from the command's first moment, and no code runs between fork and exec.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    ops::Range,
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

/// As much of a file as says what it is.
const HEADER_BYTES: u64 = 64;
/// Where an ELF file says that it is one, with which width and order of numbers.
const CLASS_AND_ORDER: Range<usize> = 0..6;
/// Where it says for which processor it is.
const MACHINE: Range<usize> = 18..20;

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
    let mut command = if Path::new(THIS_PROGRAM).exists() && becomes_itself(&settings.program) {
        let stage = GuardSettings { stage: Stage::Start, ..settings.clone() };
        let mut command = Command::new(THIS_PROGRAM);
        command.arg("guard").args(stage.to_args());
        command
    } else if settings.limits == StartLimits::default() {
        // Without a second stage the command stays in our session, and in a group of its own.
        let mut command = Command::new(&settings.program);
        command.args(&settings.args);
        command.process_group(0);
        command
    } else {
        return Err(io::Error::other(
            "its limits can be set for programs of this machine and for scripts that begin with #!/ only, and where /proc is",
        ));
    };
    command.stdin(if has_input { Stdio::piped() } else { Stdio::null() }).spawn()
}

/// Whether this is a file that a kernel like ours starts as what it is: a program for this machine, or a script that names its
/// interpreter. The library's exec hands every other file to a shell, which is what nobody asked for; the start of a new
/// process does not.
fn becomes_itself(program: &OsStr) -> bool {
    let (Some(header), Some(own)) = (header_of(Path::new(program)), header_of(Path::new(THIS_PROGRAM)))
    else {
        return false;
    };
    let is_interpreted =
        header.strip_prefix(b"#!").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"/"));
    is_interpreted
        || [CLASS_AND_ORDER, MACHINE].into_iter().all(|part| header.get(part.clone()) == own.get(part))
}

/// What a file begins with; none if it cannot be read.
fn header_of(path: &Path) -> Option<Vec<u8>> {
    let mut header = Vec::new();
    File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut header).ok()?;
    Some(header)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_of_this_machine_or_a_script_that_names_its_interpreter_becomes_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let of = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("written");
            becomes_itself(file.as_os_str())
        };
        assert!(becomes_itself(OsStr::new("/bin/sh")));
        assert!(of(b"#!/bin/sh\n") && of(b"#! /usr/bin/env python3\n"));
        let mut of_another_machine = std::fs::read("/bin/sh").expect("a program");
        of_another_machine[18] ^= 0xff;
        for bytes in
            [&b""[..], b"echo hello\n", b"#!\necho hello\n", b"\x7fELF", b"\x01\x02\x03", &of_another_machine]
        {
            assert!(!of(bytes), "{:?}", bytes.get(..8));
        }
        assert!(!becomes_itself(OsStr::new("/nowhere/tool")));
    }
}
