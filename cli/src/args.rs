//! The command line: its verbs, and the options that every verb has.

use clap::{
    Args, Command, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use shared::clock::{SharedClock, SystemClock};

use crate::{example::ExampleArgs, output::Format, up::UpArgs, verbs};

/// The command line of `cronfleet`.
#[derive(Debug, Parser)]
#[command(name = "cronfleet", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// The options that every verb has.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const ABOUT: &str = "A distributed clock and task runner on NATS JetStream";
const LONG_ABOUT: &str = "\
A distributed clock and task runner on NATS JetStream.

Data goes to stdout, talk to stderr.";

/// What the root's help says at its end.
pub const AFTER_HELP: &str = "\
Where the server is:
  1. --url, then NATS_URL
  2. the url of the context that NATS_CONTEXT names
  3. the `cronfleet up` that runs in this directory: .cronfleet/address,
     or $CRONFLEET_DATA_DIR/address
  4. nats://127.0.0.1:4222

Environment:
  NATS_CREDS                   a credentials file
  NATS_NKEY                    an nkey seed, or a file with one
  NATS_USER, NATS_PASSWORD     a user and the password
  NATS_TOKEN                   a token
  NATS_CA                      a file with certificates of authorities to trust
  NATS_CERT, NATS_KEY          files with the client's certificate and its key
  NATS_CONTEXT                 a context of the `nats` tool, for what is not set
                               above: ~/.config/nats/context/<name>.json
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, over OTLP/HTTP; else nowhere
  NO_COLOR                     no colours

Exit codes:
  0    done
  1    an error; for `diff` also: there is a difference,
       for `doctor`: something needs repair
  2    the command line cannot be understood
  3    the run that was waited for did not succeed
  124  it did not end in time";

/// The options that every verb has.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// The NATS server, or several separated by commas [default: see `cronfleet --help`]
    #[arg(long, short = 's', global = true, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    pub url: Option<String>,

    /// The prefix of all names of the fleet, so that several can share an account [default: cronfleet]
    #[arg(long, global = true, value_name = "NAME", env = "CRONFLEET_NAMESPACE", hide_env_values = true)]
    pub namespace: Option<String>,

    /// How data is written
    #[arg(long, short = 'o', global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,

    /// What is logged on stderr: a level, or a filter such as `info,worker=debug` [default: info for processes that
    /// stay, warn for other verbs]
    #[arg(long, global = true, value_name = "FILTER", env = "CRONFLEET_LOG", hide_env_values = true)]
    pub log: Option<String>,

    /// The clock that is handed down; not an option of the command line.
    #[arg(skip)]
    pub clock: GivenClock,
}

/// The clock a process was started with.
#[derive(Clone)]
pub struct GivenClock(pub SharedClock);

impl Default for GivenClock {
    fn default() -> Self {
        Self(SystemClock::shared())
    }
}

impl std::fmt::Debug for GivenClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenClock")
    }
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs everything on this machine: server, planner, worker, console
    Up(UpArgs),
    /// Runs a planner: it dispatches what is due
    Planner(verbs::planner::PlannerArgs),
    /// Runs a worker: it executes what was dispatched
    Worker(verbs::worker::WorkerArgs),
    /// Runs a console: the HTTP API, for people and programs
    Console(verbs::console::ConsoleArgs),
    /// Creates the streams and buckets that are missing
    Init(verbs::init::InitArgs),
    /// Makes the fleet be as the files say
    Apply(verbs::apply::ApplyArgs),
    /// Shows what `apply` would change
    Diff(verbs::diff::DiffArgs),
    /// Prints what other schedulers were told as definitions of ours
    Import(verbs::import::ImportArgs),
    /// Lists schedules, runs, queues, workers, planners or targets
    Get(verbs::get::GetArgs),
    /// Shows all that is known of a schedule or a run
    Describe(verbs::describe::DescribeArgs),
    /// Shows when schedules are due next
    Next(verbs::next::NextArgs),
    /// Runs a schedule's task now
    Trigger(verbs::trigger::TriggerArgs),
    /// Runs the slots of a range that have not run
    Backfill(verbs::backfill::BackfillArgs),
    /// Keeps a schedule from running
    Pause(verbs::pause::PauseArgs),
    /// Ends the pause of a schedule
    Resume(verbs::resume::ResumeArgs),
    /// Submits an ad-hoc task
    Submit(verbs::submit::SubmitArgs),
    /// Stops a run, or takes it out of its queue
    Cancel(verbs::cancel::CancelArgs),
    /// Has a worker stop: it finishes what it has, and ends
    Drain(verbs::drain::DrainArgs),
    /// Runs a run that failed again, under its own id
    Retry(verbs::retry::RetryArgs),
    /// Runs many runs that failed again
    Replay(verbs::replay::ReplayArgs),
    /// Shows every change of a run's state as it happens
    Tail(verbs::tail::TailArgs),
    /// Shows what a run said, and says
    Logs(verbs::logs::LogsArgs),
    /// Deletes a schedule; its runs stay
    Delete(verbs::delete::DeleteArgs),
    /// Looks for what is wrong with the fleet, and says what to do
    Doctor(verbs::doctor::DoctorArgs),
    /// Measures a fleet on a server of its own
    Bench(verbs::bench::BenchArgs),
    /// Writes a completion script for a shell
    Completion(verbs::completion::CompletionArgs),
    /// Runs a worker whose handlers do nothing
    #[command(hide = true)]
    BenchWorker(verbs::worker::WorkerArgs),
    /// Runs a service of an example
    #[command(hide = true)]
    Example(ExampleArgs),
    /// Runs a command and ends it when its worker dies
    #[command(hide = true)]
    Guard(verbs::guard::GuardArgs),
    /// Asks a URL, for health checks of images without other tools
    #[command(hide = true)]
    Probe(verbs::probe::ProbeArgs),
}

