//! Chains: schedules that are due when a run of another one ends.
//!
//! # The model
//!
//! A schedule with `after` has no slots. It is due at each *end* of a run of the schedule it names, planned, by hand or
//! back-filled, if the end is of the kind it waits for. A slot that was skipped is no run, so nothing follows it; a run
//! that somebody cancelled is followed with `on: always` only. Of a sharded run the parent counts, not its children.
//!
//! # The promise
//!
//! One end makes one run: its id is computed from the id of the run that ended ([`run_after`]), so whoever sees the end, and
//! however often, makes the same one. A chain has a beginning: a cycle is refused, and one that a stranger wrote into the
//! bucket is not followed ([`cycle_through`]).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    closed_day::OnClosedDay,
    cron::DstPolicy,
    hash::mixed_64,
    limits::NAME_CHARS_MAX,
    names::{Name, RunKey},
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    schedule::{Missed, ScheduleFields},
};

/// Which ends of the other schedule's runs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It ended SUCCESS.
    #[default]
    Success,
    /// It ended FAILED.
    Failure,
    /// It ended, also if somebody cancelled it. Not if its slot was skipped: then there was no run.
    Always,
}

/// Due when a run of another schedule ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// The other schedule.
    pub schedule: Name,
    /// Which ends of its runs count. Default success.
    #[serde(default)]
    pub on: End,
}

impl After {
    /// Whether this record says that a run has ended which is followed.
    pub fn follows(&self, record: &RunRecord) -> bool {
        if record.schedule.as_ref() != Some(&self.schedule) || !is_end_of_a_run(record) {
            return false;
        }
        match self.on {
            End::Success => record.status == RunState::Success,
            End::Failure => record.status == RunState::Failed,
            End::Always => true,
        }
    }
}

/// Whether a record is that of a schedule's run that has ended: not a skip, nor a part of a run.
fn is_end_of_a_run(record: &RunRecord) -> bool {
    let skips = [Reason::SkippedMissed, Reason::SkippedOverlap, Reason::SkippedCalendar, Reason::Paused];
    let was_skipped = record.status == RunState::Cancelled
        && record.attempt == 0
        && record.reason.is_some_and(|reason| skips.contains(&reason));
    record.status.is_final() && !was_skipped && record.shard.is_none()
}

/// The run whose end a run follows, as the record of the latter names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upstream {
    /// The run that ended.
    pub run: RunId,
    /// How it ended.
    pub status: RunState,
    /// When its end was stored, by the server's clock.
    pub ended_at: Timestamp,
    /// How often it had been retried by hand before that end: each of its ends is another.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub retried: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Hex digits of the hash in a chained run's key.
const HASH_CHARS: usize = 16;
/// Characters of the first run's key that are kept. With them a key of a chained run, and of each of its shards, is
/// within its bound.
const STEM_CHARS_MAX: usize = 40;

// `_`, the stem, `-`, the hash; and room for what makes a shard's key of it.
const _: () = assert!(1 + STEM_CHARS_MAX + 1 + HASH_CHARS + 5 <= NAME_CHARS_MAX);

/// The id of the one run of a schedule that follows the end of a run: the same whoever computes it.
///
/// The key is `_<key of the chain's first run>-<hash of the upstream run's id>`. Keys that begin with `_` are refused from
/// callers, and no slot, no run by hand and no lock has such a one. The first part is for people: it is the same all along a
/// chain.
pub fn run_after(downstream: &Name, upstream: &RunId) -> RunId {
    run_after_retries(downstream, upstream, 0)
}

/// As [`run_after`], of an end that came after so many retries by hand.
pub fn run_after_retries(downstream: &Name, upstream: &RunId, retries: u32) -> RunId {
    let stem: String = stem_of(&upstream.key).chars().take(STEM_CHARS_MAX).collect();
    let (name, key) = (upstream.name.as_str(), upstream.key.as_str());
    let hash = match retries {
        0 => mixed_64(&["after", name, key]),
        times => mixed_64(&["after", name, key, &times.to_string()]),
    };
    let key = format!("_{stem}-{hash:016x}");
    // Of characters of a key, digits and `_ -` only, and short enough: always a valid key.
    RunId { name: downstream.clone(), key: key.parse().unwrap_or_else(|_| RunKey::unique()) }
}

/// The key of the chain's first run, from that of any run in it.
fn stem_of(key: &RunKey) -> &str {
    let chained = key.as_str().strip_prefix('_').and_then(|rest| rest.rsplit_once('-'));
    match chained {
        Some((stem, hash)) if hash.len() == HASH_CHARS => stem,
        _ => key.as_str(),
    }
}

