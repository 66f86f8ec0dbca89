//! What comes when: one readable table for everything that depends on a zone, and a few sentences beside it.

use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Timelike};

use super::*;
use crate::{
    Timestamp,
    clock::{Clock, SystemClock},
};

/// Zone, expression, what the policy has other than the default, `after`, and the slots that follow, one from another.
/// Columns are two spaces apart.
const SLOTS: &str = "
# --- The seven tasks of the origin, in UTC and where it runs. 2026-11-24 is a Tuesday.
UTC                   0 2 * * *            default    2026-11-24T00:00Z       2026-11-24T02:00Z 2026-11-25T02:00Z
UTC                   0 3 * * 0            default    2026-11-24T00:00Z       2026-11-29T03:00Z 2026-12-06T03:00Z
UTC                   0 8 * * *            default    2026-11-24T00:00Z       2026-11-24T08:00Z 2026-11-25T08:00Z
UTC                   0 1 * * 1            default    2026-11-24T00:00Z       2026-11-30T01:00Z 2026-12-07T01:00Z
UTC                   */30 * * * *         default    2026-11-24T00:00Z       2026-11-24T00:30Z 2026-11-24T01:00Z
UTC                   0 */6 * * *          default    2026-11-24T00:00Z       2026-11-24T06:00Z 2026-11-24T12:00Z
UTC                   0 0 1 * *            default    2026-11-24T00:00Z       2026-12-01T00:00Z 2027-01-01T00:00Z
Asia/Shanghai         0 2 * * *            default    2026-11-24T08:00+08     2026-11-25T02:00+08 2026-11-26T02:00+08
Asia/Shanghai         0 3 * * 0            default    2026-11-24T08:00+08     2026-11-29T03:00+08 2026-12-06T03:00+08
Asia/Shanghai         0 8 * * *            default    2026-11-24T08:00+08     2026-11-25T08:00+08 2026-11-26T08:00+08
Asia/Shanghai         0 1 * * 1            default    2026-11-24T08:00+08     2026-11-30T01:00+08 2026-12-07T01:00+08
Asia/Shanghai         */30 * * * *         default    2026-11-24T08:00+08     2026-11-24T08:30+08 2026-11-24T09:00+08
Asia/Shanghai         0 */6 * * *          default    2026-11-24T08:00+08     2026-11-24T12:00+08 2026-11-24T18:00+08
Asia/Shanghai         0 0 1 * *            default    2026-11-24T08:00+08     2026-12-01T00:00+08 2027-01-01T00:00+08

# --- A gap of an hour: New York, 2024-03-10, 02:00 becomes 03:00.
America/New_York      30 2 * * *           default    2024-03-09T12:00-05     2024-03-10T03:00-04 2024-03-11T02:30-04
America/New_York      30 2 * * *           skip       2024-03-09T12:00-05     2024-03-11T02:30-04
America/New_York      0,15,45 2 * * *      default    2024-03-09T12:00-05     2024-03-10T03:00-04 2024-03-11T02:00-04
America/New_York      0 2,3 * * *          default    2024-03-09T12:00-05     2024-03-10T03:00-04 2024-03-11T02:00-04
America/New_York      30 2,3 * * *         default    2024-03-10T00:00-05     2024-03-10T03:00-04 2024-03-10T03:30-04
America/New_York      0 0 2 * * *          default    2024-03-10T01:59:59-05  2024-03-10T03:00-04 2024-03-11T02:00-04
America/New_York      * * 2 * * *          run_after  2024-03-10T01:59:59-05  2024-03-10T03:00-04 2024-03-11T02:00-04
America/New_York      */30 * * * *         default    2024-03-10T01:00-05     2024-03-10T01:30-05 2024-03-10T03:00-04 2024-03-10T03:30-04
America/New_York      15,45 * * * *        default    2024-03-10T01:15-05     2024-03-10T01:45-05 2024-03-10T03:15-04
America/New_York      15,45 * * * *        run_after  2024-03-10T01:15-05     2024-03-10T01:45-05 2024-03-10T03:00-04 2024-03-10T03:15-04
America/New_York      30 2 * * *           default    2024-03-10T03:00-04     2024-03-11T02:30-04
America/New_York      30 2 10 3 *          skip       2023-03-10T12:00-05     2025-03-10T02:30-04