impl Cli {
    /// The command line without the verbs that are hidden: what people are shown of it.
    pub fn visible() -> Command {
        let all = Self::command();
        let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect::<Vec<_>>();
        let visible = Command::new("cronfleet").version(env!("CARGO_PKG_VERSION")).about(ABOUT);
        visible.args(all.get_arguments().cloned().collect::<Vec<_>>()).subcommands(verbs)
    }

    /// The same error, without a hint at a hidden verb: nobody means one of those.
    pub fn without_hidden(mut error: clap::Error) -> clap::Error {
        let Some(ContextValue::Strings(hints)) = error.get(ContextKind::SuggestedSubcommand) else {
            return error;
        };
        let all = Self::command();
        let is_hidden = |hint: &String| all.find_subcommand(hint).is_some_and(Command::is_hide_set);
        let hints: Vec<String> = hints.iter().filter(|hint| !is_hidden(hint)).cloned().collect();
        if hints.is_empty() {
            error.remove(ContextKind::SuggestedSubcommand);
            // Empty here, and an empty line to clap.
            error.remove(ContextKind::Suggested);
        } else {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(hints));
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_slip_gets_the_verb_that_was_meant_and_never_a_hidden_one() {
        for (line, hint) in [
            ("cronfleet frob", None),
            ("cronfleet prob", None),
            ("cronfleet gard", None),
            ("cronfleet exmple", None),
            ("cronfleet aply", Some("apply")),
        ] {
            let error = Cli::without_hidden(Cli::try_parse_from(line.split(' ')).expect_err(line));
            let said = error.to_string();
            for hidden in ["probe", "guard", "example"] {
                assert!(!said.contains(hidden), "{line}: {said}");
            }
            assert_eq!(hint.is_some(), said.contains("similar"), "{line}: {said}");
            assert!(!said.contains("\n\n\n"), "{line}: {said}");
            assert!(hint.is_none_or(|hint| said.contains(hint)), "{line}: {said}");
        }
    }

    #[test]
    fn global_options_are_understood_before_and_after_the_verb() {
        for line in ["cronfleet -s nats://a:1 -o json get runs", "cronfleet get runs -s nats://a:1 -o json"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!((cli.global.url.as_deref(), cli.global.output), (Some("nats://a:1"), Format::Json));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_a_usage_error() {
        for line in [
            "cronfleet",
            "cronfleet frobnicate",
            "cronfleet worker --places 0",
            "cronfleet worker --places 1001",
            "cronfleet worker --drain soon",
            "cronfleet worker --queue a.b",
            "cronfleet init --replicas 2",
            "cronfleet apply",
            "cronfleet next",
            "cronfleet trigger x --param novalue",
            "cronfleet trigger x --timeout 5s",
            "cronfleet pause x --until soon",
            "cronfleet backfill x --from 2026-11-24T00:00:00Z",
            "cronfleet backfill x --from 2026-11-24 --to 2026-11-25",
            "cronfleet get runs -o toml",
            "cronfleet get runs --limit 0",
            "cronfleet cancel reindex",
            "cronfleet get delayed --limit 0",
            "cronfleet cancel norun",
            "cronfleet logs norun",
            "cronfleet logs a.1 --attempt 0",
            "cronfleet retry norun",
            "cronfleet get dead --since yesterday",
            "cronfleet get dead --where novalue",
            "cronfleet replay --rate 0/s",
            "cronfleet replay --rate fast",
            "cronfleet replay --limit 0",
            "cronfleet submit x -d {} --at tomorrow",
            "cronfleet submit x -d {} --in soon",
            "cronfleet submit x -d {} --in 5s --at 2026-11-24T02:00:00Z",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
