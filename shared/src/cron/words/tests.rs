//! Words, as a table, and a property: what means something else is said otherwise.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const EXPRESSIONS: &[&str] = &[
    // Times of day.
    "0 2 * * *",
    "30 14 * * *",
    "0 9,17 * * *",
    "0,30 9,17 * * *",
    "15 0 2 * * *",
    "@daily",
    "@hourly",
    "@weekly",
    "@monthly",
    "@yearly",
    // Parts of the clock.
    "* * * * *",
    "*/5 * * * *",
    "*/30 * * * *",
    "*/7 * * * *",
    "3/5 * * * *",
    "10-30/5 * * * *",
    "15 * * * *",
    "15,45 * * * *",
    "0-10 * * * *",
    "0-10,30,50-55 * * * *",
    "0-10,30,40/3 * * * *",
    "0 */6 * * *",
    "0 */5 * * *",
    "15 */6 * * *",
    "*/15 9-17 * * *",
    "0 9-17 * * *",
    "*/10 9-12,14-18 * * MON-FRI",
    "5 0-23/2 * * *",
    "* 2 * * *",
    // Seconds.
    "* * * * * *",
    "*/10 * * * * *",
    "30 * * * * *",
    "15,45 */5 * * * *",
    "*/20 30 * * * *",
    "* 0 2 * * *",
    "0/7 * 9 * * *",
    // Days.
    "0 3 * * 0",
    "0 1 * * 1",
    "0 1 * * MON-FRI",
    "0 1 * * MON,WED,FRI",
    "0 1 * * SAT-SUN",
    "0 1 * * 1/2",
    "0 0 1 * *",
    "0 0 1,15 * *",
    "0 0 1-7 * *",
    "0 0 */2 * *",
    "0 0 5-20/3 * *",
    "0 0 13 * FRI",
    "0 0 */2 * MON",
    "0 0 1-31 * MON",
    "0 0 1-7 * */7",
    "0 9 1,15 * MON-FRI",
    // L, W and #.
    "0 18 L * *",
    "0 18 L-1 * *",
    "0 18 L-3 * *",
    "0 18 LW * *",
    "0 9 15W * *",
    "0 9 1,15,L * *",
    "0 9 * * MON#2",
    "0 9 * * FRIL",
    "0 9 * * MON#1,FRIL",
    "0 9 L * FRI#1",
    // Months and years.
    "0 0 1 1 *",
    "0 0 * JUN-AUG *",
    "0 0 1 */3 *",
    "*/30 * * 2 *",
    "0 0 29 2 MON",
    "0 0 0 1 1 ? 2030",
    "0 0 12 * * MON 2026-2030",
    "0 0 12 1 * * 2026/5",
    // Spreads.
    "H H(1-5) * * *",
    "H/15 * * * *",
];

#[test]
fn an_expression_is_said_in_english_and_in_chinese() {
    let mut table = String::new();
    for text in EXPRESSIONS {
        let expression: CronExpr = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let named = expression.with_seed("daily_data_archive");
        let words = [Language::English, Language::Chinese].map(|language| named.in_words(language));
        let _ = writeln!(table, "{text}\n    {}\n    {}", words[0], words[1]);
    }
    insta::assert_snapshot!(table);
}

/// The sets of an expression, without how it treats clocks that are set, and without what changes nothing: a rule beside
/// every day, and how two fields are joined that both let every day pass.
fn sets(expression: &CronExpr) -> Vec<String> {
    let text = expression.0.normal_text.trim_end_matches(" wall clock").trim_end_matches(" time of day");
    let mut sets: Vec<String> = text
        .split(' ')
        .map(|field| if field.starts_with('*') { "*".to_owned() } else { field.to_owned() })
        .collect();
    if sets[3] == "*" && sets[5] == "*" {
        sets.truncate(7);
    }
    sets
}

fn item(field: usize) -> impl Strategy<Value = String> {
    let (min, max): (u16, u16) = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (2026, 2040)][field];
    let value = min..=max;
    let rule = match field {
        3 => prop_oneof![
            Just("L".to_owned()),
            Just("LW".to_owned()),
            (1..31_u16).prop_map(|n| format!("L-{n}")),
            (1..32_u16).prop_map(|n| format!("{n}W"))
        ]
        .boxed(),
        5 => prop_oneof![
            (0..8_u16, 1..6_u16).prop_map(|(day, nth)| format!("{day}#{nth}")),
            (0..8_u16).prop_map(|day| format!("{day}L"))
        ]
        .boxed(),
        _ => Just("*".to_owned()).boxed(),
    };
    prop_oneof![
        3 => Just("*".to_owned()),
        4 => value.clone().prop_map(|a| a.to_string()),
        2 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (2..=max - min).prop_map(|n| format!("*/{n}")),
        2 => (value.clone(), value.clone(), 1..=max - min).prop_map(|(a, b, n)| {
            let (from, to) = (a.min(b), a.max(b));
            format!("{from}-{to}/{}", 1 + n % (to - from).max(1))
        }),
        1 => rule,
    ]
}

fn field(index: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => item(index),
        1 => prop::collection::vec(item(index), 2..4).prop_map(|items| items.join(",")),
    ]
}

#[test]
fn words_never_panic_and_differ_for_expressions_that_differ_in_a_single_field() {
    let fields = (field(0), field(1), field(2), field(3), field(4), field(5), field(6));
    let other = (0..7_usize).prop_flat_map(|index| (Just(index), field(index)));
    let config = ProptestConfig {
        cases: 4_000,
        max_global_rejects: u32::MAX,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((a, b, c, d, e, f, g) in fields, (index, text) in other)| {
        let mut words = [a, b, c, d, e, f, g];
        let one = words.join(" ").parse::<CronExpr>();
        words[index] = text;
        let other = words.join(" ").parse::<CronExpr>();
        let (Ok(one), Ok(other)) = (one, other) else { return Ok(()) };
        for language in [Language::English, Language::Chinese] {
            let said = [&one, &other].map(|expression| expression.in_words(language));
            prop_assert!(said.iter().all(|said| !said.is_empty() && !said.contains("  ")), "{:?}", said);
            prop_assert!(said[0] != said[1] || sets(&one) == sets(&other), "{} and {} are both {:?}", one, other, said[0]);
        }
    });
}
