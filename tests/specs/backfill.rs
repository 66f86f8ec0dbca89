//! Backfills: the slots of a range that have not run, once each, whoever dies meanwhile.

use std::collections::BTreeMap;

use chrono::{SubsecRound, TimeDelta};
use harness::{Fleet, Process, eventually};
use serde_json::{Value, json};
use shared::{
    Timestamp,
    names::QueueName,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    slot::Slot,
};
use streams::backfills::{BackfillProgress, BackfillRequest};

const SCHEDULES: &str = "targets: {target: {http: TARGET}}\nschedules:\n  \
    yearly: {cron: '0 0 1 1 *', task: {target_service: target, action: ok}}\n  \
    hourly: {cron: '0 * * * *', task: {target_service: target, action: ok}}\n  \
    slow: {cron: '0 * * * *', task: {target_service: target, action: slow, parameters: {ms: 400}}}\n";

async fn fleet() -> (Fleet, Process, Process) {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let worker = fleet.worker(&[]);
    let planner = fleet.planner();
    fleet.members("planner", 1).await;
    (fleet, worker, planner)
}

/// The first and the last of so many full hours that lie two days back: nobody plans them.
fn hours(fleet: &Fleet, count: i64) -> (Timestamp, Timestamp) {
    let day = fleet.now().date_naive().and_hms_opt(0, 0, 0).expect("midnight").and_utc();
    let from = (day - TimeDelta::days(2)).trunc_subsecs(0);
    (from, from + TimeDelta::hours(count - 1))
}

fn arguments<'a>(schedule: &'a str, from: &'a str, to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["backfill", schedule, "--from", from, "--to", to][..], more].concat()
}

fn text(at: Timestamp) -> String {
    at.to_rfc3339()
}

/// Asks for a backfill and waits for its end.
fn backfill(fleet: &Fleet, schedule: &str, (from, to): (Timestamp, Timestamp), more: &[&str]) -> Value {
    let (from, to) = (text(from), text(to));
    fleet.cronfleet_json(&arguments(schedule, &from, &to, &[&["--wait"], more].concat()))
}

fn dry_run(fleet: &Fleet, schedule: &str, (from, to): (Timestamp, Timestamp)) -> Vec<(String, Value)> {
    let (from, to) = (text(from), text(to));
    let shown = fleet.cronfleet_json(&arguments(schedule, &from, &to, &["--dry-run"]));
    let slots = shown.as_array().expect("an array").iter();
    slots.map(|slot| (slot["what"].as_str().expect("what").to_owned(), slot["reason"].clone())).collect()
}

/// How often the target was asked for each run.
fn calls(fleet: &Fleet) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for call in fleet.target.calls() {
        *calls.entry(call.run).or_default() += 1;
    }
    calls
}

/// Writes the record of a slot that was skipped, as a planner would have.
async fn skip(fleet: &Fleet, schedule: &str, slot: Timestamp, reason: Reason) -> String {
    let name = schedule.parse().expect("a name");
    let record = RunRecord::planned(&name, Slot::at(slot), QueueName::default_queue(), slot);
    let skipped = record.apply(RunEvent::Skipped, slot).expect("skipped").because(reason);
    fleet.streams.ledger().create(&skipped).await.expect("created");
    skipped.id.to_string()
}

#[tokio::test]
async fn a_range_is_run_once_however_often_it_is_asked_for_and_its_runs_are_marked() {
    let (fleet, _worker, _planner) = fleet().await;
    let range = hours(&fleet, 5);
    let first = Slot::at(range.0);
    assert_eq!(dry_run(&fleet, "hourly", range), vec![("runs".to_owned(), Value::Null); 5]);
    assert_eq!(fleet.record(&format!("hourly.{first}")).await, None, "a dry run changes nothing");

    let done = backfill(&fleet, "hourly", range, &[]);
    assert_eq!((&done["state"], &done["succeeded"], &done["left"]), (&json!("done"), &json!(5), &json!(0)));
    let record = fleet.record(&format!("hourly.{first}")).await.expect("a record");
    assert_eq!((record.status, record.late, record.slot), (RunState::Success, true, Some(range.0)));
    assert_eq!(record.backfill.as_ref().map(|id| json!(id)), Some(done["id"].clone()));
    assert!(record.by.is_some_and(|by| by.contains('@')));
    assert_eq!(dry_run(&fleet, "hourly", range)[0].0, "has_run");

    let again = backfill(&fleet, "hourly", range, &["--overlap", "allow"]);
    assert_eq!((&again["succeeded"], &again["left"]), (&json!(0), &json!(5)));
    let calls = calls(&fleet);
    assert_eq!((calls.len(), calls.values().max()), (5, Some(&1)), "{calls:?}");
    let shown = fleet.cronfleet(&["describe", "schedule", "hourly"]);
    assert!(shown.contains("5 of 5 (5 succeeded"), "{shown}");
}

