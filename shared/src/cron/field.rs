//! The seven fields: their names, their ranges, and the values people write in them.

use std::fmt;

use super::error::FieldFault;
use crate::suggest::nearest;

/// One of the seven fields of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59; only with six or seven fields.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31, and `L`, `L-n`, `LW`, `nW`.
    DayOfMonth,
    /// 1 to 12 or `JAN` to `DEC`.
    Month,
    /// 0 to 7 or `SUN` to `SAT`, and `d#n`, `dL`; Sunday is 0 and 7.
    DayOfWeek,
    /// 1970 to 2100; only with seven fields.
    Year,
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// From Sunday, as Unix numbers them.
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    /// The least and the greatest value one may write.
    pub(super) fn bounds(self) -> (u16, u16) {
        match self {
            Field::Second | Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 7),
            // What the engine can count.
            Field::Year => (1970, 2100),
        }
    }

    /// What `H` and an open `~` choose from: every month has a 28th, and Sunday must not be twice as likely.
    pub(super) fn spread_bounds(self) -> (u16, u16) {
        match self {
            Field::DayOfMonth => (1, 28),
            Field::DayOfWeek => (0, 6),
            _ => self.bounds(),
        }
    }

    /// The values there are, in order: Sunday once.
    pub(super) fn all_values(self) -> std::ops::RangeInclusive<u16> {
        let (min, max) = self.bounds();
        if self == Field::DayOfWeek { 0..=6 } else { min..=max }
    }

    /// The unit in which `every:` would say a step of this field.
    pub(super) fn unit(self) -> Option<&'static str> {
        match self {
            Field::Second => Some("s"),
            Field::Minute => Some("m"),
            Field::Hour => Some("h"),
            Field::DayOfMonth => Some("d"),
            Field::Month | Field::DayOfWeek | Field::Year => None,
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Field::Month => &MONTHS,
            Field::DayOfWeek => &WEEKDAYS,
            _ => &[],
        }
    }

    /// A number or a name, within bounds.
    pub(super) fn value(self, text: &str) -> Result<u16, FieldFault> {
        let (min, max) = self.bounds();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // Digits that do not even fit the type are out of range too.
            let value = text.parse().ok();
            return value.filter(|value| (min..=max).contains(value)).ok_or_else(|| FieldFault::OutOfRange {
                value: text.to_owned(),
                min,
                max,
                names: self.names_hint(),
                hint: self.slip(value),
            });
        }
        let upper = text.to_ascii_uppercase();
        match self.names().iter().position(|name| *name == upper) {
            Some(index) => Ok(index as u16 + u16::from(self == Field::Month)),
            None => Err(self.stranger(text)),
        }
    }

    /// A value as the writer of `like` would write it: by name if there are letters in it.
    pub(super) fn written(self, value: u16, like: &str) -> String {
        let index = usize::from(value) - usize::from(self == Field::Month);
        match self.names().get(index) {
            Some(name) if like.contains(|c: char| c.is_ascii_alphabetic()) => (*name).to_owned(),
            _ => value.to_string(),
        }
    }

    /// The name the engine understands without doubt; it counts weekdays from 1, Sunday.
    pub(super) fn weekday_name(day: u16) -> &'static str {
        WEEKDAYS[usize::from(day % 7)]
    }

    /// Why this text is no value of this field.
    pub(super) fn stranger(self, text: &str) -> FieldFault {
        let upper = text.to_ascii_uppercase();
        let whole_word = self.names().iter().find(|name| upper.starts_with(*name)).copied();
        let like = whole_word.or_else(|| nearest(text, self.names().iter().copied()));
        FieldFault::NotAValue {
            value: text.to_owned(),
            allowed: self.allowed(),
            hint: like.map_or_else(String::new, |name| format!("; did you mean {name}?")),
        }
    }

    fn names_hint(self) -> &'static str {
        match self {
            Field::Month => " (or JAN to DEC)",
            Field::DayOfWeek => " (or SUN to SAT; Sunday is 0 and 7)",
            _ => "",
        }
    }

    /// The slips everybody makes.
    fn slip(self, value: Option<u16>) -> &'static str {
        match (self, value) {
            (Field::Second, Some(60)) => "; for the full minute write 0",
            (Field::Minute, Some(60)) => "; for the full hour write 0",
            (Field::Hour, Some(24)) => "; for midnight write 0",
            (Field::DayOfMonth | Field::Month, Some(0)) => "; the first is 1",
            (Field::Year, Some(0..=99)) => "; write four digits",
            _ => "",
        }
    }

    fn allowed(self) -> String {
        let (min, max) = self.bounds();
        let more = match self {
            Field::DayOfMonth => ", a spread (H, a~b), or L, L-n, LW, nW",
            Field::DayOfWeek => ", a spread (H, a~b), or d#n, dL",
            Field::Year => "",
            _ => ", a spread (H, a~b)",
        };
        format!("{min} to {max}{names}, a range (a-b), a step (*/n){more}", names = self.names_hint())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Second => "second",
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day-of-month",
            Field::Month => "month",
            Field::DayOfWeek => "day-of-week",
            Field::Year => "year",
        })
    }
}
