//! Zones: their names, and the moments at which their clocks are set.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::error::ZoneError;
use crate::suggest::nearest;

pub(crate) const DAY_S: i64 = 86_400;

/// A zone by its IANA name, upper or lower case as the database has it.
pub fn parse_zone(text: &str) -> Result<Tz, ZoneError> {
    text.parse().map_err(|_| ZoneError { zone: text.to_owned(), hint: hint(text) })
}

/// What people write for a zone that is none, and the zone they mean.
const MEANT: [(&str, &str); 12] = [
    ("z", "UTC"),
    ("beijing", "Asia/Shanghai"),
    ("china", "Asia/Shanghai"),
    ("jst", "Asia/Tokyo"),
    ("ist", "Asia/Kolkata"),
    ("bst", "Europe/London"),
    ("cest", "Europe/Berlin"),
    ("edt", "America/New_York"),
    ("cdt", "America/Chicago"),
    ("mdt", "America/Denver"),
    ("pst", "America/Los_Angeles"),
    ("pdt", "America/Los_Angeles"),
];

fn hint(text: &str) -> String {
    let word = text.trim().to_ascii_lowercase();
    let city = word.rsplit('/').next().unwrap_or(&word);
    let digits = ["utc", "gmt"].iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(&word);
    if digits.starts_with(['+', '-']) {
        return "; an offset is no zone, it knows no change of clocks: write a city, as in Asia/Shanghai, or Etc/GMT-8 for UTC+8 \
                (its sign is the other way round)"
            .to_owned();
    }
    let meant = MEANT.iter().find(|(written, _)| *written == city).map(|(_, zone)| *zone);
    // Abbreviations that resemble each other are hours apart: none is guessed by its letters.
    let is_abbreviation = word.len() <= 4 && !word.contains('/');
    let near = meant.or_else(|| nearest_zone(text, !is_abbreviation));
    near.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The version of the IANA database that this build carries, such as `2025b`.
pub fn tzdb_version() -> &'static str {
    chrono_tz::IANA_TZDB_VERSION
}

/// People know the city: `Paris` is nearer to `Europe/Paris` than its letters are.
fn nearest_zone(text: &str, by_letters: bool) -> Option<&'static str> {
    // A name is short; comparing a long text with six hundred names would only cost time.
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let spaced = text.trim().replace(' ', "_");
    let city_of = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let exact = names()
        .find(|name| name.eq_ignore_ascii_case(&spaced))
        .or_else(|| names().find(|name| city_of(name).eq_ignore_ascii_case(&spaced)));
    if !by_letters {
        return exact;
    }
    exact.or_else(|| nearest(&spaced, names())).or_else(|| {
        let city = nearest(&spaced, names().map(city_of))?;
        names().find(|name| city_of(name) == city)
    })
}

/// A moment at which the clocks of a zone are set to another offset. All in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shift {
    /// The first instant with the new offset, since 1970 UTC.
    pub(super) at: i64,
    /// How far clocks were ahead of UTC before.
    pub(super) before: i64,
    /// How far they are ahead from then on.
    pub(super) after: i64,
}

/// How many seconds the zone's clocks are ahead of UTC.
pub(super) fn offset_at(zone: Tz, utc_s: i64) -> i64 {
    let utc = DateTime::from_timestamp(utc_s, 0).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// The shifts in `(from_s, to_s]`, in order.
///
/// The library does not list them, so they are found by looking once a day and halving where the offset changed.
/// This is exact because no zone has two shifts within a day: since 1970 the nearest two are seven days apart
/// (checked for every zone of 2025b; the tests check it again for every version this is built with).
/// Only this direction of the library, UTC to local, is used: it has no ambiguity.
pub(super) fn shifts(zone: Tz, from_s: i64, to_s: i64) -> Vec<Shift> {
    let mut found = Vec::new();
    let (mut left_s, mut left_offset_s) = (from_s, offset_at(zone, from_s));
    while left_s < to_s {
        let right_s = (left_s + DAY_S).min(to_s);
        let right_offset_s = offset_at(zone, right_s);
        if right_offset_s != left_offset_s {
            let (mut old_s, mut new_s) = (left_s, right_s);
            while new_s - old_s > 1 {
                let middle_s = old_s + (new_s - old_s) / 2;
                if offset_at(zone, middle_s) == left_offset_s { old_s = middle_s } else { new_s = middle_s }
            }
            found.push(Shift { at: new_s, before: left_offset_s, after: right_offset_s });
        }
        (left_s, left_offset_s) = (right_s, right_offset_s);
    }
    found
}

/// The first and the last instant at which a zone's clocks show a civil second (both in seconds): the same instant but
/// in a fold. In a gap nobody's clock shows it; then both are the first instant after the gap.
pub(crate) fn instants_of(zone: Tz, civil_s: i64) -> (i64, i64) {
    let (first_s, last_s) = (civil_s - 2 * DAY_S, civil_s + 2 * DAY_S);
    let nearby = shifts(zone, first_s, last_s);
    let offsets = [offset_at(zone, first_s)].into_iter().chain(nearby.iter().map(|shift| shift.after));
    let from = [first_s].into_iter().chain(nearby.iter().map(|shift| shift.at));
    let to = nearby.iter().map(|shift| shift.at).chain([last_s]);
    let shown: Vec<i64> = from
        .zip(to)
        .zip(offsets)
        .filter_map(|((from_s, to_s), offset_s)| {
            Some(civil_s - offset_s).filter(|utc_s| (from_s..to_s).contains(utc_s))
        })
        .collect();
    if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
        return (*first, *last);
    }
    let jumped = |shift: &&Shift| (shift.at + shift.before..shift.at + shift.after).contains(&civil_s);
    let after_s = nearby.iter().find(jumped).map_or(civil_s, |shift| shift.at);
    (after_s, after_s)
}
