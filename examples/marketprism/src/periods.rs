//! The words for times in the origin's parameters: `7_days_ago`, `last_30_minutes`, `last_month`.
//!
//! Days and months are those of [`ZONE`]: the monthly report starts on the 1st at 00:00 there, when UTC is still in
//! the month that just ended, and its "last month" would be the one before.

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Where the business is; the schedules have the same zone.
pub(crate) const ZONE: Tz = Tz::Asia__Shanghai;

/// `7_days_ago`, an RFC 3339 instant, or a date, which means its first moment in [`ZONE`].
pub(crate) fn instant(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if let Some(ago) = text.strip_suffix("_ago") {
        return now.checked_sub_signed(span(ago)?);
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.to_utc());
    }
    midnight(text.parse().ok()?)
}

/// The length of `last_30_minutes`, `last_24_hours`, `last_7_days`.
pub(crate) fn last(text: &str) -> Option<TimeDelta> {
    span(text.strip_prefix("last_")?)
}

/// `30_minutes`, `1_hour`, …
fn span(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_once('_')?;
    let number: u32 = number.parse().ok().filter(|number| *number > 0)?;
    let seconds = match unit {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        "week" | "weeks" => 604_800,
        _ => return None,
    };
    TimeDelta::try_seconds(i64::from(number) * seconds)
}

/// A month: `name` is `2026-06`, `from` belongs to it, `to` no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Month {
    pub(crate) name: String,
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
}

/// `last_month`, `this_month` or `2026-06`.
pub(crate) fn month(text: &str, now: DateTime<Utc>) -> Option<Month> {
    let today = now.with_timezone(&ZONE).date_naive();
    let first = match text {
        "this_month" => today.with_day(1)?,
        "last_month" => today.with_day(1)?.checked_sub_months(Months::new(1))?,
        _ if text.len() == 7 => NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok()?,
        _ => return None,
    };
    let to = midnight(first.checked_add_months(Months::new(1))?)?;
    Some(Month { name: first.format("%Y-%m").to_string(), from: midnight(first)?, to })
}

fn midnight(date: NaiveDate) -> Option<DateTime<Utc>> {
    let moment = date.and_hms_opt(0, 0, 0)?;
    Some(ZONE.from_local_datetime(&moment).earliest()?.to_utc())
}

/// RFC 3339 in UTC, to the second: how every answer writes an instant.
pub(crate) fn written(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The same for the milliseconds that the databases keep.
pub(crate) fn written_ms(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(|| ms.to_string(), written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn last_month_is_the_month_that_ended_in_shanghai_although_utc_is_still_in_it() {
        let month = month("last_month", at("2026-06-30T16:00:00Z")).unwrap();
        assert_eq!((month.name.as_str(), month.from), ("2026-06", at("2026-05-31T16:00:00Z")));
        assert_eq!(month.to, at("2026-06-30T16:00:00Z"));
    }

    #[test]
    fn times_are_read_from_the_words_of_the_origin_and_from_dates() {
        let now = at("2026-07-01T00:00:00Z");
        assert_eq!(instant("7_days_ago", now), Some(at("2026-06-24T00:00:00Z")));
        assert_eq!(instant("2026-06-24", now), Some(at("2026-06-23T16:00:00Z")));
        assert_eq!(instant("2026-06-24T01:00:00+01:00", now), Some(at("2026-06-24T00:00:00Z")));
        assert_eq!(last("last_30_minutes"), Some(TimeDelta::minutes(30)));
        for wrong in
            ["", "ago", "_days_ago", "0_days_ago", "-1_days_ago", "7_moons_ago", "4294967295_weeks_ago"]
        {
            assert_eq!(instant(wrong, now), None, "{wrong:?}");
        }
        assert_eq!(month("2026-13", now), None);
    }
}
