//! Expressions, each made together with what it means.

use std::collections::BTreeSet;

use chrono::{Datelike, Days, NaiveDate};
use proptest::prelude::*;
use shared::cron::{DstPolicy, FoldPolicy, GapPolicy};

/// One field: its text and the numbers in it. A rule about days is kept as the text says it.
#[derive(Debug, Clone)]
pub(crate) struct FieldMeaning {
    pub(crate) text: String,
    pub(crate) values: BTreeSet<u32>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    FromLast(u32),
    LastWorkday,
    NearestWorkday(u32),
    Nth(u32, u32),
    LastOf(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Expression {
    /// Second, minute, hour, day of month, month, day of week.
    pub(crate) fields: [FieldMeaning; 6],
    with_seconds: bool,
}

impl Expression {
    pub(crate) fn text(&self) -> String {
        let texts: Vec<&str> = self.fields.iter().map(|field| field.text.as_str()).collect();
        texts[usize::from(!self.with_seconds)..].join(" ")
    }

    pub(crate) fn starred(&self, index: usize) -> bool {
        self.fields[index].text.starts_with(['*', '?'])
    }

    pub(crate) fn allows_day(&self, date: NaiveDate) -> bool {
        let [_, _, _, day_of_month, month, day_of_week] = &self.fields;
        let weekday = date.weekday().num_days_from_sunday();
        let allows = |field: &FieldMeaning, value: u32| {
            field.values.contains(&value) || field.rules.iter().any(|rule| rule.allows(date))
        };
        let (by_month, by_week) = (allows(day_of_month, date.day()), allows(day_of_week, weekday));
        let day = if self.starred(3) || self.starred(5) { by_month && by_week } else { by_month || by_week };
        month.values.contains(&date.month()) && day
    }

    pub(crate) fn allows_time(&self, second_of_day: i64) -> bool {
        let parts = [second_of_day % 60, second_of_day / 60 % 60, second_of_day / 3600];
        parts.iter().zip(&self.fields).all(|(part, field)| field.values.contains(&(*part as u32)))
    }
}

impl Rule {
    /// As slowly and plainly as the words can be put.
    fn allows(self, date: NaiveDate) -> bool {
        let month: Vec<NaiveDate> =
            (1..=31).filter_map(|day| date.with_day(day)).filter(|day| day.month() == date.month()).collect();
        let is_workday = |day: &NaiveDate| day.weekday().number_from_monday() <= 5;
        let such = |weekday: u32| {
            month
                .iter()
                .filter(move |day| day.weekday().num_days_from_sunday() == weekday)
                .collect::<Vec<_>>()
        };
        match self {
            Rule::FromLast(before) => date + Days::new(u64::from(before)) == month[month.len() - 1],
            Rule::LastWorkday => month.iter().rfind(|day| is_workday(day)) == Some(&date),
            Rule::NearestWorkday(wanted) => month.get(wanted as usize - 1).is_some_and(|wanted| {
                let distance = |day: &&NaiveDate| (**day - *wanted).num_days().abs();
                month.iter().filter(|day| is_workday(day)).min_by_key(distance) == Some(&date)
            }),
            Rule::Nth(weekday, nth) => such(weekday).get(nth as usize - 1) == Some(&&date),
            Rule::LastOf(weekday) => such(weekday).last() == Some(&&date),
        }
    }
}

const BOUNDS: [(u32, u32); 6] = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
const MONTHS: [&str; 12] =
    ["jan", "FEB", "Mar", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 8] = ["SUN", "mon", "Tue", "WED", "THU", "FRI", "SAT", "7"];

/// Four random numbers become one item, so that shrinking them simplifies it.
fn item(index: usize, (kind, a, b, n): (u32, u32, u32, u32)) -> FieldMeaning {
    let (min, max) = BOUNDS[index];
    let within = |value: u32| min + value % (max - min + 1);
    // Clocks are mostly set in the small hours.
    let a = if index == 2 && n % 2 == 0 { a % 4 } else { within(a) };
    let b = within(b);
    let (low, high) = (a.min(b), a.max(b));
    let step_to = |from: u32, to: u32| 1 + n % (to - from).max(1);
    let written = |value: u32| match index {
        4 if n % 3 == 0 => MONTHS[value as usize - 1].to_owned(),
        5 if n % 3 == 0 => WEEKDAYS[value as usize].to_owned(),
        _ => value.to_string(),
    };
    let rule = |text: String, rule: Rule| FieldMeaning { text, values: BTreeSet::new(), rules: vec![rule] };
    let (text, from, to, step) = match kind {
        0..=3 => ("*".to_owned(), min, max, 1),
        4..=7 => (written(a), a, a, 1),
        8 | 9 => (
            format!("{}-{}", written(low), if high == 7 { "7".to_owned() } else { written(high) }),
            low,
            high,
            1,
        ),
        10 | 11 => (format!("*/{}", step_to(min, max)), min, max, step_to(min, max)),
        12 => (format!("{a}/{}", step_to(a, max)), a, max, step_to(a, max)),
        13 => (format!("{low}-{high}/{}", step_to(low, high)), low, high, step_to(low, high)),
        _ => {
            return match (index, n % 4) {
                (3, 0) if b % 3 > 0 => rule(format!("L-{}", b % 3), Rule::FromLast(b % 3)),
                (3, 0) => rule("L".to_owned(), Rule::FromLast(0)),
                (3, 1) => rule("LW".to_owned(), Rule::LastWorkday),
                (3, _) => rule(format!("{a}W"), Rule::NearestWorkday(a)),
                (5, 0 | 1) => rule(format!("{}L", written(a)), Rule::LastOf(a % 7)),
                (5, _) => rule(format!("{}#{}", written(a), 1 + b % 5), Rule::Nth(a % 7, 1 + b % 5)),
                _ => item(index, (0, a, b, n)),
            };
        }
    };
    let values = (from..=to).step_by(step as usize).map(|value| if index == 5 { value % 7 } else { value });
    FieldMeaning { text, values: values.collect(), rules: vec![] }
}

fn field(index: usize) -> impl Strategy<Value = FieldMeaning> {
    let numbers = (0_u32..16, 0_u32..60, 0_u32..60, 0_u32..120);
    prop_oneof![3 => prop::collection::vec(numbers.clone(), 1), 1 => prop::collection::vec(numbers, 1..4)]
        .prop_map(move |numbers| {
            let items: Vec<FieldMeaning> = numbers.into_iter().map(|numbers| item(index, numbers)).collect();
            FieldMeaning {
                text: items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join(","),
                values: items.iter().flat_map(|item| item.values.iter().copied()).collect(),
                rules: items.iter().flat_map(|item| item.rules.iter().copied()).collect(),
            }
        })
}

pub(crate) fn expression(with_seconds: bool) -> impl Strategy<Value = Expression> {
    // In a few days a month that is named mostly means nothing at all: often leave it open.
    let month = prop_oneof![3 => Just(item(4, (0, 0, 0, 0))), 1 => field(4)];
    let second = if with_seconds { field(0).boxed() } else { Just(item(0, (4, 0, 0, 1))).boxed() };
    (second, field(1), field(2), field(3), month, field(5)).prop_map(
        move |(second, minute, hour, day_of_month, month, day_of_week)| Expression {
            fields: [second, minute, hour, day_of_month, month, day_of_week],
            with_seconds,
        },
    )
}

pub(crate) fn policy() -> impl Strategy<Value = DstPolicy> {
    let gap = prop::sample::select(vec![None, Some(GapPolicy::RunAfter), Some(GapPolicy::Skip)]);
    let fold = prop::sample::select(vec![
        None,
        Some(FoldPolicy::First),
        Some(FoldPolicy::Last),
        Some(FoldPolicy::Both),
    ]);
    (gap, fold).prop_map(|(gap, fold)| DstPolicy { gap, fold })
}
