//! `pause`: a schedule's slots are recorded and not run.

use std::process::ExitCode;

use anyhow::bail;
use chrono::TimeDelta;
use clap::Args;
use shared::{
    Timestamp, human_duration::HumanDuration, limits::PAUSE_REASON_CHARS_MAX, names::Name, pause::PauseState,
};
use streams::operate::pausing::{Wish, change, wish};

use super::{
    machine::person,
    trigger::check_known,
    when::{parse_instant, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{line, talk},
};

const EXAMPLES: &str = "\
While a schedule is paused each of its slots gets a record: CANCELLED, with reason `paused` and a note that says who \
paused it and why. Nothing is caught up afterwards; `cronfleet backfill` runs what is wanted after all. A run that is \
queued or running goes on, and `cronfleet trigger` still works. Applying a file does not end a pause.

A schedule that is paused already keeps its pause, unless a new --reason or --until is given.

Examples:
  cronfleet pause daily_data_archive
  cronfleet pause daily_data_archive --reason 'disk is being replaced' --until 2h
  cronfleet pause daily_data_archive --until 2026-11-24T06:00:00+08:00";

/// The arguments of `pause`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PauseArgs {
    /// The schedule
    #[arg(value_name = "SCHEDULE")]
    pub name: Name,

    /// Why, for whoever wonders why nothing runs
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: Option<String>,

    /// When it resumes by itself: an instant (RFC 3339), whose own slot runs again, or a length of time from now
    /// [default: when somebody resumes it]
    #[arg(long, value_name = "INSTANT|DURATION", value_parser = parse_until)]
    pub until: Option<Until>,
}

/// When a pause ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At this instant.
    At(Timestamp),
    /// So long from now.
    In(HumanDuration),
}

fn parse_until(text: &str) -> Result<Until, String> {
    match (text.parse().map(Until::In), parse_instant(text).map(Until::At)) {
        (Ok(until), _) | (_, Ok(until)) => Ok(until),
        (Err(_), Err(_)) => {
            Err("write an instant, such as 2026-11-24T02:00:00Z, or a length of time, such as 2h".to_owned())
        }
    }
}

fn parse_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it is empty; leave --reason out, or say why".to_owned()),
        chars if chars > PAUSE_REASON_CHARS_MAX => {
            Err(format!("it has {chars} characters; at most {PAUSE_REASON_CHARS_MAX} are kept: shorten it"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Pauses a schedule.
pub async fn run(args: PauseArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let streams = global.connect().await?;
    let now = streams.clock().now();
    let until = match args.until {
        Some(Until::At(at)) => Some(at),
        Some(Until::In(length)) => Some(now + TimeDelta::from_std(length.0)?),
        None => None,
    };
    if let Some(until) = until.filter(|until| *until <= now) {
        bail!("--until {} is over already: nothing would be paused", utc(until));
    }
    check_known(&streams, &args.name).await?;
    let (was, now_is) = change(&streams, &args.name, |found| {
        match wish(found.standing(now), args.reason.clone(), until, person()) {
            Wish::IsPaused(_) => None,
            Wish::Pause(pause) => Some(PauseState::Paused(pause)),
        }
    })
    .await?;
    line(format!("schedule/{}", args.name))?;
    let was = was.standing(now);
    match (was, now_is) {
        (Some(was), None) => talk(format!(
            "schedule {} is {} since {} already; nothing was changed",
            args.name,
            was.pause.words(),
            utc(was.since)
        )),
        (was, Some(PauseState::Paused(pause))) => {
            let before = was.map(|was| format!(" (before: {})", was.pause.words())).unwrap_or_default();
            talk(format!("schedule {} is {}{before}", args.name, pause.words()));
        }
        _ => {}
    }
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    #[test]
    fn until_is_an_instant_or_a_length_of_time() {
        assert_eq!(parse_until("2026-11-24T02:00:00Z"), Ok(Until::At(at("02:00:00"))));
        let hours = HumanDuration(std::time::Duration::from_hours(2));
        assert_eq!(parse_until("2h"), Ok(Until::In(hours)));
        assert!(parse_until("tomorrow").expect_err("no").contains("such as 2h"));
        assert!(parse_reason("  ").is_err() && parse_reason(&"x".repeat(501)).is_err());
        assert_eq!(parse_reason(" disk ").as_deref(), Ok("disk"));
    }
}
