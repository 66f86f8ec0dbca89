//! An expression in plain words, so that its author sees what was understood before it is saved.
//!
//! The words are made from the items as they were written, with spreads (`H`, `~`) as the schedule's name chose them.
//! Expressions that mean other sets of times get other words; a test goes through random ones. What words leave out is
//! how clocks that are set are followed: that is the policy's.

use std::collections::BTreeSet;

use super::{
    CronExpr,
    days::DayRule,
    field::Field,
    item::Item,
    parse::{Fields, Written, parse},
};
use crate::words::Language;

mod chinese;
mod english;
#[cfg(test)]
mod tests;

/// Times of day that are listed one by one, at most.
const TIMES_MAX: usize = 6;
/// Values of a step that are listed one by one, at most.
const LISTED_MAX: usize = 4;

/// What one field says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Every value.
    Every,
    /// Every n-th, all round the clock.
    Stride(u16),
    /// Some.
    Items(BTreeSet<Told>),
}

/// One item of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// One value.
    One(u16),
    /// From, to.
    Range(u16, u16),
    /// From the first, every n-th, up to the last; none: to the end.
    Steps(u16, u16, Option<u16>),
    /// A rule about days.
    Rule(DayRule),
}

impl Told {
    /// Where it stands in a list: rules come last.
    fn first(self) -> u16 {
        match self {
            Told::One(first) | Told::Range(first, _) | Told::Steps(first, ..) => first,
            Told::Rule(_) => u16::MAX,
        }
    }
}

/// A whole expression, ready to be said.
#[derive(Debug)]
struct Said {
    second: Part,
    minute: Part,
    hour: Part,
    day_of_month: Part,
    month: Part,
    day_of_week: Part,
    year: Part,
    /// A day needs to satisfy only one of the two day fields.
    either_day: bool,
    /// Some of it was chosen by the schedule's name.
    spread: bool,
}

impl CronExpr {
    /// What it means, in a sentence: `at 02:00 every day`.
    pub fn in_words(&self, language: Language) -> String {
        // What was parsed once is parsed again the same.
        let Ok(fields) = parse(self.as_str()) else { return self.as_str().to_owned() };
        let said = Said::new(&fields, self.0.seed.as_deref());
        match language {
            Language::English => english::sentence(&said),
            Language::Chinese => chinese::sentence(&said),
        }
    }
}

impl Said {
    fn new(fields: &Fields, seed: Option<&str>) -> Said {
        let [second, minute, hour, day_of_month, month, day_of_week, year] = fields;
        let part = |field: Field, written: &Written| Part::new(field, written, seed.unwrap_or_default());
        Said {
            second: part(Field::Second, second),
            minute: part(Field::Minute, minute),
            hour: part(Field::Hour, hour),
            day_of_month: part(Field::DayOfMonth, day_of_month),
            month: part(Field::Month, month),
            day_of_week: part(Field::DayOfWeek, day_of_week),
            year: part(Field::Year, year),
            either_day: !day_of_month.starred && !day_of_week.starred,
            spread: seed.is_some(),
        }
    }

    /// The times of day, if there are so few that they can be listed: seconds since midnight.
    fn times(&self) -> Option<Vec<u32>> {
        let [seconds, minutes, hours] = [&self.second, &self.minute, &self.hour].map(Part::values);
        let (seconds, minutes, hours) = (seconds?, minutes?, hours?);
        if seconds.len() * minutes.len() * hours.len() > TIMES_MAX {
            return None;
        }
        let mut times = Vec::new();
        for hour in &hours {
            for minute in &minutes {
                times.extend(
                    seconds
                        .iter()
                        .map(|second| u32::from(*hour) * 3600 + u32::from(*minute) * 60 + u32::from(*second)),
                );
            }
        }
        Some(times)
    }

    /// On the minute, as most expressions are.
    fn on_the_minute(&self) -> bool {
        self.second.is_only(0)
    }

    /// On the hour, of every hour or of every n-th.
    fn on_the_hour(&self) -> bool {
        self.on_the_minute() && self.minute.is_only(0) && !matches!(self.hour, Part::Items(_))
    }

    /// The two day fields, and how they are joined. A field that lets every day pass is left out where that changes
    /// nothing.
    fn days(&self) -> Days<'_> {
        match (&self.day_of_month, &self.day_of_week) {
            (Part::Every, Part::Every) => Days::Every,
            (month, week) if self.either_day => Days::Either(month, week),
            (Part::Every, week) => Days::Week(week),
            (month, Part::Every) => Days::Month(month),
            (month, week) => Days::Both(month, week),
        }
    }
}

/// Which days.
#[derive(Debug)]
enum Days<'a> {
    Every,
    Month(&'a Part),
    Week(&'a Part),
    Both(&'a Part, &'a Part),
    Either(&'a Part, &'a Part),
}

impl Part {
    fn new(field: Field, written: &Written, seed: &str) -> Part {
        let mut told = BTreeSet::new();
        let mut covered = BTreeSet::new();
        for (index, item) in written.items.iter().enumerate() {
            item.add_values(field, index, seed, &mut covered);
            match item.chosen(field, index, seed) {
                Item::Steps { from, to, step } => {
                    if let Some(stride) = stride(field, from, to, step).filter(|_| written.items.len() == 1) {
                        return Part::Stride(stride);
                    }
                    told.extend(steps(field, from, to, step));
                }
                Item::Rule(rule) => {
                    told.insert(Told::Rule(rule));
                }
                // It has been chosen.
                Item::Spread { .. } => {}
            }
        }
        if field.all_values().all(|value| covered.contains(&value)) { Part::Every } else { Part::Items(told) }
    }

    /// Its values, if it has nothing but single ones.
    fn values(&self) -> Option<Vec<u16>> {
        let Part::Items(items) = self else { return None };
        items.iter().map(|item| if let Told::One(value) = item { Some(*value) } else { None }).collect()
    }

    fn is_only(&self, value: u16) -> bool {
        self.values().is_some_and(|values| values == [value])
    }

    fn items(&self) -> Vec<Told> {
        match self {
            Part::Items(items) => {
                let mut items: Vec<Told> = items.iter().copied().collect();
                items.sort_by_key(|item| item.first());
                items
            }
            Part::Every | Part::Stride(_) => Vec::new(),
        }
    }
}

/// Steps that go round the clock evenly: every 15 minutes, but not every 7.
fn stride(field: Field, from: u16, to: u16, step: u16) -> Option<u16> {
    let round = match field {
        Field::Second | Field::Minute => 60,
        Field::Hour => 24,
        _ => return None,
    };
    let all_round = from == 0 && to + step >= round;
    (step > 1 && round % step == 0 && all_round).then_some(step)
}

fn steps(field: Field, from: u16, to: u16, step: u16) -> Vec<Told> {
    let (_, max) = field.bounds();
    let listed: Vec<u16> = (from..=to).step_by(usize::from(step)).collect();
    // Nobody counts every second weekday.
    let is_named = matches!(field, Field::Month | Field::DayOfWeek);
    let sunday_once = |value: u16| if field == Field::DayOfWeek { value % 7 } else { value };
    match step {
        _ if from == to => vec![Told::One(sunday_once(from))],
        1 => vec![Told::Range(sunday_once(from), to)],
        _ if is_named || listed.len() <= LISTED_MAX => {
            listed.into_iter().map(|value| Told::One(sunday_once(value))).collect()
        }
        _ => {
            let last = from + (to - from) / step * step;
            vec![Told::Steps(from, step, Some(last).filter(|last| last + step <= max))]
        }
    }
}
