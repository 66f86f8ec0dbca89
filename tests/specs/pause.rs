//! Pauses: a slot is paused by what was in force at its instant, and its record says by whom and why.

use std::time::Duration;

use chrono::TimeDelta;
use harness::{Fleet, eventually, wait::for_a_while, within};
use serde_json::json;
use shared::{
    Timestamp, limits,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

const EVERY_SECOND: &str = "targets: {target: {http: TARGET}}\nschedules:\n  \
    second: {every: 1s, overlap: allow, missed: all, task: {target_service: target, action: ok}}\n";

/// The records of the schedule's slots, in order.
async fn records(fleet: &Fleet) -> Vec<RunRecord> {
    let mut found: Vec<RunRecord> = fleet.records().await.into_iter().map(|stored| stored.value).collect();
    found.retain(|record| record.slot.is_some());
    found.sort_by_key(|record| record.slot);
    found
}

/// Waits until there is a record of a slot after an instant that is as wanted; the slot.
async fn slot_after(
    fleet: &Fleet,
    after: Timestamp,
    what: &str,
    wanted: fn(&RunRecord) -> bool,
) -> Timestamp {
    eventually(&format!("{what} after {after}"), async || {
        let found = records(fleet).await;
        let slot = found.iter().find(|record| record.slot > Some(after) && wanted(record));
        slot.and_then(|record| record.slot).ok_or_else(|| format!("{} records", found.len()))
    })
    .await
}

fn runs(record: &RunRecord) -> bool {
    record.reason != Some(Reason::Paused)
}

fn is_paused(record: &RunRecord) -> bool {
    (record.status, record.reason) == (RunState::Cancelled, Some(Reason::Paused))
}

/// Every second between the first and the last slot has its record.
fn assert_no_gap(records: &[RunRecord]) {
    let slots: Vec<Timestamp> = records.iter().filter_map(|record| record.slot).collect();
    for pair in slots.windows(2) {
        assert_eq!(pair[1] - pair[0], TimeDelta::seconds(1), "between {} and {}", pair[0], pair[1]);
    }
}

async fn fleet_with(definitions: &str) -> (Fleet, harness::Process, harness::Process) {
    let fleet = Fleet::start().await;
    let worker = fleet.worker(&[]);
    let planner = fleet.planner();
    fleet.members("planner", 1).await;
    fleet.apply(definitions);
    (fleet, worker, planner)
}

#[tokio::test]
async fn slots_of_a_pause_are_recorded_and_not_run_and_nothing_is_caught_up_after_it() {
    let (fleet, _worker, _planner) = fleet_with(EVERY_SECOND).await;
    slot_after(&fleet, fleet.now(), "a run", runs).await;
    fleet.cronfleet(&["pause", "second", "--reason", "disk is being replaced"]);
    let paused_at = fleet.now();
    slot_after(&fleet, paused_at + TimeDelta::seconds(2), "a paused slot", is_paused).await;

    let output = fleet.try_cronfleet(&["pause", "second"]);
    assert_eq!(output.status.code(), Some(0), "pausing twice is no error");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("already") && said.contains("disk is being replaced"), "{said}");
    let shown = fleet.cronfleet_json(&["get", "schedules", "second"]);
    assert_eq!(shown["paused"]["reason"], "disk is being replaced");
    assert!(shown["paused"]["by"].as_str().is_some_and(|by| by.contains('@')), "{shown}");
    assert!(shown["paused"].get("until").is_none() && shown["paused"]["since"].is_string(), "{shown}");
    for verb in [&["describe", "schedule", "second"][..], &["get", "schedules"], &["next", "second"]] {
        let text = fleet.cronfleet(verb);
        assert!(text.contains("paused"), "{verb:?}: {text}");
    }

    // A run asked for by hand is somebody's word about now.
    let by_hand = fleet.cronfleet_json(&["trigger", "second", "--wait"]);
    assert_eq!((&by_hand["status"], &by_hand["schedule"]), (&json!("SUCCESS"), &json!("second")));

    fleet.cronfleet(&["resume", "second"]);
    let resumed_at = fleet.now();
    slot_after(&fleet, resumed_at + TimeDelta::seconds(2), "a run", runs).await;
    let found = records(&fleet).await;
    assert_no_gap(&found);
    let second = TimeDelta::seconds(1);
    for record in &found {
        let slot = record.slot.expect("a slot");
        if slot > paused_at + second && slot < resumed_at - second {
            assert!(is_paused(record), "{} is {}", record.id, record.status);
            let note = record.note.as_deref().unwrap_or_default();
            assert!(note.starts_with("paused by ") && note.contains("disk is being replaced"), "{note}");
            assert!(fleet.target.calls_of(&record.id.to_string()).is_empty(), "{} was run", record.id);
        } else if slot > resumed_at + second {
            assert!(runs(record), "{} is {:?}", record.id, record.reason);
        }
    }
    let output = fleet.try_cronfleet(&["resume", "second"]);
    assert_eq!(output.status.code(), Some(0), "resuming what runs is no error");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not paused"));
}

