//! The parsers under texts that nobody wrote: what a mutation of a valid text does to them.
//!
//! No text makes a parser panic or run for long; a refusal has a message that says what to write; what is accepted is
//! written as a text that is accepted again and means the same. `make chaos` runs this for longer. `FUZZ_ROUNDS` is the
//! number of texts for each parser, `FUZZ_SEED`, which is printed, runs the same ones again.

#![allow(clippy::expect_used, reason = "in tests; clippy only knows those that are inside #[test]")]

use std::{
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
};

use chrono_tz::Tz;
use shared::{
    cron::{CronExpr, DstPolicy},
    definitions::Definitions,
    ical,
    words::Language,
};

const ROUNDS_DEFAULT: u64 = 1_500;

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A few small changes: bytes changed, cut out, doubled, put in, or taken from another text.
fn mutated(random: &mut Random, seeds: &[&str], parts: &[&str]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).as_bytes().to_vec();
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 => drop(bytes.drain(at..to)),
            2 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let other = random.pick(seeds).as_bytes();
                let from = random.below(other.len());
                let upto = (from + random.below(40)).min(other.len());
                bytes.splice(at..to, other[from..upto].iter().copied());
            }
            4 => bytes.truncate(at.max(1)),
            _ => {
                let part = random.pick(parts).as_bytes();
                bytes.splice(at..to, part.iter().copied());
            }
        }
    }
    bytes
}

/// Reads so many mutations; `read` panics where something is not as it must be.
fn fuzz(parser: &str, seeds: &[&str], parts: &[&str], read: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(parser));
    let rounds = number("FUZZ_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    println!("{parser}: {rounds} texts, FUZZ_SEED={seed}");
    for seed_text in seeds {
        read(seed_text.as_bytes());
    }
    let mut random = Random(seed);
    for round in 0..rounds {
        let bytes = mutated(&mut random, seeds, parts);
        let is_harmless = catch_unwind(AssertUnwindSafe(|| read(&bytes))).is_ok();
        let text = String::from_utf8_lossy(&bytes);
        assert!(is_harmless, "{parser}, text {round}: {text:?}\nreplay with FUZZ_SEED={seed}");
    }
}

/// A refusal says something, and not the whole text again and again.
fn assert_message(message: &str) {
    assert!(message.len() > 10 && message.len() < 4_000, "{} bytes: {message}", message.len());
}

#[test]
fn no_text_harms_the_cron_parser() {
    let seeds = [
        "0 2 * * *",
        "*/15 9-17 * * MON-FRI",
        "0 0 18 LW,L-3,15W JAN-MAR,DEC MON#2,FRIL 2026-2030",
        "H H(1-5) 1~28/3 * ?",
        "0,15,30,45 */6 1-7 * */7",
        "@weekly",
    ];
    let parts = [
        "*",
        "/",
        "-",
        ",",
        "?",
        "L",
        "W",
        "#",
        "H",
        "(",
        ")",
        "~",
        "0",
        "1",
        "7",
        "59",
        "60",
        "99999999999999999999",
        " ",
        "\t",
        "\n",
        "SUN",
        "jan",
        "@",
        "=",
        "é",
        "\u{0}",
        "\u{feff}",
        "2100",
        "*/1",
        "1-31",
        "29 2",
    ];
    fuzz("cron", &seeds, &parts, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match text.parse::<CronExpr>() {
            Ok(expression) => {
                assert_eq!(expression.as_str().parse().as_ref(), Ok(&expression));
                assert_eq!(expression.as_str(), text);
                let zone = Tz::America__New_York;
                assert!(
                    expression.next_after(chrono::DateTime::UNIX_EPOCH, zone, DstPolicy::default()).is_some()
                );
                for language in [Language::English, Language::Chinese] {
                    assert!(!expression.in_words(language).is_empty());
                }
            }
            Err(error) => assert_message(&error.to_string()),
        }
    });
}

