//! The worker's end of a guard: starts a command under one, and stops it.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use shared::clock::{Clock, SharedClock};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

use super::{Bounds, GuardSettings, StartLimits, input, tree};

/// How much longer than the grace a guard may take before it is ended itself: it kills for a second.
const OVERTIME: Duration = Duration::from_secs(2);

/// A worker gives this many signs of life in the time after which none means that it stands still.
const SIGNS_PER_SILENCE: u32 = 5;
/// A sign of life.
const SIGN: &[u8] = b".";

/// A command that is to run under a guard. Its environment is empty but for what it is given.
///
/// Without the words for a guard it runs directly, in a process group of its own. Then stopping it ends that group,
/// and its end kills what is left of the group at once; but whoever detached itself from the group stays, and if this
/// process is killed, so does the command. That is for tests and for users of this library who have no `guard`.
pub struct GuardedCommand {
    guard: Vec<OsString>,
    settings: GuardSettings,
    /// For signs of life; none: none are given.
    clock: Option<SharedClock>,
    input: Vec<u8>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdout: Stdio,
    stderr: Stdio,
}

impl GuardedCommand {
    /// A command without arguments, input or environment, whose outputs are this process's own.
    pub fn new(guard: &[OsString], program: impl Into<OsString>) -> Self {
        Self {
            guard: guard.to_vec(),
            settings: GuardSettings::of(program),
            clock: None,
            input: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdout: Stdio::inherit(),
            stderr: Stdio::inherit(),
        }
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.settings.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With more of an environment.
    #[must_use]
    pub fn environment(
        mut self,
        more: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        self.environment.extend(more.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// In this directory, instead of this process's own.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// With this on its standard input, up to [`super::INPUT_BYTES_MAX`] bytes.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// With this time between being asked to end and being ended.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Its guard stops it when this process gives no sign of life for so long: when it stands still.
    #[must_use]
    pub fn silence(mut self, silence: Duration, clock: SharedClock) -> Self {
        self.settings.silence = Some(silence);
        self.clock = Some(clock);
        self
    }

    /// With limits; without a guard they cannot be kept.
    #[must_use]
    pub fn limits(mut self, bounds: Bounds, limits: StartLimits) -> Self {
        (self.settings.bounds, self.settings.limits) = (bounds, limits);
        self
    }

    /// With its outputs sent elsewhere.
    #[must_use]
    pub fn outputs(mut self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        self.stdout = stdout.into();
        self.stderr = stderr.into();
        self
    }

    /// Starts it. Under a guard, a program that cannot be started shows as the guard's exit code.
    pub fn spawn(self) -> io::Result<Guarded> {
        let (is_direct, grace) = (self.guard.is_empty(), self.settings.grace);
        let mut words = self.words().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(self.stdout)
            .stderr(self.stderr)
            // Out of reach of a ctrl-C, which the terminal sends to the whole group in its foreground.
            .process_group(0);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn()?;
        let signs = self.clock.zip(self.settings.silence.map(|silence| silence / SIGNS_PER_SILENCE));
        let lifeline = child.stdin.take().map(|pipe| Lifeline::hold(pipe, self.input, is_direct, signs));
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Guarded { child, lifeline, group, grace, is_direct })
    }

    /// All words of the process that is started.
    fn words(&self) -> Vec<OsString> {
        let mut words = self.guard.clone();
        if words.is_empty() {
            words.push(self.settings.program.clone());
            words.extend(self.settings.args.iter().cloned());
        } else {
            words.extend(self.settings.to_args());
        }
        words
    }
}

/// The pipe to a guard: while it is open, the command may live. Dropping this closes it.
#[derive(Debug)]
struct Lifeline(JoinHandle<()>);

impl Lifeline {
    /// Writes the input, in the background for whoever reads slowly. A guard's pipe is then held, a command's closed.
    fn hold(
        mut pipe: ChildStdin,
        input: Vec<u8>,
        is_direct: bool,
        signs: Option<(SharedClock, Duration)>,
    ) -> Self {
        Self(tokio::spawn(async move {
            let bytes = if is_direct { input } else { input::written(&input) };
            // Whoever does not want to read its input, or has ended, closes its side: no fault of anybody.
            let _ = pipe.write_all(&bytes).await;
            if is_direct {
                return;
            }
            if let Some((clock, between)) = signs {
                // A pipe that breaks is one whose guard has ended.
                while pipe.write_all(SIGN).await.is_ok() {
                    clock.sleep(between).await;
                }
            }
            std::future::pending::<()>().await;
        }))
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A command that runs under a guard. Dropping it stops it, in the guard's own time.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    lifeline: Option<Lifeline>,
    /// The process group of the guard, or of the command if there is none; none once it has ended.
    group: Option<Pid>,
    grace: Duration,
    is_direct: bool,
}

impl Guarded {
    /// The process id of the guard, or of the command if there is none; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The command's standard output, once, if it was to be piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The command's error output, once, if it was to be piped.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for its end. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        if let Some(group) = self.group.take().filter(|_| self.is_direct) {
            // What a command leaves behind in its group. Mostly there is nobody, and that is an error to the kernel.
            let _ = kill_process_group(group, Signal::KILL);
        }
        Ok(status)
    }

    /// Has the whole tree end, and waits for it: for the grace, and two seconds more at most.
    pub async fn stop(&mut self, clock: &dyn Clock) -> io::Result<ExitStatus> {
        self.lifeline = None;
        let mut patience = self.grace.saturating_add(OVERTIME);
        if let Some(group) = self.group.filter(|_| self.is_direct) {
            let _ = kill_process_group(group, Signal::TERM);
            patience = self.grace;
        }
        if let Some(ended) = self.ended_within(patience, clock).await {
            return ended;
        }
        if let Some(group) = self.group {
            // For a guard, first everybody below it: without it nobody would know them any more.
            tree::signal(group, group, Signal::KILL);
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Who survives that waits for a disk or a device; it ends when that answers.
        self.ended_within(OVERTIME, clock).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn ended_within(
        &mut self,
        patience: Duration,
        clock: &dyn Clock,
    ) -> Option<io::Result<ExitStatus>> {
        tokio::select! {
            ended = self.wait() => Some(ended),
            () = clock.sleep(patience) => None,
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // A guard learns it from the end of its lifeline; a command without one has to be told.
        if let Some(group) = self.group.filter(|_| self.is_direct) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Whether a program that could not be started may be startable in a moment: the machine is short of something.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::TXTBSY];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}

/// Nothing that a kernel takes as a name or a value of a variable holds a NUL byte.
pub(crate) fn is_passable(value: &OsStr) -> bool {
    !value.as_encoded_bytes().contains(&0)
}
