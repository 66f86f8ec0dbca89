//! Shards: a slot that is run in several parts, with one record that ends when all have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{SubsecRound, TimeDelta};
use futures::StreamExt;
use harness::{Fleet, eventually, within};
use serde_json::json;
use shared::{
    after::run_after,
    limits::{SHARDS_IN_FLIGHT_MAX, SHARDS_MAX},
    names::{Name, QueueName},
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    shard::{Shard, Shards, shard_of},
    slot::Slot,
};
use streams::{
    bucket::Stored,
    cancel::{CancelRequest, Cancelling},
    ledger::Creation,
};

const YEARLY: &str = "cron: '0 0 1 1 *'";

fn definitions(schedules: &[&str]) -> String {
    let lines: Vec<String> = schedules.iter().map(|line| format!("  {line}\n")).collect();
    format!("targets: {{target: {{http: TARGET}}}}\nschedules:\n{}", lines.concat())
}

fn name(text: &str) -> Name {
    text.parse().expect("name")
}

fn part(parent: &RunId, index: u16) -> String {
    shard_of(parent, index).to_string()
}

/// The runs whose shards are at work.
async fn open(fleet: &Fleet, schedule: &str) -> Vec<RunId> {
    fleet.streams.sharded_runs().get(&name(schedule)).await.expect("the list").runs
}