/// Something that a schedule without slots cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is about slots, and a schedule with `after` has none: leave it out")]
pub struct AfterError(&'static str);

/// Refuses what makes no sense without slots.
pub(crate) fn check_fields(fields: &ScheduleFields) -> Result<(), AfterError> {
    let about_slots = [
        ("max_runs", fields.max_runs.is_some()),
        ("exclude", !fields.exclude.is_empty()),
        ("jitter", fields.jitter.is_some()),
        ("missed", fields.missed != Missed::default()),
        ("catch_up", fields.catch_up.is_some()),
        ("dst", fields.dst != DstPolicy::default()),
        ("on_closed_day", fields.on_closed_day != OnClosedDay::default()),
    ];
    match about_slots.into_iter().find(|(_, is_there)| *is_there) {
        Some((field, _)) => Err(AfterError(field)),
        None => Ok(()),
    }
}

/// The way from a schedule along `after` back to itself, if it leads there: each schedule on it once, itself first.
pub fn cycle_through<'a>(
    start: &'a Name,
    upstream_of: impl Fn(&Name) -> Option<&'a Name>,
) -> Option<Vec<&'a Name>> {
    let (mut way, mut seen, mut at) = (Vec::new(), BTreeSet::new(), start);
    while seen.insert(at) {
        way.push(at);
        at = upstream_of(at)?;
    }
    // Another cycle, further up, is those schedules' own.
    (at == start).then_some(way)
}

/// Every schedule whose `after` leads back to itself, with that way in words. Each schedule is looked at once.
pub fn cycles<'a>(
    schedules: impl Iterator<Item = &'a Name>,
    upstream_of: impl Fn(&Name) -> Option<&'a Name>,
) -> BTreeMap<&'a Name, String> {
    let (mut seen, mut found) = (BTreeSet::new(), BTreeMap::new());
    for start in schedules {
        let (mut way, mut places, mut at) = (Vec::new(), BTreeMap::new(), Some(start));
        while let Some(name) = at.filter(|name| seen.insert(*name)) {
            places.insert(name, way.len());
            way.push(name);
            at = upstream_of(name);
        }
        // Where the way came to what was seen before: on this way, then it is a cycle, or on an earlier one.
        let Some(first) = at.and_then(|name| places.get(name)) else { continue };
        let mut cycle = way.split_off(*first);
        for _ in 0..cycle.len() {
            found.insert(cycle[0], cycle_words(&cycle));
            cycle.rotate_left(1);
        }
    }
    found
}

