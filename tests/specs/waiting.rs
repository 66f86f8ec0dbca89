//! Overlap `buffer_one` and `buffer_all`: slots wait for their schedule's lock and run in order, whatever dies meanwhile.

use std::time::Duration;

use chrono::TimeDelta;
use futures::future::join_all;
use harness::{Fleet, PlainClient, eventually, within};
use shared::{
    hash::partition_of,
    limits::WAITING_RUNS_MAX,
    names::Name,
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState,
    slot::Slot,
};
use streams::control::Trigger;

fn definitions(overlap: &str, task: &str) -> String {
    format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: 4s}}}}\nschedules: {{busy: {{every: \
         1s, overlap: {overlap}, task: {{target_service: target, {task}}}}}}}"
    )
}

async fn runs_of(fleet: &Fleet) -> Vec<RunRecord> {
    let mut runs: Vec<_> = fleet.records().await.into_iter().map(|stored| stored.value).collect();
    runs.sort_by_key(|run| run.slot);
    runs
}

async fn when_so_many_succeeded(fleet: &Fleet, count: usize) {
    within(Duration::from_mins(1), &format!("{count} runs that succeeded"), async || {
        let done = runs_of(fleet).await.iter().filter(|run| run.status == RunState::Success).count();
        if done >= count { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
}

/// Deletes the schedule and waits until all of its runs have ended; they are returned.
async fn when_deleted(fleet: &Fleet) -> Vec<RunRecord> {
    fleet.cronfleet(&["delete", "busy"]);
    within(Duration::from_secs(30), "the end of all runs", async || {
        let runs = runs_of(fleet).await;
        let open: Vec<_> = runs.iter().filter(|run| !run.status.is_final()).map(|run| &run.id).collect();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    runs_of(fleet).await
}

async fn trigger_times(fleet: &Fleet, schedule: &str, count: usize) {
    let asked = (0..count).map(async |n| {
        let run = format!("{schedule}.manual-{n}").parse().expect("run");
        let parameters = serde_json::Map::new();
        let trigger = Trigger { run, parameters, by: "spec".to_owned(), at: fleet.now() };
        fleet.streams.trigger(&trigger).await.expect("stored");
    });
    join_all(asked).await;
}

#[tokio::test]
async fn with_buffer_one_the_first_slot_waits_for_its_turn_and_those_after_it_are_skipped() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(&definitions("buffer_one", "action: slow, parameters: {ms: 2500}"));
    when_so_many_succeeded(&fleet, 3).await;
    let runs = when_deleted(&fleet).await;
    fleet.target.assert_never_two_at_once("busy");
    let ran: Vec<_> = runs.iter().filter(|run| run.status == RunState::Success).collect();
    for run in &ran[1..] {
        let life = fleet.life(&run.id.to_string()).await;
        assert_eq!(life[..2], [RunState::Pending, RunState::Pending], "{} waited", run.id);
    }
    let skipped: Vec<_> = runs.iter().filter(|run| run.reason == Some(Reason::SkippedOverlap)).collect();
    assert!(!skipped.is_empty());
    for run in skipped {
        let error = run.error.as_ref().expect("an explanation");
        assert_eq!(error.kind, ErrorKind::Overlap);
        assert!(error.message.contains("at most 1 may"), "{}", error.message);
    }
    let left = runs.iter().filter(|run| run.reason == Some(Reason::ScheduleDeleted)).count();
    assert!(left <= 1, "{left} waited when the schedule was deleted");
}

#[tokio::test]
async fn with_buffer_all_slots_run_in_order_and_none_comes_between_the_attempts_of_another() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(&definitions("buffer_all", "action: flaky, retry: {attempts: 3, backoff: 2s}"));
    when_so_many_succeeded(&fleet, 4).await;
    let runs = when_deleted(&fleet).await;
    fleet.target.assert_never_two_at_once("busy");
    let called: Vec<_> = fleet.target.calls().into_iter().map(|call| (call.run, call.attempt)).collect();
    let in_order: Vec<_> = runs
        .iter()
        .filter(|run| run.reason != Some(Reason::ScheduleDeleted))
        .flat_map(|run| [(run.id.to_string(), 1), (run.id.to_string(), 2)])
        .collect();
    assert_eq!(called, in_order);
    let ran = runs.iter().filter(|run| run.status == RunState::Success).count();
    let (first, rest) = runs.split_at(ran);
    assert!(first.iter().all(|run| run.status == RunState::Success), "the oldest ran");
    assert!(rest.iter().all(|run| run.reason == Some(Reason::ScheduleDeleted)), "{rest:?}");
}

#[tokio::test]
async fn slots_that_wait_when_their_planner_is_killed_run_in_order_each_once_under_its_successor() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    fleet.apply(&definitions("buffer_all", "action: slow, parameters: {ms: 2500}"));
    let busy: Name = "busy".parse().expect("name");
    let waiting = within(Duration::from_secs(30), "two that wait", async || {
        let line = fleet.streams.lines().get(&busy).await.map_err(|error| error.to_string())?;
        if line.runs.len() >= 2 { Ok(line.runs) } else { Err(line.runs.len().to_string()) }
    })
    .await;
    planner.kill();
    let _successor = fleet.planner();
    for run in &waiting {
        assert_eq!(fleet.end_of(&run.to_string()).await.status, RunState::Success);
    }
    let last = fleet.record(&waiting[waiting.len() - 1].to_string()).await.expect("a record");
    let waited = last.started_at.expect("it began") - last.slot.expect("a slot");
    // How long it waited is the machine's affair; that it says so is ours.
    assert!(
        last.late || waited <= TimeDelta::seconds(6),
        "it began {waited} after its slot and does not say so"
    );
    let runs = when_deleted(&fleet).await;
    fleet.target.assert_never_two_at_once("busy");
    let called: Vec<_> = fleet.target.calls().into_iter().map(|call| call.run).collect();
    let ran: Vec<_> = runs.iter().filter(|run| run.attempt > 0).map(|run| run.id.to_string()).collect();
    assert_eq!(called, ran, "in the order of their slots, each once");
    let slots: Vec<_> = runs.iter().filter_map(|run| run.slot).collect();
    let gaps = slots.windows(2).filter(|pair| (pair[1] - pair[0]).num_seconds() != 1).count();
    assert_eq!(gaps, 0, "every slot has its record");
}

#[tokio::test]
async fn no_more_wait_than_the_policy_says_although_two_planners_add_to_the_line_at_once() {
    let fleet = Fleet::start().await;
    let _planners = [fleet.planner(), fleet.planner()];
    fleet.members("planner", 2).await;
    let yearly = |overlap: &str| {
        format!(
            "{overlap}: {{cron: '0 0 1 1 *', overlap: {overlap}, task: {{target_service: target, action: ok}}}}"
        )
    };
    let schedules = [yearly("buffer_one"), yearly("buffer_all")].join(", ");
    fleet.apply(&format!("targets: {{target: {{http: TARGET}}}}\nschedules: {{{schedules}}}"));
    for (schedule, max) in [("buffer_one", 1), ("buffer_all", WAITING_RUNS_MAX)] {
        // No worker lives: the first holds the lock for ever.
        let asked = 1 + max + 9;
        trigger_times(&fleet, schedule, asked).await;
        let runs = within(Duration::from_secs(30), "an answer for each", async || {
            let mut runs = runs_of(&fleet).await;
            runs.retain(|run| run.id.name.as_str() == schedule);
            let undecided =
                runs.iter().filter(|run| run.status == RunState::Pending && run.reason.is_none()).count();
            if runs.len() == asked && undecided == 1 { Ok(runs) } else { Err(format!("{undecided}")) }
        })
        .await;
        let so_many = |reason| runs.iter().filter(|run| run.reason == Some(reason)).count();
        assert_eq!((so_many(Reason::Buffered), so_many(Reason::SkippedOverlap)), (max, 9), "{schedule}");
    }
}

const HELD: &str = "cron: '0 0 1 1 *', overlap: buffer_all, task: {target_service: target, action: slow";

/// Runs `held` by hand; its id.
fn triggered(fleet: &Fleet, parameter: &str) -> String {
    fleet.cronfleet(&["trigger", "held", "--param", parameter]).trim().to_owned()
}

async fn when_buffered(fleet: &Fleet, runs: &[String]) {
    for run in runs {
        within(Duration::from_secs(30), &format!("{run} waits"), async || {
            let reason = fleet.record(run).await.and_then(|record| record.reason);
            if reason == Some(Reason::Buffered) { Ok(()) } else { Err(format!("{reason:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn runs_that_wait_follow_their_schedule_to_its_new_queue_and_do_what_they_were_made_for() {
    let fleet = Fleet::start().await;
    let apply = |queue: &str, ms: u32| {
        fleet.apply(&format!(
            "targets: {{target: {{http: TARGET}}}}\nqueues: {{other: {{}}}}\nschedules: {{held: {{queue: {queue}, {HELD}, \
             parameters: {{ms: {ms}}}}}}}}}"
        ))
    };
    apply("default", 1001);
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&["--queue", "default", "--queue", "other"]));
    let first = triggered(&fleet, "ms=4000");
    fleet.members("planner", 1).await;
    within(Duration::from_secs(30), "the first call", async || {
        if fleet.target.calls().is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    let waiting = [triggered(&fleet, "n=0"), triggered(&fleet, "n=1")];
    when_buffered(&fleet, &waiting).await;
    apply("other", 1);
    for (n, run) in waiting.iter().enumerate() {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.queue.as_str()), (RunState::Success, "other"));
        let parameters = &fleet.target.calls_of(run)[0].body["parameters"];
        assert_eq!((&parameters["ms"], &parameters["n"]), (&1001.into(), &n.into()), "{parameters}");
    }
    assert_eq!(fleet.end_of(&first).await.queue.as_str(), "default");
    fleet.target.assert_never_two_at_once("held");
}

#[tokio::test]
async fn a_run_that_waits_goes_after_the_second_attempt_of_the_one_whose_worker_was_killed() {
    let fleet = Fleet::start().await;
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: 3s}}}}\nschedules: {{held: {{{HELD}, \
         parameters: {{ms: 1500}}}}}}}}"
    ));
    let mut worker = fleet.worker(&[]);
    let _planners = [fleet.planner(), fleet.planner()];
    let first = triggered(&fleet, "n=0");
    within(Duration::from_secs(30), "its call", async || {
        if fleet.target.calls_of(&first).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    worker.kill();
    let second = triggered(&fleet, "n=1");
    when_buffered(&fleet, std::slice::from_ref(&second)).await;
    let _second_worker = fleet.worker(&[]);
    assert_eq!(fleet.end_of(&second).await.status, RunState::Success);
    let called: Vec<_> = fleet.target.calls().into_iter().map(|call| (call.run, call.attempt)).collect();
    assert_eq!(called, [(first.clone(), 1), (first, 2), (second, 1)]);
    fleet.target.assert_never_two_at_once("held");
}

/// A planner dies between two writes about a line. Made here by hand while none lives: a run that has ended and a key
/// that was never a run still stand before one that waits.
#[tokio::test]
async fn what_a_planner_leaves_half_done_in_a_line_its_successor_finishes() {
    let fleet = Fleet::start().await;
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nschedules: {{held: {{{HELD}, parameters: {{ms: 1}}}}}}}}"
    ));
    let _worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    let ended = triggered(&fleet, "n=0");
    assert_eq!(fleet.end_of(&ended).await.status, RunState::Success);
    planner.kill();
    let name: Name = "held".parse().expect("name");
    let revision = fleet.streams.schedules().get(&name).await.expect("read").expect("there").revision;
    let slot = Slot::at("2026-01-01T00:00:00Z".parse().expect("instant"));
    let record = RunRecord {
        definition_revision: Some(revision),
        ..RunRecord::planned(&name, slot, "default".parse().expect("queue"), fleet.now())
    };
    let waits = record.because(Reason::Buffered);
    fleet.streams.ledger().create(&waits).await.expect("created");
    let runs = [ended.parse().expect("run"), "held.nobody".parse().expect("run"), waits.id.clone()];
    let line = fleet.streams.lines().get(&name).await.expect("the line");
    fleet.streams.lines().write(&name, &runs, line.revision).await.expect("written");
    let _successor = fleet.planner();
    assert_eq!(fleet.end_of(&waits.id.to_string()).await.status, RunState::Success);
    within(Duration::from_secs(30), "an empty line", async || {
        let line = fleet.streams.lines().get(&name).await.map_err(|error| error.to_string())?;
        if line.runs.is_empty() { Ok(()) } else { Err(format!("{:?}", line.runs)) }
    })
    .await;
    let called: Vec<_> = fleet.target.calls().into_iter().map(|call| call.run).collect();
    assert_eq!(called, [ended, waits.id.to_string()], "each once");
}

