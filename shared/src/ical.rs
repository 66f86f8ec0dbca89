//! Dates out of an iCalendar file (RFC 5545): the days of its whole-day events.
//!
//! Read are `DTSTART`, `DTEND` (the day after the last), `DURATION` in days or weeks, `RDATE`, `EXDATE`, `STATUS` (what is
//! cancelled is left out) and `RRULE` by the year, up to 2100: with `INTERVAL`, `COUNT`, `UNTIL`, one `BYMONTH` with one
//! `BYMONTHDAY`, or with one `BYDAY` such as `4TH` or `-1MO`. Everything else that changes the days is refused with its
//! line, never guessed: a holiday that is missed may cost more than a file that is not read.
//!
//! Pure: bytes in, dates out. A file has at most [`ICAL_BYTES_MAX`] bytes, an event at most 366 days, all together at most
//! [`CALENDAR_DATES_MAX`] dates.

use std::collections::BTreeSet;

use chrono::{Datelike, Days, NaiveDate, Weekday};

use crate::limits::{CALENDAR_DATES_MAX, ICAL_BYTES_MAX};

/// Years end where slots end.
const YEAR_MAX: i32 = 2100;
/// Days of one event, at most.
const EVENT_DAYS_MAX: u64 = 366;

/// A file whose days cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct IcalError {
    /// The line, counted from 1, at which the property begins.
    pub line: usize,
    /// The value, the rule and the repair.
    pub what: String,
}

fn refuse<T>(line: usize, what: impl Into<String>) -> Result<T, IcalError> {
    Err(IcalError { line, what: what.into() })
}

/// One property: `NAME;PARAMETERS:VALUE`.
#[derive(Debug)]
struct Property {
    line: usize,
    name: String,
    value: String,
}

/// The days of all whole-day events, or of those whose summary holds a text (in upper or lower case).
pub fn dates(bytes: &[u8], summary: Option<&str>) -> Result<BTreeSet<NaiveDate>, IcalError> {
    if bytes.len() > ICAL_BYTES_MAX {
        return refuse(
            1,
            format!("the file has {} bytes; at most {ICAL_BYTES_MAX} are read: split it", bytes.len()),
        );
    }
    let wanted = summary.map(str::to_lowercase);
    let mut dates = BTreeSet::new();
    // The components that are open: properties belong to the innermost.
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut event: Vec<Property> = Vec::new();
    let mut seen = false;
    for property in properties(bytes)? {
        let component = property.value.trim().to_ascii_uppercase();
        match property.name.as_str() {
            "BEGIN" => {
                if open.is_empty() && component != "VCALENDAR" {
                    return refuse(
                        property.line,
                        format!("{component:?} begins outside of a VCALENDAR: is this an iCalendar file?"),
                    );
                }
                seen = true;
                if component == "VEVENT" {
                    event.clear();
                }
                open.push((property.line, component));
            }
            "END" => {
                match open.pop() {
                    Some((_, begun)) if begun == component => {}
                    _ => return refuse(property.line, format!("{component} ends and did not begin")),
                }
                if component == "VEVENT" {
                    add_event(property.line, &event, wanted.as_deref(), &mut dates)?;
                }
            }
            _ if open.is_empty() => {
                return refuse(property.line, "it begins outside of a VCALENDAR: is this an iCalendar file?");
            }
            _ if open.last().is_some_and(|(_, component)| component == "VEVENT") => event.push(property),
            _ => {}
        }
    }
    match open.pop() {
        Some((line, component)) => refuse(line, format!("{component} does not end: is the file cut off?")),
        None if !seen => refuse(1, "the file is empty; an iCalendar file begins with BEGIN:VCALENDAR"),
        None => Ok(dates),
    }
}

