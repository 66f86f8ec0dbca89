//! Zones, at moments that matter.

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;

pub(crate) fn offset_s(zone: Tz, utc_s: i64) -> i64 {
    let utc = DateTime::from_timestamp(utc_s, 0).expect("within the calendar").naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// The oddest changes of clocks since 1970: a day lost, seven hours, forty and thirty minutes, seconds, midnights.
const ODD: [(&str, &str); 12] = [
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("Pacific/Kwajalein", "1993-08-21T12:00:00Z"),
    ("Pacific/Kiritimati", "1979-10-01T10:40:00Z"),
    ("Pacific/Kiritimati", "1994-12-31T10:00:00Z"),
    ("Antarctica/Vostok", "1994-01-31T17:00:00Z"),
    ("Antarctica/Vostok", "1994-11-01T00:00:00Z"),
    ("Antarctica/Casey", "2020-10-03T16:01:00Z"),
    ("Antarctica/Troll", "2024-03-31T01:00:00Z"),
    ("Australia/Lord_Howe", "2024-10-05T15:30:00Z"),
    ("Australia/Lord_Howe", "2024-04-06T15:00:00Z"),
    ("America/Havana", "2024-11-03T05:00:00Z"),
    ("Africa/Cairo", "2024-04-25T22:00:00Z"),
];

/// A zone and a moment: mostly one at which its clocks are set.
pub(crate) fn moment() -> impl Strategy<Value = (Tz, i64)> {
    let odd = prop::sample::select(&ODD[..]).prop_map(|(zone, at)| {
        (zone.parse().expect("zone"), at.parse::<DateTime<Utc>>().expect("instant").timestamp())
    });
    let any = (prop::sample::select(&TZ_VARIANTS[..]), 1970_i64..2100, any::<prop::sample::Index>())
        .prop_map(|(zone, year, which)| {
            let noon = |day: i64| (year - 1970) * 31_556_952 + day * 86_400;
            let changes: Vec<i64> =
                (0..366).filter(|day| offset_s(zone, noon(*day)) != offset_s(zone, noon(day + 1))).collect();
            let days = if changes.is_empty() { (0..366).collect() } else { changes };
            let day = days[which.index(days.len())];
            let (mut old, mut new) = (noon(day), noon(day + 1));
            while new - old > 1 {
                let middle = i64::midpoint(old, new);
                if offset_s(zone, middle) == offset_s(zone, old) { old = middle } else { new = middle }
            }
            (zone, new)
        });
    prop_oneof![1 => odd, 3 => any]
}

/// The first seconds with another offset, of a zone, in these years: by looking once a day and halving.
pub(crate) fn changes(zone: Tz, years: std::ops::Range<i64>) -> Vec<i64> {
    let noon = |day: i64| day * 86_400 + 43_200;
    let days = (years.start - 1970) * 31_556_952 / 86_400..(years.end - 1970) * 31_556_952 / 86_400;
    let changed = days.filter(|day| offset_s(zone, noon(*day)) != offset_s(zone, noon(day + 1)));
    changed
        .map(|day| {
            let (mut old, mut new) = (noon(day), noon(day + 1));
            while new - old > 1 {
                let middle = i64::midpoint(old, new);
                if offset_s(zone, middle) == offset_s(zone, old) { old = middle } else { new = middle }
            }
            new
        })
        .collect()
}
