//! `cronfleet up`: a whole fleet in one process group, for a laptop, a demo and the first hour.
//!
//! Promise: nothing is left running, however it ends. A second `up` on the same data is refused; one that follows a
//! kill -9 goes on with the same data.
//!
//! Order of the start: data directory, nats-server, streams, example, planner and workers, console, picture. Order of the
//! stop: picture, console, planner (while the workers finish what they have), workers, example services, nats-server.
//!
//! | file | what it does |
//! |---|---|
//! | `data_dir.rs` | creates and locks the data directory |
//! | `server/` | the embedded nats-server |
//! | `fleet.rs` | planner and workers |
//! | `console.rs` | the console |
//! | `scratch.rs` | a server alone, for `bench` |
//! | `demo.rs` | the example's services and schedules |
//! | `supervise.rs` | starts again what ended by itself |
//! | `live/` | the live picture, or lines where stdout is no terminal |
//! | `talk.rs` | what `up` says, and where logs go while a picture has the terminal |

mod console;
mod data_dir;
mod demo;
mod fleet;
mod live;
pub(crate) mod scratch;
mod server;
mod supervise;
mod talk;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use shared::{clock::SharedClock, limits, names::QueueName};
use streams::{ConnectSettings, Namespace, Streams, topology::Replicas};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use worker::{
    Stop,
    executors::local::{LocalExecutor, LocalSettings},
};

use self::{
    console::OwnConsole,
    data_dir::DataDir,
    demo::Demo,
    fleet::{Fleet, Served},
    server::Server,
    talk::{Logs, Talk},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    settings::DATA_DIR_DEFAULT,
    signals,
    verbs::{machine::host, worker::guard_command},
};

/// Example services answer what they have; then the rest of the stop goes on without them.
const DEMO_END_WAIT: Duration = Duration::from_secs(8);

const AFTER_HELP: &str = "\
Examples:
  cronfleet up                                 an empty fleet, its data in .cronfleet
  cronfleet up --example marketprism           the demo: four services, seven schedules
  cronfleet up --data-dir /tmp/two --port 4333 a second one beside it
  cronfleet up --except archive                leaves queue archive to a worker of your own

Then, in another terminal:
  cronfleet get schedules
  cronfleet trigger daily_data_archive --wait

ctrl-C stops it: running tasks finish first. A second ctrl-C hands them back at once.";

/// The arguments of `up`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct UpArgs {
    /// Where everything is kept; a later `up` goes on with it
    #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT, env = "CRONFLEET_DATA_DIR",
          hide_env_values = true)]
    pub data_dir: PathBuf,

    /// Also run an example, its services and its schedules: marketprism
    #[arg(long, value_name = "NAME")]
    pub example: Option<String>,

    /// The port of nats-server, on 127.0.0.1 [default: 4222, or a free one if that is taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Where the console listens, on this machine [default: 127.0.0.1:8640, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS", env = "CRONFLEET_CONSOLE_LISTEN", hide_env_values = true)]
    pub console: Option<SocketAddr>,

    /// How many runs are executed at once, of each queue: 1 to 1000
    #[arg(long, value_name = "N", default_value_t = limits::PLACES_DEFAULT, env = "CRONFLEET_PLACES",
          hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..=i64::from(limits::PLACES_MAX)))]
    pub places: u16,

    /// A queue to serve, and no other. May be given several times [default: every queue that is declared, now or later]
    #[arg(long = "queue", value_name = "QUEUE", value_delimiter = ',', conflicts_with = "except")]
    pub queues: Vec<QueueName>,

    /// A queue to leave to workers of your own: one that needs handlers, say. May be given several times
    #[arg(long, value_name = "QUEUE", value_delimiter = ',')]
    pub except: Vec<QueueName>,

    /// The file with the commands that local tasks may run here [default: none may]
    #[arg(long, value_name = "FILE", env = "CRONFLEET_COMMANDS", hide_env_values = true)]
    pub commands: Option<PathBuf>,

    /// Where to take in, over HTTP, what targets answer later (`async`), such as 127.0.0.1:8650 [default: answers come over NATS
    /// only]
    #[arg(long, value_name = "ADDRESS", env = "CRONFLEET_CALLBACK_LISTEN", hide_env_values = true)]
    pub callback_listen: Option<SocketAddr>,
}

/// Whether this terminal shows the live picture, so that logs must go elsewhere.
pub(crate) fn shows_picture() -> bool {
    matches!(live::Kind::of_stdout(), live::Kind::Picture { .. })
}

/// Runs the fleet until it is told to stop.
pub async fn run(args: UpArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let clock = global.clock();
    let talk = Talk::new(clock.clone());
    if let Some(example) = &args.example {
        demo::check(example)?;
    }
    let namespace = match global.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => namespace.parse().context("the namespace (--namespace, CRONFLEET_NAMESPACE)")?,
        None => Namespace::default(),
    };
    let local = local_settings(args.commands.as_deref())?;
    for complaint in LocalExecutor::complaints(&local).await {
        talk.say(format!("warning: {complaint}"));
    }
    let data = Arc::new(DataDir::open(&args.data_dir)?);
    talk.say(format!("data directory {}", data.path().display()));
    let kind = live::Kind::of_stdout();
    let logs = match kind {
        live::Kind::Lines => None,
        live::Kind::Picture { .. } => {
            let path = data.file("cronfleet.log");
            let logs = Logs::redirect(&path, &talk)
                .with_context(|| format!("{} cannot be opened", path.display()))?;
            talk.say(format!("logs go to {}", path.display()));
            Some(Arc::new(logs))
        }
    };
    let stages = signals::listen()?;
    // The terminal has gone: the same as being told to stop.
    let mut hangup = signal(SignalKind::hangup())?;
    let drain = stages.drain.clone();
    tokio::spawn(async move {
        hangup.recv().await;
        drain.cancel();
    });

    let server = tokio::select! {
        server = Server::start(Arc::clone(&data), args.port, talk.clone(), clock.clone()) => server?,
        () = stages.drain.cancelled() => return Ok(Exit::Done.into()),
    };
    let stop = Stop { drain: stages.drain, abort: stages.abort };
    let up = Up { args, namespace, local, kind, clock, talk, logs, data, stop };
    // Whatever comes of it: the server is the last to end.
    let result = up.serve(&server).await;
    server.stop().await;
    up.talk.say("nats-server has stopped");
    result?;
    Ok(if up.stop.abort.is_cancelled() { Exit::Error } else { Exit::Done }.into())
}