#[tokio::test]
async fn a_pause_ends_by_itself_when_its_time_is_over() {
    let (fleet, _worker, _planner) = fleet_with(EVERY_SECOND).await;
    slot_after(&fleet, fleet.now(), "a run", runs).await;
    fleet.cronfleet(&["pause", "second", "--until", "4s"]);
    let shown = fleet.cronfleet_json(&["get", "schedules", "second"]);
    let until: Timestamp = shown["paused"]["until"].as_str().expect("until").parse().expect("instant");
    slot_after(&fleet, until + TimeDelta::seconds(1), "a run", runs).await;
    let found = records(&fleet).await;
    assert_no_gap(&found);
    assert!(found.iter().any(is_paused));
    for record in found.iter().filter(|record| record.slot >= Some(until)) {
        assert!(runs(record), "{} came after {until}", record.id);
    }
    assert!(fleet.cronfleet_json(&["get", "schedules", "second"]).get("paused").is_none());
}

#[tokio::test]
async fn applying_a_file_does_not_end_a_pause() {
    let (fleet, _worker, _planner) = fleet_with(EVERY_SECOND).await;
    fleet.cronfleet(&["pause", "second"]);
    fleet.apply(&EVERY_SECOND.replace("missed: all", "missed: skip"));
    let applied_at = fleet.now();
    slot_after(&fleet, applied_at + TimeDelta::seconds(2), "a paused slot", is_paused).await;
    for record in records(&fleet).await.iter().filter(|record| record.slot > Some(applied_at)) {
        assert!(is_paused(record), "{}", record.id);
    }
    fleet.cronfleet(&["delete", "second"]);
    fleet.apply(EVERY_SECOND);
    let again_at = fleet.now();
    slot_after(&fleet, again_at, "a paused slot of the new schedule of that name", is_paused).await;
}

#[tokio::test]
async fn a_planner_that_was_down_across_pauses_decides_each_slot_by_what_held_at_its_instant() {
    let (fleet, _worker, mut planner) = fleet_with(EVERY_SECOND).await;
    slot_after(&fleet, fleet.now(), "a run", runs).await;
    planner.kill();
    for_a_while(Duration::from_secs(3)).await;
    fleet.cronfleet(&["pause", "second", "--reason", "first"]);
    let paused_at = fleet.now();
    for_a_while(Duration::from_secs(3)).await;
    fleet.cronfleet(&["resume", "second"]);
    let resumed_at = fleet.now();
    for_a_while(Duration::from_secs(3)).await;
    let back_at = fleet.now();
    let _planner = fleet.planner();
    slot_after(&fleet, back_at + TimeDelta::seconds(1), "a run", runs).await;
    let found = records(&fleet).await;
    assert_no_gap(&found);
    let second = TimeDelta::seconds(1);
    for record in &found {
        let slot = record.slot.expect("a slot");
        if slot > paused_at + second && slot < resumed_at - second {
            assert!(is_paused(record), "{slot} is {} ({:?})", record.status, record.reason);
        } else if slot < paused_at - second || slot > resumed_at + second {
            assert!(runs(record), "{slot} is {:?}", record.reason);
        }
    }
    assert!(found.iter().any(is_paused));
}

#[tokio::test]
async fn missed_slots_that_all_run_are_spread_and_the_others_wait_behind_them() {
    let (fleet, _worker, mut planner) = fleet_with(EVERY_SECOND).await;
    slot_after(&fleet, fleet.now(), "a run", runs).await;
    planner.kill();
    let missed = 12;
    for_a_while(limits::MISSED_AFTER + Duration::from_secs(missed)).await;
    let back_at = fleet.now();
    let _planner = fleet.planner();
    slot_after(&fleet, back_at + TimeDelta::seconds(1), "a run", runs).await;
    let found = records(&fleet).await;
    assert_no_gap(&found);
    let old = back_at - TimeDelta::from_std(limits::MISSED_AFTER).expect("short");
    let caught_up: Vec<&RunRecord> =
        found.iter().filter(|record| record.created_at > back_at && record.slot < Some(old)).collect();
    assert!(caught_up.len() >= 8, "{} missed slots", caught_up.len());
    assert!(
        caught_up.iter().all(|record| record.late && runs(record)),
        "they run, and say that they are late"
    );
    // Not a measure of speed: a flood would have made all of them in one round.
    let first = caught_up.iter().map(|record| record.created_at).min().expect("one");
    let last = caught_up.iter().map(|record| record.created_at).max().expect("one");
    let turns = TimeDelta::milliseconds(1_000 / i64::from(limits::CATCH_UP_RUNS_PER_SECOND));
    assert!(
        last - first >= turns * 4,
        "{} slots within {} ms",
        caught_up.len(),
        (last - first).num_milliseconds()
    );
    within(Duration::from_secs(30), "their ends", async || {
        let open = records(&fleet)
            .await
            .iter()
            .filter(|record| record.slot < Some(back_at) && !record.status.is_final())
            .count();
        if open == 0 { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn pausing_what_is_not_there_or_for_a_time_that_is_over_is_refused() {
    let fleet = Fleet::start().await;
    fleet.apply(EVERY_SECOND);
    for (arguments, code, part) in [
        (&["pause", "secund"][..], 1, "did you mean \"second\"?"),
        (&["resume", "secund"], 1, "did you mean \"second\"?"),
        (&["pause", "second", "--until", "2026-01-01T00:00:00Z"], 1, "is over already"),
        (&["pause", "second", "--until", "soon"], 2, "such as 2h"),
        (&["pause", "second", "--reason", ""], 2, "it is empty"),
    ] {
        let output = fleet.try_cronfleet(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    assert!(fleet.cronfleet_json(&["get", "schedules", "second"]).get("paused").is_none());
}