# --- A fold of an hour: New York, 2024-11-03, 02:00 becomes 01:00.
America/New_York      30 1 * * *           default    2024-11-02T12:00-04     2024-11-03T01:30-04 2024-11-04T01:30-05
America/New_York      30 1 * * *           last       2024-11-02T12:00-04     2024-11-03T01:30-05 2024-11-04T01:30-05
America/New_York      30 1 * * *           both       2024-11-02T12:00-04     2024-11-03T01:30-04 2024-11-03T01:30-05 2024-11-04T01:30-05
America/New_York      */30 * * * *         default    2024-11-03T01:00-04     2024-11-03T01:30-04 2024-11-03T01:00-05 2024-11-03T01:30-05 2024-11-03T02:00-05
America/New_York      */30 * * * *         first      2024-11-03T01:00-04     2024-11-03T01:30-04 2024-11-03T02:00-05
America/New_York      */30 * * * *         last       2024-11-03T00:30-04     2024-11-03T01:00-05 2024-11-03T01:30-05 2024-11-03T02:00-05
America/New_York      30 1 * * *           default    2024-11-03T01:10-05     2024-11-04T01:30-05
America/New_York      30 1 * * *           both       2024-11-03T01:10-05     2024-11-03T01:30-05 2024-11-04T01:30-05
America/New_York      30 1 * * *           last       2024-11-03T01:45-04     2024-11-03T01:30-05 2024-11-04T01:30-05
America/New_York      0 2 * * *            default    2024-11-02T12:00-04     2024-11-03T02:00-05
America/New_York      30 */1 * * *         default    2024-11-03T00:30-04     2024-11-03T01:30-04 2024-11-03T01:30-05 2024-11-03T02:30-05

# --- Half an hour: Lord Howe.
Australia/Lord_Howe   15 2 * * *           default    2024-10-05T12:00+10:30  2024-10-06T02:30+11 2024-10-07T02:15+11
Australia/Lord_Howe   45 1 * * *           both       2024-04-06T12:00+11     2024-04-07T01:45+11 2024-04-07T01:45+10:30 2024-04-08T01:45+10:30
Australia/Lord_Howe   45 1 * * *           default    2024-04-07T01:30+10:30  2024-04-08T01:45+10:30

# --- Two hours: Troll. Forty minutes: Kiritimati in 1979.
Antarctica/Troll      30 1,2 * * *         default    2024-03-30T12:00+00     2024-03-31T03:00+02 2024-04-01T01:30+02
Pacific/Kiritimati    10 0 * * *           default    1979-09-30T12:00-10:40  1979-10-01T00:40-10 1979-10-02T00:10-10

# --- Midnight is in the gap.
Africa/Cairo          0 0 * * *            default    2024-04-25T12:00+02     2024-04-26T01:00+03 2024-04-27T00:00+03
Africa/Cairo          0 0 * * *            skip       2024-04-25T12:00+02     2024-04-27T00:00+03
America/Santiago      0 0 * * 0            default    2024-09-07T12:00-04     2024-09-08T01:00-03 2024-09-15T00:00-03
Asia/Beirut           @daily               default    2024-03-30T12:00+02     2024-03-31T01:00+03 2024-04-01T00:00+03
America/Havana        0 0 * * *            default    2024-03-09T12:00-05     2024-03-10T01:00-04 2024-03-11T00:00-04
America/Asuncion      0 0 1 * *            default    2023-09-30T12:00-04     2023-10-01T01:00-03 2023-11-01T00:00-03

# --- Midnight is in the fold, or ends it.
America/Havana        0 0 * * *            default    2024-11-02T12:00-04     2024-11-03T00:00-04 2024-11-04T00:00-05
America/Havana        0 0 * * *            both       2024-11-02T12:00-04     2024-11-03T00:00-04 2024-11-03T00:00-05 2024-11-04T00:00-05
Africa/Cairo          30 23 * * *          default    2024-10-31T12:00+03     2024-10-31T23:30+03 2024-11-01T23:30+02
Africa/Cairo          30 23 31 * *         last       2024-10-31T12:00+03     2024-10-31T23:30+02 2024-12-31T23:30+02
Africa/Cairo          0 0 1 * *            default    2024-10-31T12:00+03     2024-11-01T00:00+02 2024-12-01T00:00+02