struct Up {
    args: UpArgs,
    namespace: Namespace,
    local: LocalSettings,
    kind: live::Kind,
    clock: SharedClock,
    talk: Talk,
    logs: Option<Arc<Logs>>,
    data: Arc<DataDir>,
    stop: Stop,
}

impl Up {
    /// Everything that needs the server, from the first connection to the last.
    async fn serve(&self, server: &Server) -> anyhow::Result<()> {
        let demo_stop = CancellationToken::new();
        let started = tokio::select! {
            started = self.start(server.address(), &demo_stop) => started,
            () = self.stop.drain.cancelled() => return Ok(()),
        };
        let (streams, demo) = started?;
        let settings = fleet::Settings {
            host: host(),
            places: self.args.places,
            served: Served::of(&self.args.queues, &self.args.except),
            local: self.local.clone(),
            callback_listen: self.args.callback_listen,
        };
        let fleet = Fleet::start(settings, &streams, &self.talk, &self.stop);
        let console =
            OwnConsole::start(self.args.console, &self.data.file("console"), &streams, &self.talk).await?;

        let fixed = live::Fixed {
            address: server.address().to_owned(),
            data_dir: self.data.path().display().to_string(),
            services: demo.as_ref().map(|demo| demo.services.clone()).unwrap_or_default(),
            program: program(server.address(), &self.args.data_dir),
        };
        let (talk, logs, stop) = (self.talk.clone(), self.logs.clone(), self.stop.drain.clone());
        // A task of its own: it only watches, and whatever becomes of it the fleet goes on.
        if let Err(error) =
            tokio::spawn(live::show(self.kind, fixed, streams.clone(), talk, logs, stop)).await
        {
            self.talk.take_back();
            self.talk.say(format!("the live picture has ended: {error}; the fleet goes on"));
        }
        self.stop.drain.cancelled().await;

        self.talk.say(format!(
            "stopping: running tasks have {} s to finish; ctrl-C again hands them back at once",
            limits::DRAIN_DEFAULT.as_secs()
        ));
        let (talk, abort) = (self.talk.clone(), self.stop.abort.clone());
        let _hurrying = AbortOnDropHandle::new(tokio::spawn(async move {
            abort.cancelled().await;
            talk.say("unfinished runs are handed back");
        }));
        console.stop().await;
        fleet.stop().await;
        demo_stop.cancel();
        if let Some(demo) = demo {
            tokio::select! {
                () = demo.stopped() => self.talk.say("the example's services have stopped"),
                () = self.clock.sleep(DEMO_END_WAIT) => self.talk.say("the example's services are cut short"),
            }
        }
        streams.close().await;
        Ok(())
    }

    async fn start(
        &self,
        address: &str,
        demo_stop: &CancellationToken,
    ) -> anyhow::Result<(Streams, Option<Demo>)> {
        let connect = ConnectSettings {
            url: address.to_owned(),
            namespace: self.namespace.clone(),
            client_name: "cronfleet-up".to_owned(),
            ..ConnectSettings::default()
        };
        let streams = Streams::connect(&connect, self.clock.clone()).await?;
        let made = streams.init(Replicas::One).await?;
        self.talk.say(match made.len() {
            0 => "streams and buckets are there".to_owned(),
            count => format!("{count} streams, buckets and consumers created"),
        });
        let demo = if let Some(example) = &self.args.example {
            let data = self.data.file(example);
            let demo = Demo::start(data, &streams, &self.talk, demo_stop).await;
            Some(demo.with_context(|| format!("example {example} cannot be started"))?)
        } else {
            if let Some(line) = demo::not_started(&streams.catalog().all().await?.targets) {
                self.talk.say(line);
            }
            None
        };
        Ok((streams, demo))
    }
}

/// The commands local tasks may run; none without a file.
fn local_settings(file: Option<&Path>) -> anyhow::Result<LocalSettings> {
    let Some(file) = file else { return Ok(LocalSettings::default()) };
    let explain = || format!("the commands (--commands, CRONFLEET_COMMANDS) in {}", file.display());
    LocalSettings::from_file(file, guard_command()?).with_context(explain)
}

/// How a verb of ours is written on this command line, so that a hint can be copied.
fn program(address: &str, data_dir: &Path) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "cronfleet".to_owned());
    let is_usual = address.ends_with(&format!(":{}", server::PORT_USUAL));
    // Without a word about it the verbs look at the usual port, and at the usual directory for another one.
    if is_usual || data_dir == Path::new(DATA_DIR_DEFAULT) {
        program
    } else {
        format!("NATS_URL={address} {program}")
    }
}