/// The properties, with folded lines put together again: a line that begins with a space goes on with the one before.
fn properties(bytes: &[u8]) -> Result<Vec<Property>, IcalError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    // A fold may be within a character, so bytes are put together before they are read as text.
    let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), lines.last_mut()) {
            (Some(b' ' | b'\t'), Some((_, before))) => before.extend_from_slice(&line[1..]),
            _ => lines.push((index + 1, line.to_vec())),
        }
    }
    let mut properties = Vec::new();
    for (line, bytes) in lines {
        let Ok(text) = String::from_utf8(bytes) else { return refuse(line, "it is not UTF-8 text") };
        if text.trim().is_empty() {
            continue;
        }
        let Some((head, value)) = split_value(&text) else {
            return refuse(line, format!("{:?} is no property; one is written as NAME:VALUE", short(&text)));
        };
        let name = head.split(';').next().unwrap_or_default().trim().to_ascii_uppercase();
        properties.push(Property { line, name, value: value.to_owned() });
    }
    Ok(properties)
}

/// At the first colon that is not in quotes.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let colon = text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b':' && !quoted
    })?;
    Some((&text[..colon], &text[colon + 1..]))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn add_event(
    end_line: usize,
    event: &[Property],
    wanted: Option<&str>,
    dates: &mut BTreeSet<NaiveDate>,
) -> Result<(), IcalError> {
    let first = |name: &str| event.iter().find(|property| property.name == name);
    let summary = first("SUMMARY").map_or("", |property| property.value.as_str());
    let is_cancelled =
        first("STATUS").is_some_and(|status| status.value.trim().eq_ignore_ascii_case("CANCELLED"));
    if is_cancelled || wanted.is_some_and(|wanted| !summary.to_lowercase().contains(wanted)) {
        return Ok(());
    }
    if let Some(other) =
        event.iter().find(|property| ["RECURRENCE-ID", "EXRULE"].contains(&property.name.as_str()))
    {
        return refuse(
            other.line,
            format!("{} is not understood; write the days as events of their own", other.name),
        );
    }
    let Some(start) = first("DTSTART") else {
        return refuse(end_line, format!("event {:?} has no DTSTART", short(summary)));
    };
    let begin = date_of(start.line, &start.value)?;
    let days = days_of(begin, first("DTEND"), first("DURATION"))?;
    let mut begins = match first("RRULE") {
        Some(rule) => yearly(rule, begin)?,
        None => BTreeSet::from([begin]),
    };
    let lists = |name: &str| {
        let properties = event.iter().filter(|property| property.name == name);
        let values =
            properties.flat_map(|property| property.value.split(',').map(|value| (property.line, value)));
        values.map(|(line, value)| date_of(line, value)).collect::<Result<Vec<_>, _>>()
    };
    begins.extend(lists("RDATE")?);
    for date in lists("EXDATE")? {
        begins.remove(&date);
    }
    for begin in begins {
        dates.extend(begin.iter_days().take(days as usize));
        if dates.len() > CALENDAR_DATES_MAX {
            return refuse(
                start.line,
                format!("there are more than {CALENDAR_DATES_MAX} dates; narrow them by `summary`"),
            );
        }
    }
    Ok(())
}

fn date_of(line: usize, value: &str) -> Result<NaiveDate, IcalError> {
    let value = value.trim();
    if value.contains(['T', '/']) {
        return refuse(
            line,
            format!(
                "{:?} is a time of day; only whole days are read: write a date such as 20261001, or narrow the events by `summary`",
                short(value)
            ),
        );
    }
    let is_date = value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_digit());
    NaiveDate::parse_from_str(value, "%Y%m%d")
        .ok()
        .filter(|date| is_date && (1..=YEAR_MAX).contains(&date.year()))
        .map_or_else(
            || refuse(line, format!("{:?} is no date; write one such as 20261001", short(value))),
            Ok,
        )
}

