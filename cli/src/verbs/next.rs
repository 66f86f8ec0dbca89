//! `next`: what a schedule means, and when it is due.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::bail;
use chrono_tz::Tz;
use clap::{ArgGroup, Args};
use shared::{
    Timestamp,
    closed_day::Coming,
    cron::{CronExpr, DstPolicy, parse_zone},
    definitions::Definitions,
    names::{CalendarName, Name},
    pause::PauseInForce,
    schedule::Schedule,
    when::When,
    words::Language,
};

use super::{
    changes::Fleet,
    files::{read_all, schedule_names},
    get::paused_now,
    known::unknown,
    reader,
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
What it means is said in words. Every slot is shown in the schedule's zone, in UTC and in the reader's zone: also those its \
calendar leaves out, which get a record with that reason and are marked. As JSON it is an object: the schedule's name, \
and its slots as an array of instants in UTC. With a file or an expression no server is needed.

Examples:
  cronfleet next daily_data_archive
  cronfleet next --cron '0 18 LW * *' --timezone Asia/Shanghai
  cronfleet next -f schedules.yaml --count 3 --reader-zone Europe/Paris --lang zh
  cronfleet next -f schedules.yaml monthly_report --from 2026-03-28T00:00:00Z --until 2026-04-02T00:00:00Z -o json";

/// The arguments of `next`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").required(true).multiple(true).args(["schedule", "files", "cron"]))]
pub struct NextArgs {
    /// The schedule; of the files, if there are any, otherwise of the fleet
    pub schedule: Option<Name>,

    /// A file with definitions; `-` is stdin. May be given several times
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    pub files: Vec<String>,

    /// A cron expression, before it is written into a file
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["schedule", "files"])]
    pub cron: Option<CronExpr>,

    /// With --cron: the zone it is read in [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone_argument, requires = "cron")]
    pub timezone: Option<Tz>,

    /// Slots after this instant (RFC 3339), which is itself left out [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub from: Option<Timestamp>,

    /// So many of each schedule, 1 to 100000 [default: 5; with --until all]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub count: Option<usize>,

    /// Slots up to this instant (RFC 3339), which is itself meant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub until: Option<Timestamp>,

    /// The zone of the reader's clock [default: TZ, then the machine's]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone_argument)]
    pub reader_zone: Option<Tz>,

    /// The language of the words, en or zh [default: that of the locale]
    #[arg(long, value_name = "LANG")]
    pub lang: Option<Language>,
}

fn parse_zone_argument(text: &str) -> Result<Tz, String> {
    parse_zone(text).map_err(|error| error.to_string())
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=COUNT_MAX).contains(count))
        .ok_or_else(|| format!("it is 1 to {COUNT_MAX}"))
}

/// What is shown of one schedule.
#[derive(Debug)]
struct Shown<'a> {
    words: String,
    zone: Tz,
    calendar: Option<&'a CalendarName>,
    paused: Option<&'a PauseInForce>,
    /// The schedule whose runs it follows, if it has no slots.
    after: Option<&'a Name>,
    slots: Vec<(Timestamp, Coming)>,
}

