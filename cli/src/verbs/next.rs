//! `next`: when schedules are due.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::bail;
use clap::{ArgGroup, Args};
use shared::{
    Timestamp, calendar::Calendar, definitions::Definitions, names::Name, pause::PauseInForce,
    schedule::Schedule, slot::Slot,
};

use super::{
    changes::Fleet,
    files::{read_all, schedule_names},
    get::paused_now,
    known::unknown,
    when::{in_zone, parse_instant, utc},
};
use crate::{
    GlobalArgs,
    exit::Exit,
    output::{Format, line, talk},
    table::{Cell, Colour, Table},
};

/// Slots that are shown when nothing else is said.
const COUNT_DEFAULT: usize = 5;
/// Slots of one schedule that are shown, at most.
const COUNT_MAX: usize = 100_000;

const EXAMPLES: &str = "\
Every slot is shown, in UTC and in the schedule's own zone: also those its calendar leaves out, which get a record with \
that reason and are marked. As JSON it is an object: the schedule's name, and its slots as an array of instants in UTC. \
With a file no server is needed.

Examples:
  cronfleet next daily_data_archive
  cronfleet next -f schedules.yaml --count 3
  cronfleet next -f schedules.yaml monthly_report --from 2026-03-28T00:00:00Z --until 2026-04-02T00:00:00Z -o json";

/// The arguments of `next`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").required(true).multiple(true).args(["schedule", "files"]))]
pub struct NextArgs {
    /// The schedule; of the files, if there are any, otherwise of the fleet
    pub schedule: Option<Name>,

    /// A file with definitions; `-` is stdin. May be given several times
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    pub files: Vec<String>,

    /// Slots after this instant (RFC 3339), which is itself left out [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub from: Option<Timestamp>,

    /// So many of each schedule, 1 to 100000 [default: 5; with --until all]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub count: Option<usize>,

    /// Slots up to this instant (RFC 3339), which is itself meant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub until: Option<Timestamp>,
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=COUNT_MAX).contains(count))
        .ok_or_else(|| format!("it is 1 to {COUNT_MAX}"))
}

/// Shows slots.
pub async fn run(args: NextArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let from = args.from.unwrap_or_else(|| global.clock().now());
    if let Some(until) = args.until.filter(|until| *until <= from) {
        bail!("--until {} is not after --from {}: no slot is between them", utc(until), utc(from));
    }
    let (definitions, pauses) = match args.files.as_slice() {
        [] => of_fleet(global, args.schedule.as_ref()).await?,
        // A file knows of no pause.
        files => (read_all(files)?.definitions, BTreeMap::new()),
    };
    let wanted: Vec<(&Name, &Schedule)> = match &args.schedule {
        None => definitions.schedules.iter().collect(),
        Some(name) => match definitions.schedules.get_key_value(name) {
            Some(found) => vec![found],
            None => return Err(unknown("schedule", name.as_str(), schedule_names(&definitions))),
        },
    };
    let slots: BTreeMap<&Name, Vec<Timestamp>> =
        wanted.iter().map(|(name, schedule)| (*name, slots(schedule, from, &args))).collect();
    show(&definitions, &slots, &pauses, global)?;
    Ok(Exit::Done.into())
}

/// One schedule needs no other to be understood; a name nobody knows needs all, for the suggestion.
async fn of_fleet(
    global: &GlobalArgs,
    wanted: Option<&Name>,
) -> anyhow::Result<(Definitions, BTreeMap<Name, PauseInForce>)> {
    let streams = global.connect().await?;
    let fleet = Fleet::read(&streams).await?;
    match wanted.and_then(|name| Some((name, fleet.unreadable.get(name)?))) {
        Some((name, reason)) => bail!("the definition of schedule {name} cannot be understood: {reason}"),
        None => Ok((fleet.definitions, paused_now(&streams).await?)),
    }
}

fn slots(schedule: &Schedule, from: Timestamp, args: &NextArgs) -> Vec<Timestamp> {
    let count = args.count.unwrap_or(if args.until.is_some() { COUNT_MAX } else { COUNT_DEFAULT });
    let slots = schedule.slots_after(from).map(Slot::instant);
    slots.take_while(|slot| args.until.is_none_or(|until| *slot <= until)).take(count).collect()
}

fn show(
    definitions: &Definitions,
    slots: &BTreeMap<&Name, Vec<Timestamp>>,
    pauses: &BTreeMap<Name, PauseInForce>,
    global: &GlobalArgs,
) -> anyhow::Result<()> {
    let output = global.output();
    if output.format == Format::Name {
        return slots.keys().try_for_each(line);
    }
    let texts: BTreeMap<&str, Vec<String>> = slots
        .iter()
        .map(|(name, slots)| (name.as_str(), slots.iter().map(|slot| utc(*slot)).collect()))
        .collect();
    output.one(&texts, String::new, || {
        let mut table = Table::new(&["SCHEDULE", "SLOT", "UTC", "ZONE", ""]);
        for (name, slots) in slots {
            let Some(schedule) = definitions.schedules.get(*name) else { continue };
            if slots.is_empty() {
                talk(format!("schedule {name} has no slot there"));
            }
            let calendar =
                schedule.calendar.as_ref().and_then(|calendar| definitions.calendars.get(calendar));
            if let Some(paused) = pauses.get(*name) {
                talk(format!("schedule {name} is {}", paused.pause.words()));
            }
            for slot in slots {
                table.row(vec![
                    name.as_str().into(),
                    in_zone(*slot, schedule.timezone).into(),
                    utc(*slot).into(),
                    schedule.timezone.name().into(),
                    remark(schedule, calendar, pauses.get(*name), *slot),
                ]);
            }
        }
        table.render(output.colours)
    })
}

fn remark(
    schedule: &Schedule,
    calendar: Option<&Calendar>,
    paused: Option<&PauseInForce>,
    slot: Timestamp,
) -> Cell {
    if paused.is_some_and(|paused| paused.holds_at(slot)) {
        return Cell::coloured("paused", Some(Colour::Yellow));
    }
    let date = slot.with_timezone(&schedule.timezone).date_naive();
    match (&schedule.calendar, calendar) {
        (Some(name), Some(calendar)) if !calendar.includes(date) => {
            Cell::coloured(format!("left out by {name}"), Some(Colour::Dim))
        }
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(count: Option<usize>, until: Option<&str>) -> NextArgs {
        let until = until.map(|text| parse_instant(text).expect("instant"));
        NextArgs { schedule: None, files: Vec::new(), from: None, count, until }
    }

    #[test]
    fn slots_are_after_the_first_instant_and_up_to_the_last() {
        let text = "schedules: {a: {every: 12h, task: {command: [b]}}}";
        let definitions = Definitions::parse(text).expect("definitions");
        let schedule = definitions.schedules.values().next().expect("one");
        let from = parse_instant("2026-11-24T00:00:00Z").expect("instant");
        let texts = |args: &NextArgs| slots(schedule, from, args).into_iter().map(utc).collect::<Vec<_>>();
        assert_eq!(texts(&args(None, None)).len(), COUNT_DEFAULT);
        let day = args(None, Some("2026-11-25T00:00:00Z"));
        assert_eq!(texts(&day), ["2026-11-24T12:00:00Z", "2026-11-25T00:00:00Z"]);
        assert_eq!(texts(&args(Some(1), Some("2026-11-25T00:00:00Z"))), ["2026-11-24T12:00:00Z"]);
        assert_eq!(texts(&args(None, Some("2026-12-24T00:00:00Z"))).len(), 60, "not cut to the default");
    }
}