#[tokio::test]
async fn a_line_that_a_stranger_wrote_over_is_made_anew_from_the_records_of_those_who_wait() {
    let fleet = Fleet::start().await;
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\nschedules: {{held: {{{HELD}, parameters: {{ms: 1}}}}}}}}"
    ));
    let _planner = fleet.planner();
    let first = triggered(&fleet, "n=9");
    within(Duration::from_secs(30), "the first in its queue", async || {
        let held = fleet.streams.live_run(&"held".parse().expect("name")).await;
        held.map_err(|error| error.to_string())?.map(|_| ()).ok_or("none".to_owned())
    })
    .await;
    let waiting = [triggered(&fleet, "n=0"), triggered(&fleet, "n=1")];
    when_buffered(&fleet, &waiting).await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let key = format!("$KV.cronfleet_planner.line.{}.held", partition_of("held"));
    let answer = client.request(&key, b"no line").await;
    assert!(answer.payload.contains("KV_cronfleet_planner"), "{}", answer.payload);
    eventually("a line that is written anew", async || {
        let line = fleet.streams.lines().get(&"held".parse().expect("name")).await;
        let runs = line.map_err(|error| error.to_string())?.runs;
        if runs.len() == 2 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    let _worker = fleet.worker(&[]);
    for run in [&first].into_iter().chain(&waiting) {
        assert_eq!(fleet.end_of(run).await.status, RunState::Success);
    }
    fleet.target.assert_never_two_at_once("held");
}