/// Shows slots.
pub async fn run(args: NextArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let from = args.from.unwrap_or_else(|| global.clock().now());
    if let Some(until) = args.until.filter(|until| *until <= from) {
        bail!("--until {} is not after --from {}: no slot is between them", utc(until), utc(from));
    }
    if let Some(cron) = &args.cron {
        let shown = of_expression(cron, from, &args);
        show(&[(cron.as_str(), shown)].into(), &args, global)?;
        return Ok(Exit::Done.into());
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
    let shown = wanted
        .into_iter()
        .map(|(name, schedule)| {
            (name.as_str(), of_schedule(schedule, &definitions, pauses.get(name), from, &args))
        })
        .collect();
    show(&shown, &args, global)?;
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

fn of_expression(cron: &CronExpr, from: Timestamp, args: &NextArgs) -> Shown<'static> {
    let zone = args.timezone.unwrap_or(Tz::UTC);
    let when = When::Cron(vec![cron.clone()]);
    let next = |after: &Timestamp| when.next_after(*after, zone, DstPolicy::default());
    let slots = std::iter::successors(next(&from), next).map(|slot| (slot, Coming::Here));
    let words = cron.in_words(reader::language(args.lang));
    Shown { words, zone, calendar: None, paused: None, after: None, slots: within(slots, args) }
}

fn of_schedule<'a>(
    schedule: &'a Schedule,
    definitions: &Definitions,
    paused: Option<&'a PauseInForce>,
    from: Timestamp,
    args: &NextArgs,
) -> Shown<'a> {
    let calendar = schedule.calendar.as_ref();
    let declared = calendar.and_then(|calendar| definitions.calendars.get(calendar));
    let slots = schedule.slots_on(declared, from).map(|(slot, coming)| (slot.instant(), coming));
    Shown {
        words: schedule.in_words(reader::language(args.lang)),
        zone: schedule.timezone,
        calendar,
        paused,
        after: schedule.after().map(|after| &after.schedule),
        slots: within(slots, args),
    }
}

fn within(slots: impl Iterator<Item = (Timestamp, Coming)>, args: &NextArgs) -> Vec<(Timestamp, Coming)> {
    let count = args.count.unwrap_or(if args.until.is_some() { COUNT_MAX } else { COUNT_DEFAULT });
    slots.take_while(|(slot, _)| args.until.is_none_or(|until| *slot <= until)).take(count).collect()
}

fn show(shown: &BTreeMap<&str, Shown<'_>>, args: &NextArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let output = global.output();
    if output.format == Format::Name {
        return shown.keys().try_for_each(line);
    }
    let texts: BTreeMap<&str, Vec<String>> = shown
        .iter()
        .map(|(name, shown)| (*name, shown.slots.iter().map(|(slot, _)| utc(*slot)).collect()))
        .collect();
    output.one(&texts, String::new, || {
        let (reader_zone, remark) = reader::zone(args.reader_zone);
        remark.into_iter().for_each(talk);
        let mut text = String::new();
        for (name, shown) in shown {
            if let Some(after) = shown.after {
                talk(format!("schedule {name} has no slots: it follows the runs of {after}"));
            } else if shown.slots.is_empty() {
                talk(format!("schedule {name} has no slot there"));
            }
            if let Some(paused) = shown.paused {
                talk(format!("schedule {name} is {}", paused.pause.words()));
            }
            text += &crate::output::printable(&format!("{name}: {}", shown.words));
            text.push('\n');
        }
        if shown.values().any(|shown| !shown.slots.is_empty()) {
            if reader_zone != Tz::UTC {
                text += &["HERE is ", reader_zone.name(), "\n"].concat();
            }
            text.push('\n');
            text += &table(shown, reader_zone).render(output.colours);
        }
        text
    })
}

fn table(shown: &BTreeMap<&str, Shown<'_>>, reader_zone: Tz) -> Table {
    // What the reader's clock shows is one of the columns already, if it shows UTC.
    let mut columns = vec!["SCHEDULE", "SLOT", "UTC", "ZONE"];
    if reader_zone != Tz::UTC {
        columns.push("HERE");
    }
    columns.push("");
    let mut table = Table::new(&columns);
    for (name, shown) in shown {
        for (slot, coming) in &shown.slots {
            let mut row: Vec<Cell> = vec![
                (*name).into(),
                in_zone(*slot, shown.zone).into(),
                utc(*slot).into(),
                shown.zone.name().into(),
            ];
            if reader_zone != Tz::UTC {
                row.push(in_zone(*slot, reader_zone).into());
            }
            row.push(remark(shown, *slot, *coming));
            table.row(row);
        }
    }
    table
}

