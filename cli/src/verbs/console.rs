//! `console`: the process that people and programs operate a fleet with.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use console::{Console, ConsoleSettings, Token, settings::LISTEN_DEFAULT};

use crate::{GlobalArgs, exit::Exit, signals};

/// Where the read model is kept when nothing is said.
const CONSOLE_DATA_DIR: &str = ".cronfleet-console";
/// The variable that holds a token. Not an option: who lists processes must not read it.
pub const TOKEN_VARIABLE: &str = "CRONFLEET_CONSOLE_TOKEN";

const EXAMPLES: &str = "\
The HTTP API is under /api/v1, its description at /openapi.json; the same verbs are a NATS service. Nothing in it is needed for \
runs to happen: it may be stopped, and started anew with an empty data directory. Several may run, each with its own.

Only this machine reaches it as it stands. Any other address asks for a token: CRONFLEET_CONSOLE_TOKEN, or --token-file. It speaks \
plain HTTP; across a network put a proxy with TLS before it, and name it with --name.

Examples:
  cronfleet console
  curl http://127.0.0.1:8640/api/v1/schedules
  CRONFLEET_CONSOLE_TOKEN=$(head -c 24 /dev/urandom | base64) cronfleet console --listen 0.0.0.0:8640 --name cronfleet.example.com";

/// The arguments of `console`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConsoleArgs {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN_DEFAULT, env = "CRONFLEET_CONSOLE_LISTEN", hide_env_values = true)]
    pub listen: SocketAddr,

    /// The file with the token that must be presented as `Authorization: Bearer TOKEN` [default: `CRONFLEET_CONSOLE_TOKEN`, else
    /// none]
    #[arg(long, value_name = "FILE", env = "CRONFLEET_CONSOLE_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,

    /// A name under which browsers reach it, beside localhost and addresses. May be given several times
    #[arg(
        long = "name",
        value_name = "NAME",
        value_delimiter = ',',
        env = "CRONFLEET_CONSOLE_NAMES",
        hide_env_values = true
    )]
    pub names: Vec<String>,

    /// Where the read model is kept. It may be deleted: then it is built anew
    #[arg(long, value_name = "DIR", default_value = CONSOLE_DATA_DIR, env = "CRONFLEET_CONSOLE_DATA_DIR", hide_env_values = true)]
    pub data_dir: PathBuf,
}

/// Serves until it is asked to stop.
pub async fn run(args: ConsoleArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let settings = ConsoleSettings {
        listen: args.listen,
        token: token(args.token_file.as_deref())?,
        names: args.names,
        data_dir: args.data_dir,
    };
    // What cannot be kept is said at once, not when NATS is there.
    settings.check()?;
    let stages = signals::listen()?;
    let streams = tokio::select! {
        streams = global.connect_patiently("cronfleet-console") => streams?,
        () = stages.drain.cancelled() => return Ok(Exit::Done.into()),
    };
    let console = Console::new(settings, streams.clone()).await?;
    let url = console.url();
    tracing::info!(url, version = env!("CARGO_PKG_VERSION"), "The console is at {url}");
    let mut running = tokio::spawn(console.run(stages.drain.clone()));
    tokio::select! {
        ended = &mut running => ended?,
        () = stages.abort.cancelled() => {
            running.abort();
            return Ok(Exit::Error.into());
        }
    }
    streams.close().await;
    tracing::info!("The console has stopped");
    Ok(Exit::Done.into())
}

/// The token of the settings: of the file, else of the environment.
pub fn token(file: Option<&std::path::Path>) -> anyhow::Result<Option<Token>> {
    let (text, from) = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            (text.with_context(|| format!("the token file {}", file.display()))?, file.display().to_string())
        }
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(text) if !text.trim().is_empty() => (text, TOKEN_VARIABLE.to_owned()),
            _ => return Ok(None),
        },
    };
    Ok(Some(Token::parse(&text).with_context(|| format!("the token of {from}"))?))
}
