//! Planners and workers as processes: started, measured, killed, ended.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use shared::names::QueueName;
use streams::members::{Member, PlannerStatus};

use crate::{Bench, load, target};

/// Runs a worker of the scenarios executes at once: as many as it may, so that a thousand that are due together begin
/// together.
const PLACES: &str = "1000";
/// How long a fleet may take to come up; a million schedules are read at the start.
const UP_WAIT: Duration = Duration::from_mins(3);
const END_WAIT: Duration = Duration::from_secs(30);

/// A planner or worker of its own process. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    fn start(bench: &Bench, arguments: &[&str]) -> anyhow::Result<Self> {
        let child = Command::new(&bench.program)
            .args(["--url", &bench.url, "--log", "warn"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", bench.program.to_string_lossy()))?;
        Ok(Self { child })
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn ask_to_stop(&self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self, bench: &Bench) -> anyhow::Result<()> {
        let child = std::cell::RefCell::new(&mut self.child);
        bench
            .wait_for("the end of a process", END_WAIT, async || Ok(child.borrow_mut().try_wait()?))
            .await
            .map(|_| ())
    }

    /// Its resident memory, in megabytes.
    pub(crate) fn rss_mb(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    /// The CPU time it has used.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }
}

/// The CPU time that this process has used.
pub(crate) fn cpu_of_this() -> anyhow::Result<Duration> {
    cpu_of(std::process::id())
}

/// The CPU time that the nats-server below this process has used.
pub(crate) fn cpu_of_server() -> anyhow::Result<Duration> {
    let is_ours = |mut pid: u32| {
        while pid > 1 && pid != std::process::id() {
            pid = stat_of(pid).ok().and_then(|fields| fields.get(1)?.parse().ok()).unwrap_or_default();
        }
        pid > 1
    };
    let is_server = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "nats-server")
    };
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let server = pids.into_iter().find(|pid| is_server(*pid) && is_ours(*pid));
    cpu_of(server.context("a nats-server below this process")?)
}

/// The fields of a process's stat that come after its name (proc(5): state, then its parent). The name may hold blanks.
fn stat_of(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("a name in parentheses")?.1;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    // utime and stime are the fields 14 and 15, counted from 1, of which the name is the second.
    let ticks: u64 =
        stat_of(pid)?.iter().skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or_default()).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Bench {
    /// Starts a planner and does not wait for it.
    pub(crate) fn planner(&self) -> anyhow::Result<Process> {
        Process::start(self, &["planner"])
    }

    /// Starts a worker and waits until it pulls.
    pub(crate) async fn worker(&self) -> anyhow::Result<Process> {
        let worker = Process::start(self, &["worker", "--places", PLACES])?;
        self.pulls(&QueueName::default_queue()).await?;
        Ok(worker)
    }

    /// Waits until a worker pulls from a queue.
    pub(crate) async fn pulls(&self, queue: &QueueName) -> anyhow::Result<()> {
        self.wait_for("a worker that pulls", UP_WAIT, async || {
            Ok((self.streams.queue_depth(queue).await?.pulls > 0).then_some(()))
        })
        .await
    }

    /// Starts a worker with so many places, and does not wait for it.
    pub(crate) fn worker_with(&self, places: &str) -> anyhow::Result<Process> {
        Process::start(self, &["worker", "--places", places])
    }

    /// Starts a worker whose handlers do nothing.
    pub(crate) fn idle_worker(&self, queue: &QueueName) -> anyhow::Result<Process> {
        Process::start(self, &["bench-worker", "--queue", queue.as_str(), "--places", PLACES])
    }

    /// Waits until so many planners hold all partitions, each about its share.
    pub(crate) async fn planners_share(&self, count: usize) -> anyhow::Result<Vec<PlannerStatus>> {
        self.wait_for("planners that hold all partitions", UP_WAIT, async || {
            let planners: Vec<PlannerStatus> = self
                .streams
                .members()
                .list()
                .await?
                .into_iter()
                .filter_map(|member| match member {
                    Member::Planner(planner) if !planner.stopping => Some(planner),
                    _ => None,
                })
                .collect();
            let held: usize = planners.iter().map(|planner| planner.partitions.len()).sum();
            let least = planners.iter().map(|planner| planner.partitions.len()).min().unwrap_or_default();
            let all = usize::from(shared::limits::PARTITIONS);
            let shared = planners.len() == count && held == all && least * count * 2 >= all;
            Ok(shared.then_some(planners))
        })
        .await
    }

    /// Declares the target service and starts it.
    pub(crate) async fn target(&self) -> anyhow::Result<target::Target> {
        let declared = serde_json::from_value(serde_json::json!({ "message": target::PREFIX }))?;
        self.streams.catalog().apply_target(&target::NAME.parse()?, &declared).await?;
        let running = target::Target::start(&self.streams);
        Ok(running)
    }

    /// Writes schedules, many at once.
    pub(crate) async fn schedules(
        &self,
        schedules: impl Iterator<Item = anyhow::Result<load::Named>>,
    ) -> anyhow::Result<()> {
        load::write(&self.streams, schedules).await
    }
}
