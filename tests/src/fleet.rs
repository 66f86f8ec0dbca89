//! A fleet: one nats-server with its streams, and the planners and workers a spec wants.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use shared::{clock::Clock, run::RunId, run_record::RunRecord, run_state::RunState};
use streams::{Streams, bucket::Stored, dead::DeadLetter, topology::Replicas};

use crate::{Nats, Process, TargetService, binary, eventually, process};

/// A fleet with nothing running in it but its server.
pub struct Fleet {
    /// Its server.
    pub nats: Nats,
    /// A connection of the spec's own.
    pub streams: Streams,
    /// A target service named `target` in definitions.
    pub target: TargetService,
    started: std::cell::Cell<usize>,
}

impl Fleet {
    /// A fleet with its streams.
    pub async fn start() -> Self {
        let nats = Nats::start().await;
        let streams = nats.connect().await;
        streams.init(Replicas::One).await.expect("init");
        let target = TargetService::start();
        Self { nats, streams, target, started: std::cell::Cell::new(0) }
    }

    /// Applies definitions; `TARGET` in them stands for the URL of the fleet's target service.
    pub fn apply(&self, definitions: &str) -> String {
        let output = self.try_apply(definitions);
        assert!(output.status.success(), "apply: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies definitions that may be refused.
    pub fn try_apply(&self, definitions: &str) -> Output {
        let file = self.nats.folder().join("definitions.yaml");
        std::fs::write(&file, definitions.replace("TARGET", self.target.url())).expect("a file");
        self.try_cronfleet(&["apply", "-f", file.to_str().expect("a path")])
    }

    /// Declares the target service, so that tasks can act on it.
    pub fn declare_target(&self) {
        self.apply("targets: {target: {http: TARGET}}");
    }

    /// Runs a verb that must succeed; what it printed.
    pub fn cronfleet(&self, arguments: &[&str]) -> String {
        let output = self.try_cronfleet(arguments);
        let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}{talk}", output.status);
        out.into_owned()
    }

    /// Runs a verb that must succeed and print JSON.
    pub fn cronfleet_json(&self, arguments: &[&str]) -> Value {
        let text = self.cronfleet(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Runs a verb that may fail.
    pub fn try_cronfleet(&self, arguments: &[&str]) -> Output {
        process::run(&binary(), arguments, self.nats.folder(), &self.variables())
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("NATS_URL", self.nats.url()), ("NO_COLOR", "1".to_owned())]
    }

    /// Starts a process of the fleet.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        self.spawn_with(name, arguments, &[])
    }

    /// Starts a process of the fleet with more variables, or others.
    pub fn spawn_with(&self, name: &str, arguments: &[&str], variables: &[(&str, String)]) -> Process {
        let number = self.started.get();
        self.started.set(number + 1);
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.nats.folder());
        for (name, value) in self.variables() {
            command.env(name, value);
        }
        for (name, value) in variables {
            command.env(name, value);
        }
        Process::start(&format!("{name}-{number}"), command, self.nats.folder())
    }

    /// Starts a planner.
    pub fn planner(&self) -> Process {
        self.spawn("planner", &["planner"])
    }

    /// Starts a planner whose clock a file shifts (see [`crate::clock::shift`]).
    pub fn planner_with_clock(&self, file: &Path) -> Process {
        self.spawn_with("planner", &["planner"], &[(crate::clock::CLOCK_FILE, file.display().to_string())])
    }

    /// Starts a planner that reaches the server over another address.
    pub fn planner_over(&self, url: String) -> Process {
        self.spawn_with("planner", &["planner"], &[("NATS_URL", url)])
    }

    /// Starts a worker.
    pub fn worker(&self, arguments: &[&str]) -> Process {
        self.spawn("worker", &[&["worker"], arguments].concat())
    }

    /// Submits a task as any NATS client would; the server's answer.
    pub async fn submit(&self, run: &str, task: &Value) -> Result<u64, streams::WriteError> {
        let run: RunId = run.parse().expect("a run id");
        self.streams.submit(&"default".parse().expect("queue"), &run, task.to_string().as_bytes(), None).await
    }

    /// The record of a run, if there is one.
    pub async fn record(&self, run: &str) -> Option<RunRecord> {
        let run: RunId = run.parse().expect("a run id");
        let stored = self.streams.ledger().get(&run).await.expect("the ledger");
        stored.map(|stored| stored.value)
    }

    /// All versions of the record of a run.
    pub async fn life(&self, run: &str) -> Vec<RunState> {
        let run: RunId = run.parse().expect("a run id");
        let history = self.streams.ledger().history(&run).await.expect("the history");
        history.into_iter().map(|stored| stored.value.status).collect()
    }

    /// All records.
    pub async fn records(&self) -> Vec<Stored<RunRecord>> {
        self.streams.ledger().list(">").await.expect("the ledger")
    }

    /// Waits until a run has ended; its record.
    pub async fn end_of(&self, run: &str) -> RunRecord {
        eventually(&format!("the end of {run}"), async || match self.record(run).await {
            Some(record) if record.status.is_final() => Ok(record),
            seen => Err(format!("{:?}", seen.map(|record| (record.status, record.error)))),
        })
        .await
    }

    /// Waits until a run's dead letter is stored.
    pub async fn dead_letter(&self, record: &RunRecord) -> DeadLetter {
        eventually(&format!("the dead letter of {}", record.id), async || {
            self.streams
                .dead_letter(record)
                .await
                .map_err(|error| error.to_string())?
                .ok_or("none".to_owned())
        })
        .await
    }

    /// Submits a task and waits until its target is asked.
    pub async fn submit_until_called(&self, run: &str, task: &Value) {
        self.submit(run, task).await.expect("submitted");
        eventually(&format!("a call for {run}"), async || {
            if self.target.calls_of(run).is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until so many planners, or workers, are alive.
    pub async fn members(&self, kind: &str, count: usize) {
        eventually(&format!("{count} {kind}s"), async || {
            let members = self.streams.members().list().await.map_err(|error| error.to_string())?;
            let found = members.iter().filter(|member| member.id().as_str().starts_with(kind)).count();
            if found == count { Ok(()) } else { Err(format!("{found}")) }
        })
        .await;
    }

    /// Waits until `doctor` finds nothing ill.
    pub async fn is_well(&self) {
        eventually("all is well", async || well(&self.try_cronfleet(&["doctor"]))).await;
    }

    /// The present moment of the fleet's clock.
    pub fn now(&self) -> shared::Timestamp {
        shared::clock::SystemClock.now()
    }

    /// A folder of its own.
    pub fn folder(&self) -> PathBuf {
        self.nats.folder().to_path_buf()
    }
}

/// What a `doctor` that found nothing ill ended with; otherwise what it found.
pub fn well(doctor: &Output) -> Result<(), String> {
    if doctor.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&doctor.stdout).into_owned()) }
}
