//! Time: what narrows, shifts and moves slots comes as `next` shows it, and a reader is told before anything is saved.

use std::collections::BTreeSet;

use chrono::{Days, SecondsFormat, SubsecRound, TimeDelta};
use harness::{Fleet, binary, eventually, process};
use serde_json::{Value, json};
use shared::{Timestamp, cron::tzdb_version};
use streams::leases::Cursor;

fn rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The slots that have a record, each once.
async fn recorded(fleet: &Fleet, schedule: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for stored in fleet.records().await {
        let is_its_own = stored.value.schedule.as_ref().is_some_and(|name| name.as_str() == schedule);
        if let Some(slot) = stored.value.slot.filter(|_| is_its_own) {
            assert!(found.insert(rfc3339(slot)), "{slot} twice");
        }
    }
    found
}

fn slots_of(next: &Value, schedule: &str) -> BTreeSet<String> {
    let slots = next[schedule].as_array().expect("an array").iter();
    slots.map(|slot| slot.as_str().expect("a text").to_owned()).collect()
}

#[tokio::test]
async fn slots_that_are_shifted_and_counted_are_exactly_those_that_next_shows() {
    let fleet = Fleet::start().await;
    let start = fleet.now() + TimeDelta::seconds(4);
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nschedules: {{spread: {{every: 3s, jitter: 2s, start: '{}', max_runs: 4, \
         overlap: allow, task: {{target_service: target, action: ok}}}}}}",
        rfc3339(start)
    ));
    let wanted = slots_of(&fleet.cronfleet_json(&["next", "spread", "--count", "100"]), "spread");
    assert_eq!(wanted.len(), 4, "max_runs");
    let last: Timestamp = wanted.last().expect("a slot").parse().expect("instant");
    let _planner = fleet.planner();
    // Some seconds longer, in which a fifth would come.
    eventually("the records of all slots, and the time after them", async || {
        let found = recorded(&fleet, "spread").await;
        if found.len() >= 4 && fleet.now() > last + TimeDelta::seconds(5) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    assert_eq!(recorded(&fleet, "spread").await, wanted);
}

#[tokio::test]
async fn a_slot_of_a_closed_day_comes_once_at_its_time_on_the_next_open_day() {
    let fleet = Fleet::start().await;
    let due = fleet.now().trunc_subsecs(0) + TimeDelta::seconds(12);
    let yesterday = due.date_naive() - Days::new(1);
    // It is due on one day of the year, and that was yesterday.
    let expression = format!("{} * {}", due.format("%-S %-M %-H"), yesterday.format("%-m *"));
    let expression = expression.replacen('*', &yesterday.format("%-d").to_string(), 1);
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\ncalendars: {{open: {{except: [{yesterday}]}}}}\nschedules:\n  moved: \
         {{cron: '{expression}', calendar: open, on_closed_day: next_open_day, task: {{target_service: target, action: ok}}}}\n  \
         left: {{cron: '{expression}', calendar: open, task: {{target_service: target, action: ok}}}}",
    ));
    let next = fleet.cronfleet_json(&["next", "moved", "--count", "1"]);
    assert_eq!(next, json!({"moved": [rfc3339(due)]}));
    assert!(fleet.cronfleet(&["next", "moved"]).contains(&format!("moved from {yesterday} by open")));
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    let run = format!("moved.{}", due.format("%Y%m%dT%H%M%SZ"));
    fleet.end_of(&run).await;
    assert_eq!(recorded(&fleet, "moved").await, BTreeSet::from([rfc3339(due)]));
    assert!(recorded(&fleet, "left").await.is_empty(), "nothing was moved there");
    assert_eq!(fleet.target.calls_of(&run).len(), 1);
}

