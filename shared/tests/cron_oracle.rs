//! Two oracles for cron expressions, over random expressions, zones and moments.
//!
//! *Brute force*: every minute (or second) of a few days around a change of clocks is turned into local time, the one
//! direction that has no ambiguity, and matched against sets that the generator made beside the text, not by parsing it.
//! *`croner`*: an independent implementation, for the meaning of the text over decades.
//!
//! `CRON_CASES=5000` runs more; `CRON_SEED=…`, printed by a failure, runs the same ones again.

#![allow(clippy::expect_used, reason = "in tests; clippy only knows those that are inside #[test]")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    hash::{BuildHasher, RandomState},
};

use chrono::{DateTime, Datelike, Days, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::parser::CronParser;
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use shared::cron::{CronExpr, DstPolicy, FoldPolicy, GapPolicy};

// --- Expressions, each made together with what it means.

/// One field: its text and the numbers in it. A rule about days is kept as the text says it.
#[derive(Debug, Clone)]
struct FieldMeaning {
    text: String,
    values: BTreeSet<u32>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    FromLast(u32),
    LastWorkday,
    NearestWorkday(u32),
    Nth(u32, u32),
    LastOf(u32),
}

#[derive(Debug, Clone)]
struct Expression {
    /// Second, minute, hour, day of month, month, day of week.
    fields: [FieldMeaning; 6],
    with_seconds: bool,
}

impl Expression {
    fn text(&self) -> String {
        let texts: Vec<&str> = self.fields.iter().map(|field| field.text.as_str()).collect();
        texts[usize::from(!self.with_seconds)..].join(" ")
    }

    fn starred(&self, index: usize) -> bool {
        self.fields[index].text.starts_with(['*', '?'])
    }

    fn allows_day(&self, date: NaiveDate) -> bool {
        let [_, _, _, day_of_month, month, day_of_week] = &self.fields;
        let weekday = date.weekday().num_days_from_sunday();
        let allows = |field: &FieldMeaning, value: u32| {
            field.values.contains(&value) || field.rules.iter().any(|rule| rule.allows(date))
        };
        let (by_month, by_week) = (allows(day_of_month, date.day()), allows(day_of_week, weekday));
        let day = if self.starred(3) || self.starred(5) { by_month && by_week } else { by_month || by_week };
        month.values.contains(&date.month()) && day
    }

    fn allows_time(&self, second_of_day: i64) -> bool {
        let parts = [second_of_day % 60, second_of_day / 60 % 60, second_of_day / 3600];
        parts.iter().zip(&self.fields).all(|(part, field)| field.values.contains(&(*part as u32)))
    }
}

impl Rule {
    /// As slowly and plainly as the words can be put.
    fn allows(self, date: NaiveDate) -> bool {
        let month: Vec<NaiveDate> =
            (1..=31).filter_map(|day| date.with_day(day)).filter(|day| day.month() == date.month()).collect();
        let is_workday = |day: &NaiveDate| day.weekday().number_from_monday() <= 5;
        let such = |weekday: u32| {
            month
                .iter()
                .filter(move |day| day.weekday().num_days_from_sunday() == weekday)
                .collect::<Vec<_>>()
        };
        match self {
            Rule::FromLast(before) => date + Days::new(u64::from(before)) == month[month.len() - 1],
            Rule::LastWorkday => month.iter().rfind(|day| is_workday(day)) == Some(&date),
            Rule::NearestWorkday(wanted) => month.get(wanted as usize - 1).is_some_and(|wanted| {
                let distance = |day: &&NaiveDate| (**day - *wanted).num_days().abs();
                month.iter().filter(|day| is_workday(day)).min_by_key(distance) == Some(&date)
            }),
            Rule::Nth(weekday, nth) => such(weekday).get(nth as usize - 1) == Some(&&date),
            Rule::LastOf(weekday) => such(weekday).last() == Some(&&date),
        }
    }
}

const BOUNDS: [(u32, u32); 6] = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
const MONTHS: [&str; 12] =
    ["jan", "FEB", "Mar", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 8] = ["SUN", "mon", "Tue", "WED", "THU", "FRI", "SAT", "7"];

/// Four random numbers become one item, so that shrinking them simplifies it.
fn item(index: usize, (kind, a, b, n): (u32, u32, u32, u32)) -> FieldMeaning {
    let (min, max) = BOUNDS[index];
    let within = |value: u32| min + value % (max - min + 1);
    // Clocks are mostly set in the small hours.
    let a = if index == 2 && n % 2 == 0 { a % 4 } else { within(a) };
    let b = within(b);
    let (low, high) = (a.min(b), a.max(b));
    let step_to = |from: u32, to: u32| 1 + n % (to - from).max(1);
    let written = |value: u32| match index {
        4 if n % 3 == 0 => MONTHS[value as usize - 1].to_owned(),
        5 if n % 3 == 0 => WEEKDAYS[value as usize].to_owned(),
        _ => value.to_string(),
    };
    let rule = |text: String, rule: Rule| FieldMeaning { text, values: BTreeSet::new(), rules: vec![rule] };
    let (text, from, to, step) = match kind {
        0..=3 => ("*".to_owned(), min, max, 1),
        4..=7 => (written(a), a, a, 1),
        8 | 9 => (
            format!("{}-{}", written(low), if high == 7 { "7".to_owned() } else { written(high) }),
            low,
            high,
            1,
        ),
        10 | 11 => (format!("*/{}", step_to(min, max)), min, max, step_to(min, max)),
        12 => (format!("{a}/{}", step_to(a, max)), a, max, step_to(a, max)),
        13 => (format!("{low}-{high}/{}", step_to(low, high)), low, high, step_to(low, high)),
        _ => {
            return match (index, n % 4) {
                (3, 0) if b % 3 > 0 => rule(format!("L-{}", b % 3), Rule::FromLast(b % 3)),
                (3, 0) => rule("L".to_owned(), Rule::FromLast(0)),
                (3, 1) => rule("LW".to_owned(), Rule::LastWorkday),
                (3, _) => rule(format!("{a}W"), Rule::NearestWorkday(a)),
                (5, 0 | 1) => rule(format!("{}L", written(a)), Rule::LastOf(a % 7)),
                (5, _) => rule(format!("{}#{}", written(a), 1 + b % 5), Rule::Nth(a % 7, 1 + b % 5)),
                _ => item(index, (0, a, b, n)),
            };
        }
    };
    let values = (from..=to).step_by(step as usize).map(|value| if index == 5 { value % 7 } else { value });
    FieldMeaning { text, values: values.collect(), rules: vec![] }
}

fn field(index: usize) -> impl Strategy<Value = FieldMeaning> {
    let numbers = (0_u32..16, 0_u32..60, 0_u32..60, 0_u32..120);
    prop_oneof![3 => prop::collection::vec(numbers.clone(), 1), 1 => prop::collection::vec(numbers, 1..4)]
        .prop_map(move |numbers| {
            let items: Vec<FieldMeaning> = numbers.into_iter().map(|numbers| item(index, numbers)).collect();
            FieldMeaning {
                text: items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join(","),
                values: items.iter().flat_map(|item| item.values.iter().copied()).collect(),
                rules: items.iter().flat_map(|item| item.rules.iter().copied()).collect(),
            }
        })
}

fn expression(with_seconds: bool) -> impl Strategy<Value = Expression> {
    // In a few days a month that is named mostly means nothing at all: often leave it open.
    let month = prop_oneof![3 => Just(item(4, (0, 0, 0, 0))), 1 => field(4)];
    let second = if with_seconds { field(0).boxed() } else { Just(item(0, (4, 0, 0, 1))).boxed() };
    (second, field(1), field(2), field(3), month, field(5)).prop_map(
        move |(second, minute, hour, day_of_month, month, day_of_week)| Expression {
            fields: [second, minute, hour, day_of_month, month, day_of_week],
            with_seconds,
        },
    )
}

fn policy() -> impl Strategy<Value = DstPolicy> {
    let gap = prop::sample::select(vec![None, Some(GapPolicy::RunAfter), Some(GapPolicy::Skip)]);
    let fold = prop::sample::select(vec![
        None,
        Some(FoldPolicy::First),
        Some(FoldPolicy::Last),
        Some(FoldPolicy::Both),
    ]);
    (gap, fold).prop_map(|(gap, fold)| DstPolicy { gap, fold })
}

// --- Zones, at moments that matter.

fn offset_s(zone: Tz, utc_s: i64) -> i64 {
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
fn moment() -> impl Strategy<Value = (Tz, i64)> {
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

// --- Brute force.

/// Every slot in `(from_s, to_s]`, by looking at each `step_s` of it; `around_s` is as far as a clock is ever set.
fn by_brute_force(
    expression: &Expression,
    zone: Tz,
    policy: DstPolicy,
    (from_s, to_s): (i64, i64),
    step_s: i64,
    around_s: i64,
) -> Vec<i64> {
    let wall_clock = expression.starred(1) || expression.starred(2);
    let gap = policy.gap.unwrap_or(if wall_clock { GapPolicy::Skip } else { GapPolicy::RunAfter });
    let fold = policy.fold.unwrap_or(if wall_clock { FoldPolicy::Both } else { FoldPolicy::First });
    let mut days: BTreeMap<i64, bool> = BTreeMap::new();
    let mut allows = |local_s: i64| {
        expression.allows_time(local_s.rem_euclid(86_400)) && {
            let date = || DateTime::from_timestamp(local_s, 0).expect("date").date_naive();
            *days.entry(local_s.div_euclid(86_400)).or_insert_with(|| expression.allows_day(date()))
        }
    };
    let begin_s = (from_s - around_s).div_euclid(step_s) * step_s;
    let moments: Vec<(i64, i64)> = (begin_s..=to_s + around_s)
        .step_by(step_s as usize)
        .map(|utc_s| (utc_s, utc_s + offset_s(zone, utc_s)))
        .collect();
    let mut passes: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (utc_s, local_s) in &moments {
        passes.entry(*local_s).or_insert((*utc_s, *utc_s)).1 = *utc_s;
    }
    let mut slots = Vec::new();
    for pair in moments.windows(2) {
        let [(_, previous_s), (utc_s, local_s)] = pair else { unreachable!("windows of two") };
        let (first_s, last_s) = passes[local_s];
        let its_turn = match fold {
            FoldPolicy::First => first_s == *utc_s,
            FoldPolicy::Last => last_s == *utc_s,
            FoldPolicy::Both => true,
        };
        let mut jumped_over = (previous_s + step_s..*local_s).step_by(step_s as usize);
        let is_slot =
            (its_turn && allows(*local_s)) || (gap == GapPolicy::RunAfter && jumped_over.any(&mut allows));
        if is_slot && *utc_s > from_s && *utc_s <= to_s {
            slots.push(*utc_s);
        }
    }
    slots
}

fn agrees_with_brute_force(
    (expression, (zone, moment_s), policy): (Expression, (Tz, i64), DstPolicy),
    entries: &[i64],
    window_s: (i64, i64),
    step_s: i64,
    around_s: i64,
) -> Result<(), TestCaseError> {
    let Ok(cron) = expression.text().parse::<CronExpr>() else {
        // What never comes is checked against croner below.
        return Ok(());
    };
    let window_s = (moment_s - window_s.0, moment_s + window_s.1);
    let slots = by_brute_force(&expression, zone, policy, window_s, step_s, around_s);
    let next = |after_s: i64| {
        let after = DateTime::from_timestamp(after_s, 0).expect("instant");
        cron.next_after(after, zone, policy).map_or(i64::MAX, |slot| slot.timestamp())
    };
    let check = |after_s: i64| {
        let expected = slots.iter().copied().find(|slot_s| *slot_s > after_s);
        let found = Some(next(after_s)).filter(|found_s| *found_s <= window_s.1);
        let show = |slot_s: Option<i64>| slot_s.and_then(|slot_s| DateTime::from_timestamp(slot_s, 0));
        let after = show(Some(after_s));
        let text = expression.text();
        prop_assert_eq!(show(found), show(expected), "{:?} in {} after {:?}", text, zone, after);
        Ok(found)
    };
    // Entered anywhere, also inside a gap or a fold, and at the moment itself.
    for entry in entries {
        check((window_s.0 + entry).min(window_s.1))?;
    }
    for beside in [-step_s, -1, 0, 1, step_s] {
        check(moment_s + beside)?;
    }
    // Followed from answer to answer, across the moment.
    let mut after_s = moment_s - 3 * 3600;
    for _ in 0..40 {
        match check(after_s)? {
            Some(found_s) => after_s = found_s,
            None => break,
        }
    }
    Ok(())
}

fn run<S: Strategy>(default_cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("CRON_SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"));
    // CRON_CASES is the number for the cheapest of these tests; the others keep their proportion.
    let cases = number("CRON_CASES").map_or(default_cases, |cases| cases as u32 * default_cases / 1_000);
    let config = ProptestConfig {
        cases: cases.max(1),
        // A case that the two dialects read differently is passed over.
        max_global_rejects: u32::MAX,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    if let Err(failure) = TestRunner::new(config).run(&strategy, test) {
        panic!("{failure}\nreplay with CRON_SEED={seed}");
    }
}

#[test]
fn every_slot_of_the_days_around_a_change_of_clocks_comes_once_by_the_minute() {
    let entries = prop::collection::vec(0_i64..4 * 86_400, 12);
    run(400, ((expression(false), moment(), policy()), entries), |(case, entries)| {
        // Monrovia counted seconds until 1972; it has its turn below.
        prop_assume!(offset_s(case.1.0, case.1.1 - 1) % 60 == 0);
        agrees_with_brute_force(case, &entries, (2 * 86_400, 2 * 86_400), 60, 25 * 3600)
    });
}

#[test]
fn every_slot_of_the_hours_around_a_change_of_clocks_comes_once_by_the_second() {
    let monrovia = Just((Tz::Africa__Monrovia, 63_593_070));
    let moments = prop_oneof![3 => moment(), 1 => monrovia];
    let entries = prop::collection::vec(0_i64..5 * 3600, 12);
    run(40, ((expression(true), moments, policy()), entries), |(case, entries)| {
        // A day lost is for the test by the minute.
        prop_assume!((offset_s(case.1.0, case.1.1) - offset_s(case.1.0, case.1.1 - 1)).abs() <= 4 * 3600);
        agrees_with_brute_force(case, &entries, (3 * 3600, 2 * 3600), 1, 4 * 3600)
    });
}

// --- croner.

/// Whether both dialects say the same; where they do not, the documentation of `shared::cron` says so.
fn is_common(expression: &Expression) -> bool {
    let [_, _, _, day_of_month, _, day_of_week] = &expression.fields;
    let texts = [&day_of_month.text, &day_of_week.text];
    // Ours: a field that starts with a star is not restricted (Vixie). Theirs: only a star alone.
    let star_and_more = texts.iter().any(|text| text.starts_with('*') && *text != "*");
    // Theirs takes no star within a list.
    let star_in_list = expression
        .fields
        .iter()
        .any(|field| field.text != "*" && field.text.split(',').any(|item| item == "*"));
    // Theirs have no L-3, and LW turns any L or W beside it into itself.
    let words = day_of_month.rules.len() > 1 || day_of_month.text.contains("L-");
    // Theirs reads the whole week.
    let sunday_to_sunday = day_of_week.text.contains("SUN-SUN");
    !star_and_more && !star_in_list && !words && !sunday_to_sunday
}

#[test]
fn croner_reads_the_same_slots_out_of_the_same_text() {
    let parser = CronParser::builder().sloppy_ranges(true).build();
    let after = (0_i64..3_600_000_000).prop_map(|at_s| DateTime::from_timestamp(at_s, 0).expect("instant"));
    run(1_000, (any::<bool>().prop_flat_map(expression), after), |(expression, after)| {
        prop_assume!(is_common(&expression));
        let text = expression.text();
        let theirs =
            parser.parse(&text).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        let ours = match text.parse::<CronExpr>() {
            Ok(ours) => ours,
            Err(error) => {
                // Refusals must be because of days that never come, and then croner finds none either.
                prop_assert!(error.to_string().contains("never comes"), "{error}");
                prop_assert!(theirs.find_next_occurrence(&after, false).is_err(), "{error}");
                return Ok(());
            }
        };
        let mut at = after;
        for _ in 0..8 {
            let next = ours.next_after(at, Tz::UTC, DstPolicy::default());
            let expected = theirs.find_next_occurrence(&at, false).ok().filter(|slot| slot.year() <= 2100);
            prop_assert_eq!(next, expected, "{:?} after {}", text, at);
            let Some(next) = next else { break };
            at = next;
        }
        Ok(())
    });
}

#[test]
fn croner_agrees_about_one_time_of_day_in_every_zone() {
    let parser = CronParser::builder().build();
    run(300, (0_u32..60, 0_u32..24, moment()), |(minute, hour, (zone, moment_s))| {
        let text = format!("{minute} {hour} * * *");
        let theirs = parser.parse(&text).expect("plain");
        let ours: CronExpr = text.parse().expect("plain");
        let mut at = DateTime::from_timestamp(moment_s, 0).expect("instant") - TimeDelta::days(2);
        for _ in 0..4 {
            // Their search gives up in a day that is missing as a whole.
            let Ok(expected) = theirs.find_next_occurrence(&at.with_timezone(&zone), false) else { break };
            let next = ours.next_after(at, zone, DstPolicy::default());
            prop_assert_eq!(next, Some(expected.to_utc()), "{:?} in {} after {}", text, zone, at);
            at = expected.to_utc();
        }
        Ok(())
    });
}
