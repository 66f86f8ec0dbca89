//! Two oracles for cron expressions, over random expressions, zones and moments.
//!
//! *Brute force*: every minute (or second) of a few days around a change of clocks is turned into local time, the one
//! direction that has no ambiguity, and matched against sets that the generator made beside the text, not by parsing it.
//! *`croner`*: an independent implementation, for the meaning of the text over decades.
//!
//! `CRON_CASES=5000` runs more; `CRON_SEED=…`, printed by a failure, runs the same ones again. `make chaos` runs 12,000, and
//! every change of clocks in every zone from 1990 to 2037.

#![allow(clippy::expect_used, reason = "in tests; clippy only knows those that are inside #[test]")]

mod expressions;
mod zones;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{BuildHasher, RandomState},
};

use chrono::{DateTime, Datelike, TimeDelta};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::parser::CronParser;
use expressions::{Expression, expression, policy};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngSeed, TestRunner},
};
use shared::cron::{CronExpr, DstPolicy, FoldPolicy, GapPolicy};
use zones::{changes, moment, offset_s};

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

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seed() -> u64 {
    number("CRON_SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"))
}

fn run<S: Strategy>(default_cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Debug,
{
    let seed = seed();
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

/// One random expression and policy at each of these changes of clocks.
fn at_changes(zone: Tz, changes: &[i64], runner: &mut TestRunner) -> u32 {
    let mut checked = 0;
    for change_s in changes {
        let case = (expression(false), policy(), prop::collection::vec(0_i64..2 * 86_400, 3));
        let (expression, policy, entries) = case.new_tree(runner).expect("a case").current();
        let case = (expression, (zone, *change_s), policy);
        if let Err(failure) = agrees_with_brute_force(case, &entries, (86_400, 86_400), 60, 25 * 3600) {
            panic!("{failure}");
        }
        checked += 1;
    }
    checked
}

fn runner(seed: u64) -> TestRunner {
    println!("CRON_SEED={seed}");
    TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() })
}

#[test]
fn one_change_of_clocks_in_every_tenth_zone_agrees_with_brute_force() {
    let seed = seed();
    let mut runner = runner(seed);
    for (n, zone) in TZ_VARIANTS.iter().enumerate().skip((seed % 10) as usize).step_by(10) {
        let changes = changes(*zone, 1990..2038);
        let one = changes.get((seed as usize).wrapping_add(n) % changes.len().max(1));
        at_changes(*zone, one.map(std::slice::from_ref).unwrap_or_default(), &mut runner);
    }
}

#[test]
#[ignore = "long: `make chaos` runs it, optimised"]
fn every_change_of_clocks_in_every_zone_from_1990_to_2037_agrees_with_brute_force() {
    let mut runner = runner(seed());
    let checked = TZ_VARIANTS.iter().map(|zone| at_changes(*zone, &changes(*zone, 1990..2038), &mut runner));
    println!("{} changes of clocks in {} zones", checked.sum::<u32>(), TZ_VARIANTS.len());
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
