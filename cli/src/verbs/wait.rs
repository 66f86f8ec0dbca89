//! Waiting for a run to end.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures::Stream;
use shared::{human_duration::HumanDuration, run::RunId, run_record::RunRecord};
use streams::{Streams, operate::wait};

use super::{runs, unbegun};
use crate::{
    exit::Exit,
    output::{Output, talk},
};

/// How long a run is waited for when nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_mins(10);

/// Whether, and how long, the run is waited for.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait until the run has ended, and write its record. Exit code 3 if it did not succeed
    #[arg(long)]
    pub wait: bool,

    /// With --wait: how long. Then the exit code is 124, and the run goes on [default: 10m]
    #[arg(long, requires = "wait", value_name = "DURATION")]
    pub timeout: Option<HumanDuration>,
}

impl WaitArgs {
    /// How long the run is waited for.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT_DEFAULT, |timeout| timeout.0)
    }
}

/// Waits until the run has ended, and writes its record. `results` was subscribed before the run was asked for.
pub async fn for_end(
    streams: &Streams,
    run: &RunId,
    results: impl Stream<Item = RunRecord> + Unpin,
    timeout: Duration,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let clock = streams.clock().clone();
    let mut seen = None;
    let ended = tokio::select! {
        ended = wait::for_end(streams, run, results, |record| {
            seen = Some(record.status);
            let because = [runs::next_attempt(record, clock.now()), runs::because(record)];
            let because =
                because.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(": ");
            let because = if because.is_empty() { because } else { format!(" ({because})") };
            talk(format!("{run}: {}, attempt {}{because}", record.status, record.attempt));
        }) => Some(ended),
        () = clock.sleep(timeout) => None,
    };
    let Some(ended) = ended else {
        let state = match seen {
            Some(status) => format!("it is {status} and goes on"),
            None => match unbegun::record_of(streams, run).await.ok().flatten() {
                Some(record) => format!("it lies in queue {}, and no worker has taken it yet", record.queue),
                None => "no record of it was seen yet".to_owned(),
            },
        };
        talk(format!(
            "timed out after {}: {run} has not ended, {state}; look with `cronfleet describe run {run}`",
            HumanDuration(timeout)
        ));
        return Ok(Exit::TimedOut.into());
    };
    show_end(&ended, output)
}

/// Writes the record of a run that has ended, and gives the code for how.
pub fn show_end(run: &RunRecord, output: Output) -> anyhow::Result<ExitCode> {
    output.one(run, || run.id.to_string(), || runs::text(run))?;
    Ok(Exit::of_run(run).into())
}
