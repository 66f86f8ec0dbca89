//! Planners: every slot exactly one record, none dispatched twice, whatever happens to whoever plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use chrono::TimeDelta;
use harness::{Fleet, eventually, wait::for_a_while, within};
use shared::{Timestamp, run_state::RunState, slot::Slot};
use streams::members::Member;

pub(crate) const SCHEDULES: usize = 6;

/// Schedules every second, spread over the partitions.
pub(crate) fn every_second() -> String {
    let mut text = "targets: {target: {http: TARGET}}\nschedules:\n".to_owned();
    for n in 0..SCHEDULES {
        let _ = writeln!(
            text,
            "  second_{n}: {{every: 1s, overlap: allow, missed: all, task: {{target_service: target, action: ok}}}}"
        );
    }
    text
}

/// The slots of each schedule that have a record.
async fn slots(fleet: &Fleet) -> BTreeMap<String, BTreeSet<Timestamp>> {
    let mut found: BTreeMap<String, BTreeSet<Timestamp>> = BTreeMap::new();
    for stored in fleet.records().await {
        if let (Some(schedule), Some(slot)) = (stored.value.schedule, stored.value.slot) {
            assert!(found.entry(schedule.to_string()).or_default().insert(slot), "{schedule} {slot} twice");
        }
    }
    found
}

/// Every second from the first to the last slot of every schedule has its record, and each reached the target once.
pub(crate) async fn assert_complete(fleet: &Fleet, until: Timestamp) {
    within(Duration::from_secs(90), "records of all slots, and their ends", async || {
        let records = fleet.records().await;
        let open = records.iter().filter(|stored| !stored.value.status.is_final()).count();
        let found = slots(fleet).await;
        let behind = found.values().filter(|slots| slots.last().is_none_or(|last| *last < until)).count();
        if open == 0 && behind == 0 && found.len() == SCHEDULES {
            Ok(())
        } else {
            Err(format!("{open} open, {behind} behind"))
        }
    })
    .await;
    for (schedule, slots) in slots(fleet).await {
        let (first, last) = (*slots.first().expect("a slot"), *slots.last().expect("a slot"));
        let expected = (last - first).num_seconds() + 1;
        let missing: Vec<Timestamp> = (0..expected)
            .map(|n| first + TimeDelta::seconds(n))
            .filter(|slot| !slots.contains(slot))
            .collect();
        assert!(missing.is_empty(), "{schedule}: no record of {missing:?} between {first} and {last}");
    }
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for call in fleet.target.calls() {
        *calls.entry(call.run).or_default() += 1;
        assert_eq!(call.attempt, 1, "nothing failed here");
    }
    let twice: Vec<_> = calls.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "dispatched twice: {twice:?}");
    for stored in fleet.records().await.iter().filter(|stored| stored.value.status == RunState::Success) {
        assert!(calls.contains_key(&stored.value.id.to_string()));
        let slot = stored.value.slot.expect("a slot");
        assert!(stored.value.created_at >= slot, "{} was dispatched before its slot", stored.value.id);
    }
}

/// The planners, with how many partitions each holds.
async fn holder(fleet: &Fleet) -> Vec<(String, usize)> {
    let members = fleet.streams.members().list().await.expect("members");
    let planners = members.into_iter().filter_map(|member| match member {
        Member::Planner(planner) => Some((planner.id.to_string(), planner.partitions.len())),
        Member::Worker(_) => None,
    });
    planners.collect()
}

/// Waits until two planners hold half of the partitions each.
pub(crate) async fn share_evenly(fleet: &Fleet) {
    eventually("an even share each", async || {
        let planners = holder(fleet).await;
        let even = planners.len() == 2 && planners.iter().all(|(_, count)| *count == 32);
        if even { Ok(()) } else { Err(format!("{planners:?}")) }
    })
    .await;
}

#[tokio::test]
async fn two_planners_share_the_partitions_and_one_that_is_killed_leaves_no_gap_and_no_double() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&["--places", "64"]);
    let mut first = fleet.planner();
    fleet.members("planner", 1).await;
    fleet.apply(&every_second());
    let _second = fleet.planner();
    share_evenly(&fleet).await;
    for_a_while(Duration::from_secs(4)).await;
    first.kill();
    let killed_at = fleet.now();
    assert_complete(&fleet, killed_at + TimeDelta::seconds(12)).await;
}

#[tokio::test]
async fn a_planner_that_stood_still_for_ten_seconds_does_no_harm_when_it_goes_on() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&["--places", "64"]);
    let first = fleet.planner();
    fleet.members("planner", 1).await;
    fleet.apply(&every_second());
    eventually("slots of the first planner", async || {
        let count = fleet.records().await.len();
        if count > SCHEDULES * 3 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let _second = fleet.planner();
    fleet.members("planner", 2).await;
    first.pause();
    for_a_while(Duration::from_secs(10)).await;
    first.resume();
    let resumed_at = fleet.now();
    assert_complete(&fleet, resumed_at + TimeDelta::seconds(5)).await;
}

#[tokio::test]
async fn a_planner_that_is_told_to_stop_hands_over_at_once() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&["--places", "64"]);
    let mut first = fleet.planner();
    let _second = fleet.planner();
    fleet.apply(&every_second());
    share_evenly(&fleet).await;
    assert!(first.stop().await.success(), "a clean end");
    eventually("the other holds everything", async || {
        let planners = holder(&fleet).await;
        if matches!(planners.as_slice(), [(_, 64)]) { Ok(()) } else { Err(format!("{planners:?}")) }
    })
    .await;
    assert_complete(&fleet, fleet.now()).await;
}