async fn nothing_is_open(fleet: &Fleet, schedule: &str) {
    eventually("no sharded run is open", async || {
        let open = open(fleet, schedule).await;
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_slot_runs_in_shards_that_know_their_index_and_its_record_ends_when_all_have() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let at = (fleet.now() + TimeDelta::seconds(4)).trunc_subsecs(0);
    let parts = format!(
        "parts: {{at: '{}', shards: 4, task: {{target_service: target, action: echo, parameters: {{a: 1}}}}}}",
        at.to_rfc3339()
    );
    let down = "down: {after: {schedule: parts}, task: {target_service: target, action: echo}}";
    let spread =
        "spread: {after: {schedule: parts}, shards: 2, task: {target_service: target, action: echo}}";
    fleet.apply(&definitions(&[&parts, down, spread]));
    let parent = RunId::planned(&name("parts"), Slot::at(at));
    let record = fleet.end_of(&parent.to_string()).await;
    assert_eq!((record.status, record.slot, record.worker), (RunState::Success, Some(at), None));
    assert_eq!(record.shards, Some(Shards { total: 4, succeeded: 4, failed: 0, cancelled: 0 }));
    assert_eq!(fleet.life(&parent.to_string()).await.first(), Some(&RunState::Pending));
    let output = record.output.expect("what the shards answered");
    for index in 0..4_u16 {
        let id = part(&parent, index);
        assert_eq!(id, format!("{parent}-{index}"));
        let calls = fleet.target.calls_of(&id);
        assert_eq!(calls.len(), 1, "{id}");
        let said = json!({"parent": parent, "index": index, "total": 4});
        assert_eq!((&calls[0].body["shard"], &calls[0].body["slot"]), (&said, &json!(at)));
        assert_eq!(calls[0].headers["cronfleet-shard-index"], index.to_string());
        assert_eq!(calls[0].headers["cronfleet-shard-total"], "4");
        assert_eq!(calls[0].headers["cronfleet-shard-parent"], parent.to_string());
        assert_eq!(output[usize::from(index)]["shard"], said, "in their order");
    }
    assert!(fleet.target.calls_of(&parent.to_string()).is_empty(), "no worker has the whole");
    let follower = run_after(&name("down"), &parent).to_string();
    assert_eq!(fleet.end_of(&follower).await.status, RunState::Success);
    assert_eq!(fleet.target.calls_of(&follower)[0].body["upstream"]["output"], output);
    // A run that follows another may have shards itself: each is told what it follows.
    let spread = run_after(&name("spread"), &parent);
    assert_eq!(fleet.end_of(&spread.to_string()).await.status, RunState::Success);
    for index in 0..2 {
        let call = fleet.target.calls_of(&part(&spread, index)).remove(0);
        assert_eq!(call.body["upstream"]["output"], output);
        assert_eq!(call.body["shard"], json!({"parent": spread, "index": index, "total": 2}));
    }
    nothing_is_open(&fleet, "parts").await;
    nothing_is_open(&fleet, "spread").await;
    let records = fleet.records().await;
    assert_eq!(records.len(), (1 + 4) + 1 + (1 + 2), "the whole is followed, and not its shards");
    let shown = fleet.cronfleet(&["describe", "run", &parent.to_string()]);
    assert!(shown.contains("4 of 4 have ended: 4 SUCCESS"), "{shown}");
}

#[tokio::test]
async fn one_shard_that_fails_fails_the_whole_which_says_which_and_the_others_come_to_their_end() {
    let fleet = Fleet::start().await;
    let commands = fleet.folder().join("commands.yaml");
    let script = r#"sleep 0.2; test "$CRONFLEET_SHARD_INDEX" != 1 && echo "$CRONFLEET_SHARD_INDEX of $CRONFLEET_SHARD_TOTAL""#;
    std::fs::write(&commands, format!("commands:\n  part: {{program: /bin/sh, args: [-c, '{script}']}}\n"))
        .expect("written");
    let _worker = fleet.worker(&["--commands", commands.to_str().expect("a path")]);
    let _planner = fleet.planner();
    fleet.apply(&definitions(&[
        &format!("parts: {{{YEARLY}, shards: 3, task: {{command: [part], retry: {{attempts: 1}}}}}}"),
        "alarm: {after: {schedule: parts, on: failure}, task: {target_service: target, action: echo}}",
    ]));
    let parent: RunId = fleet.cronfleet(&["trigger", "parts"]).trim().parse().expect("run");
    let record = fleet.end_of(&parent.to_string()).await;
    let error = record.error.expect("an error");
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Shards)));
    assert_eq!(record.shards, Some(Shards { total: 3, succeeded: 2, failed: 1, cancelled: 0 }));
    let failed = part(&parent, 1);
    assert!(error.message.starts_with(&format!("1 of 3 shards ({failed}) failed")), "{}", error.message);
    assert_eq!(record.output, Some(json!([{"text": "0 of 3"}, null, {"text": "2 of 3"}])));
    let failed = fleet.record(&failed).await.expect("its record");
    assert!(fleet.dead_letter(&failed).await.task.is_some());
    let alarm = run_after(&name("alarm"), &parent).to_string();
    assert_eq!(fleet.end_of(&alarm).await.status, RunState::Success);
    let call = fleet.target.calls_of(&alarm).remove(0);
    assert_eq!(call.body["upstream"]["error"]["message"], json!(error.message));
}