#[tokio::test]
async fn a_slot_that_was_skipped_runs_under_its_own_record_and_one_that_was_stopped_stays() {
    let (fleet, _worker, _planner) = fleet().await;
    let range = hours(&fleet, 4);
    let hour = |n| range.0 + TimeDelta::hours(n);
    let paused = skip(&fleet, "hourly", hour(0), Reason::Paused).await;
    let missed = skip(&fleet, "hourly", hour(1), Reason::SkippedMissed).await;
    let stopped = skip(&fleet, "hourly", hour(2), Reason::ByOperator).await;
    let expected = [
        ("runs".to_owned(), json!("paused")),
        ("runs".to_owned(), json!("skipped_missed")),
        ("cancelled".to_owned(), Value::Null),
        ("runs".to_owned(), Value::Null),
    ];
    assert_eq!(dry_run(&fleet, "hourly", range), expected);
    let done = backfill(&fleet, "hourly", range, &[]);
    assert_eq!((&done["succeeded"], &done["left"]), (&json!(3), &json!(1)));
    for run in [&paused, &missed] {
        use RunState::{Cancelled, Pending, Running, Success};
        assert_eq!(fleet.life(run).await, [Cancelled, Pending, Running, Success], "{run}: one record");
        assert_eq!(fleet.target.calls_of(run).len(), 1);
    }
    assert_eq!(fleet.life(&stopped).await, [RunState::Cancelled]);
    let in_order: Vec<String> = fleet.target.calls().into_iter().map(|call| call.run).collect();
    assert!(in_order.is_sorted(), "{in_order:?}");
}

#[tokio::test]
async fn without_a_word_runs_of_a_backfill_wait_for_each_other_and_the_policy_can_be_another() {
    let (fleet, _worker, _planner) = fleet().await;
    let range = hours(&fleet, 4);
    let done = backfill(&fleet, "slow", range, &[]);
    assert_eq!(done["succeeded"], 4, "{done}");
    let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
    for stored in fleet.records().await {
        spans.push((stored.value.started_at.expect("started"), stored.value.finished_at.expect("ended")));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "never two at once: {spans:?}");

    // With `skip` the first takes the lock, and others find it taken: they say so and are done.
    let later = (range.0 + TimeDelta::hours(10), range.0 + TimeDelta::hours(13));
    let (from, to) = (text(later.0), text(later.1));
    let skip = arguments("slow", &from, &to, &["--wait", "--overlap", "skip", "-o", "json"]);
    let output = fleet.try_cronfleet(&skip);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(done["state"], "done");
    assert!(done["succeeded"].as_u64() >= Some(1) && done["unsuccessful"].as_u64() >= Some(1), "{done}");
    let reason = dry_run(&fleet, "slow", later).into_iter().find(|(_, reason)| !reason.is_null());
    assert_eq!(reason, Some(("runs".to_owned(), json!("skipped_overlap"))), "asked again, they would run");
    let again = backfill(&fleet, "slow", later, &["--overlap", "allow"]);
    assert_eq!(again["unsuccessful"], 0, "{again}");
    assert!(calls(&fleet).values().all(|count| *count == 1));
}

