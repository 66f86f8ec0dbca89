//! What is refused, and in which words: the value, the rule, the repair.

use super::*;

/// An expression, and below it what is said of it: `…` stands for the expression itself.
const REFUSED: &str = r##"
0 2 * *
    … has 4 fields; write 5 (minute hour day-of-month month day-of-week), 6 (second first) or 7 (second first, year last); * stands for every value of a field
* * * * * * * *
    … has 8 fields; write 5 (minute hour day-of-month month day-of-week), 6 (second first) or 7 (second first, year last); a cron line here holds no user, no command and no comment
daily
    … has 1 field; write 5 (minute hour day-of-month month day-of-week), 6 (second first) or 7 (second first, year last); did you mean @daily?
5m
    … has 1 field; write 5 (minute hour day-of-month month day-of-week), 6 (second first) or 7 (second first, year last); for an interval write `every: 5m` instead of cron
0 2 * * * root /usr/bin/backup --all
    … has 8 fields; write 5 (minute hour day-of-month month day-of-week), 6 (second first) or 7 (second first, year last); a cron line here holds no user, no command and no comment
0 2 * * * root
    … has 6 fields; with more than five the first is the second and the sixth the day-of-week, but "root" is no day-of-week; write "0 2 * * *"
17 4 * * * /usr/bin/backup --all
    … has 7 fields; with more than five the first is the second and the sixth the day-of-week, but "/usr/bin/backup" is no day-of-week; write "17 4 * * *"
0 2 1 1 * 2027
    … has 6 fields; with more than five the first is the second and the sixth the day-of-week, but "2027" is no day-of-week; write "0 0 2 1 1 * 2027"
30 14 * * MON-FRI *
    … has 6 fields; with more than five the first is the second and the sixth the day-of-week, but "MON-FRI" is no month; write "30 14 * * MON-FRI"
@reboot
    … is not a cron expression: a fleet has no moment of starting; write `every: 1h` for an interval or `at:` for one instant
@every 5m
    … is not a cron expression: an interval has a field of its own; write `every: 5m` instead of cron
@dayly
    … is not a cron expression: the words are @hourly @daily @midnight @weekly @monthly @yearly @annually; did you mean @daily?
@never
    … is not a cron expression: the words are @hourly @daily @midnight @weekly @monthly @yearly @annually
TZ=Asia/Shanghai 0 2 * * *
    … names its zone in the expression; write `timezone: Asia/Shanghai` beside `cron:` and leave it out here
CRON_TZ=UTC 0 2 * * *
    … names its zone in the expression; write `timezone: UTC` beside `cron:` and leave it out here
60 * * * *
    …: the minute "60" is out of range: 60 must be from 0 to 59; for the full hour write 0
60 * * * * *
    …: the second "60" is out of range: 60 must be from 0 to 59; for the full minute write 0
* 24 * * *
    …: the hour "24" is out of range: 24 must be from 0 to 23; for midnight write 0
* * 0 * *
    …: the day-of-month "0" is out of range: 0 must be from 1 to 31; the first is 1
* * 32 * *
    …: the day-of-month "32" is out of range: 32 must be from 1 to 31
* * * 13 *
    …: the month "13" is out of range: 13 must be from 1 to 12 (or JAN to DEC)
* * * * 8
    …: the day-of-week "8" is out of range: 8 must be from 0 to 7 (or SUN to SAT; Sunday is 0 and 7)
99999999999 * * * *
    …: the minute "99999999999" is out of range: 99999999999 must be from 0 to 59
0 0 0 1 1 * 1969
    …: the year "1969" is out of range: 1969 must be from 1970 to 2100
0 0 0 1 1 * 2101
    …: the year "2101" is out of range: 2101 must be from 1970 to 2100
1,,2 * * * *
    …: the minute "1,,2" has an empty item: write a value on both sides of each comma, and no spaces around it
,1 * * * *
    …: the minute ",1" has an empty item: write a value on both sides of each comma, and no spaces around it
1, 2 * * * *
    …: the second "1," has an empty item: write a value on both sides of each comma, and no spaces around it
-5 * * * *
    …: the minute "-5" is not understood: "-5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
5- * * * *
    …: the minute "5-" is not understood: "5-" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
+5 * * * *
    …: the minute "+5" is not understood: "+5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
1.5 * * * *
    …: the minute "1.5" is not understood: "1.5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
1-2-3 * * * *
    …: the minute "1-2-3" is not understood: "1-2-3" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
0 0 * * MONDAY
    …: the day-of-week "MONDAY" is not understood: "MONDAY" is no value of this field; write 0 to 7 (or SUN to SAT; Sunday is 0 and 7), a range (a-b), a step (*/n), a spread (H, a~b), or d#n, dL; did you mean MON?
