//! The picture on terminals of all sizes.

use shared::{
    Timestamp,
    definitions::Definitions,
    names::QueueName,
    run::RunId,
    run_record::{ErrorKind, RunError, RunRecord},
    run_state::RunEvent,
};
use streams::schedules::Version;

use super::{
    model::{Counts, Fixed, Model},
    render::render,
    text::width,
};
use crate::up::talk::Notice;

const SCHEDULES: &str = r#"
targets: {data-storage-service: {http: "http://127.0.0.1:9101"}}
schedules:
  daily_data_archive:
    cron: "0 2 * * *"
    timezone: Asia/Shanghai
    task: {target_service: data-storage-service, action: archive_hot_data}
  every_ninety_seconds_a_schedule_with_a_very_long_name_indeed:
    every: 90s
    task: {command: [vacuum-tool, --analyze, "数据库归档与压缩的全部表格"]}
  once:
    at: 2020-01-01T00:00:00Z
    task: {target_service: data-storage-service, action: optimize_tables}
"#;

fn at(text: &str) -> Timestamp {
    text.parse().expect("instant")
}

fn empty() -> Model {
    let fixed = Fixed {
        address: "nats://127.0.0.1:4222".to_owned(),
        data_dir: "/data/.cronfleet".to_owned(),
        services: vec![("data-storage-service".to_owned(), "http://127.0.0.1:9101".to_owned())],
        program: "cronfleet".to_owned(),
    };
    let counts = Counts { planners: 1, workers: 1, queues: 2 };
    let mut model = Model::new(fixed, at("2026-11-24T01:59:30Z"));
    model.counts = counts;
    model
}

fn busy() -> Model {
    let mut model = empty();
    let definitions = Definitions::parse(SCHEDULES).expect("definitions");
    for (name, schedule) in definitions.schedules {
        model.schedule(version(name.as_str(), Ok(Some(schedule))));
    }
    model.schedule(version("broken", Err("cron \"61 * * * *\": 61 is no minute".to_owned())));
    for (seconds, key) in [(1, "20261123T180000Z"), (2, "4711"), (3, "manual-0193")] {
        model.at(at("2026-11-24T01:59:30Z") + chrono::TimeDelta::seconds(seconds));
        model.run(run(key, model.now));
    }
    model
}

fn version(name: &str, definition: Result<Option<shared::schedule::Schedule>, String>) -> Version {
    let since = at("2026-11-01T00:00:00Z");
    Version { name: name.parse().expect("name"), definition, revision: 1, since }
}

/// Three runs: one that went well, one that failed in Chinese, one that runs.
fn run(key: &str, now: Timestamp) -> RunRecord {
    let id: RunId = format!("daily_data_archive.{key}").parse().expect("id");
    let started = RunRecord::pending(id, QueueName::default_queue(), now)
        .apply(RunEvent::Started, now)
        .expect("starts");
    match key {
        "4711" => started
            .apply(RunEvent::FailedForGood, now)
            .expect("fails")
            .with_error(RunError::new(ErrorKind::Target, "表 market_data 不存在：请先创建它，然后再试一次")),
        "manual-0193" => started,
        _ => RunRecord {
            output: Some(serde_json::json!({"archived": 4032})),
            ..started.apply(RunEvent::Succeeded, now).expect("succeeds")
        },
    }
}

#[test]
fn a_wide_terminal_shows_everything() {
    let picture = render(&busy(), 180, 30, false);
    for part in [
        "cronfleet up · nats://127.0.0.1:4222 · data /data/.cronfleet · 2026-11-24 01:59:33 UTC · 1 planner · 1 worker · 2 queues · 4 schedules",
        "data-storage-service http://127.0.0.1:9101",
        "Wed 11-25 02:00 Asia/Shanghai  11-24 18:00  archive_hot_data on data-storage-service",
        "command vacuum-tool --analyze 数据库归档与压缩的全部表格",
        "16h 00m",
        "never",
        "invalid",
        "61 is no minute",
        "✓ SUCCESS  daily_data_archive.20261123T180000Z",
        "✗ FAILED",
        "target: 表 market_data 不存在",
        "● RUNNING",
        "archived=4032",
        "cronfleet trigger daily_data_archive --wait · cronfleet get runs · ctrl-C stops",
    ] {
        assert!(picture.contains(part), "{part}:\n{picture}");
    }
    let (newest, oldest) = (picture.find("manual-0193"), picture.find("20261123T180000Z"));
    assert!(newest < oldest, "the newest first:\n{picture}");
}