# --- The fold ends where the day began: the Azores show 00:00 to 01:00 twice, and skip it in spring.
Atlantic/Azores       30 0 * * *           default    2024-10-26T12:00+00     2024-10-27T00:30+00 2024-10-28T00:30-01
Atlantic/Azores       30 0 * * *           last       2024-10-26T12:00+00     2024-10-27T00:30-01 2024-10-28T00:30-01
Atlantic/Azores       0 0 * * *            both       2024-10-26T12:00+00     2024-10-27T00:00+00 2024-10-27T00:00-01 2024-10-28T00:00-01
Atlantic/Azores       0 0 * * *            default    2024-03-30T12:00-01     2024-03-31T01:00+00 2024-04-01T00:00+00
America/Santiago      0 0 * * 0            default    2024-04-06T12:00-03     2024-04-07T00:00-04
America/Santiago      30 23 * * 6          both       2024-04-06T12:00-03     2024-04-06T23:30-03 2024-04-06T23:30-04 2024-04-13T23:30-04
# --- St John's went back from 00:01 to 23:01 of the day before.
America/St_Johns      0 0 * * *            default    2010-11-06T12:00-02:30  2010-11-07T00:00-02:30 2010-11-08T00:00-03:30
America/St_Johns      30 23 * * SAT        both       2010-11-06T12:00-02:30  2010-11-06T23:30-02:30 2010-11-06T23:30-03:30

# --- A whole day is missing: Apia had no 2011-12-30, Kwajalein no 1993-08-21. Vostok went back seven hours.
Pacific/Apia          0 12 * * *           default    2011-12-29T13:00-10     2011-12-31T00:00+14 2011-12-31T12:00+14
Pacific/Apia          0 12 * * *           skip       2011-12-29T13:00-10     2011-12-31T12:00+14
Pacific/Apia          0 12 * * FRI         default    2011-12-29T13:00-10     2011-12-31T00:00+14 2012-01-06T12:00+14
Pacific/Apia          0 0 30 12 *          default    2011-12-01T00:00-10     2011-12-31T00:00+14 2012-12-30T00:00+14
Pacific/Apia          */30 * * * *         default    2011-12-29T23:00-10     2011-12-29T23:30-10 2011-12-31T00:00+14
Pacific/Kwajalein     0 12 * * *           default    1993-08-20T13:00-12     1993-08-22T00:00+12 1993-08-22T12:00+12
Antarctica/Vostok     0 20 * * *           both       1994-01-31T12:00+07     1994-01-31T20:00+07 1994-01-31T20:00+00 1994-02-01T20:00+00
Antarctica/Vostok     0 20 * * *           last       1994-01-31T12:00+07     1994-01-31T20:00+00 1994-02-01T20:00+00

# --- Seconds in the offset: Monrovia was 44 minutes 30 seconds behind until 1972-01-07.
Africa/Monrovia       0 0 * * *            default    1972-01-05T12:00Z       1972-01-06T00:44:30Z 1972-01-07T00:44:30Z 1972-01-08T00:00Z
Africa/Monrovia       30 0 * * *           default    1972-01-05T12:00Z       1972-01-06T01:14:30Z 1972-01-07T00:44:30Z 1972-01-08T00:30Z