0 0 * * TEU
    …: the day-of-week "TEU" is not understood: "TEU" is no value of this field; write 0 to 7 (or SUN to SAT; Sunday is 0 and 7), a range (a-b), a step (*/n), a spread (H, a~b), or d#n, dL; did you mean TUE?
0 0 * JUNE *
    …: the month "JUNE" is not understood: "JUNE" is no value of this field; write 1 to 12 (or JAN to DEC), a range (a-b), a step (*/n), a spread (H, a~b); did you mean JUN?
0 0 * MON *
    …: the month "MON" is not understood: "MON" is no value of this field; write 1 to 12 (or JAN to DEC), a range (a-b), a step (*/n), a spread (H, a~b)
0 0 * * JAN
    …: the day-of-week "JAN" is not understood: "JAN" is no value of this field; write 0 to 7 (or SUN to SAT; Sunday is 0 and 7), a range (a-b), a step (*/n), a spread (H, a~b), or d#n, dL
0 22-2 * * *
    …: the hour "22-2" runs backwards: a range goes from the lesser to the greater value; write "22-23,0-2"
0 22-2/2 * * *
    …: the hour "22-2/2" runs backwards: a range goes from the lesser to the greater value; write "22,0,2"
0 0 * * FRI-MON
    …: the day-of-week "FRI-MON" runs backwards: a range goes from the lesser to the greater value; write "FRI-SAT,SUN-MON"
0 0 * * 5-1
    …: the day-of-week "5-1" runs backwards: a range goes from the lesser to the greater value; write "5-6,0-1"
0 0 * * 6-0
    …: the day-of-week "6-0" runs backwards: a range goes from the lesser to the greater value; write "6-7"
0 0 * * 5-0
    …: the day-of-week "5-0" runs backwards: a range goes from the lesser to the greater value; write "5-7"
0 0 * * 7-2
    …: the day-of-week "7-2" runs backwards: a range goes from the lesser to the greater value; write "0-2"
0 0 * NOV-FEB *
    …: the month "NOV-FEB" runs backwards: a range goes from the lesser to the greater value; write "NOV-DEC,JAN-FEB"
0 0 28-3 * *
    …: the day-of-month "28-3" runs backwards: a range goes from the lesser to the greater value; write "28-31,1-3"
0 0 0 1 1 * 2030-2026
    …: the year "2030-2026" runs backwards: a range goes from the lesser to the greater value; write "2026-2030"
*/0 * * * *
    …: the minute "*/0" has no usable step: "0" is not a whole number of at least 1; for every value leave it out
*/x * * * *
    …: the minute "*/x" has no usable step: "x" is not a whole number of at least 1; for every value leave it out
*/ * * * *
    …: the minute "*/" has no usable step: "" is not a whole number of at least 1; for every value leave it out
*/-5 * * * *
    …: the minute "*/-5" has no usable step: "-5" is not a whole number of at least 1; for every value leave it out
/5 * * * *
    …: the minute "/5" is not understood: "/5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
*/60 * * * *
    …: the minute "*/60" steps beyond its range: the greatest step here is 59; write "0", or `every: 60m` instead of cron
*/90 * * * *
    …: the minute "*/90" steps beyond its range: the greatest step here is 59; write "0", or `every: 90m` instead of cron
0 */24 * * *
    …: the hour "*/24" steps beyond its range: the greatest step here is 23; write "0", or `every: 24h` instead of cron
0 0 */31 * *
    …: the day-of-month "*/31" steps beyond its range: the greatest step here is 30; write "1", or `every: 31d` instead of cron
0 0 * */12 *
    …: the month "*/12" steps beyond its range: the greatest step here is 11; write "1"
0 0 * * */8
    …: the day-of-week "*/8" steps beyond its range: the greatest step here is 7; write "0"
10-20/15 * * * *
    …: the minute "10-20/15" steps beyond its range: the greatest step here is 10; write "10"
45/30 * * * *
    …: the minute "45/30" steps beyond its range: the greatest step here is 14; write "45"
*/2/3 * * * *
    …: the minute "*/2/3" has no usable step: "2/3" is not a whole number of at least 1; for every value leave it out
*5 * * * *
    …: the minute "*5" is not understood: "*5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
** * * * *
    …: the minute "**" is not understood: "**" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
? * * * *
    …: the minute "?" cannot be used here: ? stands alone, in day-of-month or day-of-week; write *
0 0 ?,1 * *
    …: the day-of-month "?" cannot be used here: ? stands alone, in day-of-month or day-of-week; write *