/// How many days an event lasts: its end is the day after its last.
fn days_of(begin: NaiveDate, end: Option<&Property>, duration: Option<&Property>) -> Result<u64, IcalError> {
    let (line, days) = match (end, duration) {
        (Some(end), _) => {
            let after = date_of(end.line, &end.value)?;
            // Some writers end a day on itself.
            (end.line, if after == begin { 1 } else { (after - begin).num_days() })
        }
        (None, Some(duration)) => {
            let text = duration.value.trim();
            let number = |unit: char| text.strip_prefix('P')?.strip_suffix(unit)?.parse::<u16>().ok();
            let days = number('D').map(i64::from).or_else(|| number('W').map(|weeks| i64::from(weeks) * 7));
            let Some(days) = days else {
                return refuse(
                    duration.line,
                    format!("{:?} is no duration of whole days; write one such as P3D", short(text)),
                );
            };
            (duration.line, days)
        }
        (None, None) => return Ok(1),
    };
    match u64::try_from(days) {
        Ok(days) if (1..=EVENT_DAYS_MAX).contains(&days) => Ok(days),
        _ => refuse(line, format!("the event lasts {days} days; 1 to {EVENT_DAYS_MAX} are allowed")),
    }
}

/// Which day of its year a rule means.
#[derive(Debug, Clone, Copy)]
enum DayOfYear {
    Date(u32, u32),
    Nth(u32, i8, Weekday),
}

impl DayOfYear {
    fn in_year(self, year: i32) -> Option<NaiveDate> {
        match self {
            DayOfYear::Date(month, day) => NaiveDate::from_ymd_opt(year, month, day),
            DayOfYear::Nth(month, nth, weekday) if nth > 0 => {
                NaiveDate::from_weekday_of_month_opt(year, month, weekday, nth.unsigned_abs())
            }
            DayOfYear::Nth(month, nth, weekday) => {
                let last =
                    (4..=5).rev().find_map(|n| NaiveDate::from_weekday_of_month_opt(year, month, weekday, n));
                last?
                    .checked_sub_days(Days::new(7 * u64::from(nth.unsigned_abs() - 1)))
                    .filter(|day| day.month() == month)
            }
        }
    }
}

/// The days on which a yearly event begins, from its first on.
fn yearly(rule: &Property, begin: NaiveDate) -> Result<BTreeSet<NaiveDate>, IcalError> {
    let refused = |part: &str| {
        refuse(
            rule.line,
            format!(
                "RRULE part {:?} is not understood; read are FREQ=YEARLY with INTERVAL, COUNT, UNTIL, and one BYMONTH with one BYMONTHDAY or one BYDAY such as 4TH: write the days as events of their own",
                short(part)
            ),
        )
    };
    let (mut interval, mut count, mut until) = (1_usize, usize::MAX, NaiveDate::MAX);
    let (mut month, mut day, mut nth, mut is_yearly) = (None, None, None, false);
    for part in rule.value.trim().split(';').filter(|part| !part.is_empty()) {
        let upper = part.to_ascii_uppercase();
        let (name, value) = upper.split_once('=').unwrap_or((&upper, ""));
        let number = |max: usize| value.parse::<usize>().ok().filter(|number| (1..=max).contains(number));
        match name {
            "FREQ" if value == "YEARLY" => is_yearly = true,
            "INTERVAL" if number(1_000).is_some() => interval = number(1_000).unwrap_or(1),
            "COUNT" if number(100_000).is_some() => count = number(100_000).unwrap_or(1),
            // An instant ends with its date: whole days begin at midnight.
            "UNTIL" => until = date_of(rule.line, value.split('T').next().unwrap_or_default())?,
            "BYMONTH" if number(12).is_some() => month = number(12),
            "BYMONTHDAY" if number(31).is_some() => day = number(31),
            "BYDAY" if nth_of(value).is_some() => nth = nth_of(value),
            "WKST" => {}
            _ => return refused(part),
        }
    }
    let month_or_own = month.map_or(begin.month(), |month| month as u32);
    let which = match (is_yearly, day, nth) {
        (true, day, None) => DayOfYear::Date(month_or_own, day.map_or(begin.day(), |day| day as u32)),
        (true, None, Some((nth, weekday))) if month.is_some() => DayOfYear::Nth(month_or_own, nth, weekday),
        _ => return refused(&rule.value),
    };
    let years = (begin.year()..=YEAR_MAX).step_by(interval);
    let days = years.filter_map(|year| which.in_year(year)).filter(|day| *day > begin);
    // The first day counts, whatever the rule says of it.
    Ok([begin].into_iter().chain(days).take(count).take_while(|day| *day <= until || *day == begin).collect())
}