#[test]
fn what_has_no_room_in_the_header_leaves_a_sign() {
    let mut model = busy();
    let one = model.fixed.services[0].clone();
    model.fixed.services = vec![one; 9];
    let picture = render(&model, 80, 24, false);
    let header: Vec<&str> = picture.lines().take(5).collect();
    assert!(header[4].ends_with('…') && width(header[4]) <= 80, "{picture}");
    assert!(!render(&busy(), 180, 24, false).lines().take(5).any(|line| line.ends_with('…')));
}

#[test]
fn a_usual_terminal_keeps_what_matters() {
    let picture = render(&busy(), 80, 24, false);
    for part in ["daily_data_archive", "16h 00m", "11-25 02:00 Asia/Sh", "✓ SUCCESS", "ctrl-C stops"] {
        assert!(picture.contains(part), "{part}:\n{picture}");
    }
}

#[test]
fn no_terminal_is_overrun_whatever_its_size_and_whatever_is_shown() {
    let mut noisy = busy();
    noisy.notices = vec![Notice { at: noisy.now, text: "nats-server ended\n(signal 9)".to_owned() }];
    for model in [Model::default(), empty(), busy(), noisy] {
        for columns in (1..60).chain([79, 80, 119, 200]) {
            for rows in (1..40).chain([100]) {
                let picture = render(&model, columns, rows, false);
                let lines: Vec<&str> = picture.split('\n').collect();
                assert!(lines.len() <= rows, "{columns}x{rows}:\n{picture}");
                for line in lines {
                    assert!(width(line) <= columns, "{columns}x{rows}: {line:?}");
                }
            }
        }
    }
}

#[test]
fn an_empty_fleet_says_what_to_do() {
    let picture = render(&empty(), 100, 24, false);
    for part in ["no schedules yet: cronfleet apply -f FILE", "LATEST RUNS", "none yet", "0 schedules"] {
        assert!(picture.contains(part), "{part}:\n{picture}");
    }
}

#[test]
fn colours_are_added_to_the_same_text() {
    let (plain, coloured) = (render(&busy(), 120, 30, false), render(&busy(), 120, 30, true));
    assert!(!plain.contains('\x1b') && coloured.contains("\x1b[32m✓ SUCCESS\x1b[0m"), "{coloured}");
    let stripped: Vec<String> = coloured
        .split("\x1b[")
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split_once('m').expect("code").1 }.to_owned())
        .collect();
    assert_eq!(stripped.concat(), plain);
}

#[test]
fn slots_that_have_come_make_room_for_the_next() {
    let mut model = busy();
    let name = "every_ninety_seconds_a_schedule_with_a_very_long_name_indeed";
    let next = |model: &Model| {
        let all = model.next_slots(10);
        let found = all.iter().find(|next| next.schedule.as_str() == name).cloned();
        found.and_then(|next| next.slot.ok().flatten()).expect("a slot")
    };
    let first = next(&model);
    model.at(first);
    assert_eq!(next(&model), first + chrono::TimeDelta::seconds(90));
}

#[test]
fn what_is_heard_wins_over_what_was_read_and_old_runs_are_forgotten() {
    let mut model = empty();
    let now = model.now;
    let heard = run("4711", now);
    model.run(heard.clone());
    let pending = RunRecord::pending(heard.id.clone(), QueueName::default_queue(), now);
    let stored = |value, stored_at| streams::bucket::Stored { value, revision: 1, stored_at };
    model.ledger(vec![stored(pending.clone(), now + chrono::TimeDelta::microseconds(400))]);
    assert_eq!(model.latest_runs(1)[0].record, heard);
    let many = (0..5_000).map(|number| {
        let id = format!("a.{number}").parse().expect("id");
        stored(RunRecord { id, ..pending.clone() }, now - chrono::TimeDelta::seconds(number))
    });
    model.ledger(many.collect());
    assert_eq!(model.latest_runs(9_999).len(), 500);
    assert_eq!(model.latest_runs(1)[0].record.id, heard.id);
}
