//! `cancel`: the end of a run before its time.

use std::{process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use shared::{
    human_duration::HumanDuration,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::{
    Streams, WriteError,
    cancel::{CancelError, CancelRequest, Cancelling},
};

use super::{machine::person, runs};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Output, talk},
};

/// Between two looks at a run whose worker was asked to stop it, or that could not be cancelled just now.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a run may take to stop when nothing else is said: a command gets its grace within it.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

const EXAMPLES: &str = "\
A run that waits, in its queue or for its instant (`submit --at`, `--in`), is taken out of there. One that runs is stopped by its worker: a request is dropped, a command and all \
it began are ended. Its record becomes CANCELLED with reason by_operator. A target may go on with what it was asked.

If the worker is silent the request stands: whoever takes the run over ends it instead of beginning it again.

Examples:
  cronfleet cancel daily_data_archive.20261124T180000Z
  cronfleet get runs --status RUNNING -o name | xargs -n1 cronfleet cancel";

/// The arguments of `cancel`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CancelArgs {
    /// The run, as `get runs` writes it
    pub run: RunId,

    /// How long to wait until its worker has stopped it. Then the exit code is 124, and the request stands [default: 15s]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<HumanDuration>,
}

/// Cancels a run, and waits until it has stopped.
pub async fn run(args: CancelArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let at = streams.clock().now();
    let request = CancelRequest { run: args.run, reason: Reason::ByOperator, by: person(), at };
    let timeout = args.timeout.map_or(TIMEOUT_DEFAULT, |timeout| timeout.0);
    let stopped = tokio::select! {
        stopped = cancel(&streams, &request, global.output()) => Some(stopped?),
        () = streams.clock().sleep(timeout) => None,
    };
    Ok(stopped.unwrap_or_else(|| {
        talk(format!(
            "timed out after {}: {} has not stopped yet; the request stands, and whoever takes it over ends it",
            HumanDuration(timeout),
            request.run
        ));
        Exit::TimedOut.into()
    }))
}

async fn cancel(streams: &Streams, request: &CancelRequest, output: Output) -> anyhow::Result<ExitCode> {
    let run = &request.run;
    let mut was_asked = false;
    loop {
        match streams.cancel(request).await {
            Ok(Cancelling::Cancelled(record)) => return show(&record, output),
            Ok(Cancelling::Ended(record)) => {
                return match (record.status, was_asked) {
                    (RunState::Cancelled, true) => show(&record, output),
                    (RunState::Cancelled, false) => {
                        talk(format!("{run} was cancelled before"));
                        show(&record, output)
                    }
                    (status, true) => {
                        bail!("{run} is {status}: it came to its end before it could be stopped")
                    }
                    (status, false) => bail!("{run} is {status} already; there is nothing to cancel"),
                };
            }
            Ok(Cancelling::Unknown) => {
                return Err(anyhow!("there is no run {run}; `cronfleet get runs` lists those there are"));
            }
            Ok(Cancelling::Asked(record)) if !was_asked => {
                was_asked = true;
                let who = match &record.shards {
                    Some(shards) => format!("its {} shards are", shards.total),
                    None => format!(
                        "{} was",
                        record.worker.as_ref().map_or("its worker", |worker| worker.as_str())
                    ),
                };
                talk(format!("{run} is RUNNING; {who} asked to stop"));
            }
            Ok(Cancelling::Asked(_)) | Err(CancelError::Restless(_)) => {}
            // Repeating it is harmless.
            Err(CancelError::Write(error @ WriteError::Unknown { .. })) => {
                talk(format!("{error}; trying again"));
            }
            Err(error) => return Err(error.into()),
        }
        streams.clock().sleep(LOOK_AGAIN).await;
    }
}

fn show(record: &RunRecord, output: Output) -> anyhow::Result<ExitCode> {
    output.one(record, || record.id.to_string(), || runs::text(record))?;
    Ok(Exit::Done.into())
}
