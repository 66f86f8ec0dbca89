//! `tail`: every change of state, as it happens.

use std::process::ExitCode;

use clap::Args;
use futures::{Stream, StreamExt};
use shared::{names::Name, run::RunId, run_record::RunRecord, run_state::RunState};

use super::{
    get::parse_state,
    runs::because,
    when::{milliseconds, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Format, Output, line, printable, talk},
    signals,
    table::Colour,
};

const EXAMPLES: &str = "\
Results are not kept for those who come late: what happened before is in `cronfleet get runs`. Ctrl-C ends it. As JSON it \
is one record per line.

Examples:
  cronfleet tail
  cronfleet tail daily_data_archive --state FAILED --state RETRY
  cronfleet tail -o json --count 10 | jq -r '.id + \" \" + .status'";

/// The arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TailArgs {
    /// Only runs of this schedule or task name, or only this run (`name.key`)
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Only changes to this state. May be given several times
    #[arg(long = "state", visible_alias = "status", value_name = "STATE", value_parser = parse_state)]
    pub states: Vec<RunState>,

    /// End after so many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Shows changes until it is asked to stop, or has shown enough.
pub async fn run(args: TailArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let stages = signals::listen()?;
    let mut results: Box<dyn Stream<Item = RunRecord> + Send + Unpin> = match args.name.as_deref() {
        Some(text) if text.contains('.') => Box::new(streams.results_of(&text.parse::<RunId>()?).await?),
        Some(text) => Box::new(streams.results(Some(&text.parse::<Name>()?)).await?),
        None => Box::new(streams.results(None).await?),
    };
    talk("listening; ctrl-C ends it");
    let output = global.output();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let record = tokio::select! {
            record = results.next() => record,
            () = stages.drain.cancelled() => break,
        };
        let Some(record) = record else { anyhow::bail!("the connection to the server is closed") };
        if args.states.is_empty() || args.states.contains(&record.status) {
            show(&record, &utc(global.clock().now()), output)?;
            left -= 1;
        }
    }
    Ok(Exit::Done.into())
}

fn show(record: &RunRecord, heard_at: &str, output: Output) -> anyhow::Result<()> {
    match output.format {
        Format::Table => line(one_line(record, heard_at, output.colours)),
        Format::Name => line(&record.id),
        Format::Json => line(serde_json::to_string(record)?),
        Format::Yaml => line(format!("---\n{}", serde_saphyr::to_string(record)?.trim_end())),
    }
}

fn one_line(record: &RunRecord, heard_at: &str, colours: bool) -> String {
    let state = format!("{:<9}", record.status);
    let state = Colour::of(record.status)
        .filter(|_| colours)
        .map_or_else(|| state.clone(), |colour| colour.paint(&state));
    let mut text = format!("{heard_at}  {state}  {}  attempt {}", record.id, record.attempt);
    if let Some(ms) = record.duration_ms {
        text = format!("{text}  {}", milliseconds(ms));
    }
    let because = because(record);
    if !because.is_empty() {
        text = format!("{text}  {}", printable(&because));
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::run_record::{ErrorKind, Reason, RunError};

    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let at = "2026-11-24T02:00:00Z".parse().expect("instant");
        let mut run = RunRecord::pending("a.1".parse().expect("id"), "default".parse().expect("queue"), at);
        assert_eq!(one_line(&run, "T", false), "T  PENDING    a.1  attempt 0");
        run.status = RunState::Failed;
        run.duration_ms = Some(1_500);
        let run = run.because(Reason::Permanent).with_error(RunError::new(ErrorKind::Target, "404\nx\u{1b}"));
        assert_eq!(one_line(&run, "T", false), "T  FAILED     a.1  attempt 0  1s 500ms  permanent: 404");
        assert!(one_line(&run, "T", true).contains("\u{1b}[31mFAILED   \u{1b}[0m"));
    }
}
