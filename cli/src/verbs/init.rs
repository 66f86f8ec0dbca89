//! `init`: the streams and buckets.

use std::process::ExitCode;

use clap::Args;
use streams::topology::Replicas;

use crate::{GlobalArgs, exit::Exit, output::talk, table::Table};

const EXAMPLES: &str = "\
What exists is never changed: a stream that differs from what this version needs is an error. The number of replicas is \
changed later with `nats stream edit STREAM --replicas 3` (natscli), for every stream and bucket.

Examples:
  cronfleet init                 on a laptop
  cronfleet init --replicas 3    on a cluster of three servers or more";

/// The arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Copies of every stream, each on a server of its own: 1, or 3 to survive the loss of a server [default: as many
    /// as the fleet has, 1 for a new one]
    #[arg(long, value_name = "1|3", value_parser = parse_replicas)]
    pub replicas: Option<Replicas>,
}

fn parse_replicas(text: &str) -> Result<Replicas, &'static str> {
    match text {
        "1" => Ok(Replicas::One),
        "3" => Ok(Replicas::Three),
        _ => Err("it is 1 or 3"),
    }
}

/// Creates what is missing.
pub async fn run(args: InitArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    // Not asked for a number: a fleet that has all it needs is left alone, whatever its number is. One that cannot be
    // examined has most of it missing.
    let complete = match args.replicas {
        None => streams.examine(None).await.is_ok_and(|differences| differences.is_empty()),
        Some(_) => false,
    };
    let made =
        if complete { Vec::new() } else { streams.init(args.replicas.unwrap_or(Replicas::One)).await? };
    let table = || {
        let mut table = Table::new(&["CREATED"]);
        for name in &made {
            table.row(vec![name.as_str().into()]);
        }
        table
    };
    global.output().list(&made, String::clone, table, "nothing to do: everything is there")?;
    if !made.is_empty() {
        talk("next: `cronfleet apply -f FILE`, then `cronfleet planner` and `cronfleet worker`");
    }
    Ok(Exit::Done.into())
}
