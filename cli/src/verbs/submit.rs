//! `submit`: an ad-hoc task. What any NATS client does with one publish, with a check before it.

use std::{io::Read, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use chrono::SecondsFormat;
use clap::Args;
use serde_json::json;
use shared::{
    Timestamp,
    human_duration::HumanDuration,
    limits::TASK_BYTES_MAX,
    names::{Name, QueueName, RunKey, TargetName},
    queue::Recording,
    run::RunId,
    task::Task,
};
use streams::{
    Streams,
    operate::submit::{Sent, Submission, check_run, not_before, parse_key},
};

use super::{
    known::unknown,
    unbegun::warn_if_unserved,
    wait::{self, WaitArgs},
    when::parse_instant,
};
use crate::{GlobalArgs, exit::Exit, output::talk, telemetry::trace_context};

const EXAMPLES: &str = "\
The run's id is NAME.KEY, and goes to stdout. The key makes it idempotent: while that run is queued or running a second \
submission is refused, and one that has ended is not run again for as long as the ledger remembers it (90 days).

With --at or --in it waits for its instant and then goes to its queue: never before, and as a rule a few milliseconds \
after. Until then `cronfleet cancel` takes it back, and `cronfleet get delayed` shows it.

Examples:
  cronfleet submit reindex -d '{\"target_service\":\"storage\",\"action\":\"optimize\"}'
  cronfleet submit reindex -d @task.json --key 4711 --queue reports --wait
  cronfleet submit reminder -d @task.json --key 4711 --in 36h
  cronfleet submit release -d @task.json --at 2026-11-24T10:00:00+08:00
  generate | cronfleet submit reindex -d -";

/// The arguments of `submit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    /// The name the run goes by: the first half of its id
    pub name: Name,

    /// The task: JSON, `@FILE`, or `-` for stdin
    #[arg(long, short = 'd', value_name = "JSON", allow_hyphen_values = true)]
    pub data: String,

    /// The queue it travels on
    #[arg(long, value_name = "QUEUE", default_value = "default")]
    pub queue: QueueName,

    /// The second half of the run's id, which makes it idempotent [default: one that was never used]
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    pub key: Option<RunKey>,

    /// Not before this instant, in any zone
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant, conflicts_with = "in")]
    pub at: Option<Timestamp>,

    /// Not before this long from now
    #[arg(long = "in", id = "in", value_name = "DURATION")]
    pub after: Option<HumanDuration>,

    /// Whether the run is waited for.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Submits a task.
pub async fn run(args: SubmitArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let data = read_data(&args.data)?;
    let task = Task::from_json(&data)?;
    let streams = global.connect().await?;
    let output = global.output();
    let given = args.key.is_some();
    let not_before = not_before(args.at, args.after, global.clock().now()).map_err(|words| anyhow!(words))?;
    let run = RunId { name: args.name, key: args.key.unwrap_or_else(RunKey::unique) };
    check_run(&run).map_err(|words| anyhow!(words))?;
    let results = if args.wait.wait { Some(streams.results_of(&run).await?) } else { None };
    let submitted = if given { is_known(&streams, &run, args.wait.wait).await? } else { Before::New };
    match submitted {
        Before::Ended(record) => {
            talk(format!(
                "already done: {} is {}; it is not run again (take another --key)",
                run, record.status
            ));
            if args.wait.wait {
                return wait::show_end(&record, output);
            }
        }
        Before::Live => {}
        Before::New => {
            warn_of_target(&streams, &task).await?;
            let submission = Submission { queue: &args.queue, run: &run, not_before, task: &data };
            if not_before.is_some() {
                check_queue(&streams, &args.queue).await?;
            } else if args.wait.wait {
                check_is_recorded(&streams, &args.queue).await?;
            }
            submit(&streams, &submission, args.wait.wait).await?;
            if not_before.is_none() {
                warn_if_unserved(&streams, &args.queue).await?;
            }
        }
    }
    if let Some(results) = results {
        return wait::for_end(&streams, &run, results, args.wait.timeout(), output).await;
    }
    output.one(&json!({ "id": run }), || run.to_string(), || format!("{run}\n"))?;
    Ok(Exit::Done.into())
}

