//! `trigger`: a schedule's task, now.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use shared::{
    names::{Name, RunKey},
    run::RunId,
};
use streams::{Streams, control::Trigger};

use super::{
    apply::patiently,
    changes::Fleet,
    known::unknown,
    lists::alive_planners,
    machine::person,
    unbegun::warn_if_unserved,
    wait::{self, WaitArgs},
};
use crate::{GlobalArgs, exit::Exit, output::talk};

const EXAMPLES: &str = "\
The run is one more: it does not replace a slot, and the schedule's overlap policy holds for it. Its id goes to stdout.

Examples:
  cronfleet trigger daily_data_archive
  cronfleet trigger daily_data_archive --param batch_size=500 --param cutoff_date=3_days_ago
  cronfleet trigger daily_data_archive --wait --timeout 30m -o json | jq .output";

/// The arguments of `trigger`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TriggerArgs {
    /// The schedule
    pub schedule: Name,

    /// A parameter that replaces or adds to those of the schedule's task. JSON if it is JSON, otherwise text. May be
    /// given several times
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<(String, Value)>,

    /// Whether the run is waited for.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Reads `KEY=VALUE`: the value is JSON if it is, and text otherwise.
pub fn parse_parameter(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((key.to_owned(), value))
        }
        _ => Err("write it as KEY=VALUE, such as batch_size=500".to_owned()),
    }
}

/// Asks the planners for a run.
pub async fn run(args: TriggerArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let output = global.output();
    check_known(&streams, &args.schedule).await?;
    let queue = streams.schedules().get(&args.schedule).await?.map(|stored| stored.value.queue);
    let run = RunId { name: args.schedule, key: RunKey::by_hand(global.clock().now()) };
    let parameters: Map<String, Value> = args.parameters.into_iter().collect();
    let trigger = Trigger { run: run.clone(), parameters, by: person(), at: streams.clock().now() };
    // Listen before asking, so that not even the first change is missed.
    let results = if args.wait.wait { Some(streams.results_of(&run).await?) } else { None };
    // Repeating it is harmless: the run has its id already.
    patiently(streams.clock().as_ref(), || streams.trigger(&trigger)).await?;
    if alive_planners(&streams).await?.iter().all(|planner| planner.stopping) {
        talk("warning: no planner is alive; the run is made as soon as one is: `cronfleet planner`");
    }
    if let Some(queue) = queue {
        warn_if_unserved(&streams, &queue).await?;
    }
    if let Some(results) = results {
        return wait::for_end(&streams, &run, results, args.wait.timeout(), output).await;
    }
    output.one(&json!({ "id": run }), || run.to_string(), || format!("{run}\n"))?;
    Ok(Exit::Done.into())
}

/// Refuses a schedule that is not there, with the nearest one that is.
pub async fn check_known(streams: &Streams, schedule: &Name) -> anyhow::Result<()> {
    if streams.schedules().get(schedule).await?.is_some() {
        return Ok(());
    }
    let fleet = Fleet::read(streams).await?;
    Err(unknown("schedule", schedule.as_str(), fleet.schedule_names().map(Name::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_json_if_it_is_and_text_otherwise() {
        for (text, value) in [
            ("n=500", json!(500)),
            ("n=true", json!(true)),
            ("n=3_days_ago", json!("3_days_ago")),
            ("n=", json!("")),
            ("n=\"500\"", json!("500")),
            ("n=[1,2]", json!([1, 2])),
            ("n={\"a\":null}", json!({ "a": null })),
            ("n=a=b", json!("a=b")),
            ("n=007", json!("007")),
        ] {
            assert_eq!(parse_parameter(text), Ok(("n".to_owned(), value)), "{text}");
        }
        assert!(parse_parameter("novalue").is_err() && parse_parameter("=1").is_err());
    }
}