fn remark(shown: &Shown<'_>, slot: Timestamp, coming: Coming) -> Cell {
    if shown.paused.is_some_and(|paused| paused.holds_at(slot)) {
        return Cell::coloured("paused", Some(Colour::Yellow));
    }
    match (shown.calendar, coming) {
        (Some(name), Coming::Closed) => Cell::coloured(format!("left out by {name}"), Some(Colour::Dim)),
        (Some(name), Coming::MovedFrom(date)) => {
            Cell::coloured(format!("moved from {date} by {name}"), Some(Colour::Dim))
        }
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(count: Option<usize>, until: Option<&str>) -> NextArgs {
        NextArgs {
            schedule: None,
            files: Vec::new(),
            cron: None,
            timezone: None,
            from: None,
            count,
            until: until.map(|text| parse_instant(text).expect("instant")),
            reader_zone: None,
            lang: Some(Language::English),
        }
    }

    fn from() -> Timestamp {
        parse_instant("2026-11-24T00:00:00Z").expect("instant")
    }

    #[test]
    fn slots_are_after_the_first_instant_and_up_to_the_last() {
        let text = "schedules: {a: {every: 12h, task: {command: [b]}}}";
        let definitions = Definitions::parse(text).expect("definitions");
        let schedule = definitions.schedules.values().next().expect("one");
        let texts = |args: &NextArgs| {
            let shown = of_schedule(schedule, &definitions, None, from(), args);
            shown.slots.into_iter().map(|(slot, _)| utc(slot)).collect::<Vec<_>>()
        };
        assert_eq!(texts(&args(None, None)).len(), COUNT_DEFAULT);
        let day = args(None, Some("2026-11-25T00:00:00Z"));
        assert_eq!(texts(&day), ["2026-11-24T12:00:00Z", "2026-11-25T00:00:00Z"]);
        assert_eq!(texts(&args(Some(1), Some("2026-11-25T00:00:00Z"))), ["2026-11-24T12:00:00Z"]);
        assert_eq!(texts(&args(None, Some("2026-12-24T00:00:00Z"))).len(), 60, "not cut to the default");
    }

    #[test]
    fn a_slot_is_shown_where_the_schedule_is_and_where_the_reader_is_and_says_if_it_is_moved() {
        let text = "
schedules:
  monthly: {cron: '0 9 28 * *', timezone: Asia/Shanghai, calendar: c, on_closed_day: next_open_day, task: {command: [b]}}
  weekly: {cron: '0 9 * * SAT', calendar: c, task: {command: [b]}}
calendars: {c: {weekdays: mon-fri}}";
        let definitions = Definitions::parse(text).expect("definitions");
        let args = args(Some(1), None);
        let shown: BTreeMap<&str, Shown<'_>> = definitions
            .schedules
            .iter()
            .map(|(name, schedule)| (name.as_str(), of_schedule(schedule, &definitions, None, from(), &args)))
            .collect();
        let text = table(&shown, Tz::Europe__Paris).render(false);
        for part in [
            "HERE",
            "Mon 2026-11-30 09:00:00 +08:00  2026-11-30T01:00:00Z  Asia/Shanghai  Mon 2026-11-30 02:00:00 +01:00  moved from 2026-11-28 by c",
            "left out by c",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!table(&shown, Tz::UTC).render(false).contains("HERE"));
    }

    #[test]
    fn an_expression_is_shown_before_it_is_saved() {
        let args = NextArgs { timezone: Some(Tz::Asia__Shanghai), ..args(Some(2), None) };
        let cron: CronExpr = "0 2 * * *".parse().expect("cron");
        let shown = of_expression(&cron, from(), &args);
        assert_eq!(shown.words, "at 02:00 every day");
        let slots: Vec<String> = shown.slots.iter().map(|(slot, _)| utc(*slot)).collect();
        assert_eq!(slots, ["2026-11-24T18:00:00Z", "2026-11-25T18:00:00Z"]);
    }
}