# --- Days: OR when both are restricted, AND when one starts with a star.
UTC                   0 0 13 * FRI         default    2026-11-08T00:00Z       2026-11-13T00:00Z 2026-11-20T00:00Z 2026-11-27T00:00Z 2026-12-04T00:00Z 2026-12-11T00:00Z 2026-12-13T00:00Z
UTC                   0 0 */2 * MON        default    2026-11-01T00:00Z       2026-11-09T00:00Z 2026-11-23T00:00Z 2026-12-07T00:00Z
UTC                   0 0 13 * */5         default    2026-11-01T00:00Z       2026-11-13T00:00Z 2026-12-13T00:00Z
UTC                   0 0 1-7 * */7        default    2026-11-01T00:00Z       2026-12-06T00:00Z 2027-01-03T00:00Z
UTC                   0 0 ? * MON          default    2026-11-24T00:00Z       2026-11-30T00:00Z
UTC                   0 0 5,* * MON        default    2026-11-24T00:00Z       2026-11-25T00:00Z 2026-11-26T00:00Z
UTC                   0 0 * * SAT-SUN      default    2026-11-24T00:00Z       2026-11-28T00:00Z 2026-11-29T00:00Z 2026-12-05T00:00Z
UTC                   0 0 * * 6-7          default    2026-11-24T00:00Z       2026-11-28T00:00Z 2026-11-29T00:00Z
UTC                   0 0 * * FRI-7        default    2026-11-24T00:00Z       2026-11-27T00:00Z 2026-11-28T00:00Z 2026-11-29T00:00Z 2026-12-04T00:00Z
UTC                   0 0 * * 1/2          default    2026-11-24T00:00Z       2026-11-25T00:00Z 2026-11-27T00:00Z 2026-11-29T00:00Z 2026-11-30T00:00Z
UTC                   0 0 31 2 MON         default    2026-02-20T00:00Z       2026-02-23T00:00Z 2027-02-01T00:00Z

# --- L, W and #.
UTC                   0 18 L * *           default    2024-02-01T00:00Z       2024-02-29T18:00Z 2024-03-31T18:00Z 2024-04-30T18:00Z
UTC                   0 18 L-2 * *         default    2024-02-01T00:00Z       2024-02-27T18:00Z 2024-03-29T18:00Z
UTC                   0 18 LW * *          default    2024-03-01T00:00Z       2024-03-29T18:00Z 2024-04-30T18:00Z
UTC                   0 9 1W * *           default    2024-05-30T00:00Z       2024-06-03T09:00Z 2024-07-01T09:00Z
UTC                   0 9 15W * *          default    2024-06-01T00:00Z       2024-06-14T09:00Z 2024-07-15T09:00Z
UTC                   0 9 31W * *          default    2024-03-01T00:00Z       2024-03-29T09:00Z 2024-05-31T09:00Z
UTC                   0 9 1,15,L * *       default    2024-02-10T00:00Z       2024-02-15T09:00Z 2024-02-29T09:00Z 2024-03-01T09:00Z
UTC                   0 9 * * MON#2        default    2026-11-01T00:00Z       2026-11-09T09:00Z 2026-12-14T09:00Z
UTC                   0 9 * * 1#2          default    2026-11-01T00:00Z       2026-11-09T09:00Z
UTC                   0 9 * * 7#1          default    2026-11-02T00:00Z       2026-12-06T09:00Z
UTC                   0 9 * * MON#5        default    2026-11-01T00:00Z       2026-11-30T09:00Z 2027-03-29T09:00Z
UTC                   0 9 * * FRIL         default    2026-11-01T00:00Z       2026-11-27T09:00Z 2026-12-25T09:00Z
UTC                   0 9 * * 5L           default    2026-11-01T00:00Z       2026-11-27T09:00Z
UTC                   0 9 L * FRI#1        default    2026-11-01T00:00Z       2026-11-06T09:00Z 2026-11-30T09:00Z 2026-12-04T09:00Z
UTC                   */20 9 ? * FRIL      default    2026-11-27T09:10Z       2026-11-27T09:20Z 2026-11-27T09:40Z 2026-12-25T09:00Z