#[tokio::test]
async fn cancelling_the_whole_cancels_its_shards_wherever_they_are() {
    let fleet = Fleet::start().await;
    // Two run, the others wait in the queue.
    let _worker = fleet.worker(&["--places", "2"]);
    let _planner = fleet.planner();
    fleet.apply(&definitions(&[&format!(
        "parts: {{{YEARLY}, shards: 5, task: {{target_service: target, action: slow, parameters: {{ms: 60000}}}}}}"
    )]));
    let parent: RunId = fleet.cronfleet(&["trigger", "parts"]).trim().parse().expect("run");
    eventually("two calls", async || {
        let calls = fleet.target.calls().len();
        if calls == 2 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    eventually("the whole runs", async || {
        let record = fleet.record(&parent.to_string()).await;
        record.filter(|record| record.status == RunState::Running).ok_or("not yet".to_owned())
    })
    .await;
    let shown = fleet.cronfleet_json(&["cancel", &parent.to_string(), "--timeout", "1m"]);
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
    assert_eq!(shown["shards"], json!({"total": 5, "succeeded": 0, "failed": 0, "cancelled": 5}));
    assert!(shown["note"].as_str().is_some_and(|note| note.starts_with("cancelled by ")), "{shown}");
    for index in 0..5 {
        let record = fleet.record(&part(&parent, index)).await.expect("its record");
        assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    }
    assert_eq!(fleet.target.calls().len(), 2, "none was begun any more");
    nothing_is_open(&fleet, "parts").await;
}

/// A sharded run as a planner leaves it that dies in the middle: entered, some shards with their record, none with its task.
async fn half_done(fleet: &Fleet, parent: &RunRecord, made: &[u16]) {
    let ledger = fleet.streams.ledger();
    assert!(matches!(ledger.create(parent).await.expect("created"), Creation::Created(_)));
    let list = fleet.streams.sharded_runs();
    let name = &parent.id.name;
    list.write(name, std::slice::from_ref(&parent.id), 0).await.expect("entered");
    for index in made {
        let total = parent.shards.expect("shards").total;
        let record = RunRecord {
            schedule: parent.schedule.clone(),
            slot: parent.slot,
            shard: Some(Shard { parent: parent.id.clone(), index: *index, total }),
            ..RunRecord::pending(shard_of(&parent.id, *index), parent.queue.clone(), fleet.now())
        };
        assert!(matches!(ledger.create(&record).await.expect("created"), Creation::Created(_)));
    }
}

#[tokio::test]
async fn what_a_planner_leaves_half_done_of_a_sharded_slot_its_successor_finishes() {
    let fleet = Fleet::start().await;
    let at = (fleet.now() + TimeDelta::seconds(2)).trunc_subsecs(0);
    let parts = format!(
        "parts: {{at: '{}', shards: 4, task: {{target_service: target, action: echo}}}}",
        at.to_rfc3339()
    );
    fleet.apply(&definitions(&[&parts]));
    let queue = QueueName::default_queue();
    let parent = RunRecord {
        shards: Some(Shards::new(4)),
        ..RunRecord::planned(&name("parts"), Slot::at(at), queue, at)
    };
    half_done(&fleet, &parent, &[0, 2]).await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let record = fleet.end_of(&parent.id.to_string()).await;
    assert_eq!((record.status, record.created_at), (RunState::Success, parent.created_at));
    for index in 0..4 {
        assert_eq!(fleet.target.calls_of(&part(&parent.id, index)).len(), 1);
    }
    nothing_is_open(&fleet, "parts").await;
}

#[tokio::test]
async fn a_whole_that_is_cancelled_while_its_shards_are_made_leaves_none_to_run() {
    let fleet = Fleet::start().await;
    fleet.apply(&definitions(&[&format!(
        "parts: {{{YEARLY}, shards: 3, task: {{target_service: target, action: echo}}}}"
    )]));
    let parent = RunRecord {
        schedule: Some(name("parts")),
        shards: Some(Shards::new(3)),
        ..RunRecord::pending("parts.manual-1".parse().expect("run"), QueueName::default_queue(), fleet.now())
    };
    half_done(&fleet, &parent, &[1]).await;
    fleet.cronfleet(&["cancel", "parts.manual-1"]);
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    nothing_is_open(&fleet, "parts").await;
    for index in 0..3 {
        let record = fleet.record(&part(&parent.id, index)).await.expect("its record");
        assert_eq!(
            (record.status, record.reason),
            (RunState::Cancelled, Some(Reason::ByOperator)),
            "{index}"
        );
    }
    assert!(fleet.target.calls().is_empty());
}

/// How many parts somebody made to run, be they cancelled since.
async fn made_to_run(fleet: &Fleet, parent: &RunRecord) -> usize {
    let versions = fleet.streams.ledger().written_since(parent.created_at, 10_000).await.expect("versions");
    let is_its = |shard: &Shard| shard.parent == parent.id;
    let pending = versions.iter().map(|version| &version.value).filter(|run| run.status == RunState::Pending);
    let made: BTreeSet<u16> =
        pending.filter_map(|run| run.shard.as_ref()).filter(|s| is_its(s)).map(|s| s.index).collect();
    made.len()
}

#[tokio::test]
async fn once_a_whole_is_cancelled_no_more_of_its_shards_are_made_than_were_on_their_way() {
    let fleet = Fleet::start().await;
    let _planner = fleet.planner();
    fleet.members("planner", 1).await;
    let task = "task: {target_service: target, action: echo}";
    fleet.apply(&definitions(&[&format!(
        "parts: {{{YEARLY}, overlap: allow, shards: {SHARDS_MAX}, {task}}}"
    )]));
    let mut heard = fleet.streams.results(Some(&name("parts"))).await.expect("results");
    // Who is too slow to cancel it while its shards are made tries another one.
    for _ in 0..10 {
        let parent: RunId = fleet.cronfleet(&["trigger", "parts"]).trim().parse().expect("a run");
        while heard.next().await.expect("a record").shard.is_none_or(|shard| shard.parent != parent) {}
        let (reason, at) = (Reason::ByOperator, fleet.now());
        let request = CancelRequest { run: parent.clone(), reason, by: "spec".to_owned(), at };
        let cancelling = fleet.streams.cancel(&request).await.expect("an answer");
        let Cancelling::Cancelled(whole) = cancelling else {
            nothing_is_open(&fleet, "parts").await;
            continue;
        };
        let made = made_to_run(&fleet, &whole).await;
        nothing_is_open(&fleet, "parts").await;
        if made + SHARDS_IN_FLIGHT_MAX >= usize::from(SHARDS_MAX) {
            continue;
        }
        let in_the_end = made_to_run(&fleet, &whole).await;
        assert!(in_the_end <= made + SHARDS_IN_FLIGHT_MAX, "{made}, then {in_the_end}");
        assert!(fleet.target.calls().is_empty());
        return;
    }
    panic!("never cancelled while its shards were being made");
}

#[tokio::test]
async fn sharded_slots_all_come_to_their_end_while_planners_are_killed_again_and_again() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&["--places", "64"]);
    let mut planners = [fleet.planner(), fleet.planner()];
    fleet.members("planner", 2).await;
    let schedule = |name: &str, overlap: &str| {
        format!(
            "{name}: {{every: 1s, overlap: {overlap}, shards: 12, task: {{target_service: target, action: slow, parameters: \
             {{ms: 300}}}}}}"
        )
    };
    fleet.apply(&definitions(&[&schedule("both", "allow"), &schedule("one", "skip")]));
    let ended = async |schedule: &str| {
        let records = fleet.records().await.into_iter().map(|stored| stored.value);
        let whole = records.filter(|record| record.id.name.as_str() == schedule && record.shards.is_some());
        whole.filter(|record| record.status == RunState::Success).count()
    };
    for round in 0..4 {
        let before = [ended("both").await, ended("one").await];
        within(Duration::from_secs(40), "more slots that have ended", async || {
            let now = [ended("both").await, ended("one").await];
            if now[0] > before[0] && now[1] > before[1] { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
        })
        .await;
        let planner = &mut planners[round % 2];
        planner.kill();
        *planner = fleet.planner();
    }
    for schedule in ["both", "one"] {
        fleet.cronfleet(&["delete", schedule]);
    }
    let records = within(Duration::from_mins(1), "the end of every run", async || {
        let records: Vec<RunRecord> =
            fleet.records().await.into_iter().map(|stored: Stored<RunRecord>| stored.value).collect();
        let open = records.iter().filter(|record| !record.status.is_final()).count();
        if open == 0 { Ok(records) } else { Err(open.to_string()) }
    })
    .await;
    for schedule in ["both", "one"] {
        nothing_is_open(&fleet, schedule).await;
    }
    let mut spans: BTreeMap<RunId, (i64, i64)> = BTreeMap::new();
    for whole in records.iter().filter(|record| record.shards.is_some()) {
        let parts = records
            .iter()
            .filter(|record| record.shard.as_ref().is_some_and(|shard| shard.parent == whole.id));
        let parts: Vec<&RunRecord> = parts.collect();
        if whole.status == RunState::Cancelled {
            assert!(parts.is_empty(), "{} was skipped: {:?}", whole.id, whole.reason);
            continue;
        }
        assert_eq!((whole.status, parts.len()), (RunState::Success, 12), "{}: {:?}", whole.id, whole.error);
        let calls = parts.iter().flat_map(|part| {
            let calls = fleet.target.calls_of(&part.id.to_string());
            assert_eq!(calls.len(), 1, "{}", part.id);
            calls
        });
        let (mut first, mut last) = (i64::MAX, 0);
        for call in calls {
            (first, last) = (first.min(call.began_ms), last.max(call.ended_ms.expect("an end")));
        }
        spans.insert(whole.id.clone(), (first, last));
    }
    let one: Vec<(&RunId, &(i64, i64))> =
        spans.iter().filter(|(run, _)| run.name.as_str() == "one").collect();
    assert!(one.len() >= 4, "{one:?}");
    for pair in one.windows(2) {
        assert!(pair[0].1.1 <= pair[1].1.0, "with skip no shards of two slots run at once: {pair:?}");
    }
}

#[tokio::test]
async fn a_slot_is_skipped_while_shards_of_the_one_before_run_and_no_lock_is_left_behind() {
    let fleet = Fleet::start().await;
    // Somebody's writing: runs that have ended, or never were, are in nobody's way.
    let list = fleet.streams.sharded_runs();
    let ghosts: Vec<RunId> =
        ["parts.20200101T000000Z", "parts.x"].map(|run| run.parse().expect("run")).to_vec();
    list.write(&name("parts"), &ghosts, 0).await.expect("written");
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply(&definitions(&[&format!(
        "parts: {{{YEARLY}, shards: 2, task: {{target_service: target, action: slow, parameters: {{ms: 2500}}}}}}"
    )]));
    let trigger = || fleet.cronfleet(&["trigger", "parts"]).trim().to_owned();
    let first = trigger();
    eventually("calls of the first", async || {
        let calls = fleet.target.calls().len();
        if calls == 2 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    let skipped = fleet.end_of(&trigger()).await;
    let error = skipped.error.expect("why");
    assert_eq!((skipped.status, skipped.reason), (RunState::Cancelled, Some(Reason::SkippedOverlap)));
    assert!(error.message.contains(&first), "{}", error.message);
    assert_eq!(fleet.end_of(&first).await.status, RunState::Success);
    assert_eq!(fleet.end_of(&trigger()).await.status, RunState::Success, "the next one runs");
    assert_eq!(fleet.target.calls().len(), 4);
}

#[tokio::test]
async fn shards_that_cannot_be_are_refused_with_the_value_the_rule_and_the_repair() {
    let fleet = Fleet::start().await;
    for (fields, words) in [
        ("shards: 257", "shards is 257; 1 to 256 are allowed"),
        ("shards: 0", "shards is 0; 1 to 256 are allowed: for one run a slot leave it out"),
        ("shards: 2, overlap: buffer_all", "overlap is buffer_all; a schedule with `shards` skips a slot"),
        ("shards: 2, overlap: replace", "write skip or allow"),
    ] {
        let text = definitions(&[&format!(
            "parts: {{{YEARLY}, {fields}, task: {{target_service: target, action: ok}}}}"
        )]);
        let output = fleet.try_apply(&text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{fields}: {said}");
        assert!(said.contains("line 3"), "with its place: {said}");
    }
}
