//! The `cronfleet` binary as a library: one file per verb, data on stdout, talk on stderr.
//!
//! A verb is a function from its arguments and [`GlobalArgs`] to an exit code ([`exit`] has the table). It says what
//! went wrong by returning an error, which is printed once, here.

pub mod args;
pub mod example;
pub mod exit;
pub mod help;
pub mod import;
pub mod output;
pub mod settings;
pub mod signals;
pub mod table;
pub mod telemetry;
pub mod up;
pub mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use shared::clock::{SharedClock, SystemClock};
use tracing::Instrument;

pub use args::GlobalArgs;
use args::{Cli, Verb};
use exit::Exit;
pub use help::help_page;
use telemetry::{Audience, Telemetry};

/// Reads the command line, does what it says, and returns how it went.
pub fn main() -> ExitCode {
    main_with(SystemClock::shared())
}

/// As [`main`], with a clock of the caller's: specs set it.
pub fn main_with(clock: SharedClock) -> ExitCode {
    if let Some(args) = verbs::guard::GuardArgs::of_this_process() {
        return verbs::guard::run(args);
    }
    let Cli { mut global, verb } = match Cli::try_parse() {
        Ok(cli) => cli,
        // Without a verb: what there is. Not clap's own list, which shows the hidden ones.
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            output::talk(Cli::command().render_help());
            return Exit::Usage.into();
        }
        Err(error) => {
            let error = Cli::without_hidden(error);
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    global.clock = args::GivenClock(clock);
    let result = match verb {
        // No runtime and no threads: the guard forks nothing it could not vouch for.
        Verb::Guard(args) => Ok(verbs::guard::run(args)),
        Verb::Completion(args) => verbs::completion::run(&args),
        // Files in, text out: it needs no server.
        Verb::Import(args) => verbs::import::run(&args, &global),
        verb => run(verb, &global),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}

fn run(verb: Verb, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    // One provider for all TLS: NATS, targets and traces. A second installation is refused, and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (name, audience) = describe(&verb);
    let telemetry = Telemetry::start(runtime.handle(), name, audience, global.log.as_deref())?;
    // A verb that answers is one trace; a process that stays has one for each run.
    let span = if audience == Audience::Person { tracing::info_span!("verb") } else { tracing::Span::none() };
    let result = runtime.block_on(dispatch(verb, global).instrument(span));
    telemetry.finish();
    // What a verb left behind (a stdin that nobody closes) must not keep the process.
    runtime.shutdown_background();
    result
}

/// What a verb is called in traces and connections, and whom it talks to.
fn describe(verb: &Verb) -> (&'static str, Audience) {
    match verb {
        Verb::Up(_) => ("up", Audience::Onlooker { picture: up::shows_picture() }),
        Verb::Planner(_) => ("planner", Audience::Service),
        Verb::Worker(_) | Verb::BenchWorker(_) => ("worker", Audience::Service),
        Verb::Console(_) => ("console", Audience::Service),
        Verb::Example(_) => ("example", Audience::Service),
        _ => ("cli", Audience::Person),
    }
}

async fn dispatch(verb: Verb, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Up(args) => up::run(args, global).await,
        Verb::Example(args) => example::run(args, global).await,
        Verb::Planner(args) => verbs::planner::run(args, global).await,
        Verb::Worker(args) => verbs::worker::run(args, global).await,
        Verb::Console(args) => verbs::console::run(args, global).await,
        Verb::Init(args) => verbs::init::run(args, global).await,
        Verb::Apply(args) => verbs::apply::run(args, global).await,
        Verb::Diff(args) => verbs::diff::run(args, global).await,
        Verb::Get(args) => verbs::get::run(args, global).await,
        Verb::Describe(args) => verbs::describe::run(args, global).await,
        Verb::Next(args) => verbs::next::run(args, global).await,
        Verb::Trigger(args) => verbs::trigger::run(args, global).await,
        Verb::Backfill(args) => verbs::backfill::run(args, global).await,
        Verb::Pause(args) => verbs::pause::run(args, global).await,
        Verb::Resume(args) => verbs::resume::run(args, global).await,
        Verb::Submit(args) => verbs::submit::run(args, global).await,
        Verb::Cancel(args) => verbs::cancel::run(args, global).await,
        Verb::Drain(args) => verbs::drain::run(args, global).await,
        Verb::Retry(args) => verbs::retry::run(args, global).await,
        Verb::Replay(args) => verbs::replay::run(args, global).await,
        Verb::Tail(args) => verbs::tail::run(args, global).await,
        Verb::Logs(args) => verbs::logs::run(args, global).await,
        Verb::Delete(args) => verbs::delete::run(args, global).await,
        Verb::Doctor(args) => verbs::doctor::run(args, global).await,
        Verb::Bench(args) => verbs::bench::run(args, global).await,
        Verb::BenchWorker(args) => verbs::bench_worker::run(args, global).await,
        Verb::Guard(args) => Ok(verbs::guard::run(args)),
        Verb::Probe(args) => verbs::probe::run(args, global).await,
        Verb::Completion(args) => verbs::completion::run(&args),
        Verb::Import(args) => verbs::import::run(&args, global),
    }
}
