//! In English.

use super::{DayRule, Days, Part, Said, Told};
use crate::cron::never::MONTHS;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

pub(super) fn sentence(said: &Said) -> String {
    let times = said.times();
    let mut text = match &times {
        Some(times) => format!("at {}", join(times.iter().map(|time| clock(*time)).collect())),
        None => of_clock(said),
    };
    let days = days(&said.days());
    let is_daily = times.is_some() || matches!(said.hour, Part::Items(_));
    if let Some(days) = days {
        text += " ";
        text += &days;
    } else if is_daily {
        text += if times.is_some() { " every day" } else { ", every day" };
    }
    if said.month != Part::Every {
        text += " in ";
        text += &list(&said.month.items(), &|month| MONTHS[usize::from(month) - 1].to_owned());
    }
    if said.year != Part::Every {
        text += " in ";
        text += &numbered(&said.year, "the year", "the years", "year", &|year| year.to_string());
    }
    if said.spread {
        text += " (H and ~ are chosen by the schedule's name)";
    }
    text
}

/// `02:00`, `02:00:30`.
fn clock(time: u32) -> String {
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") }
}

/// From the least to the greatest: second of minute of hour; what goes without saying is left out.
fn of_clock(said: &Said) -> String {
    if said.on_the_hour() {
        return match said.hour {
            Part::Stride(hours) => format!("every {hours} hours on the hour"),
            _ => "every hour on the hour".to_owned(),
        };
    }
    let two_digits = |value: u16| format!("{value:02}");
    let plain = |value: u16| value.to_string();
    let mut pieces = Vec::new();
    if !said.on_the_minute() {
        pieces.push(match &said.second {
            Part::Every => "every second".to_owned(),
            Part::Stride(seconds) => format!("every {seconds} seconds"),
            seconds @ Part::Items(_) => numbered(seconds, "second", "seconds", "second", &plain),
        });
    }
    match &said.minute {
        Part::Every if matches!(said.second, Part::Every | Part::Stride(_)) => {}
        Part::Every => pieces.push("every minute".to_owned()),
        Part::Stride(minutes) if pieces.is_empty() => pieces.push(format!("every {minutes} minutes")),
        Part::Stride(minutes) => pieces.push(format!("every {} minute", ordinal(*minutes))),
        minutes @ Part::Items(_) => pieces.push(numbered(minutes, "minute", "minutes", "minute", &plain)),
    }
    match &said.hour {
        Part::Every if matches!(said.minute, Part::Items(_)) => pieces.push("every hour".to_owned()),
        Part::Every => {}
        Part::Stride(hours) => pieces.push(format!("every {} hour", ordinal(*hours))),
        hours @ Part::Items(_) => pieces.push(numbered(hours, "the hour", "the hours", "hour", &two_digits)),
    }
    let text = pieces.join(" of ");
    if text.starts_with("every") { text } else { format!("at {text}") }
}

fn days(days: &Days<'_>) -> Option<String> {
    match days {
        Days::Every => None,
        Days::Month(month) => Some(format!("on {}", of_month(month))),
        Days::Week(week) => Some(format!("on {}", of_week(week))),
        Days::Both(month, week) => Some(format!("on {}, if that is {}", of_month(month), of_week(week))),
        Days::Either(month, week) => Some(format!("on {}, and also on {}", of_month(month), of_week(week))),
    }
}

fn of_month(part: &Part) -> String {
    if *part == Part::Every {
        return "every day of the month".to_owned();
    }
    let (rules, plain): (Vec<Told>, Vec<Told>) =
        part.items().into_iter().partition(|item| matches!(item, Told::Rule(_)));
    let mut groups = Vec::new();
    if !plain.is_empty() {
        let plain = Part::Items(plain.into_iter().collect());
        groups.push(numbered(&plain, "day", "days", "day", &|day| day.to_string()));
    }
    groups.extend(
        rules
            .iter()
            .filter_map(|item| if let Told::Rule(rule) = item { Some(rule_words(*rule)) } else { None }),
    );
    format!("{} of the month", join(groups))
}

fn of_week(part: &Part) -> String {
    if *part == Part::Every {
        return "every day of the week".to_owned();
    }
    list(&part.items(), &|day| WEEKDAYS[usize::from(day % 7)].to_owned())
}

fn rule_words(rule: DayRule) -> String {
    let weekday = |day: u16| WEEKDAYS[usize::from(day % 7)];
    match rule {
        DayRule::FromLast(0) => "the last day".to_owned(),
        DayRule::FromLast(1) => "the day before the last".to_owned(),
        DayRule::FromLast(before) => format!("the {} day before the last", ordinal(before)),
        DayRule::LastWorkday => "the last workday".to_owned(),
        DayRule::NearestWorkday(day) => format!("the workday nearest to day {day}"),
        DayRule::Nth(day, nth) => format!("the {} {} of the month", ordinal(nth), weekday(day)),
        DayRule::LastOf(day) => format!("the last {} of the month", weekday(day)),
    }
}

/// Items by their names: `Monday to Friday and the last Sunday of the month`.
fn list(items: &[Told], name: &dyn Fn(u16) -> String) -> String {
    join(items.iter().map(|item| one(*item, "", name)).collect())
}

fn one(item: Told, unit: &str, name: &dyn Fn(u16) -> String) -> String {
    match item {
        Told::One(value) => name(value),
        Told::Range(from, to) => format!("{} to {}", name(from), name(to)),
        Told::Steps(from, step, to) => {
            let to = to.map_or_else(String::new, |to| format!(" to {}", name(to)));
            format!("every {} {unit} from {}{to}", ordinal(step), name(from))
        }
        Told::Rule(rule) => rule_words(rule),
    }
}

/// Items by number: `minute 15`, `minutes 0 to 10 and 30`, `every 7th minute from 0`.
fn numbered(part: &Part, singular: &str, plural: &str, unit: &str, name: &dyn Fn(u16) -> String) -> String {
    if let Part::Stride(step) = part {
        return format!("every {} {unit}", ordinal(*step));
    }
    let is_step = |item: &Told| matches!(item, Told::Steps(..));
    let (steps, plain): (Vec<Told>, Vec<Told>) = part.items().into_iter().partition(is_step);
    let label = if matches!(plain[..], [Told::One(_)]) { singular } else { plural };
    let mut groups: Vec<String> = Vec::new();
    if !plain.is_empty() {
        groups.push(format!("{label} {}", list(&plain, name)));
    }
    groups.extend(steps.into_iter().map(|item| one(item, unit, name)));
    groups.join(" and ")
}

/// `a`, `a and b`, `a, b and c`.
fn join(mut items: Vec<String>) -> String {
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

/// `1st`, `2nd`, `11th`.
fn ordinal(number: u16) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
