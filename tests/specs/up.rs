//! `cronfleet up`: one command, one process group, nothing left behind.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use harness::{
    Process, eventually,
    nats::{free_port, server_binary},
    process, within,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_cronfleet-under-test");

/// A folder in which `up` is run.
pub(crate) struct Up {
    folder: TempDir,
    port: u16,
}

impl Up {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder"), port: free_port() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join(".cronfleet")
    }

    /// Starts `up`, with its output piped into a file. On a port of its own: at the usual one another spec's server could take the
    /// place of one that died, and its clients with it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(BINARY);
        command
            .arg("up")
            .args(arguments)
            .args(["--port", &self.port.to_string()])
            .current_dir(self.folder.path());
        command.env("CRONFLEET_NATS_SERVER", server_binary()).env_remove("NATS_URL");
        Process::start("up", command, self.folder.path())
    }

    /// The address it says it serves.
    pub(crate) async fn address(&self) -> String {
        let file = self.data().join("address");
        eventually("the address", async || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let address = text.trim().to_owned();
            let port = address
                .rsplit(':')
                .next()
                .unwrap_or_default()
                .parse::<u16>()
                .map_err(|error| error.to_string())?;
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
            Ok(address)
        })
        .await
    }

    /// Runs a verb beside it, as a user would in another terminal of the same folder.
    pub(crate) fn cronfleet(&self, arguments: &[&str]) -> Output {
        process::run(Path::new(BINARY), arguments, self.folder.path(), &[("NO_COLOR", "1".to_owned())])
    }

    async fn ready(&self) {
        self.address().await;
        eventually("all is well", async || harness::fleet::well(&self.cronfleet(&["doctor"]))).await;
    }

    /// The processes that were started for this folder and still run.
    fn processes(&self) -> Vec<(u32, String)> {
        let mark = self.folder.path().to_str().expect("a path").to_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if command.contains(&mark) || cwd.starts_with(self.folder.path()) {
                found.push((pid, command));
            }
        }
        found
    }

    fn server_pid(&self) -> u32 {
        let server = self.processes().into_iter().find(|(_, command)| {
            command.split(' ').next().is_some_and(|first| first.ends_with("nats-server"))
        });
        server.expect("a nats-server").0
    }
}

#[tokio::test]
async fn up_tells_its_address_survives_being_killed_and_leaves_nothing_running_when_it_is_stopped() {
    let up = Up::new();
    let mut first = up.start(&[]);
    up.ready().await;
    std::fs::write(
        up.folder.path().join("one.yaml"),
        "schedules: {kept: {cron: '0 0 1 1 *', task: {command: [nothing]}}}\n\
         targets: {data-storage-service: {http: 'http://127.0.0.1:9101'}}",
    )
    .expect("written");
    assert!(up.cronfleet(&["apply", "-f", "one.yaml"]).status.success());

    first.kill();
    within(Duration::from_secs(20), "nothing is left after kill -9", async || {
        let left = up.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;

    let mut second = up.start(&[]);
    up.ready().await;
    let listed: Value =
        serde_json::from_slice(&up.cronfleet(&["get", "schedules", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "it goes on with the same data: {listed}");
    let said = second.said();
    assert!(
        said.contains("start them with --example marketprism"),
        "a service of the example is missing: {said}"
    );

    second.signal(Signal::INT);
    assert!(second.ended().await.success(), "{}", second.said());
    let said = second.said();
    let (planner, worker) = (said.find("the planner has stopped"), said.find("the worker has stopped"));
    assert!(planner.is_some() && planner < worker, "nothing is dispatched to workers that leave: {said}");
    assert_eq!(up.processes(), [], "nothing is left running");
    assert!(!up.data().join("address").exists(), "nobody is sent to a server that is gone");
}

#[tokio::test]
async fn a_second_up_on_the_same_data_is_refused_with_a_clear_message() {
    let up = Up::new();
    let mut first = up.start(&[]);
    up.ready().await;
    let output = up.cronfleet(&["up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(".cronfleet") && said.contains("--data-dir"), "{said}");
    assert!(said.contains(&first.pid().to_string()), "it names who has it: {said}");
    assert!(first.is_running());
}

#[tokio::test]
async fn a_nats_server_that_dies_is_started_again_and_the_fleet_goes_on() {
    let up = Up::new();
    let process = up.start(&[]);
    up.ready().await;
    let before = up.server_pid();
    let pid = rustix::process::Pid::from_raw(before.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
    eventually("another server, and all is well", async || {
        let other =
            up.processes().iter().any(|(pid, command)| *pid != before && command.contains("nats-server"));
        let output = up.cronfleet(&["doctor"]);
        if other && output.status.success() { Ok(()) } else { Err(process.said()) }
    })
    .await;
}

#[tokio::test]
async fn piped_output_is_plain_lines_without_escapes() {
    let up = Up::new();
    let process = up.start(&["--example", "marketprism"]);
    up.ready().await;
    assert!(up.cronfleet(&["trigger", "data_integrity_check", "--wait"]).status.success());
    let said = eventually("the run in the output", async || {
        let said = process.said();
        if said.lines().any(|line| line.contains("SUCCESS") && line.contains("data_integrity_check")) {
            Ok(said)
        } else {
            Err(said)
        }
    })
    .await;
    assert!(!said.contains('\u{1b}'), "no escape codes: {said}");
    assert!(said.contains("nats://127.0.0.1:"), "{said}");
    for schedule in ["daily_data_archive", "weekly_data_cleanup", "monthly_volume_report"] {
        assert!(said.contains(schedule), "{schedule} is among the next slots: {said}");
    }
}