/// A cycle in words: `a after b after a`.
pub fn cycle_words(way: &[&Name]) -> String {
    let names: Vec<&str> = way.iter().chain(way.first()).map(|name| name.as_str()).collect();
    names.join(" after ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::QueueName, run_state::RunEvent, schedule::Schedule, shard::Shard, slot::Slot};

    fn name(text: &str) -> Name {
        text.parse().expect("name")
    }

    fn run(text: &str) -> RunId {
        text.parse().expect("run")
    }

    fn at() -> Timestamp {
        "2026-11-24T02:00:00Z".parse().expect("instant")
    }

    #[test]
    fn which_ends_are_followed_is_said_by_the_record_and_the_link() {
        use RunEvent::{Cancelled, FailedForGood, FailedWithRetry, Skipped, Started, Succeeded};
        let planned = RunRecord::planned(&name("up"), Slot::at(at()), QueueName::default_queue(), at());
        let ends: [(&[RunEvent], Option<Reason>, [bool; 3]); 9] = [
            (&[Started, Succeeded], None, [true, false, true]),
            (&[Started, FailedForGood], Some(Reason::AttemptsExhausted), [false, true, true]),
            (&[Started, Cancelled], Some(Reason::ByOperator), [false, false, true]),
            (&[Cancelled], Some(Reason::ByOperator), [false, false, true]),
            (&[Skipped], Some(Reason::SkippedOverlap), [false; 3]),
            (&[Skipped], Some(Reason::Paused), [false; 3]),
            (&[], None, [false; 3]),
            (&[Started], None, [false; 3]),
            (&[Started, FailedWithRetry], None, [false; 3]),
        ];
        for (events, reason, expected) in ends {
            let record = events
                .iter()
                .fold(planned.clone(), |record, event| record.apply(*event, at()).expect("legal"));
            let record = RunRecord { reason, ..record };
            let follows = |on| After { schedule: name("up"), on }.follows(&record);
            let found = [End::Success, End::Failure, End::Always].map(follows);
            assert_eq!(found, expected, "{events:?} {reason:?}");
            assert!(!After { schedule: name("other"), on: End::Always }.follows(&record));
            let ad_hoc = RunRecord { schedule: None, ..record };
            assert!(!After { schedule: name("up"), on: End::Always }.follows(&ad_hoc), "a stranger's run");
            let shard = Some(Shard { parent: ad_hoc.id.clone(), index: 0, total: 2 });
            let part = RunRecord { schedule: Some(name("up")), shard, ..ad_hoc };
            assert!(!After { schedule: name("up"), on: End::Always }.follows(&part), "the whole counts");
        }
    }

    #[test]
    fn one_end_makes_one_id_which_nobody_else_can_have() {
        let (down, next) = (name("down"), name("next"));
        let first = run_after(&down, &run("up.20261124T020000Z"));
        assert_eq!(first, run_after(&down, &run("up.20261124T020000Z")));
        assert!(first.to_string().starts_with("down._20261124T020000Z-"), "{first}");
        assert_ne!(first, run_after(&down, &run("other.20261124T020000Z")), "of another schedule");
        assert_ne!(first, run_after(&down, &run("up.20261124T020001Z")));
        let retried = |times| run_after_retries(&down, &run("up.20261124T020000Z"), times);
        assert_eq!(first, retried(0));
        assert!(
            first != retried(1) && retried(1) != retried(2),
            "each end of a run that is retried is another"
        );
        let second = run_after(&next, &first);
        assert!(second.key.as_str().starts_with("_20261124T020000Z-"), "{second}");
        assert_ne!(second.key, first.key);
        for upstream in
            [format!("up.{}", "x".repeat(64)), "up.manual-20261124T020000Z-1a2b3c4d".into(), "up._".into()]
        {
            let id = run_after(&down, &run(&upstream));
            assert_eq!(id.to_string().parse(), Ok(id.clone()), "{id}");
            assert!(id.key.as_str().len() + 5 <= NAME_CHARS_MAX && id.key.as_str().starts_with('_'), "{id}");
            assert_eq!(id.slot(), None);
        }
    }

    #[test]
    fn what_is_about_slots_is_refused_where_there_are_none_and_the_rest_is_kept() {
        let parse = |fields: &str| -> Result<Schedule, String> {
            let json = format!(r#"{{"after":{{"schedule":"up"}}{fields},"task":{{"command":["a"]}}}}"#);
            serde_json::from_str(&json).map_err(|error| error.to_string())
        };
        for (fields, part) in [
            (r#","jitter":"1m""#, "jitter is about slots, and a schedule with `after` has none"),
            (r#","catch_up":"1m""#, "catch_up is about"),
            (r#","missed":"all""#, "missed is about"),
            (r#","exclude":["2026-12-25"]"#, "exclude is about"),
            (r#","start":"2026-12-01T00:00:00Z","max_runs":2"#, "max_runs is about"),
            (r#","calendar":"c","on_closed_day":"next_open_day""#, "on_closed_day is about"),
            (r#","every":"1h""#, "exactly one of `cron`, `every`, `at` and `after`"),
            (r#","start":"2026-12-02T00:00:00Z","end":"2026-12-01T00:00:00Z""#, "before start"),
        ] {
            let error = parse(fields).expect_err(fields);
            assert!(error.contains(part), "{fields}: {error}");
        }
        let fields = r#","calendar":"c","timezone":"Asia/Shanghai","overlap":"buffer_all","start":"2026-12-01T00:00:00Z""#;
        let schedule = parse(fields).expect("a schedule").named(&name("down"));
        assert_eq!(schedule.after(), Some(&After { schedule: name("up"), on: End::Success }));
        assert_eq!(schedule.next_after(at()), None);
        let again: Schedule =
            serde_json::from_value(serde_json::to_value(&schedule).expect("json")).expect("read");
        assert_eq!(again.named(&name("down")), schedule, "as it was stored");
    }

    #[test]
    fn a_cycle_is_found_from_each_schedule_on_it_and_from_no_other() {
        let after: BTreeMap<Name, Name> =
            [("a", "c"), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "e"), ("f", "gone")]
                .into_iter()
                .map(|(down, up)| (name(down), name(up)))
                .collect();
        for (start, words) in [
            ("a", Some("a after c after b after a")),
            ("b", Some("b after a after c after b")),
            ("d", None),
            ("e", Some("e after e")),
            ("f", None),
            ("gone", None),
        ] {
            let start = name(start);
            let found = cycle_through(&start, |name| after.get(name));
            assert_eq!(found.map(|way| cycle_words(&way)).as_deref(), words, "{start}");
            let all = cycles(after.keys(), |name| after.get(name));
            assert_eq!(all.get(&start).map(String::as_str), words, "{start}");
        }
    }
}
