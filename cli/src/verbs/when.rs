//! Instants and lengths of time for people.

use std::time::Duration;

use chrono::{SecondsFormat, SubsecRound};
use chrono_tz::Tz;
use shared::{Timestamp, human_duration::HumanDuration};

/// An instant in UTC, whole seconds: `2026-11-24T02:00:00Z`.
pub fn utc(at: Timestamp) -> String {
    at.trunc_subsecs(0).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An instant in UTC with its milliseconds: `2026-11-24T02:00:00.250Z`.
pub fn precise(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// An instant in a zone, with its weekday and offset: `Tue 2026-11-24 10:00:00 +08:00`.
pub fn in_zone(at: Timestamp, zone: Tz) -> String {
    at.with_timezone(&zone).format("%a %Y-%m-%d %H:%M:%S %:z").to_string()
}

/// How long ago, in its largest unit: `12s`, `3m`, `4h`, `2d`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = (now - at).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of milliseconds: `250ms`, `1s 500ms`.
pub fn milliseconds(ms: u64) -> String {
    HumanDuration(Duration::from_millis(ms)).to_string()
}

/// Reads an instant as people give it on the command line.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|at| at.to_utc())
        .map_err(|error| format!("{error}; write it as 2026-11-24T02:00:00Z or 2026-11-24T10:00:00+08:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_in_any_zone_and_written_in_utc() {
        let at = parse_instant("2026-11-24T10:00:00.750+08:00").expect("instant");
        assert_eq!(utc(at), "2026-11-24T02:00:00Z");
        assert_eq!(in_zone(at, chrono_tz::Asia::Shanghai), "Tue 2026-11-24 10:00:00 +08:00");
        assert!(parse_instant("tomorrow").expect_err("no").contains("write it as"));
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = parse_instant("2026-11-24T00:00:00Z").expect("instant");
        for (seconds, text) in
            [(-5, "0s"), (59, "59s"), (60, "1m"), (3_600, "1h"), (90_000, "25h"), (172_800, "2d")]
        {
            assert_eq!(ago(now - chrono::TimeDelta::seconds(seconds), now), text);
        }
    }
}
