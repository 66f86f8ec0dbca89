//! `bench`: measures a fleet on a server of its own.

use std::process::ExitCode;

use anyhow::Context as _;
use bench::{Bench, Report, Scenario};
use clap::Args;
use streams::{ConnectSettings, Streams, topology::Replicas};

use crate::{
    GlobalArgs,
    exit::Exit,
    output::{line, talk},
    signals,
    up::scratch::ScratchServer,
};

const EXAMPLES: &str = "\
Scenarios:
  lateness   1,000 schedules, each due every second: how long after its slot a run begins
  burst      10,000 schedules due in the same second: when the last run begins
  dispatch   50,000 schedules due in the same second, no worker: runs a second, against the server's raw rate
  delayed    100,000 submissions that wait, due over a minute: how long after its instant a run begins
  schedules  1,000,000 schedules: start, memory and idle CPU of a planner, and how soon a change is in force
  failover   200 slots a second, two planners, one killed or stopped again and again: the longest wait
  drain      200,000 queued runs that do nothing: runs a second of one worker, against raw messages and acknowledgements
  submit     200,000 submissions as fast as one client can, against the server's raw rate
  latency    100 submissions a second: from the publish to the beginning of its handler
  worker-memory  1,000,000 runs through one worker: its memory in the second tenth and in the last
  worker-kill    20 kills of a worker under load: how long after it what it was at is begun again

Measure with a release build, on a machine that does nothing else. Each scenario starts a nats-server, planners and workers
of its own, and removes what it made.

Examples:
  cronfleet bench lateness
  cronfleet bench schedules --n 100000 --json";

/// The arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What is measured
    pub scenario: Scenario,

    /// How many things it is measured with [default: what the scenario says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub n: Option<u32>,

    /// For how long, where a scenario goes on for a while
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,

    /// Ends with the report as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Measures, and says what was found.
pub async fn run(args: BenchArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        talk("this is a debug build: its figures say little; build with --release");
    }
    let stages = signals::listen()?;
    let server = ScratchServer::start(global.clock()).await?;
    let measured = tokio::select! {
        measured = measure(&args, server.address(), global) => measured.map(Some),
        () = stages.drain.cancelled() => Ok(None),
    };
    server.stop().await;
    let Some(report) = measured? else { return Ok(Exit::Error.into()) };
    if args.json {
        line(serde_json::to_string(&report)?)?;
    } else {
        line(in_words(&report)?)?;
    }
    Ok(Exit::Done.into())
}

async fn measure(args: &BenchArgs, address: &str, global: &GlobalArgs) -> anyhow::Result<Report> {
    let settings = ConnectSettings {
        url: address.to_owned(),
        client_name: "cronfleet-bench".to_owned(),
        ..ConnectSettings::default()
    };
    let streams = Streams::connect(&settings, global.clock()).await?;
    streams.init(Replicas::One).await?;
    let program = std::env::current_exe().context("the path of this program")?.into_os_string();
    let n = args.n.map_or(args.scenario.usual_n(), |n| n as usize);
    let say = |text: &str| talk(text);
    let bench = Bench { streams, url: address.to_owned(), program, n, seconds: args.seconds, say };
    bench.run(args.scenario).await
}

/// One figure a line, under the names of the JSON.
fn in_words(report: &Report) -> anyhow::Result<String> {
    let figures = serde_json::to_value(report)?;
    let figures = figures.as_object().context("a report is an object")?;
    let lines = figures.iter().map(|(name, value)| match value.as_f64() {
        Some(figure) if value.is_f64() => format!("{name:<14} {figure:.2}"),
        _ => format!("{name:<14} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
