//! Commands on the worker's own machine.
//!
//! Promise: only what the worker's operator allowed is run, with the arguments as they are and never through a shell,
//! in an environment that holds none of the worker's secrets; and when an attempt ends, its whole process tree has.
//! Output is read to its end, so no command waits for a reader, and kept in bounded measure.
//! Failure: see [`guard`] for what ends the tree when the worker itself is lost.
//! Limit: a command may do whatever the worker's user may do. Limits of memory and processes are the container's.

pub mod allow_list;
pub mod guard;

mod outcome;
mod tail;

use std::{
    ffi::OsString, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, sync::Arc, time::Duration,
};

use serde_json::Value;
use shared::{clock::SharedClock, limits, names::ActionName, run_record::ErrorKind, task::Work};
use tokio_util::sync::CancellationToken;

pub use self::allow_list::{CommandSettings, LocalSettings, LocalSettingsError};
use self::{
    allow_list::OUTPUT_BYTES_DEFAULT,
    guard::{Guarded, GuardedCommand},
    tail::Capture,
};
use super::{Attempt, Failure, answer::stopped, written};

/// Where a command's own commands are searched for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Text is UTF-8, and words are in the language of every manual.
const LANG: &str = "C.UTF-8";
/// Where a command runs, unless its entry says else.
const DIRECTORY: &str = "/";

/// Makes attempts with the commands of the allow-list. Cheap to clone.
#[derive(Clone)]
pub struct LocalExecutor {
    settings: Arc<LocalSettings>,
    clock: SharedClock,
    grace: Duration,
}

impl LocalExecutor {
    /// An executor for these commands.
    pub fn new(settings: LocalSettings, clock: SharedClock) -> Self {
        Self { settings: Arc::new(settings), clock, grace: limits::KILL_GRACE }
    }

    /// With another time than [`limits::KILL_GRACE`] between asking a command to end and ending it.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Makes one attempt. Its time is bounded by `stop` alone; after it the command has the grace to end.
    pub async fn execute(&self, attempt: &Attempt, stop: &CancellationToken) -> Result<Value, Failure> {
        let Work::Command { name, arguments } = &attempt.task.work else {
            return Err(Failure::permanent(
                ErrorKind::Internal,
                "a task without a command came to the local executor",
            ));
        };
        let settings = self.settings.commands.get(name).ok_or_else(|| self.not_allowed(name))?;
        if stop.is_cancelled() {
            return Err(stopped(&format!("command {name}")));
        }
        check_startable(name, settings).await?;
        let mut running = self
            .command(settings, arguments, attempt)
            .spawn()
            .map_err(|error| self.not_started(name, settings, &error))?;
        let keep = settings.output_bytes.unwrap_or(OUTPUT_BYTES_DEFAULT);
        let stdout = running.take_stdout().map(|pipe| Capture::of(pipe, keep));
        let stderr = running.take_stderr().map(|pipe| Capture::of(pipe, keep));
        let ended = self.end_of(name, &mut running, stop).await;
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(Failure::retryable(ErrorKind::Internal, format!("command {name} has no outputs")));
        };
        let (stdout, stderr) = tokio::join!(stdout.end(&*self.clock), stderr.end(&*self.clock));
        match ended? {
            Some(status) => outcome::failure(name.as_str(), status, &stderr)
                .map_or_else(|| Ok(outcome::output(&stdout)), Err),
            None => Err(stopped(&format!("command {name} ({})", outcome::last_words(&stderr)))),
        }
    }

    /// How the command ended; none if it was stopped.
    async fn end_of(
        &self,
        name: &ActionName,
        running: &mut Guarded,
        stop: &CancellationToken,
    ) -> Result<Option<std::process::ExitStatus>, Failure> {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = running.wait() => return ended.map(Some).map_err(|error| {
                Failure::retryable(ErrorKind::Internal, format!("the end of command {name} was not seen: {error}"))
            }),
        }
        if let Err(error) = running.stop(&*self.clock).await {
            tracing::warn!(command = %name, %error, "Command `{name}` did not end although it was killed");
        }
        Ok(None)
    }

    fn command(&self, settings: &CommandSettings, arguments: &[String], attempt: &Attempt) -> GuardedCommand {
        GuardedCommand::new(&self.settings.guard, &settings.program)
            .args(settings.args.iter().chain(arguments))
            .environment(environment(settings, attempt))
            .directory(settings.cwd.as_deref().unwrap_or(Path::new(DIRECTORY)))
            .input(attempt.body())
            .grace(self.grace)
            .outputs(Stdio::piped(), Stdio::piped())
    }

    fn not_allowed(&self, name: &ActionName) -> Failure {
        let known: Vec<&str> = self.settings.commands.keys().map(ActionName::as_str).collect();
        let meant =
            shared::suggest::nearest(name.as_str(), known).map(|name| format!(" (did you mean {name}?)"));
        Failure::permanent(
            ErrorKind::CommandNotAllowed,
            format!(
                "command {name} is not on this worker's allow-list{}; its operator allows it with an entry `{name}: {{program: /absolute/path}}` under `commands:` in the file of allowed commands",
                meant.unwrap_or_default()
            ),
        )
    }

    fn not_started(&self, name: &ActionName, settings: &CommandSettings, error: &std::io::Error) -> Failure {
        let message =
            format!("command {name} ({}) could not be started: {error}", settings.program.display());
        let is_ours =
            !self.settings.guard.is_empty() && error.kind() != std::io::ErrorKind::ArgumentListTooLong;
        // Under a guard it is the guard that could not be started, which says nothing about the command.
        if is_ours || guard::may_pass(error) {
            return Failure::retryable(ErrorKind::Command, message);
        }
        Failure::permanent(ErrorKind::Command, message)
    }
}

