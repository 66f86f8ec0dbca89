//! From text to items: white space, nicknames, the number of fields, and what is refused before any field is read.

use super::{
    error::{CronError, FieldFault},
    field::Field,
    item::Item,
};
use crate::suggest::nearest;

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// One field as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Its text starts with `*`, or is `?`. Vixie decides by the first character, so `*/2` is starred too.
    pub(super) starred: bool,
    pub(super) items: Vec<Item>,
}

/// Second to year, as seven fields are written; second and year have their defaults if they were left out.
pub(super) type Fields = [Written; 7];

/// Reads an expression. Whether it ever comes is another question.
pub(super) fn parse(text: &str) -> Result<Fields, CronError> {
    read(text).map_err(|error| five_were_meant(text.trim(), error))
}

fn read(text: &str) -> Result<Fields, CronError> {
    if text.len() > super::CronExpr::TEXT_BYTES_MAX {
        return Err(CronError::TooLong { bytes: text.len() });
    }
    let expression = text.trim();
    let mut words: Vec<&str> = expression.split_ascii_whitespace().collect();
    match words.first() {
        None => return Err(CronError::Empty),
        Some(first) if first.starts_with('@') => words = nickname(expression)?.split(' ').collect(),
        Some(first) => refuse_zone_prefix(expression, first)?,
    }
    let (second, rest) = match words.len() {
        5 => ("0", &words[..]),
        6 | 7 => (words[0], &words[1..]),
        found => return Err(field_count(expression, found)),
    };
    let [minute, hour, day_of_month, month, day_of_week, year @ ..] = rest else {
        return Err(field_count(expression, words.len()));
    };
    let year = year.first().copied().unwrap_or("*");
    let read = |field, text| read_field(expression, field, text);
    Ok([
        read(Field::Second, second)?,
        read(Field::Minute, minute)?,
        read(Field::Hour, hour)?,
        read(Field::DayOfMonth, day_of_month)?,
        read(Field::Month, month)?,
        read(Field::DayOfWeek, day_of_week)?,
        read(Field::Year, year)?,
    ])
}

/// A user, a command or a year after five fields: then all fields are one place off, and the first fault misleads.
fn five_were_meant(expression: &str, error: CronError) -> CronError {
    let words: Vec<&str> = expression.split_ascii_whitespace().collect();
    let CronError::Field { field, item, .. } = &error else { return error };
    let Some((five, rest)) = words.split_at_checked(5).filter(|(_, rest)| !rest.is_empty()) else {
        return error;
    };
    let five = five.join(" ");
    if read(&five).is_err() {
        return error;
    }
    let is_year = |word: &str| word != "*" && Item::parse(Field::Year, word).is_ok();
    let repair = match rest {
        [year] if is_year(year) => format!("0 {five} {year}"),
        _ => five,
    };
    let (field, item) = (*field, item.clone());
    CronError::MoreThanFive { expression: expression.to_owned(), found: words.len(), field, item, repair }
}

fn read_field(expression: &str, field: Field, text: &str) -> Result<Written, CronError> {
    let is_day = matches!(field, Field::DayOfMonth | Field::DayOfWeek);
    let text = if is_day && text == "?" { "*" } else { text };
    let read = |item: &str| {
        Item::parse(field, item).map_err(|fault| CronError::Field {
            expression: expression.to_owned(),
            field,
            // An empty item shows nothing; the list around it does.
            item: if fault == FieldFault::EmptyItem { text.to_owned() } else { item.to_owned() },
            fault: Box::new(fault),
        })
    };
    Ok(Written {
        starred: text.starts_with('*'),
        items: text.split(',').map(read).collect::<Result<_, _>>()?,
    })
}

fn nickname(expression: &str) -> Result<&'static str, CronError> {
    let lower = expression.to_ascii_lowercase();
    if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(fields);
    }
    let repair = if lower.starts_with("@every") {
        let interval = expression.split_ascii_whitespace().nth(1).unwrap_or("5m");
        format!("an interval has a field of its own; write `every: {interval}` instead of cron")
    } else if lower.starts_with("@reboot") {
        "a fleet has no moment of starting; write `every: 1h` for an interval or `at:` for one instant"
            .to_owned()
    } else {
        let known = NICKNAMES.map(|(name, _)| name);
        let hint = nearest(&lower, known).map_or_else(String::new, |name| format!("; did you mean {name}?"));
        format!("the words are {}{hint}", known.join(" "))
    };
    Err(CronError::Nickname { expression: expression.to_owned(), repair })
}

fn refuse_zone_prefix(expression: &str, first: &str) -> Result<(), CronError> {
    match first.split_once('=') {
        Some((name, zone)) if ["TZ", "CRON_TZ"].iter().any(|known| name.eq_ignore_ascii_case(known)) => {
            Err(CronError::ZonePrefix { expression: expression.to_owned(), zone: zone.to_owned() })
        }
        _ => Ok(()),
    }
}

fn field_count(expression: &str, found: usize) -> CronError {
    let hint = match found {
        1 => {
            let names = NICKNAMES.map(|(name, _)| name);
            let hint = |name| format!("; did you mean {name}?");
            let interval = expression.starts_with(|c: char| c.is_ascii_digit())
                && expression.ends_with(|c: char| c.is_ascii_alphabetic());
            if interval {
                format!("; for an interval write `every: {expression}` instead of cron")
            } else {
                nearest(&format!("@{expression}"), names).map_or_else(String::new, hint)
            }
        }
        2..=4 => "; * stands for every value of a field".to_owned(),
        _ => "; a cron line here holds no user, no command and no comment".to_owned(),
    };
    CronError::FieldCount { expression: expression.to_owned(), found, hint }
}