#[tokio::test]
async fn a_backfill_outlives_the_planner_that_is_at_it_and_runs_nothing_twice() {
    let (fleet, _worker, mut planner) = fleet().await;
    let range = hours(&fleet, 12);
    let (from, to) = (text(range.0), text(range.1));
    let id = fleet.cronfleet(&arguments("slow", &from, &to, &[])).trim().to_owned();
    eventually("some runs", async || {
        let count = fleet.target.calls().len();
        if count >= 3 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    planner.kill();
    let _successor = fleet.planner();
    let (schedule, id) = ("slow".parse().expect("name"), id.parse().expect("id"));
    let done = eventually("its end", async || {
        let found = fleet.streams.backfills().get(&schedule, &id).await.map_err(|error| error.to_string())?;
        let progress = found.map(|stored| stored.value);
        progress.clone().filter(BackfillProgress::is_ended).ok_or(format!("{progress:?}"))
    })
    .await;
    assert_eq!((done.succeeded, done.unsuccessful, done.left, done.slots), (12, 0, 0, 12));
    let calls = calls(&fleet);
    assert_eq!((calls.len(), calls.values().max()), (12, Some(&1)), "{calls:?}");
    let in_order: Vec<String> = fleet.target.calls().into_iter().map(|call| call.run).collect();
    assert!(in_order.is_sorted(), "{in_order:?}");
}

#[tokio::test]
async fn what_a_planner_did_and_could_not_write_down_any_more_is_found_by_its_successor() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let range = hours(&fleet, 3);
    let stored = fleet.streams.schedules().get(&"hourly".parse().expect("name")).await.expect("read");
    let request = BackfillRequest {
        id: "backfill-1".parse().expect("id"),
        schedule: "hourly".parse().expect("name"),
        revision: stored.expect("the schedule").revision,
        from: range.0,
        to: range.1,
        overlap: shared::backfill::BackfillOverlap::BufferAll,
        by: "spec".to_owned(),
        at: fleet.now(),
    };
    // A planner that died after it had opened the record of the first slot anew, before it published its task.
    let run = skip(&fleet, "hourly", range.0, Reason::SkippedMissed).await;
    let id = run.parse().expect("id");
    let skipped = fleet.streams.ledger().get(&id).await.expect("read").expect("a record");
    let again = skipped.value.apply(RunEvent::Backfilled, fleet.now()).expect("run after all");
    let again = RunRecord { backfill: Some(request.id.clone()), ..again };
    fleet.streams.ledger().update(&again, skipped.revision).await.expect("written");
    fleet.streams.backfill(&request).await.expect("stored");
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let done = eventually("its end", async || {
        let found = fleet.streams.backfills().get(&request.schedule, &request.id).await;
        let progress = found.map_err(|error| error.to_string())?.map(|stored| stored.value);
        progress.clone().filter(BackfillProgress::is_ended).ok_or(format!("{progress:?}"))
    })
    .await;
    assert_eq!((done.succeeded, done.unsuccessful, done.left), (3, 0, 0));
    let calls = calls(&fleet);
    assert_eq!((calls.len(), calls.get(&run), calls.values().max()), (3, Some(&1), Some(&1)), "{calls:?}");
}

#[tokio::test]
async fn a_backfill_waits_while_its_schedule_is_paused_and_ends_when_the_schedule_is_deleted() {
    let (fleet, _worker, _planner) = fleet().await;
    let range = hours(&fleet, 2);
    let (from, to) = (text(range.0), text(range.1));
    fleet.cronfleet(&["pause", "hourly"]);
    let output = fleet.try_cronfleet(&arguments("hourly", &from, &to, &["--wait", "--timeout", "2s"]));
    assert_eq!(output.status.code(), Some(124));
    assert!(fleet.target.calls().is_empty());
    fleet.cronfleet(&["resume", "hourly"]);
    eventually("its runs", async || {
        let count = fleet.target.calls().len();
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let request = BackfillRequest {
        id: "backfill-late".parse().expect("id"),
        schedule: "yearly".parse().expect("name"),
        revision: 1,
        from: range.0,
        to: range.1,
        overlap: shared::backfill::BackfillOverlap::BufferAll,
        by: "spec".to_owned(),
        at: fleet.now(),
    };
    fleet.cronfleet(&["delete", "yearly"]);
    fleet.streams.backfill(&request).await.expect("stored");
    let problem = eventually("its end", async || {
        let found = fleet.streams.backfills().get(&request.schedule, &request.id).await;
        let progress = found.map_err(|error| error.to_string())?.map(|stored| stored.value);
        progress.and_then(|progress| progress.problem).ok_or("not yet".to_owned())
    })
    .await;
    assert!(problem.contains("does not exist any more"), "{problem}");
}

#[tokio::test]
async fn a_range_that_makes_no_sense_is_refused_with_what_is_wrong_with_it() {
    let fleet = Fleet::start().await;
    fleet.apply(SCHEDULES);
    let (from, to) = hours(&fleet, 5);
    let (from, to, year) = (text(from), text(to), text(fleet.now() - TimeDelta::days(600)));
    let future = text(fleet.now() + TimeDelta::hours(1));
    for (schedule, from, to, part) in [
        ("hourli", &from, &to, "did you mean \"hourly\"?"),
        ("hourly", &to, &from, "is before --from"),
        ("hourly", &from, &future, "in the future"),
        ("yearly", &to, &to, "has no slot from"),
        ("hourly", &year, &to, "more than 10000 slots"),
    ] {
        let output = fleet.try_cronfleet(&arguments(schedule, from, to, &[]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{said}");
    }
}