0 0 ?/2 * *
    …: the day-of-month "?/2" cannot be used here: ? stands alone, in day-of-month or day-of-week; write *
0 0 L * L
    …: the day-of-week "L" cannot be used here: L alone means the last day of the month and belongs to day-of-month; for the last weekday of a kind write one such as FRIL, for Saturday SAT
0 0 * * FRI-SATL
    …: the day-of-week "FRI-SATL" cannot be used here: L follows one weekday, such as FRIL or 5L, without range or step
0 0 * * FRI#6
    …: the day-of-week "FRI#6" cannot be used here: # takes a weekday and a number from 1 to 5, such as MON#2, without range or step
0 0 * * FRI#0
    …: the day-of-week "FRI#0" cannot be used here: # takes a weekday and a number from 1 to 5, such as MON#2, without range or step
0 0 * * FRI#2-3
    …: the day-of-week "FRI#2-3" cannot be used here: # takes a weekday and a number from 1 to 5, such as MON#2, without range or step
0 0 * * #2
    …: the day-of-week "#2" cannot be used here: # takes a weekday and a number from 1 to 5, such as MON#2, without range or step
0 0 * * MON-FRI#2
    …: the day-of-week "MON-FRI#2" cannot be used here: # takes a weekday and a number from 1 to 5, such as MON#2, without range or step
0 0 MON#2 * *
    …: the day-of-month "MON#2" cannot be used here: L and W belong to day-of-month, # and a last weekday such as FRIL to day-of-week
L * * * *
    …: the minute "L" cannot be used here: L and W belong to day-of-month, # and a last weekday such as FRIL to day-of-week
0 0 * L *
    …: the month "L" cannot be used here: L and W belong to day-of-month, # and a last weekday such as FRIL to day-of-week
0 0 L-31 * *
    …: the day-of-month "L-31" cannot be used here: L takes at most a number of days before the last one, L-1 to L-30, or W, without step
0 0 L-0 * *
    …: the day-of-month "L-0" cannot be used here: L takes at most a number of days before the last one, L-1 to L-30, or W, without step
0 0 L-3W * *
    …: the day-of-month "L-3W" cannot be used here: L takes at most a number of days before the last one, L-1 to L-30, or W, without step
0 0 L/2 * *
    …: the day-of-month "L/2" cannot be used here: L takes at most a number of days before the last one, L-1 to L-30, or W, without step
0 0 W * *
    …: the day-of-month "W" cannot be used here: W follows one day or L, such as 15W or LW, without range or step
0 0 32W * *
    …: the day-of-month "32W" is out of range: 32 must be from 1 to 31
0 0 1-15W * *
    …: the day-of-month "1-15W" cannot be used here: W follows one day or L, such as 15W or LW, without range or step
0 0 15W/2 * *
    …: the day-of-month "15W/2" cannot be used here: W follows one day or L, such as 15W or LW, without range or step
0 0 * * 15W
    …: the day-of-week "15W" is not understood: "15W" is no value of this field; write 0 to 7 (or SUN to SAT; Sunday is 0 and 7), a range (a-b), a step (*/n), a spread (H, a~b), or d#n, dL
H(5-1) * * * *
    …: the minute "H(5-1)" runs backwards: a range goes from the lesser to the greater value; write "H(1-5)"
H(0-60) * * * *
    …: the minute "H(0-60)" is out of range: 60 must be from 0 to 59; for the full hour write 0
H(5) * * * *
    …: the minute "H(5)" is not understood: "H(5)" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