# --- Seconds, years, steps, rare days, and the ends of time.
UTC                   */20 * * * * *       default    2026-11-24T00:00:10.5Z  2026-11-24T00:00:20Z 2026-11-24T00:00:40Z 2026-11-24T00:01:00Z
UTC                   0 0 0 1 1 ? 2030     default    2026-11-24T00:00Z       2030-01-01T00:00Z never
UTC                   50/5 0 * * *         default    2026-11-24T00:00Z       2026-11-24T00:50Z 2026-11-24T00:55Z 2026-11-25T00:50Z
UTC                   10-30/10 0 * * *     default    2026-11-24T00:00Z       2026-11-24T00:10Z 2026-11-24T00:20Z 2026-11-24T00:30Z
UTC                   0 0 29 2 *           default    2096-03-01T00:00Z       never
UTC                   0 0 29 2 *           default    2024-03-01T00:00Z       2028-02-29T00:00Z 2032-02-29T00:00Z
UTC                   0 0 29 feb Mon#5     default    2043-03-01T00:00Z       2044-02-29T00:00Z 2048-02-29T00:00Z
UTC                   0 0 ? 2 MON#5        default    2026-03-01T00:00Z       2044-02-29T00:00Z 2072-02-29T00:00Z never
UTC                   * * * * *            default    2100-12-31T23:58Z       2100-12-31T23:59Z never
UTC                   0 0 1 1 *            default    1822-06-01T00:00Z       1970-01-01T00:00Z 1971-01-01T00:00Z
Pacific/Kiritimati    0 0 1 1 *            default    1822-06-01T00:00Z       1970-01-01T00:00-10:40
Asia/Tokyo            0 0 1 1 *            default    1822-06-01T00:00Z       1970-01-01T00:00+09
America/New_York      59 23 31 12 *        default    2100-12-31T22:00-05     2100-12-31T23:59-05 never
";

fn instant_of(text: &str) -> Timestamp {
    let formats = ["%Y-%m-%dT%H:%M%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"];
    let parsed = formats.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    parsed.unwrap_or_else(|| panic!("{text:?} is not an instant")).to_utc()
}

fn policy_of(text: &str) -> DstPolicy {
    match text {
        "default" => DstPolicy::default(),
        "skip" => DstPolicy { gap: Some(GapPolicy::Skip), fold: None },
        "run_after" => DstPolicy { gap: Some(GapPolicy::RunAfter), fold: None },
        "first" => DstPolicy { gap: None, fold: Some(FoldPolicy::First) },
        "last" => DstPolicy { gap: None, fold: Some(FoldPolicy::Last) },
        "both" => DstPolicy { gap: None, fold: Some(FoldPolicy::Both) },
        other => panic!("no policy is called {other:?}"),
    }
}

fn cron(text: &str) -> CronExpr {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_line_of_the_table_comes_as_written() {
    let mut checked = 0;
    for line in SLOTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> =
            line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
        let [zone, text, policy, after, expected] = columns[..] else { panic!("five columns: {line}") };
        let zone = parse_zone(zone).expect("zone");
        let mut after = instant_of(after);
        for slot in expected.split(' ') {
            let next = cron(text).next_after(after, zone, policy_of(policy));
            let local = next.map(|next| next.with_timezone(&zone).to_rfc3339());
            let expected = (slot != "never").then(|| instant_of(slot));
            assert_eq!(next, expected, "{line}\nafter {after}, in its zone it comes at {local:?}");
            after = expected.unwrap_or(after);
            checked += 1;
        }
    }
    assert!(checked > 200, "the table was not read: {checked}");
}

#[test]
fn the_ends_of_the_calendar_are_no_trap() {
    for zone in ["UTC", "Pacific/Apia", "America/New_York"].map(|zone| parse_zone(zone).expect("zone")) {
        let every_minute = cron("* * * * *");
        let first =
            every_minute.next_after(DateTime::<Utc>::MIN_UTC, zone, DstPolicy::default()).expect("first");
        assert_eq!(first.with_timezone(&zone).naive_local().to_string(), "1970-01-01 00:00:00");
        assert_eq!(every_minute.next_after(DateTime::<Utc>::MAX_UTC, zone, DstPolicy::default()), None);
    }
}

#[test]
fn nicknames_mean_their_fields_and_equal_them() {
    let pairs = [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "@daily"),
        ("@WEEKLY", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "@yearly"),
    ];
    for (nickname, fields) in pairs {
        assert_eq!(cron(nickname), cron(fields));
        assert_eq!(cron(nickname).to_string(), nickname, "it stays as it was written");
    }
}

