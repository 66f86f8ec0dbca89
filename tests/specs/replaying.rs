//! Many dead letters at once: those that are meant, each once, also by one who is interrupted.

use harness::{Fleet, eventually};
use serde_json::json;
use shared::run_state::RunState::{Failed, Success};

use crate::dead_letters::task;

async fn many_failed(fleet: &Fleet, count: usize) {
    for number in 0..count {
        let mut task = task("flaky", 1);
        task["parameters"]["region"] = json!(if number % 3 == 0 { "us" } else { "eu" });
        fleet.submit(&format!("load.{number}"), &task).await.expect("submitted");
    }
    for number in 0..count {
        let record = fleet.end_of(&format!("load.{number}")).await;
        assert_eq!(record.status, Failed);
        fleet.dead_letter(&record).await;
    }
}

fn letters(fleet: &Fleet) -> usize {
    fleet.cronfleet(&["get", "dead", "-o", "name", "--limit", "1000"]).lines().count()
}

#[tokio::test]
async fn those_that_are_meant_are_counted_first_and_replayed_and_the_others_stay() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    many_failed(&fleet, 12).await;
    let prospect = fleet.cronfleet_json(&["replay", "--where", "region=us", "--dry-run"]);
    assert_eq!(prospect.as_array().expect("a list").len(), 4);
    assert_eq!(letters(&fleet), 12, "nothing was changed");
    let replayed = fleet.try_cronfleet(&["replay", "--where", "region=us", "--rate", "1000/s", "-o", "json"]);
    let (out, talk) = (String::from_utf8_lossy(&replayed.stdout), String::from_utf8_lossy(&replayed.stderr));
    assert!(replayed.status.success() && talk.contains("4 dead letters are meant"), "{out}{talk}");
    for number in [0, 3, 6, 9] {
        assert_eq!(fleet.end_of(&format!("load.{number}")).await.status, Success);
    }
    assert_eq!(letters(&fleet), 8);
    let limited = fleet.cronfleet_json(&["replay", "--limit", "3"]);
    assert_eq!((&limited["matched"], &limited["replayed"]), (&json!(3), &json!(3)));
    assert_eq!(letters(&fleet), 5);
}

#[tokio::test]
async fn a_replay_that_is_interrupted_or_killed_goes_on_with_the_rest_and_runs_nothing_twice() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    many_failed(&fleet, 60).await;
    let at_work = async |more_than: usize| {
        eventually("some are replayed", async || match fleet.target.calls().len() {
            enough if enough > more_than => Ok(()),
            few => Err(format!("{few}")),
        })
        .await;
    };
    let mut killed = fleet.spawn("replay", &["replay", "--rate", "10/s"]);
    at_work(65).await;
    killed.kill();
    let mut interrupted = fleet.spawn("replay", &["replay", "--rate", "10/s"]);
    at_work(75).await;
    interrupted.signal(rustix::process::Signal::INT);
    assert_eq!(interrupted.ended().await.code(), Some(1));
    assert!(interrupted.said().contains("the same command goes on with them"), "{}", interrupted.said());
    // Two at once: each takes what the other has not, and what one finds living is left.
    let mut beside = fleet.spawn("replay", &["replay", "--rate", "1000/s"]);
    fleet.try_cronfleet(&["replay", "--rate", "1000/s"]);
    beside.ended().await;
    for number in 0..60 {
        let record = fleet.end_of(&format!("load.{number}")).await;
        assert_eq!((record.status, record.attempt), (Success, 2), "{record:?}");
    }
    assert_eq!(fleet.target.calls().len(), 120, "each ran once before and once after");
    fleet.try_cronfleet(&["replay"]);
    assert_eq!(letters(&fleet), 0);
}

#[tokio::test]
async fn a_replay_that_waits_for_its_next_turn_ends_at_once_when_it_is_interrupted() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    many_failed(&fleet, 2).await;
    let mut replay = fleet.spawn("replay", &["replay", "--rate", "1/m"]);
    eventually("the first is replayed", async || match fleet.target.calls().len() {
        3 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    replay.signal(rustix::process::Signal::INT);
    assert_eq!(replay.ended().await.code(), Some(1), "{}", replay.said());
    assert!(replay.said().contains("interrupted: 1 are left"), "{}", replay.said());
    assert_eq!(letters(&fleet), 1);
}

#[tokio::test]
async fn runs_of_a_schedule_that_may_not_overlap_are_replayed_one_after_another_in_their_order() {
    let fleet = Fleet::start().await;
    let (_worker, _planner) = (fleet.worker(&[]), fleet.planner());
    fleet.apply(
        "targets: {target: {http: TARGET}}\nschedules: {yearly: {cron: '0 0 1 1 *', task: {target_service: target, \
         action: flaky, retry: {attempts: 1}}}}",
    );
    fleet.members("planner", 1).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let run = eventually("another run of it", async || {
            let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
            let record = fleet.end_of(&run).await;
            if record.status == Failed { Ok(record) } else { Err(format!("{:?}", record.reason)) }
        })
        .await;
        fleet.dead_letter(&run).await;
        order.push(run.id.to_string());
    }
    let calls_before = fleet.target.calls().len();
    fleet.cronfleet(&["replay", "--schedule", "yearly"]);
    for run in &order {
        assert_eq!(fleet.end_of(run).await.status, Success);
    }
    let began: Vec<String> =
        fleet.target.calls()[calls_before..].iter().map(|call| call.run.clone()).collect();
    assert_eq!(began, order);
    fleet.target.assert_never_two_at_once("yearly");
}