H(5-10 * * * *
    …: the minute "H(5-10" is not understood: "H(5" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
50~10 * * * *
    …: the minute "50~10" runs backwards: a range goes from the lesser to the greater value; write "10~50"
H/60 * * * *
    …: the minute "H/60" steps beyond its range: the greatest step here is 59; write "H" for one value
0~10/20 * * * *
    …: the minute "0~10/20" steps beyond its range: the greatest step here is 10; write "0~10" for one value
0 0 0 1 1 * H
    …: the year "H" cannot be used here: a spread over years would come once; write the years
0 0 31 2 *
    … never comes: February has no 31st; for the last day of the month write "0 0 L 2 *"
0 0 30 2 *
    … never comes: February has no 30th; for the last day of the month write "0 0 L 2 *"
0 0 31 4,6,9,11 *
    … never comes: April, June, September and November have no 31st; for the last day of the month write "0 0 L 4,6,9,11 *"
0 0 30W 2 *
    … never comes: February has no 30th; for the last day of the month write "0 0 L 2 *"
0 0 L-30 2 *
    … never comes: no day from 1970 to 2100 satisfies day-of-month, month, day-of-week and year together; widen one of them
0 0 0 29 2 * 2027
    … never comes: none of its years is a leap year, so there is no 29 February; for the last day of the month write "0 0 0 L 2 * 2027"
0 0 0 29 2 ? 2097-2100
    … never comes: none of its years is a leap year, so there is no 29 February; for the last day of the month write "0 0 0 L 2 ? 2097-2100"
0 0 */30 * SUN#2
    … never comes: no day from 1970 to 2100 satisfies day-of-month, month, day-of-week and year together; widen one of them
０ 2 * * *
    …: the minute "０" is not understood: "０" is no value of this field; write 0 to 59, a range (a-b), a step (*/n), a spread (H, a~b)
"##;

fn refusal(text: &str) -> String {
    match text.parse::<CronExpr>() {
        Ok(expression) => panic!("{expression:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_refusal_names_the_value_the_rule_and_the_repair() {
    let lines: Vec<&str> = REFUSED.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() > 160, "the table was not read: {}", lines.len());
    for pair in lines.chunks(2) {
        let [expression, said] = pair else { panic!("an expression without a text: {pair:?}") };
        assert_eq!(refusal(expression), said.trim().replacen('…', &format!("{expression:?}"), 1));
    }
}

#[test]
fn nothing_and_too_much_are_refused() {
    for empty in ["", " ", "\t\n"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(
                refusal(empty),
                @r#"the cron expression is empty; write five fields, such as "0 2 * * *" for 02:00 every day"#
            );
        }
    }
    let longest = format!("{} 2 * * *", ["0"; (CronExpr::TEXT_BYTES_MAX - 8).div_ceil(2)].join(","));
    assert!(longest.len() <= CronExpr::TEXT_BYTES_MAX && longest.parse::<CronExpr>().is_ok());
    insta::assert_snapshot!(
        refusal(&"0,".repeat(1_000_000)),
        @"the cron expression has 2000000 bytes; at most 256 are allowed: use ranges and steps, or several lines"
    );
}

#[test]
fn no_text_makes_the_parser_panic() {
    use proptest::prelude::*;
    let parts = prop::sample::select(vec![
        "*", "/", "-", ",", "?", "L", "W", "#", "H", "(", ")", "~", "0", "1", "5", "7", "59", "60", "99999",
        "SUN", "FRI", "jan", " ", " * ", " 0 ", "@", "daily", "=", "é", "\u{0}", "2100", "H(", "L-", "#5",
    ]);
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(parts in prop::collection::vec(parts, 1..24))| {
        if let Ok(expression) = parts.concat().parse::<CronExpr>() {
            let next = expression.next_after(DateTime::UNIX_EPOCH, Tz::UTC, DstPolicy::default());
            prop_assert!(next.is_some(), "{expression:?} was accepted and never comes");
        }
    });
}

#[test]
fn what_one_seed_would_accept_is_refused_for_all_or_for_none() {
    // The text is its own seed when it is parsed, so the answer to `apply` does not depend on anything else.
    assert!("0 0 H(30-31) 2 *".parse::<CronExpr>().is_err());
    assert!("0 0 H 2 *".parse::<CronExpr>().is_ok());
}

#[test]
fn a_zone_nobody_knows_is_refused_with_the_nearest_one() {
    let said = |zone: &str| parse_zone(zone).expect_err("unknown").to_string();
    let zones = [
        "Asia/Shangai",
        "Europe/paris",
        "Paris",
        "Shanghai",
        "new york",
        "utc+8",
        "CEST",
        "PST",
        "Asia/Beijing",
        "XST",
        "Mars/Olympus",
        "",
    ];
    insta::assert_snapshot!(zones.map(said).join("\n"), @r#"
    "Asia/Shangai" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Asia/Shanghai?
    "Europe/paris" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Europe/Paris?
    "Paris" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Europe/Paris?
    "Shanghai" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Asia/Shanghai?
    "new york" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean America/New_York?
    "utc+8" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; an offset is no zone, it knows no change of clocks: write a city, as in Asia/Shanghai, or Etc/GMT-8 for UTC+8 (its sign is the other way round)
    "CEST" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Europe/Berlin?
    "PST" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean America/Los_Angeles?
    "Asia/Beijing" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC; did you mean Asia/Shanghai?
    "XST" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC
    "Mars/Olympus" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC
    "" is not a time zone of the IANA database (version 2025b); write a name such as Europe/Paris or UTC
    "#);
    assert_eq!(parse_zone("Asia/Shanghai"), Ok(Tz::Asia__Shanghai));
    assert_eq!(tzdb_version(), "2025b", "a new database moves slots: say so in the change log");
}
