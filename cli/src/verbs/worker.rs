//! `worker`: the process that executes what was dispatched.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use shared::{
    human_duration::HumanDuration,
    limits::{DRAIN_DEFAULT, PLACES_DEFAULT, PLACES_MAX},
    queue::QueueShare,
};
use worker::{
    Stop, Worker, WorkerSettings,
    executors::{
        in_process::InProcess,
        local::{LocalExecutor, LocalSettings},
    },
};

use super::machine::host;
use crate::{GlobalArgs, exit::Exit, signals};

const EXAMPLES: &str = "\
Start as many as there is work for. The first SIGTERM or SIGINT drains: nothing new is fetched, what runs may finish for \
--drain, the rest is handed back without using up an attempt. The second hands everything back at once.

Examples:
  cronfleet worker
  cronfleet worker --queue critical=6,default=3 --queue reports --places 16
  cronfleet worker --commands /etc/cronfleet/commands.yaml --drain 2m";

/// The arguments of `worker`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WorkerArgs {
    /// A queue to serve, with its weight if it is not 1: `critical=6,default=3`. May be given several times. When places are
    /// scarce, they are shared by weight; a queue without work lends its share
    #[arg(
        long = "queue",
        value_name = "QUEUE[=WEIGHT]",
        default_value = "default",
        value_delimiter = ',',
        env = "CRONFLEET_QUEUES",
        hide_env_values = true
    )]
    pub queues: Vec<QueueShare>,

    /// How many runs it executes at once, of all queues together: 1 to 1000. 1: strictly one after another. When the worker dies,
    /// as many runs wait for the queue's `ack_wait` before another worker gets them
    #[arg(long, value_name = "N", default_value_t = PLACES_DEFAULT, env = "CRONFLEET_PLACES", hide_env_values = true,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PLACES_MAX)))]
    pub places: u16,

    /// How long running work may take to finish after the first signal; then it is handed back. 0s hands back at once.
    /// Whoever stops the process (a container's grace period) must wait longer
    #[arg(long, value_name = "DURATION", default_value_t = HumanDuration(DRAIN_DEFAULT), env = "CRONFLEET_DRAIN", hide_env_values = true)]
    pub drain: HumanDuration,

    /// The file with the commands that local tasks may run here [default: none may]
    #[arg(long, value_name = "FILE", env = "CRONFLEET_COMMANDS", hide_env_values = true)]
    pub commands: Option<PathBuf>,

    /// The folder with the files that targets' headers may name (`{file: NAME}`)
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/secrets",
        env = "CRONFLEET_SECRETS",
        hide_env_values = true
    )]
    pub secrets: PathBuf,

    /// Where to take in, over HTTP, what targets answer later (`async`), such as 127.0.0.1:8650. Whoever knows an attempt's token
    /// is let in, and nobody else [default: answers come over NATS only]
    #[arg(long, value_name = "ADDRESS", env = "CRONFLEET_CALLBACK_LISTEN", hide_env_values = true)]
    pub callback_listen: Option<SocketAddr>,

    /// The URL that targets are told for it, if that is not the address itself. It may lead to any worker of the fleet
    #[arg(long, value_name = "URL", env = "CRONFLEET_CALLBACK_URL", hide_env_values = true)]
    pub callback_url: Option<String>,
}

/// Works until it is asked to stop.
pub async fn run(args: WorkerArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    run_with(args, InProcess::default(), global).await
}

/// As [`run`], with handlers in this process.
pub async fn run_with(
    args: WorkerArgs,
    handlers: InProcess,
    global: &GlobalArgs,
) -> anyhow::Result<ExitCode> {
    let local = match &args.commands {
        Some(file) => LocalSettings::from_file(file, guard_command()?).with_context(|| {
            format!("the commands (--commands, CRONFLEET_COMMANDS) in {}", file.display())
        })?,
        None => LocalSettings::default(),
    };
    for complaint in LocalExecutor::complaints(&local).await {
        tracing::warn!("{complaint}");
    }
    let mut queues = args.queues;
    queues.sort();
    // Given twice, the higher weight counts.
    queues.reverse();
    queues.dedup_by(|a, b| a.queue == b.queue);
    queues.reverse();
    let stages = signals::listen()?;
    let streams = tokio::select! {
        streams = global.connect_patiently("cronfleet-worker") => streams?,
        () = stages.drain.cancelled() => return Ok(Exit::Done.into()),
    };
    let names = queues.iter().map(QueueShare::to_string).collect::<Vec<_>>().join(", ");
    let places = args.places;
    tracing::info!(
        queues = names,
        places,
        version = env!("CARGO_PKG_VERSION"),
        "Serving {names}, {places} runs at once"
    );
    let secrets = args.secrets.into();
    let callback_listen = args.callback_listen;
    let at_address = || callback_listen.map(|address| format!("http://{address}"));
    let callback_url = args.callback_url.or_else(at_address);
    let settings = WorkerSettings {
        host: host(),
        queues,
        places,
        drain: args.drain.0,
        local,
        secrets,
        callback_listen,
        callback_url,
    };
    let worker = Worker::new(settings, streams.clone())?.with_handlers(handlers);
    // On the pool, not on this thread.
    tokio::spawn(worker.run(Stop { drain: stages.drain, abort: stages.abort })).await??;
    streams.close().await;
    tracing::info!("Stopped working");
    Ok(Exit::Done.into())
}

/// How a worker calls `cronfleet guard`: this very program.
pub fn guard_command() -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("the path of this program, which guards local commands")?;
    Ok(vec![program.into_os_string(), "guard".into()])
}