/// Looks before starting: a guard could only say it with an exit code, and a missing directory looks like a missing
/// program to the kernel.
async fn check_startable(name: &ActionName, settings: &CommandSettings) -> Result<(), Failure> {
    let refuse = |path: &Path, words: &str| {
        let message = format!(
            "command {name} cannot be started: {} {words}; mend its entry on the worker's allow-list",
            path.display()
        );
        Err(Failure::permanent(ErrorKind::Command, message))
    };
    match tokio::fs::metadata(&settings.program).await {
        Err(error) => return refuse(&settings.program, &format!("cannot be looked at ({error})")),
        Ok(program) if !program.is_file() => return refuse(&settings.program, "is not a file"),
        Ok(program) if program.permissions().mode() & 0o111 == 0 => {
            return refuse(&settings.program, "is not executable");
        }
        Ok(_) => {}
    }
    match &settings.cwd {
        Some(cwd) if !tokio::fs::metadata(cwd).await.is_ok_and(|entry| entry.is_dir()) => {
            refuse(cwd, "is not a directory")
        }
        _ => Ok(()),
    }
}

/// All that a command finds in its environment.
fn environment(settings: &CommandSettings, attempt: &Attempt) -> Vec<(OsString, OsString)> {
    let base = [("PATH", PATH), ("LANG", LANG)].map(|(name, value)| (name.into(), value.into()));
    let passed_on = settings.env.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let mut own = vec![
        ("CRONFLEET_RUN", attempt.run.to_string()),
        ("CRONFLEET_ATTEMPT", attempt.number.to_string()),
        ("CRONFLEET_FENCE", attempt.fence.to_string()),
        ("CRONFLEET_TASK", attempt.task_name().to_string()),
    ];
    own.extend(attempt.slot.map(|slot| ("CRONFLEET_SLOT", written(slot))));
    if let Some(shard) = &attempt.shard {
        own.push(("CRONFLEET_SHARD_INDEX", shard.index.to_string()));
        own.push(("CRONFLEET_SHARD_TOTAL", shard.total.to_string()));
        own.push(("CRONFLEET_SHARD_PARENT", shard.parent.to_string()));
    }
    own.extend(upstream_variables(attempt));
    own.extend(attempt.traceparent.clone().map(|context| ("TRACEPARENT", context)));
    // The last of a name counts: an operator may set another PATH, nobody another CRONFLEET_RUN.
    let own = own.into_iter().map(|(name, value)| (name.into(), value.into()));
    base.into_iter().chain(passed_on).chain(own).filter(|(_, value)| guard::is_passable(value)).collect()
}

/// What a command finds in its environment of the end that its run follows. All of it is in its input, too.
fn upstream_variables(attempt: &Attempt) -> Vec<(&'static str, String)> {
    let Some(upstream) = &attempt.upstream else { return Vec::new() };
    let mut variables = vec![
        ("CRONFLEET_UPSTREAM_RUN", upstream.run.to_string()),
        ("CRONFLEET_UPSTREAM_STATUS", upstream.status.to_string()),
    ];
    variables.extend(upstream.output.as_ref().map(|output| {
        let text = output.to_string();
        if text.len() <= limits::UPSTREAM_OUTPUT_VARIABLE_BYTES_MAX {
            ("CRONFLEET_UPSTREAM_OUTPUT", text)
        } else {
            ("CRONFLEET_UPSTREAM_OUTPUT_BYTES", text.len().to_string())
        }
    }));
    variables
}