#[tokio::test]
async fn holidays_are_kept_as_dates_so_that_nobody_needs_the_file_again() {
    let fleet = Fleet::start().await;
    let ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:National Day\r\nDTSTART;VALUE=DATE:20261001\r\n\
               DTEND;VALUE=DATE:20261003\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    let file = fleet.folder().join("holidays.ics");
    std::fs::write(&file, ics).expect("written");
    let definitions = "targets: {target: {http: TARGET}}\ncalendars: {cn: {weekdays: mon-fri, holidays: {ical: holidays.ics}}}\n\
         schedules: {daily: {cron: '0 9 * * *', calendar: cn, on_closed_day: next_open_day, task: {target_service: target, action: ok}}}";
    assert!(fleet.apply(definitions).contains("created"));
    assert!(fleet.apply(definitions).contains("unchanged"), "the same file, the same dates");
    std::fs::remove_file(&file).expect("removed");
    let from = ["--from", "2026-09-30T00:00:00Z", "--count", "2"];
    let next = fleet.cronfleet_json(&[&["next", "daily"][..], &from].concat());
    assert_eq!(next, json!({"daily": ["2026-09-30T09:00:00Z", "2026-10-05T09:00:00Z"]}));
    let refused = fleet.try_apply(definitions);
    let talk = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && talk.contains("calendar \"cn\": holidays.ical \"holidays.ics\""),
        "{talk}"
    );
}

#[tokio::test]
async fn zone_data_other_than_ours_is_found_by_doctor_and_told_once_by_who_goes_on_from_it() {
    let fleet = Fleet::start().await;
    let zones = || {
        let output = fleet.try_cronfleet(&["doctor", "-o", "json"]);
        let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let mut findings = findings.as_array().expect("an array").iter();
        findings.find(|finding| finding["what"] == "time zones").expect("time zones").clone()
    };
    assert_eq!(zones()["found"], format!("IANA {}", tzdb_version()));
    let by: shared::names::MemberId = "planner-old".parse().expect("id");
    for partition in [5, 6] {
        let cursor = Cursor { accounted_to: fleet.now(), by: by.clone(), tzdb: "2019a".to_owned(), heard: 0 };
        fleet.streams.partitions().write_cursor(partition, &cursor, 0).await.expect("written");
    }
    assert_eq!(zones()["ok"], json!(false));
    assert!(zones()["found"].as_str().expect("a text").contains("2 of 64 partitions are planned with 2019a"));
    let planner = fleet.planner();
    eventually("cursors with our zone data", async || {
        if zones()["ok"] == json!(true) { Ok(()) } else { Err(zones().to_string()) }
    })
    .await;
    assert_eq!(
        planner.said().matches("Slots were computed with IANA 2019a").count(),
        1,
        "{}",
        planner.said()
    );
}

#[test]
fn an_expression_is_explained_without_a_server_whatever_the_readers_zone() {
    let folder = std::env::temp_dir();
    let next = |arguments: &[&str], zone: &str| {
        let from = ["--from", "2026-11-24T00:00:00Z", "--count", "1"];
        let variables = [("TZ", zone.to_owned()), ("NO_COLOR", "1".to_owned()), ("LC_ALL", "C".to_owned())];
        process::run(&binary(), [&["next"], arguments, &from].concat(), &folder, &variables)
    };
    let bare = ["--cron", "0 18 LW * *", "--timezone", "Asia/Shanghai"];
    for zone in
        ["Europe/Paris", "", "CET-1CEST,M3.5.0,M10.5.0/3", "Mars/Olympus", "\u{1b}[31m", ":", "zoneinfo/"]
    {
        let output = next(&[&bare[..], &["-o", "json"]].concat(), zone);
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json, json!({"0 18 LW * *": ["2026-11-30T10:00:00Z"]}), "{zone:?}");
        assert!(next(&bare, zone).status.success(), "{zone:?}");
    }
    let text = String::from_utf8(next(&bare, "Europe/Paris").stdout).expect("UTF-8");
    for part in [
        "at 18:00 on the last workday of the month",
        "Mon 2026-11-30 18:00:00 +08:00",
        "Mon 2026-11-30 11:00:00 +01:00",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let chinese = next(&[&bare[..], &["--lang", "zh"]].concat(), "UTC").stdout;
    assert!(String::from_utf8(chinese).expect("UTF-8").contains("每月最后一个工作日 18:00"));
    let refused = next(&["--cron", "0 2 * * * root"], "UTC");
    let talk = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{talk}");
    assert!(talk.contains("write \"0 2 * * *\""), "{talk}");
}
