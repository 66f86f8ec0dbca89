//! One life of the embedded server: started under the guard, ready, ended.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use shared::clock::SharedClock;
use worker::executors::local::guard::{Guarded, GuardedCommand};

use super::config;
use crate::{up::data_dir::DataDir, verbs::worker::guard_command};

/// Between asking the server to end and ending it. It writes what it holds; with large streams that takes seconds.
const GRACE: Duration = Duration::from_secs(15);
/// Large streams are read at the start.
const READY_WAIT: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// What is read of the log to find out why it ended.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// What the server says on stderr before it has a log: that its configuration cannot be read, for instance.
const STDERR: &str = "nats-server.stderr";

/// Why it did not start.
#[derive(Debug)]
pub(super) enum StartError {
    /// Somebody else listens on the port.
    PortTaken(u16),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken(port) => write!(f, "port {port} of {} is taken", config::HOST),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

/// A running server. Dropped, or killed with us, its guard ends it.
pub(super) struct Process {
    guarded: Guarded,
    log_from: u64,
}

impl Process {
    /// Starts it and waits until it listens.
    pub(super) async fn start(
        binary: &Path,
        data: &DataDir,
        port: u16,
        clock: &SharedClock,
    ) -> Result<Self, StartError> {
        let path = data.file(config::CONFIG);
        fs::write(&path, config::text(data.path(), port))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        // Left over from one that was killed; what appears from now on is this one's word.
        for stale in ports_files(data) {
            let _ = fs::remove_file(stale);
        }
        let mut process = Self::spawn(binary, data)?;
        let started = clock.elapsed();
        while !ports_files(data).iter().any(|file| names_port(file, port)) {
            if clock.elapsed().saturating_sub(started) > READY_WAIT {
                process.stop(clock).await;
                let log = data.file(config::LOG);
                return Err(
                    anyhow!("nats-server is not ready after {READY_WAIT:?}; see {}", log.display()).into()
                );
            }
            tokio::select! {
                ended = process.guarded.wait() => return Err(process.why_ended(data, port, ended)),
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
        Ok(process)
    }

    fn spawn(binary: &Path, data: &DataDir) -> anyhow::Result<Self> {
        let log_from = fs::metadata(data.file(config::LOG)).map_or(0, |metadata| metadata.len());
        let stderr =
            File::create(data.file(STDERR)).with_context(|| format!("{STDERR} cannot be written"))?;
        let guarded = GuardedCommand::new(&guard_command()?, binary)
            .args([OsStr::new("--config"), data.file(config::CONFIG).as_os_str()])
            .outputs(Stdio::null(), stderr)
            .grace(GRACE)
            .spawn()
            .context("nats-server's guard cannot be started")?;
        Ok(Self { guarded, log_from })
    }

    /// Waits for it to end by itself, and says how.
    pub(super) async fn ends(&mut self) -> String {
        shown(self.guarded.wait().await)
    }

    /// Asks it to end, and waits until it has; whether it has.
    pub(super) async fn stop(mut self, clock: &SharedClock) -> bool {
        self.guarded.stop(clock.as_ref()).await.is_ok()
    }

    fn why_ended(&self, data: &DataDir, port: u16, ended: io::Result<ExitStatus>) -> StartError {
        let log = data.file(config::LOG);
        let said = tail(&log, self.log_from);
        if said.contains("address already in use") {
            return StartError::PortTaken(port);
        }
        let fatal = said.lines().rfind(|line| line.contains("[FTL]")).map(str::to_owned);
        let early = tail(&data.file(STDERR), 0);
        let word = fatal.or_else(|| early.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned));
        let word = word.map_or_else(String::new, |word| format!(": {word}"));
        anyhow!("nats-server did not start ({}){word}; see {}", shown(ended), log.display()).into()
    }
}

fn ports_files(data: &DataDir) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(data.path()).into_iter().flatten().flatten();
    let names_ports = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(config::PORTS_SUFFIX);
    entries.map(|entry| entry.path()).filter(names_ports).collect()
}

/// Whether the file says that this port is listened on. Half a file does not.
fn names_port(file: &Path, port: u16) -> bool {
    let said = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let addresses = said.as_ref().and_then(|said| said["nats"].as_array());
    let ending = format!(":{port}");
    addresses.is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|one| one.ends_with(&ending))))
}

/// The end of a log, from where it was at the start; from its beginning if it was turned over since.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The guard's exit code is the server's, or 128 and the signal's number, as in a shell.
fn shown(ended: io::Result<ExitStatus>) -> String {
    match ended.map(|status| (status.code(), status.signal())) {
        Ok((Some(code @ 129..=192), _)) => format!("signal {}", code - 128),
        Ok((Some(code), _)) => format!("exit code {code}"),
        Ok((None, Some(signal))) => format!("its guard got signal {signal}"),
        Ok((None, None)) => "no exit code".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_with_the_port_says_that_it_listens() {
        let path = std::env::temp_dir().join(format!("cronfleet-up-ports-{}.ports", std::process::id()));
        for (text, listens) in [
            (r#"{"nats":["nats://127.0.0.1:4222"]}"#, true),
            (r#"{"nats":["nats://127.0.0.1:14222"]}"#, false),
            (r#"{"nats":["nats://127.0.0.1:4222""#, false),
            ("", false),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(names_port(&path, 4222), listens, "{text}");
        }
        let _ = fs::remove_file(&path);
    }
}