#[test]
fn expressions_are_equal_if_they_mean_the_same_slots() {
    assert_eq!(cron("0 2 * * 0"), cron(" 00\t2 *  * 7 "));
    assert_eq!(cron("0 0 * jan-mar mon,tue"), cron("0 0 0 * 1,2,3 1-2 *"));
    assert_eq!(cron("0 0 * * 1#2"), cron("0 0 ? * Mon#2"));
    assert_ne!(cron("0 0 1 * *"), cron("0 0 1 * 1"));
    assert_ne!(cron("0 0 1 * 1"), cron("0 0 */30 * 1"), "joined by AND");
    assert_ne!(cron("* 2 * * *"), cron("0-59 2 * * *"), "one follows the wall clock, the other does not");
}

#[test]
fn an_expression_whose_minute_or_hour_starts_with_a_star_follows_the_wall_clock() {
    for (text, expected) in [
        ("* 2 * * *", true),
        ("*/5 2 * * *", true),
        ("0 * * * *", true),
        ("@hourly", true),
        ("0 2 * * *", false),
        ("@daily", false),
        ("* 30 2 * * *", false),
        ("0-59 0-23 * * *", false),
        ("H * * * *", true),
    ] {
        assert_eq!(cron(text).follows_wall_clock(), expected, "{text}");
    }
}

