//! One item of a field: a value, a range, a step, a spread, or a rule about days.

use std::collections::BTreeSet;

use super::{days::DayRule, error::FieldFault, field::Field};
use crate::hash::mixed_64;

/// What one item between two commas means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// `from`, `from + step`, … up to `to`.
    Steps { from: u16, to: u16, step: u16 },
    /// One value from `from` to `to`, chosen by a hash; with a step, the hash chooses where the steps begin.
    Spread { from: u16, to: u16, step: Option<u16> },
    /// Days that no set of numbers can name.
    Rule(DayRule),
}

impl Item {
    pub(super) fn parse(field: Field, text: &str) -> Result<Item, FieldFault> {
        if text.is_empty() {
            return Err(FieldFault::EmptyItem);
        }
        if let Some(rule) = DayRule::parse(field, text)? {
            return Ok(Item::Rule(rule));
        }
        let (base, step) = match text.split_once('/') {
            None => (text, None),
            Some((base, step)) => (base, Some(parse_step(step)?)),
        };
        if base.contains('?') {
            return Err(FieldFault::QuestionMark);
        }
        if let Some((from, to)) = spread_of(field, base)? {
            check_order(field, base, from, to, step)?;
            check_step(step, from, to, || format!("{base:?} for one value"))?;
            return Ok(Item::Spread { from, to, step });
        }
        let (min, max) = field.bounds();
        let (from, to) = match (base, base.split_once('-')) {
            ("*", _) => (min, max),
            (_, Some((from, to))) => range_of(field, base, from, to, step)?,
            ("", None) => return Err(field.stranger(text)),
            (single, None) => {
                let value = field.value(single)?;
                (value, if step.is_some() { max } else { value })
            }
        };
        check_step(step, from, to, || match (base, field.unit(), step) {
            ("*", Some(unit), Some(step)) => format!("\"{from}\", or `every: {step}{unit}` instead of cron"),
            _ => format!("{:?}", field.written(from, base)),
        })?;
        Ok(Item::Steps { from, to, step: step.unwrap_or(1) })
    }

    /// Adds the values this item means, chosen by `seed` if it is a spread. A rule adds none.
    pub(super) fn add_values(self, field: Field, index: usize, seed: &str, values: &mut BTreeSet<u16>) {
        let Item::Steps { from, to, step } = self.chosen(field, index, seed) else { return };
        let sunday_once = |value: u16| if field == Field::DayOfWeek { value % 7 } else { value };
        values.extend((from..=to).step_by(usize::from(step)).map(sunday_once));
    }

    /// The same item with its spread chosen by `seed`.
    pub(super) fn chosen(self, field: Field, index: usize, seed: &str) -> Item {
        let Item::Spread { from, to, step } = self else { return self };
        let hash = mixed_64(&[seed, &field.to_string(), &index.to_string()]);
        let width = u64::from(step.unwrap_or(to - from + 1));
        let chosen = from + (hash % width) as u16;
        Item::Steps { from: chosen, to: if step.is_some() { to } else { chosen }, step: step.unwrap_or(1) }
    }
}

fn parse_step(text: &str) -> Result<u16, FieldFault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than the type holds are beyond every range, and said to be so.
    let step = if digits { text.parse().unwrap_or(u16::MAX) } else { 0 };
    if step == 0 { Err(FieldFault::Step { step: text.to_owned() }) } else { Ok(step) }
}

/// A step must reach a second value: `*/90` in the minutes would mean "once an hour", which nobody means by it.
fn check_step(step: Option<u16>, from: u16, to: u16, repair: impl Fn() -> String) -> Result<(), FieldFault> {
    match step {
        Some(step) if step > 1 && step > to - from => {
            Err(FieldFault::StepBeyondRange { max: (to - from).max(1), repair: repair() })
        }
        _ => Ok(()),
    }
}

/// `H`, `H(a-b)`, and `a~b` with either end left open.
fn spread_of(field: Field, base: &str) -> Result<Option<(u16, u16)>, FieldFault> {
    const YEARS: &str = "a spread over years would come once; write the years";
    let (min, max) = field.spread_bounds();
    let upper = base.to_ascii_uppercase();
    let ends = if upper == "H" {
        (min, max)
    } else if let Some(inner) = upper.strip_prefix("H(").and_then(|rest| rest.strip_suffix(')')) {
        let (from, to) = inner.split_once('-').ok_or_else(|| field.stranger(base))?;
        (field.value(from)?, field.value(to)?)
    } else if let Some((from, to)) = upper.split_once('~') {
        let end = |text: &str, open: u16| if text.is_empty() { Ok(open) } else { field.value(text) };
        (end(from, min)?, end(to, max)?)
    } else {
        return Ok(None);
    };
    if field == Field::Year { Err(FieldFault::Special { rule: YEARS }) } else { Ok(Some(ends)) }
}

fn range_of(
    field: Field,
    base: &str,
    from_text: &str,
    to_text: &str,
    step: Option<u16>,
) -> Result<(u16, u16), FieldFault> {
    if from_text.is_empty() || to_text.is_empty() || to_text.contains('-') {
        return Err(field.stranger(base));
    }
    let (from, mut to) = (field.value(from_text)?, field.value(to_text)?);
    // SAT-SUN: a week may end with Sunday. 6-0 in figures is more often a slip, and 6-7 says it.
    if field == Field::DayOfWeek && from > 0 && to_text.eq_ignore_ascii_case("SUN") {
        to = 7;
    }
    check_order(field, base, from, to, step)?;
    Ok((from, to))
}

/// Other dialects read 22-2 as nothing, as an error, or around midnight: so it must be written out.
fn check_order(field: Field, base: &str, from: u16, to: u16, step: Option<u16>) -> Result<(), FieldFault> {
    if from <= to {
        return Ok(());
    }
    let values = field.all_values();
    let (min, max) = (*values.start(), *values.end());
    let written = |value: u16| field.written(value, base);
    let run = |from: u16, to: u16| {
        if from == to { written(from) } else { format!("{}-{}", written(from), written(to)) }
    };
    let repair = match step {
        _ if base.contains('~') => format!("{}~{}", written(to), written(from)),
        _ if base.contains('(') => format!("H({to}-{from})"),
        _ if field == Field::Year => run(to, from),
        _ if from > max => run(min, to),
        None if field == Field::DayOfWeek && to == 0 && from == max => "6-7".to_owned(),
        None if field == Field::DayOfWeek && to == 0 => format!("{}-7", written(from)),
        None => format!("{},{}", run(from, max), run(min, to)),
        Some(step) => {
            let circle = (from..=max).chain(min..=to).step_by(usize::from(step));
            circle.map(written).collect::<Vec<_>>().join(",")
        }
    };
    Err(FieldFault::Backwards { repair })
}