#[test]
fn no_text_harms_the_definitions_parser() {
    let seeds = [
        "targets: {storage: {http: 'http://127.0.0.1:9101', health: /healthz, max_concurrent: 4}}\nschedules:\n  daily:\n    cron: \"0 2 * * *\"\n    timezone: Asia/Shanghai\n    dst: {gap: skip, fold: last}\n    calendar: cn\n    on_closed_day: next_open_day\n    task: {target_service: storage, action: archive, parameters: {n: 1}, timeout: 30m}\ncalendars:\n  cn: {weekdays: mon-fri, except: [2026-10-01], include: [2026-10-10], invert: true}\n",
        "schedules:\n  often:\n    every: 90s\n    phase: 10s\n    jitter: 30s\n    start: 2026-12-01T00:00:00Z\n    end: 2027-12-01T00:00:00+01:00\n    max_runs: 10\n    exclude: [2026-12-25, 2026-12-26T10:00:00Z]\n    task: {execution: local, command: [vacuum, --analyze]}\nqueues:\n  reports: {max_in_flight: 2, ack_wait: 30s, record: all}\n",
        r#"{"schedules": {"once": {"at": "2026-12-01T00:00:00Z", "overlap": "allow", "missed": "all", "task": {"command": ["a"]}}}}"#,
    ];
    let parts = [
        ":",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "\"",
        "'",
        "\n",
        "  ",
        "\t",
        "#",
        "|",
        ">",
        "!!int",
        "null",
        "~",
        "-1",
        "1e999",
        "0s",
        "9999999999d",
        "0 0 31 2 *",
        "Mars/Olympus",
        "2026-02-30",
        "\u{0}",
        "é",
        "---",
        "<<: *a",
        "holidays: {ical: a.ics}",
        "schedules:",
        "cron:",
        "every:",
    ];
    fuzz("definitions", &seeds, &parts, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match Definitions::parse(&text) {
            Ok(definitions) => {
                let json = serde_json::to_string(&definitions).expect("JSON");
                // Nothing at all is written as an empty object.
                assert_eq!(Definitions::parse(&json).expect(&json), definitions);
                for schedule in definitions.schedules.values() {
                    let after = "2026-11-24T00:00:00Z".parse().expect("instant");
                    let slots: Vec<_> = schedule.slots_after(after).take(3).collect();
                    assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
                    assert!(!schedule.in_words(Language::English).is_empty());
                }
            }
            Err(error) => assert_message(&error.to_string()),
        }
    });
}

#[test]
fn no_bytes_harm_the_icalendar_parser() {
    let seeds = [
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\nSUMMARY:Christmas\r\n Day\r\nDTSTART;VALUE=DATE:20261225\r\nDTEND;VALUE=DATE:20261227\r\nRRULE:FREQ=YEARLY;INTERVAL=2;COUNT=5\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:国庆节 休\nDTSTART:20261001\nDURATION:P1W\nRDATE:20271001,20281001\nEXDATE:20261001\nBEGIN:VALARM\nTRIGGER:-PT15M\nEND:VALARM\nEND:VEVENT\nEND:VCALENDAR\n",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;X=\"a:b\":20241128\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=-1TH;UNTIL=20301128T000000Z\nEND:VEVENT\nEND:VCALENDAR\n",
    ];
    let parts = [
        "\r\n",
        "\n ",
        ":",
        ";",
        "=",
        ",",
        "\"",
        "T000000Z",
        "00000000",
        "99991231",
        "21001231",
        "P99999D",
        "-5MO",
        "0FR",
        "FREQ=DAILY",
        "INTERVAL=0",
        "COUNT=99999999999",
        "BYMONTH=13",
        "BEGIN:VEVENT",
        "END:VEVENT",
        "BEGIN:VCALENDAR",
        "END:VCALENDAR",
        "\u{feff}",
        "\u{0}",
        "é",
        "20240229",
        "RRULE:FREQ=YEARLY",
    ];
    fuzz("iCalendar", &seeds, &parts, |bytes| match ical::dates(bytes, None) {
        Ok(dates) => {
            // Written plainly, a date an event, they are read again.
            let events = dates.iter().map(|date| {
                format!("BEGIN:VEVENT\nDTSTART;VALUE=DATE:{}\nEND:VEVENT\n", date.format("%Y%m%d"))
            });
            let events: String = events.take(20_000).collect();
            let plain = format!("BEGIN:VCALENDAR\n{events}END:VCALENDAR\n");
            if plain.len() <= shared::limits::ICAL_BYTES_MAX {
                assert_eq!(ical::dates(plain.as_bytes(), None), Ok(dates));
            }
        }
        Err(error) => assert_message(&error.to_string()),
    });
}
