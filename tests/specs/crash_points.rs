//! A planner dies after each of its effects in turn, as by kill -9, and another goes on: every slot has its record, every
//! run ran once, and nothing is left behind.
//!
//! The points are not chosen by hand: every write to the server is one ([`streams::witness`]), and a spec checks that the
//! list below is all that a planner passes. What a run says while it runs is written by workers only, and nothing rests on
//! it: `logs.rs` kills one after such a write.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt, time::Duration};

use chrono::{SubsecRound, TimeDelta};
use harness::{Fleet, Process, crash, eventually, within};
use serde_json::json;
use shared::{
    Timestamp,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

/// Every second, under each policy, so that each step between two effects is taken soon and often.
const EVERY_SECOND: [(&str, &str, u32); 6] = [
    (LEFT, "skip", 10),
    ("skip", "skip", 300),
    ("allow", "allow", 10),
    ("buffer_one", "buffer_one", 1_300),
    ("buffer_all", "buffer_all", 700),
    ("replace", "replace", 2_200),
];

/// A schedule and a queue of its own, whose worker dies after the record of its first run and before the ack: its message
/// holds the lock until a planner takes it out.
const LEFT: &str = "left";
/// A schedule that follows the runs of `allow`, and one whose runs have three parts.
const FOLLOWS: &str = "follows";
const SHARDED: &str = "sharded";

const NAMES: [&str; 8] = [LEFT, "skip", "allow", "buffer_one", "buffer_all", "replace", SHARDED, FOLLOWS];

/// The points a planner passes, each with the how-manieth pass at which it dies: the first, and one in the middle of
/// everything for those that come often.
const POINTS: [(&str, &[u32]); 18] = [
    ("planner.seat", &[1, 4]),
    ("planner.lease", &[1, 40]),
    ("planner.cursor", &[1, 9]),
    ("planner.line", &[1, 2, 5]),
    ("planner.chain", &[1, 4]),
    ("planner.shards", &[1, 2, 5]),
    ("members.planner", &[1]),
    ("runs.create", &[1, 7]),
    ("runs.update", &[1, 2, 5]),
    ("due", &[1, 2, 9]),
    ("tasks", &[1, 2]),
    ("control.cancel", &[1, 2]),
    ("remove.TASKS", &[1]),
    ("remove.DELAYED", &[1, 2]),
    ("dead", &[1]),
    ("ack.trigger", &[1]),
    ("ack.backfill", &[1]),
    ("backfills", &[1, 2]),
];

fn definitions() -> String {
    let task = |ms: u32| format!("{{target_service: target, action: slow, parameters: {{ms: {ms}}}}}");
    let every_second = EVERY_SECOND.map(|(name, overlap, ms)| {
        let queue = if name == LEFT { LEFT } else { "default" };
        let task = task(ms);
        format!("  {name}: {{every: 1s, overlap: {overlap}, queue: {queue}, task: {task}}}\n")
    });
    let every_second = every_second.concat();
    format!(
        "targets: {{target: {{http: TARGET}}}}\nqueues: {{default: {{ack_wait: 4s}}, {LEFT}: {{ack_wait: 30s}}}}\nschedules:\n{every_second}  \
         hourly: {{cron: '0 * * * *', task: {quick}}}\n  yearly: {{cron: '0 0 1 1 *', task: {quick}}}\n  {FOLLOWS}: {{after: \
         {{schedule: allow}}, overlap: allow, task: {quick}}}\n  {SHARDED}: {{every: 1s, overlap: skip, shards: 3, task: {quick}}}\n",
        quick = task(10)
    )
}

/// What one planner is given to do.
struct Work {
    /// The slots of the past that are back-filled.
    past: Vec<String>,
}

impl Work {
    async fn give(fleet: &Fleet) -> Self {
        fleet.apply(&definitions());
        fleet.cronfleet(&["trigger", "yearly"]);
        let day = fleet.now().date_naive().and_hms_opt(0, 0, 0).expect("midnight").and_utc();
        let from = (day - TimeDelta::days(2)).trunc_subsecs(0);
        let to = from + TimeDelta::hours(2);
        fleet.cronfleet(&["backfill", "hourly", "--from", &from.to_rfc3339(), "--to", &to.to_rfc3339()]);
        let past = (0..3).map(|n| slot_run("hourly", from + TimeDelta::hours(n))).collect();
        let queue = "default".parse().expect("queue");
        for n in 0..3 {
            let run = format!("delayed.{n}").parse().expect("a run id");
            let at = fleet.now() + TimeDelta::milliseconds(500 + 100 * n);
            let task = json!({"target_service": "target", "action": "ok"}).to_string();
            fleet.streams.delayed().submit(&queue, &run, at, task.as_bytes(), None).await.expect("submitted");
        }
        let run = "delayed.garbage".parse().expect("a run id");
        let at = fleet.now() + TimeDelta::milliseconds(400);
        fleet.streams.delayed().submit(&queue, &run, at, b"no task", None).await.expect("submitted");
        Self { past }
    }

    /// Waits until everything has come to its end, and checks that nothing was lost, doubled or left behind.
    async fn check(&self, fleet: &Fleet) {
        for name in NAMES {
            progress(fleet, name).await;
        }
        for name in NAMES.iter().filter(|name| **name != FOLLOWS) {
            fleet.cronfleet(&["delete", name]);
        }
        let runs = within(Duration::from_mins(1), "the end of every run", async || {
            let runs: Vec<RunRecord> = fleet.records().await.into_iter().map(|stored| stored.value).collect();
            let open: Vec<_> = runs.iter().filter(|run| !run.status.is_final()).map(|run| &run.id).collect();
            if open.is_empty() && self.is_all_there(&runs) {
                Ok(runs)
            } else {
                Err(format!("open: {open:?}, not followed: {:?}", unfollowed(&runs)))
            }
        })
        .await;
        has_every_slot(&runs, SHARDED);
        for (name, overlap, _) in EVERY_SECOND {
            has_every_slot(&runs, name);
            if overlap != "allow" {
                fleet.target.assert_never_two_at_once(name);
            }
        }
        for run in &runs {
            Self::ended_well(fleet, run);
        }
        nothing_is_left(fleet).await;
    }

    fn is_all_there(&self, runs: &[RunRecord]) -> bool {
        let ids: BTreeSet<String> = runs.iter().map(|run| run.id.to_string()).collect();
        let delayed = ["delayed.0", "delayed.1", "delayed.2", "delayed.garbage"];
        self.past.iter().map(String::as_str).chain(delayed).all(|run| ids.contains(run))
            && runs.iter().any(|run| run.id.name.as_str() == "yearly")
            && unfollowed(runs).is_empty()
    }

    fn ended_well(fleet: &Fleet, run: &RunRecord) {
        let id = run.id.to_string();
        let calls = fleet.target.calls_of(&id).len();
        let is_right = match (run.status, run.reason) {
            // The whole is done by its parts.
            (RunState::Success, _) if run.shards.is_some() => calls == 0,
            // A worker that died after the record and before the ack is no second attempt.
            (RunState::Success, _) => calls == 1,
            (RunState::Failed, Some(Reason::Malformed)) => id == "delayed.garbage" && calls == 0,
            (RunState::Cancelled, Some(Reason::Replaced | Reason::ScheduleDeleted)) => calls <= 1,
            (RunState::Cancelled, Some(Reason::SkippedOverlap | Reason::SkippedMissed)) => calls == 0,
            _ => false,
        };
        assert!(is_right, "{calls} calls: {run:?}");
    }
}

fn slot_run(schedule: &str, slot: Timestamp) -> String {
    format!("{schedule}.{}", slot.format("%Y%m%dT%H%M%SZ"))
}

/// Waits until a schedule has records of slots that are later than this moment.
async fn progress(fleet: &Fleet, name: &str) {
    let since = fleet.now();
    within(Duration::from_secs(30), &format!("later slots of {name}"), async || {
        let runs =
            fleet.streams.ledger().list(&format!("{name}.*")).await.map_err(|error| error.to_string())?;
        let later = runs.iter().filter(|run| run.value.slot.unwrap_or(run.value.created_at) > since).count();
        if later > 0 { Ok(()) } else { Err(format!("{} records", runs.len())) }
    })
    .await;
}

fn has_every_slot(runs: &[RunRecord], name: &str) {
    let its = runs.iter().filter(|run| run.id.name.as_str() == name && run.shard.is_none());
    let mut slots: Vec<Timestamp> = its.filter_map(|run| run.slot).collect();
    slots.sort();
    for pair in slots.windows(2) {
        assert_eq!(pair[1] - pair[0], TimeDelta::seconds(1), "{name}: a slot is missing after {}", pair[0]);
    }
}

/// The runs of `allow` that went well and are not followed, or more than once.
fn unfollowed(runs: &[RunRecord]) -> Vec<String> {
    let followers = |of: &RunRecord| {
        let followed = |run: &&RunRecord| run.upstream.as_ref().is_some_and(|upstream| upstream.run == of.id);
        runs.iter().filter(followed).count()
    };
    let went_well =
        runs.iter().filter(|run| run.id.name.as_str() == "allow" && run.status == RunState::Success);
    went_well.filter(|run| followers(run) != 1).map(|run| run.id.to_string()).collect()
}

async fn nothing_is_left(fleet: &Fleet) {
    eventually("an empty queue, empty lines, nothing that waits", async || {
        let (tasks, _) = fleet.streams.tasks_stored().await.map_err(|error| error.to_string())?;
        let delayed = fleet.streams.delayed().count().await.map_err(|error| error.to_string())?;
        let mut lines = 0;
        for (name, ..) in EVERY_SECOND {
            let line = fleet.streams.lines().get(&name.parse().expect("a name")).await;
            lines += line.map_err(|error| error.to_string())?.runs.len();
        }
        if tasks + delayed == 0 && lines == 0 { Ok(()) } else { Err(format!("{tasks} {delayed} {lines}")) }
    })
    .await;
}

/// A worker that leaves the lock of its first run behind when it dies.
fn worker_that_leaves_a_lock(fleet: &Fleet) -> Process {
    // The claim is the first write over a record, the end of the run the second.
    let at = (crash::CRASH_AT, "runs.update:2".to_owned());
    fleet.spawn_with("worker", &["worker", "--queue", LEFT], &[at])
}

async fn survives(point: &str, nth: u32) {
    let fleet = Fleet::start().await;
    let at = (crash::CRASH_AT, format!("{point}:{nth}"));
    let mut mortal = fleet.spawn_with("planner", &["planner"], &[at]);
    let work = Work::give(&fleet).await;
    let mut leaves_a_lock = worker_that_leaves_a_lock(&fleet);
    let _worker = fleet.worker(&["--queue", "default"]);
    let status = mortal.ended().await;
    assert_eq!(status.signal(), Some(9), "it died otherwise: {status}");
    let _successor = fleet.planner();
    leaves_a_lock.ended().await;
    let _other = fleet.worker(&["--queue", LEFT]);
    work.check(&fleet).await;
}

/// The crashes of one point, side by side.
async fn survives_all(point: &str) {
    let passes = POINTS.iter().find(|(name, _)| *name == point).expect("a point").1;
    futures::future::join_all(passes.iter().map(|nth| survives(point, *nth))).await;
}

#[tokio::test]
async fn every_effect_of_a_planner_is_a_point_at_which_it_is_killed_here() {
    let fleet = Fleet::start().await;
    let file = fleet.folder().join("points");
    let points = (crash::POINTS_FILE, file.display().to_string());
    let _planner = fleet.spawn_with("planner", &["planner"], &[points]);
    let work = Work::give(&fleet).await;
    let mut leaves_a_lock = worker_that_leaves_a_lock(&fleet);
    let _worker = fleet.worker(&["--queue", "default"]);
    leaves_a_lock.ended().await;
    let _other = fleet.worker(&["--queue", LEFT]);
    work.check(&fleet).await;
    let seen = std::fs::read_to_string(&file).expect("points");
    let seen: BTreeSet<&str> = seen.lines().collect();
    let listed: BTreeSet<&str> = POINTS.iter().map(|(point, _)| *point).collect();
    assert_eq!(seen, listed);
}

macro_rules! killed_after {
    ($($spec:ident: $point:literal,)*) => {$(
        #[tokio::test]
        async fn $spec() {
            survives_all($point).await;
        }
    )*};
}

killed_after! {
    killed_after_it_took_or_renewed_its_seat: "planner.seat",
    killed_after_it_took_a_lease: "planner.lease",
    killed_after_it_moved_a_cursor: "planner.cursor",
    killed_after_it_wrote_a_line: "planner.line",
    killed_after_it_moved_on_in_a_chain: "planner.chain",
    killed_after_it_wrote_which_sharded_runs_are_open: "planner.shards",
    killed_after_a_heartbeat: "members.planner",
    killed_after_it_created_a_record: "runs.create",
    killed_after_it_wrote_over_a_record: "runs.update",
    killed_after_it_queued_a_slots_task: "due",
    killed_after_it_queued_a_delayed_task: "tasks",
    killed_after_it_asked_for_a_cancelling: "control.cancel",
    killed_after_it_freed_a_lock: "remove.TASKS",
    killed_after_it_deleted_what_waited: "remove.DELAYED",
    killed_after_it_stored_a_dead_letter: "dead",
    killed_after_it_answered_a_trigger: "ack.trigger",
    killed_after_it_answered_a_backfill: "ack.backfill",
    killed_after_it_noted_how_far_a_backfill_is: "backfills",
}
