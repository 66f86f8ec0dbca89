//! Chains while planners and servers are killed, and while the queue is full.

use std::time::Duration;

use harness::{Fleet, PlainClient, eventually, wait::for_a_while, within};
use shared::{
    after::Upstream,
    hash::partition_of,
    names::{MemberId, QueueName},
    run::RunId,
    run_record::RunRecord,
    run_state::{RunEvent, RunState},
};
use streams::{chain::ChainCursor, ledger::Creation};

use crate::{
    chaining::{YEARLY, after, all_is_followed, apply, following, runs_of, schedule},
    planners::resize_tasks,
};

/// The record of a run that has ended well, as a worker leaves it.
async fn ended_run(fleet: &Fleet, run: &str) -> RunRecord {
    let run: RunId = run.parse().expect("run");
    let pending = RunRecord {
        schedule: Some(run.name.clone()),
        ..RunRecord::pending(run, QueueName::default_queue(), fleet.now())
    };
    let started = pending.apply(RunEvent::Started, fleet.now()).expect("starts");
    let ended = started.apply(RunEvent::Succeeded, fleet.now()).expect("ends");
    let created = fleet.streams.ledger().create(&ended).await.expect("created");
    assert!(matches!(created, Creation::Created(_)));
    ended
}

#[tokio::test]
async fn a_chain_goes_on_late_and_marked_when_its_planner_is_killed_before_the_end_that_is_followed() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    apply(
        &fleet,
        &[
            ("up", schedule(YEARLY, "", "slow", "ms: 1500")),
            ("down", schedule(&after("up", "always"), "overlap: allow,", "echo", "")),
            ("last", schedule(&after("down", "success"), "", "echo", "")),
        ],
    );
    all_is_followed(&fleet, "up", "down").await;
    let run = fleet.cronfleet(&["trigger", "up"]).trim().to_owned();
    eventually("a call", async || {
        if fleet.target.calls_of(&run).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    planner.kill();
    assert_eq!(fleet.end_of(&run).await.status, RunState::Success);
    let down = following("down", &run);
    for_a_while(Duration::from_secs(6)).await;
    assert_eq!(fleet.record(&down).await, None, "nobody was there to see it");
    // A schedule that comes while nobody plans, and follows the same one, follows what ends from then on.
    apply(&fleet, &[("new", schedule(&after("up", "always"), "", "echo", ""))]);
    let meanwhile = ended_run(&fleet, "up.manual-1").await.id.to_string();
    let _planner = fleet.planner();
    let record = fleet.end_of(&down).await;
    assert_eq!((record.status, record.late), (RunState::Success, true));
    let record = fleet.end_of(&following("last", &down)).await;
    assert_eq!((record.status, record.late), (RunState::Success, false), "its own upstream ended just now");
    all_is_followed(&fleet, "up", "new").await;
    for name in ["new", "down"] {
        assert_eq!(fleet.end_of(&following(name, &meanwhile)).await.status, RunState::Success, "{name}");
    }
    let runs = runs_of(&fleet, "new").await;
    assert_eq!(runs.len(), 2, "what had ended before it was registered is not its own: {runs:?}");
    assert_eq!(fleet.target.calls_of(&down).len(), 1);
}

#[tokio::test]
async fn a_chain_goes_on_after_its_server_was_killed_while_the_upstream_run_came_to_its_end() {
    let mut fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    apply(
        &fleet,
        &[
            ("up", schedule(YEARLY, "", "slow", "ms: 1500")),
            ("down", schedule(&after("up", "always"), "", "echo", "")),
        ],
    );
    all_is_followed(&fleet, "up", "down").await;
    let run = fleet.cronfleet(&["trigger", "up"]).trim().to_owned();
    eventually("a call", async || {
        if fleet.target.calls_of(&run).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    fleet.nats.kill();
    for_a_while(Duration::from_secs(3)).await;
    fleet.nats.restart().await;
    let record = fleet.end_of(&following("down", &run)).await;
    assert_eq!(record.status, RunState::Success);
    all_is_followed(&fleet, "up", "down").await;
    assert_eq!(runs_of(&fleet, "down").await.len(), 3, "each once");
}

#[tokio::test]
async fn chains_lose_no_link_while_their_planners_are_killed_again_and_again() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let mut planners = [fleet.planner(), fleet.planner()];
    fleet.members("planner", 2).await;
    apply(
        &fleet,
        &[
            ("first", schedule("every: 1s", "overlap: allow,", "slow", "ms: 300")),
            ("second", schedule(&after("first", "success"), "overlap: buffer_all,", "slow", "ms: 200")),
            ("third", schedule(&after("second", "success"), "overlap: allow,", "echo", "")),
        ],
    );
    let progress = async |more: usize| {
        let count = || fleet.target.calls().iter().filter(|call| call.run.starts_with("third.")).count();
        let before = count();
        within(Duration::from_secs(40), "more ends of chains", async || {
            if count() >= before + more { Ok(()) } else { Err(count().to_string()) }
        })
        .await;
    };
    for round in 0..4 {
        progress(2).await;
        let planner = &mut planners[round % 2];
        planner.kill();
        *planner = fleet.planner();
    }
    progress(2).await;
    fleet.cronfleet(&["delete", "first"]);
    let firsts = within(Duration::from_mins(1), "the end of every chain", async || {
        let records = fleet.records().await;
        let open = records.iter().filter(|stored| !stored.value.status.is_final()).count();
        let ran = |name: &str| {
            let runs = records.iter().map(|stored| &stored.value).filter(|run| run.id.name.as_str() == name);
            runs.filter(|run| run.status == RunState::Success).count()
        };
        let counts = [ran("first"), ran("second"), ran("third")];
        if open == 0 && counts[0] == counts[1] && counts[1] == counts[2] {
            Ok(runs_of(&fleet, "first").await)
        } else {
            Err(format!("{open} open, {counts:?}"))
        }
    })
    .await;
    for first in firsts.iter().filter(|run| run.status == RunState::Success) {
        let second = following("second", &first.id.to_string());
        for run in [first.id.to_string(), second.clone(), following("third", &second)] {
            assert_eq!(fleet.target.calls_of(&run).len(), 1, "{run}");
        }
    }
    fleet.target.assert_never_two_at_once("second");
}

#[tokio::test]
async fn what_a_planner_leaves_half_done_of_a_link_its_successor_finishes() {
    let fleet = Fleet::start().await;
    apply(
        &fleet,
        &[
            ("up", schedule(YEARLY, "", "ok", "")),
            ("down", schedule(&after("up", "success"), "", "echo", "")),
        ],
    );
    // A run that ended, and the record of the one that follows, without its task.
    let ended = ended_run(&fleet, "up.manual-1").await;
    let ledger = fleet.streams.ledger();
    let upstream =
        Upstream { run: ended.id.clone(), status: ended.status, ended_at: fleet.now(), retried: 0 };
    let down = "down".parse().expect("name");
    let half = RunRecord::chained(&down, upstream, QueueName::default_queue(), fleet.now());
    assert!(matches!(ledger.create(&half).await.expect("created"), Creation::Created(_)));
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let record = fleet.end_of(&half.id.to_string()).await;
    assert_eq!((record.status, record.created_at), (RunState::Success, half.created_at));
    assert_eq!(fleet.target.calls().len(), 1);
}

#[tokio::test]
async fn an_end_that_cannot_be_followed_just_now_is_seen_to_wait_and_followed_by_a_successor() {
    let fleet = Fleet::start().await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let mut worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    apply(
        &fleet,
        &[
            ("up", schedule(YEARLY, "", "slow", "ms: 3000")),
            ("down", schedule(&after("up", "always"), "", "echo", "")),
            ("other", schedule(&after("up", "always"), "overlap: allow,", "echo", "")),
        ],
    );
    all_is_followed(&fleet, "up", "down").await;
    let run = fleet.cronfleet(&["trigger", "up"]).trim().to_owned();
    eventually("a call", async || {
        if fleet.target.calls_of(&run).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    // While it runs its task lies in the stream; with that it is full.
    resize_tasks(&mut client, 16).await;
    assert_eq!(fleet.end_of(&run).await.status, RunState::Success);
    eventually("the ends are seen to wait", async || {
        let shown = fleet.cronfleet_json(&["get", "planners"]);
        let waiting = &shown[0]["waiting"];
        let is_seen =
            waiting["slots"] == 2 && waiting["why"].as_str().is_some_and(|why| why.contains("full"));
        if is_seen { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert!(planner.said().contains("ends of runs wait to be followed"), "and said");
    planner.kill();
    assert!(worker.is_running());
    resize_tasks(&mut client, 512 * 1024 * 1024).await;
    let _planner = fleet.planner();
    for name in ["down", "other"] {
        let follower = following(name, &run);
        assert_eq!(fleet.end_of(&follower).await.status, RunState::Success, "{name}");
        assert_eq!(fleet.target.calls_of(&follower).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_chain_cursor_that_cannot_be_right_stops_no_chain_and_doubles_nothing() {
    let fleet = Fleet::start().await;
    apply(
        &fleet,
        &[
            ("up", schedule(YEARLY, "", "ok", "")),
            ("down", schedule(&after("up", "always"), "overlap: allow,", "echo", "")),
        ],
    );
    let before = ended_run(&fleet, "up.manual-1").await.id.to_string();
    // As if the ledger had lost its newest records, or somebody had written nonsense.
    let (ledger, last) = fleet.streams.ledger_extent().await.expect("the ledger");
    let by = MemberId::new("planner", "elsewhere");
    let ahead = ChainCursor { place: last + 1_000, heard: 1_000, ledger, by };
    let cursors = fleet.streams.chain_cursors();
    let revision = cursors.write(partition_of("down"), &ahead, 0).await.expect("written");
    let _worker = fleet.worker(&[]);
    let mut planner = fleet.planner();
    assert_eq!(fleet.end_of(&following("down", &before)).await.status, RunState::Success);
    all_is_followed(&fleet, "up", "down").await;
    eventually("a cursor that is right", async || {
        let (cursor, written) = cursors.get(partition_of("down")).await.map_err(|error| error.to_string())?;
        let is_right =
            written > revision && cursor.as_ref().is_some_and(|cursor| cursor.place < last + 1_000);
        if is_right { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    // One of another ledger, whose places mean nothing here.
    planner.kill();
    let (cursor, revision) = cursors.get(partition_of("down")).await.expect("the cursor");
    let foreign = ChainCursor { ledger: ledger - chrono::TimeDelta::days(1), ..cursor.expect("a cursor") };
    cursors.write(partition_of("down"), &foreign, revision).await.expect("written");
    let last = ended_run(&fleet, "up.manual-2").await.id.to_string();
    let _planner = fleet.planner();
    assert_eq!(fleet.end_of(&following("down", &last)).await.status, RunState::Success);
    all_is_followed(&fleet, "up", "down").await;
    for run in runs_of(&fleet, "down").await {
        assert_eq!(
            fleet.target.calls_of(&run.id.to_string()).len(),
            1,
            "{}: what is read again is found done",
            run.id
        );
    }
}