fn read_data(data: &str) -> anyhow::Result<Vec<u8>> {
    // One byte more than is allowed, so that the task's own check sees that it is too much.
    let limit = TASK_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    match data.strip_prefix('@') {
        Some(file) => {
            let file_error = || format!("cannot read {file}");
            std::fs::File::open(file)
                .with_context(file_error)?
                .take(limit)
                .read_to_end(&mut bytes)
                .with_context(file_error)?;
        }
        None if data == "-" => {
            std::io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read stdin")?;
        }
        None => bytes = data.as_bytes().to_vec(),
    }
    Ok(bytes)
}

/// What the ledger knows of a run before it is submitted.
enum Before {
    New,
    Live,
    Ended(Box<shared::run_record::RunRecord>),
}

async fn is_known(streams: &Streams, run: &RunId, wait: bool) -> anyhow::Result<Before> {
    match streams.ledger().get(run).await? {
        None => Ok(Before::New),
        Some(stored) if stored.value.status.is_final() => Ok(Before::Ended(Box::new(stored.value))),
        Some(stored) if wait => {
            talk(format!("{run} is {} already; waiting for it", stored.value.status));
            Ok(Before::Live)
        }
        Some(stored) => bail!(occupied(run, &format!("it is {}", stored.value.status))),
    }
}

fn occupied(run: &RunId, state: &str) -> String {
    format!(
        "{run} is queued or running already ({state}); nothing was submitted: wait for it with --wait, or take another --key"
    )
}

/// A target nobody declared is no error, since it may be declared in a moment; but most often it is a slip.
async fn warn_of_target(streams: &Streams, task: &Task) -> anyhow::Result<()> {
    let Some(name) = task.target() else { return Ok(()) };
    let targets = streams.catalog().all().await?.targets;
    match targets.get(name) {
        Some(target) => task.check_target(target)?,
        None => talk(format!(
            "warning: {}; the run is tried until it is declared, or its attempts are used up",
            unknown("target", name.as_str(), targets.keys().map(TargetName::as_str))
        )),
    }
    Ok(())
}

/// The stream of what waits takes any queue; that it is there is asked now, not in a year.
async fn check_queue(streams: &Streams, queue: &QueueName) -> anyhow::Result<()> {
    let queues = streams.catalog().queues().await?;
    if queues.contains_key(queue) {
        return Ok(());
    }
    Err(unknown("queue", queue.as_str(), queues.keys().map(QueueName::as_str)))
}

/// Of a run that leaves no record nobody hears the end. One that waited for its instant has a record in any queue.
async fn check_is_recorded(streams: &Streams, queue: &QueueName) -> anyhow::Result<()> {
    let settings = streams.catalog().queue(queue).await?.unwrap_or_default();
    if settings.record == Recording::Failures {
        bail!(
            "queue {queue} has `record: failures`: a run that goes well leaves no record to wait for; leave out --wait, or take another --queue"
        );
    }
    Ok(())
}

async fn submit(streams: &Streams, submission: &Submission<'_>, wait: bool) -> anyhow::Result<()> {
    let Submission { run, not_before, .. } = *submission;
    match submission.send(streams, &trace_context().to_string()).await? {
        Sent::New => {
            if let Some(at) = not_before {
                talk(format!("{run} waits until {}", at.to_rfc3339_opts(SecondsFormat::AutoSi, true)));
            }
        }
        Sent::There if wait => {
            talk(format!("{run} is waiting, queued or running already; waiting for it"));
        }
        Sent::There if not_before.is_some() => bail!(
            "{run} waits for its instant already; nothing was submitted: cancel it first, or take another --key"
        ),
        Sent::There => bail!(occupied(run, "the server holds it in its queue")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planners_keys_are_not_for_callers() {
        assert!(parse_key("4711").is_ok());
        for key in ["_", "20261124T020000Z"] {
            assert!(parse_key(key).expect_err(key).contains("planners' own"));
        }
        assert!(parse_key("a.b").expect_err("dot").contains("try \"a_b\""));
    }

    #[test]
    fn data_is_given_in_the_line_or_in_a_file_and_is_bounded() {
        assert_eq!(read_data("{}").expect("text"), b"{}");
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), vec![b' '; TASK_BYTES_MAX * 2]).expect("written");
        let read = read_data(&format!("@{}", file.path().display())).expect("file");
        assert!(Task::from_json(&read).expect_err("large").to_string().contains("pass a reference"));
        assert!(
            crate::exit::explain(&read_data("@/nonexistent").expect_err("gone")).contains("/nonexistent")
        );
    }
}
