//! Commands on the worker's own machine.
//!
//! Promise: only what the worker's operator allowed is run, with the arguments as they are and never through a shell,
//! in an environment that holds none of the worker's secrets; and when an attempt ends, its whole process tree has.
//! Output is read to its end, so no command waits for a reader; its lines go to the run's log while it runs, and what is
//! kept is bounded. Secrets are masked in all of it.
//! Failure: see [`guard`] for what ends the tree when the worker itself is lost.
//! Limit: a command may do whatever the worker's user may do.

pub mod allow_list;
pub mod guard;

mod exit_codes;
mod limits;
mod lines;
mod mask;
mod outcome;
mod tail;

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use shared::{
    clock::SharedClock,
    human_duration::HumanDuration,
    limits::{KILL_GRACE, UPSTREAM_OUTPUT_VARIABLE_BYTES_MAX},
    names::ActionName,
    run_log::LogSource,
    run_record::ErrorKind,
    task::Work,
};
use streams::witness;
use tokio_util::sync::CancellationToken;

pub use self::allow_list::{
    CommandLimits, CommandSettings, ExitCodes, LocalSettings, LocalSettingsError, Others,
};
use self::{
    allow_list::OUTPUT_BYTES_DEFAULT,
    guard::{Bounds, Guarded, GuardedCommand, StartLimits},
    lines::Feed,
    mask::Masker,
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
        Self { settings: Arc::new(settings), clock, grace: KILL_GRACE }
    }

    /// With another time than [`KILL_GRACE`] between asking a command to end and ending it.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Whether a command is on the allow-list.
    pub(crate) fn has(&self, name: &ActionName) -> bool {
        self.settings.commands.contains_key(name)
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
        if self.settings.guard.is_empty() && settings.limits.need_a_guard() {
            let words =
                format!("command {name} has limits, which only a guard can keep, and this worker has none");
            return Err(Failure::permanent(ErrorKind::Command, words));
        }
        let mut running = self
            .command(settings, arguments, attempt)
            .spawn()
            .map_err(|error| self.not_started(name, settings, &error))?;
        witness::passed("command.begun");
        let masker = Masker::of(secrets(settings));
        let keep = settings.output_bytes.unwrap_or(OUTPUT_BYTES_DEFAULT);
        let feed = |from| Feed::new(from, &masker, &attempt.log, &self.clock);
        let stdout = running.take_stdout().map(|pipe| Capture::of(pipe, keep, feed(LogSource::Stdout)));
        let stderr = running.take_stderr().map(|pipe| Capture::of(pipe, keep, feed(LogSource::Stderr)));
        let ended = self.end_of(settings, attempt, &mut running, stop).await;
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(Failure::retryable(ErrorKind::Internal, format!("command {name} has no outputs")));
        };
        let (stdout, stderr) = tokio::join!(stdout.end(&*self.clock), stderr.end(&*self.clock));
        let stderr = stderr.masked(&masker);
        match ended? {
            End::Itself(status) => outcome::failure(name.as_str(), status, &stderr, &settings.exit_codes)
                .map_or_else(|| Ok(outcome::output(&stdout, &masker)), Err),
            End::Stopped => Err(stopped(&format!("command {name} ({})", outcome::last_words(&stderr)))),
            End::OutOfTime(most) => Err(Failure::retryable(
                ErrorKind::Timeout,
                format!(
                    "command {name} took longer than the {} it may (`limits: {{time: …}}` on the worker's allow-list); {}",
                    HumanDuration(most),
                    outcome::last_words(&stderr)
                ),
            )),
        }
    }

    /// Waits until it has ended, or has been made to.
    async fn end_of(
        &self,
        settings: &CommandSettings,
        attempt: &Attempt,
        running: &mut Guarded,
        stop: &CancellationToken,
    ) -> Result<End, Failure> {
        let name = attempt.task.action();
        let most = settings.limits.time.map(|most| most.0);
        let out_of_time = async {
            match most {
                Some(most) => self.clock.sleep(most).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            ended = running.wait() => return ended.map(End::Itself).map_err(|error| {
                Failure::retryable(ErrorKind::Internal, format!("the end of command {name} was not seen: {error}"))
            }),
            () = out_of_time => End::OutOfTime(most.unwrap_or_default()),
        };
        let grace = HumanDuration(self.grace.min(attempt.grace));
        attempt.log.line(format!("command {name} is told to end, and killed if it has not after {grace}"));
        if let Err(error) = running.stop(&*self.clock).await {
            tracing::warn!(command = %name, %error, "Command `{name}` did not end although it was killed");
        }
        Ok(end)
    }

    fn command(&self, settings: &CommandSettings, arguments: &[String], attempt: &Attempt) -> GuardedCommand {
        let CommandLimits { time: _, memory_mib, processes, address_space_mib, open_files, nice } =
            settings.limits;
        let bounds = Bounds { memory_mib, processes };
        let limits = StartLimits { address_space_mib, open_files, nice };
        GuardedCommand::new(&self.settings.guard, &settings.program)
            .args(settings.args.iter().chain(arguments))
            .environment(environment(settings, attempt))
            .directory(settings.cwd.as_deref().unwrap_or(Path::new(DIRECTORY)))
            .input(attempt.body())
            .grace(self.grace.min(attempt.grace))
            .silence(attempt.silence, self.clock.clone())
            .limits(bounds, limits)
            .outputs(Stdio::piped(), Stdio::piped())
    }

    /// What is wrong with the entries of the allow-list, in words: found when the worker starts, not with the first run.
    pub async fn complaints(settings: &LocalSettings) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, entry) in &settings.commands {
            if let Err(failure) = check_startable(name, entry).await {
                complaints.push(failure.error.message);
            }
            let unset =
                entry.secrets.iter().find(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()));
            if let Some(unset) = unset {
                complaints.push(format!(
                    "command {name}: the secret {unset} is not set in the worker's environment"
                ));
            }
        }
        complaints
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

/// How a command ended.
enum End {
    /// By itself, or by whoever else ended it.
    Itself(ExitStatus),
    /// It was told to.
    Stopped,
    /// It took longer than its entry allows.
    OutOfTime(Duration),
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
    let names = settings.env.iter().chain(&settings.secrets);
    let passed_on = names.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
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

/// The values that are masked in what a command says.
fn secrets(settings: &CommandSettings) -> Vec<Vec<u8>> {
    let values = settings.secrets.iter().filter_map(std::env::var_os);
    values.map(|value| value.as_encoded_bytes().to_vec()).collect()
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
        if text.len() <= UPSTREAM_OUTPUT_VARIABLE_BYTES_MAX {
            ("CRONFLEET_UPSTREAM_OUTPUT", text)
        } else {
            ("CRONFLEET_UPSTREAM_OUTPUT_BYTES", text.len().to_string())
        }
    }));
    variables
}