#[tokio::test]
async fn slots_that_passed_while_no_planner_lived_are_accounted_for_by_the_policy() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    fleet.members("planner", 1).await;
    fleet.apply(
        "targets: {target: {http: TARGET}}\nschedules:\n  \
         latest: {every: 2s, overlap: allow, task: {target_service: target, action: ok}}\n  \
         skip: {every: 2s, overlap: allow, missed: skip, task: {target_service: target, action: ok}}\n",
    );
    eventually("a first run of each", async || {
        let found = slots(&fleet).await;
        if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    planner.kill();
    let outage_from = fleet.now();
    // Longer than what counts as missed.
    for_a_while(shared::limits::MISSED_AFTER + Duration::from_secs(8)).await;
    let outage_to = fleet.now();
    let _planner = fleet.planner();
    within(Duration::from_mins(1), "records of the outage", async || {
        let found = slots(&fleet).await;
        if found.values().all(|slots| slots.last().is_some_and(|last| *last > outage_to)) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    for (schedule, slots) in slots(&fleet).await {
        let (first, last) = (*slots.first().expect("a slot"), *slots.last().expect("a slot"));
        let count = i64::try_from(slots.len()).expect("a count");
        assert_eq!((last - first).num_seconds() / 2 + 1, count, "{schedule}: every slot has its record");
    }
    let skipped = fleet
        .records()
        .await
        .into_iter()
        .filter(|stored| stored.value.status == RunState::Cancelled)
        .filter(|stored| stored.value.slot.is_some_and(|slot| slot > outage_from && slot < outage_to))
        .count();
    assert!(skipped >= 4, "old slots are recorded as skipped: {skipped}");
}

#[tokio::test]
async fn a_schedule_that_is_changed_or_deleted_is_planned_as_it_is_then_written() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let with = |every: &str, action: &str| {
        format!(
            "targets: {{target: {{http: TARGET}}}}\nschedules: {{hot: {{every: {every}, overlap: allow, \
             task: {{target_service: target, action: {action}}}}}}}"
        )
    };
    fleet.apply(&with("1s", "ok"));
    eventually("a call", async || fleet.target.calls().last().cloned().ok_or("none".to_owned())).await;
    fleet.apply(&with("1s", "echo"));
    let changed_at = fleet.now();
    eventually("a call of the new kind", async || {
        if fleet.target.calls().iter().any(|call| call.action == "echo") {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    fleet.cronfleet(&["delete", "hot"]);
    let deleted_at = fleet.now();
    for_a_while(Duration::from_secs(3)).await;
    let second = TimeDelta::seconds(1);
    for call in fleet.target.calls() {
        let slot: Slot = call.run.rsplit('.').next().expect("a key").parse().expect("a slot");
        assert!(slot.instant() <= deleted_at + second, "{} came after the schedule was deleted", call.run);
        if slot.instant() > changed_at + second {
            assert_eq!(call.action, "echo", "{}", call.run);
        }
    }
}

#[tokio::test]
async fn a_broken_definition_in_the_bucket_is_shown_and_hurts_only_itself() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let mut client = harness::PlainClient::connect(&fleet.nats.url()).await;
    let partition = shared::hash::partition_of("broken");
    client.request(&format!("$KV.cronfleet_schedules.{partition}.broken"), b"{ no json").await;
    fleet.apply(
        "targets: {target: {http: TARGET}}\n\
         schedules: {whole: {every: 1s, overlap: allow, task: {target_service: target, action: ok}}}",
    );
    eventually("a call", async || fleet.target.calls().last().cloned().ok_or("none".to_owned())).await;
    eventually("the planner says so", async || {
        let members = fleet.streams.members().list().await.map_err(|error| error.to_string())?;
        let invalid = members.into_iter().find_map(|member| match member {
            Member::Planner(planner) => planner.invalid.first().cloned(),
            Member::Worker(_) => None,
        });
        invalid.filter(|text| text.contains("broken")).ok_or("not yet".to_owned())
    })
    .await;
}

#[tokio::test]
async fn slots_since_the_first_definition_count_though_it_was_changed_before_any_planner_lived() {
    let fleet = Fleet::start().await;
    let file = |every: &str| {
        format!(
            "targets: {{target: {{http: TARGET}}}}\n\
             schedules: {{early: {{every: {every}, overlap: allow, task: {{target_service: target, action: ok}}}}}}"
        )
    };
    fleet.apply(&file("1s"));
    let name = "early".parse().expect("name");
    let first = fleet.streams.schedules().get(&name).await.expect("read").expect("there").stored_at;
    for_a_while(Duration::from_secs(3)).await;
    fleet.apply(&file("2s"));
    let second = fleet.streams.schedules().get(&name).await.expect("read").expect("there").stored_at;
    let _planner = fleet.planner();
    eventually("records after the change", async || {
        let records = fleet.records().await;
        let newest = records.iter().filter_map(|stored| stored.value.slot).max();
        if newest.is_some_and(|slot| slot > second) { Ok(()) } else { Err(format!("{newest:?}")) }
    })
    .await;
    let slots: BTreeSet<_> = fleet.records().await.iter().filter_map(|stored| stored.value.slot).collect();
    let (from, to) = (first.timestamp() + 1, second.timestamp());
    assert!(to - from >= 2, "some slots lie between");
    let missing: Vec<_> =
        (from..=to).filter(|at| !slots.iter().any(|slot| slot.timestamp() == *at)).collect();
    assert!(missing.is_empty(), "without a record: {missing:?}");
}