#[test]
fn a_spread_is_the_same_for_ever() {
    // If this fails, every schedule in the field that uses H moves: a breaking change.
    let slot = |text: &str, seed: &str| {
        let after = instant_of("2026-11-24T00:00Z");
        let next = cron(text).with_seed(seed).next_after(after, Tz::UTC, DstPolicy::default());
        next.expect("slot").format("%m-%dT%H:%M:%S").to_string()
    };
    let seeds = ["daily_data_archive", "weekly_cleanup"];
    let found =
        ["H H * * *", "H H(1-5) H * *", "H H H H H ?", "H/15 * * * *", "10~20 ~ * * *", "0 0 H(1-7)/3 * *"]
            .map(|text| format!("{text}: {}", seeds.map(|seed| slot(text, seed)).join(" ")));
    insta::assert_snapshot!(found.join("\n"), @r"
    H H * * *: 11-24T10:53:00 11-24T08:02:00
    H H(1-5) H * *: 11-25T03:53:00 12-22T05:02:00
    H H H H H ?: 06-25T10:53:18 01-22T08:02:21
    H/15 * * * *: 11-24T00:08:00 11-24T00:02:00
    10~20 ~ * * *: 11-24T10:11:00 11-24T08:13:00
    0 0 H(1-7)/3 * *: 12-02T00:00:00 12-01T00:00:00
    ");
}

#[test]
fn a_spread_stays_within_its_range_and_uses_all_of_it() {
    let mut minutes = std::collections::BTreeSet::new();
    for n in 0..1_000 {
        let name = format!("schedule_{n}");
        let after = instant_of("2026-11-01T00:00Z");
        let next = |text: &str| cron(text).with_seed(&name).next_after(after, Tz::UTC, DstPolicy::default());
        minutes.insert(next("H(10-19) 12 * * *").expect("slot").minute());
        let quarter = next("5~58/15 0 * * *").expect("slot").minute();
        assert!((5..20).contains(&quarter), "{quarter}");
    }
    assert_eq!(minutes, (10..20).collect());
}

#[test]
fn a_seed_changes_nothing_without_a_spread_and_never_leads_to_nothing() {
    assert_eq!(cron("0 2 * * *").with_seed("a"), cron("0 2 * * *"));
    let rare = cron("0 0 0 H(27-29) 2 * 2027");
    for n in 0..100 {
        let seeded = rare.clone().with_seed(&n.to_string());
        assert!(seeded.next_after(instant_of("2026-01-01T00:00Z"), Tz::UTC, DstPolicy::default()).is_some());
    }
}

#[test]
fn it_travels_as_the_text_it_was_written_as() {
    let written = r#""0  2 * * MON-fri""#;
    let read: CronExpr = serde_json::from_str(written).expect("valid");
    assert_eq!(serde_json::to_string(&read).expect("text"), written);
    let refused = serde_json::from_str::<CronExpr>(r#""0 2 31 2 *""#).expect_err("never").to_string();
    assert!(refused.contains("February has no 31st"), "{refused}");
    let schema = serde_json::to_value(schemars::schema_for!(CronExpr)).expect("schema");
    assert_eq!(schema["type"], "string");
}

#[test]
fn a_policy_refuses_words_it_does_not_know() {
    let policy: DstPolicy = serde_json::from_str(r#"{"gap":"run_after","fold":"last"}"#).expect("policy");
    assert_eq!(policy, DstPolicy { gap: Some(GapPolicy::RunAfter), fold: Some(FoldPolicy::Last) });
    assert_eq!(serde_json::from_str::<DstPolicy>("{}").expect("policy"), DstPolicy::default());
    assert_eq!(serde_json::to_string(&DstPolicy::default()).expect("text"), "{}");
    for wrong in [r#"{"gap":"after"}"#, r#"{"overlap":"first"}"#] {
        assert!(serde_json::from_str::<DstPolicy>(wrong).is_err(), "{wrong}");
    }
}

/// Design: less than a millisecond, even at worst. Run it optimised:
/// `cargo test --release -p cronfleet-shared --lib -- --ignored --nocapture what_reading`.
#[test]
#[ignore = "a measurement: it prints, and asserts nothing"]
fn what_reading_and_the_first_slot_cost() {
    let dense = format!("{0} {0} * * * *", ["0-58/2,59"; 10].join(","));
    let longest =
        format!("{} {} L,LW,1W,31W,L-3 * 1#1,2#2,3#3,4#4,5L", ["1,3"; 20].join(","), ["0,23"; 20].join(","));
    let texts = [
        "0 2 * * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 29 2 *",
        "0 0 30W 2 *",
        "0 0 */30 * SUN#2",
        "0 0 0 29 2 MON#5 2099",
        "0 0 ? 2 MON#5",
        "59 59 23 31 12 ? 2100",
        &dense,
        &longest,
    ];
    for text in texts {
        let once = || {
            let begun = SystemClock.elapsed();
            let read = text.parse::<CronExpr>();
            let after = instant_of("2026-11-24T00:00Z");
            let next =
                read.ok().map(|read| read.next_after(after, Tz::America__New_York, DstPolicy::default()));
            std::hint::black_box(next);
            SystemClock.elapsed().saturating_sub(begun)
        };
        // The best of many, for the machine may have other things to do.
        let best = (0..50).map(|_| once()).min().expect("fifty");
        println!("{best:>12?}  {} bytes  {text}", text.len());
    }
}

#[test]
fn no_zone_sets_its_clocks_twice_within_a_day() {
    // `shifts` looks once a day. Default: twenty zones over twenty years; with CRON_CASES: every zone from 1970 to 2100.
    let seed = RandomState::new().hash_one("zones");
    let everything = std::env::var_os("CRON_CASES").is_some();
    let (first_year, years, every) =
        if everything { (0, 131, 1) } else { (20 + (seed % 60).cast_signed(), 20, 30) };
    for zone in chrono_tz::TZ_VARIANTS.iter().skip((seed % every) as usize).step_by(every as usize) {
        let from_s = first_year * 365 * zone::DAY_S;
        let hours = (0..years * 365 * 24).map(|hour| from_s + hour * 3600);
        let mut previous: Option<i64> = None;
        let mut offset_s = zone::offset_at(*zone, from_s);
        for now_s in hours {
            let now_offset_s = zone::offset_at(*zone, now_s);
            if now_offset_s != offset_s {
                let apart = previous.map_or(i64::MAX, |previous| now_s - previous);
                assert!(apart > 2 * zone::DAY_S, "{zone} at {now_s} (seed {seed})");
                assert!((now_offset_s - offset_s).abs() <= zone::DAY_S, "{zone} at {now_s} (seed {seed})");
                (previous, offset_s) = (Some(now_s), now_offset_s);
            }
        }
    }
}