/// `4TH`, `-1MO`.
fn nth_of(value: &str) -> Option<(i8, Weekday)> {
    let (nth, day) = value.split_at_checked(value.len().checked_sub(2)?)?;
    let weekday = match day {
        "MO" => Weekday::Mon,
        "TU" => Weekday::Tue,
        "WE" => Weekday::Wed,
        "TH" => Weekday::Thu,
        "FR" => Weekday::Fri,
        "SA" => Weekday::Sat,
        "SU" => Weekday::Sun,
        _ => return None,
    };
    let nth: i8 = nth.parse().ok()?;
    (nth != 0 && nth.abs() <= 5).then_some((nth, weekday))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(events: &str) -> Vec<u8> {
        let lines = format!("BEGIN:VCALENDAR\nVERSION:2.0\n{events}END:VCALENDAR\n");
        lines.replace('\n', "\r\n").into_bytes()
    }

    fn event(lines: &str) -> Vec<u8> {
        file(&format!("BEGIN:VEVENT\nUID:1\n{lines}\nEND:VEVENT\n"))
    }

    fn read(bytes: &[u8]) -> String {
        match dates(bytes, None) {
            Ok(dates) => {
                let shown: Vec<String> = dates.iter().take(6).map(ToString::to_string).collect();
                format!("{} {}", dates.len(), shown.join(" "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn whole_day_events_are_read_as_their_days() {
        for (lines, expected) in [
            ("DTSTART;VALUE=DATE:20261225", "1 2026-12-25"),
            ("DTSTART:20261225\nDTEND;VALUE=DATE:20261226", "1 2026-12-25"),
            ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261225", "1 2026-12-25"),
            ("DTSTART;VALUE=DATE:20261001\nDTEND;VALUE=DATE:20261004", "3 2026-10-01 2026-10-02 2026-10-03"),
            ("DTSTART;VALUE=DATE:20261231\nDURATION:P2D", "2 2026-12-31 2027-01-01"),
            (
                "DTSTART;VALUE=DATE:20261001\nDURATION:P1W",
                "7 2026-10-01 2026-10-02 2026-10-03 2026-10-04 2026-10-05 2026-10-06",
            ),
            (
                "DTSTART;VALUE=DATE:20261001\nRDATE;VALUE=DATE:20261003,20261005",
                "3 2026-10-01 2026-10-03 2026-10-05",
            ),
            ("DTSTART;VALUE=DATE:20261001\nSTATUS:CANCELLED", "0 "),
            ("dtstart;value=date:20261001\nBEGIN:VALARM\nTRIGGER:-PT15M\nEND:VALARM", "1 2026-10-01"),
            ("DTSTART;X-A=\"a:b;c\";VALUE=DATE:20261001", "1 2026-10-01"),
        ] {
            assert_eq!(read(&event(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn an_event_comes_again_every_year_as_its_rule_says() {
        for (lines, expected) in [
            ("DTSTART;VALUE=DATE:20981225\nRRULE:FREQ=YEARLY", "3 2098-12-25 2099-12-25 2100-12-25"),
            ("DTSTART;VALUE=DATE:20200229\nRRULE:FREQ=YEARLY;COUNT=3", "3 2020-02-29 2024-02-29 2028-02-29"),
            (
                "DTSTART;VALUE=DATE:20260501\nRRULE:FREQ=YEARLY;INTERVAL=2;UNTIL=20300501T000000Z",
                "3 2026-05-01 2028-05-01 2030-05-01",
            ),
            // Thanksgiving, Memorial Day.
            (
                "DTSTART;VALUE=DATE:20241128\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=3",
                "3 2024-11-28 2025-11-27 2026-11-26",
            ),
            (
                "DTSTART;VALUE=DATE:20240527\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;COUNT=3;WKST=SU",
                "3 2024-05-27 2025-05-26 2026-05-25",
            ),
            (
                "DTSTART;VALUE=DATE:20261231\nDURATION:P2D\nRRULE:FREQ=YEARLY;COUNT=2;BYMONTH=12;BYMONTHDAY=31\nEXDATE;VALUE=DATE:20261231",
                "2 2027-12-31 2028-01-01",
            ),
        ] {
            assert_eq!(read(&event(lines)), expected, "{lines}");
        }
    }

    #[test]
    fn folded_lines_are_put_together_even_within_a_character() {
        let folded = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:国庆\r\n DTSTART:19990101\r\nDTSTART;VALUE\r\n =DATE:2026\r\n\t1001\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        assert_eq!(read(folded.as_bytes()), "1 2026-10-01");
        let mut bytes = event("SUMMARY:国庆节\nDTSTART:20261001");
        let within = bytes.iter().position(|byte| *byte >= 0x80).expect("not ASCII") + 1;
        bytes.splice(within..within, *b"\r\n ");
        assert_eq!(dates(&bytes, Some("国庆")).map(|dates| dates.len()), Ok(1));
        assert_eq!(dates(&bytes, Some("春节")).map(|dates| dates.len()), Ok(0));
    }

    #[test]
    fn only_events_of_the_summary_are_looked_at() {
        let two = file(
            "BEGIN:VEVENT\nSUMMARY:Bank Holiday\nDTSTART:20261225\nEND:VEVENT\nBEGIN:VEVENT\nSUMMARY:Meeting\nDTSTART:20261001T090000Z\nEND:VEVENT\n",
        );
        assert_eq!(dates(&two, Some("bank")).map(|dates| dates.len()), Ok(1));
        assert!(
            dates(&two, None).expect_err("a meeting").to_string().contains("narrow the events by `summary`")
        );
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_its_line() {
        let refusals: Vec<String> = [
            event("DTSTART:20261001T090000Z"),
            event("DTSTART;VALUE=DATE:20261301"),
            event("DTSTART;VALUE=DATE:2026-10-01"),
            event("SUMMARY:no day"),
            event("DTSTART:20261004\nDTEND:20261001"),
            event("DTSTART:20261004\nDTEND:20990101"),
            event("DTSTART:20261004\nDURATION:PT1H"),
            event("DTSTART:20261004\nRRULE:FREQ=WEEKLY"),
            event("DTSTART:20261004\nRRULE:FREQ=YEARLY;BYDAY=MO"),
            event("DTSTART:20261004\nRRULE:FREQ=YEARLY;BYMONTH=1,2"),
            event("DTSTART:20261004\nRECURRENCE-ID:20261004"),
            event("DTSTART;VALUE=DATE"),
            event("DTSTART:19700101\nDURATION:P366D\nRRULE:FREQ=YEARLY"),
            file("END:VEVENT\n"),
            b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20261001\n".to_vec(),
            b"BEGIN:VCARD\nEND:VCARD\n".to_vec(),
            b"schedules: {}\n".to_vec(),
            b"\xff\xfe".to_vec(),
            Vec::new(),
            vec![b'x'; ICAL_BYTES_MAX + 1],
        ]
        .iter()
        .map(|bytes| read(bytes))
        .collect();
        insta::assert_snapshot!(refusals.join("\n"));
    }
}
