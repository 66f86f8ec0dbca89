//! Limits hold over the whole fleet, by the target's own log: per target, per key and by rate.

use std::time::Duration;

use futures::{StreamExt, stream};
use harness::{Fleet, eventually, wait::for_a_while, within};
use serde_json::{Value, json};
use shared::{
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

const PATIENCE: Duration = Duration::from_mins(3);

fn slow(ms: u64, symbol: Option<&str>) -> Value {
    let mut parameters = json!({"ms": ms});
    if let Some(symbol) = symbol {
        parameters["symbol"] = symbol.into();
    }
    json!({"target_service": "target", "action": "slow", "parameters": parameters})
}

async fn submit_many(fleet: &Fleet, name: &str, count: usize, task: &Value) {
    let submitting = stream::iter(0..count).map(|n| async move {
        fleet.submit(&format!("{name}.{n}"), task).await.expect("submitted");
    });
    submitting.buffer_unordered(32).collect::<Vec<()>>().await;
}

async fn records_of(fleet: &Fleet, name: &str) -> Vec<RunRecord> {
    let found = fleet.streams.ledger().list(&format!("{name}.*")).await.expect("the ledger");
    found.into_iter().map(|stored| stored.value).collect()
}

async fn all_succeed(fleet: &Fleet, name: &str, count: usize) {
    within(PATIENCE, &format!("the end of all runs of {name}"), async || {
        let records = records_of(fleet, name).await;
        let done = records.iter().filter(|record| record.status == RunState::Success).count();
        if done == count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
}

fn calls_of(fleet: &Fleet, name: &str) -> usize {
    fleet.target.calls().iter().filter(|call| call.run.starts_with(&format!("{name}."))).count()
}

/// Nothing is left behind: no permit, and nobody who waits.
async fn is_tidy(fleet: &Fleet) {
    eventually("no permits and nobody waiting", async || {
        let gates = fleet.streams.gates().list().await.map_err(|error| error.to_string())?;
        let held = gates.iter().map(|(_, gate)| gate.held.len()).sum::<usize>();
        let scope = "t-target".parse().expect("scope");
        let waiting = fleet.streams.count_waiting(&scope).await.map_err(|error| error.to_string())?;
        if (held, waiting) == (0, 0) { Ok(()) } else { Err(format!("{held} held, {waiting} waiting")) }
    })
    .await;
}

#[tokio::test]
async fn a_targets_limit_holds_over_three_workers_while_one_of_them_is_killed() {
    const RUNS: usize = 60;
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, max_concurrent: 3}, other: {http: TARGET}}\n\
         queues: {default: {ack_wait: 3s}}",
    );
    let mut workers: Vec<_> = (0..3).map(|_| fleet.worker(&["--places", "4"])).collect();
    fleet.members("worker", 3).await;
    submit_many(&fleet, "limited", RUNS, &slow(150, None)).await;
    let other = json!({"target_service": "other", "action": "ok"});
    submit_many(&fleet, "free", 20, &other).await;
    all_succeed(&fleet, "free", 20).await;
    assert!(calls_of(&fleet, "limited") < RUNS, "what waits for a limit holds up nobody else");
    within(PATIENCE, "a third of the runs", async || {
        let calls = calls_of(&fleet, "limited");
        if calls > RUNS / 3 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    workers[0].kill();
    all_succeed(&fleet, "limited", RUNS).await;
    let is_limited = |call: &harness::target::Call| call.run.starts_with("limited.");
    assert_eq!(fleet.target.most_at_once(is_limited), 3);
    let spent: u32 = records_of(&fleet, "limited").await.iter().map(|record| record.attempt - 1).sum();
    assert!(spent <= 3, "only those that were lost with the worker spent an attempt: {spent}");
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn a_key_with_many_waiting_runs_holds_up_no_other_key_and_runs_one_at_a_time() {
    const RUNS: usize = 400;
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, limit: {key: parameters.symbol, max: 1}}}\n\
         queues: {default: {max_in_flight: 10}}",
    );
    let _workers: Vec<_> = (0..2).map(|_| fleet.worker(&["--places", "4"])).collect();
    submit_many(&fleet, "btc", RUNS, &slow(50, Some("BTC"))).await;
    submit_many(&fleet, "eth", 3, &slow(50, Some("ETH"))).await;
    all_succeed(&fleet, "eth", 3).await;
    let done = records_of(&fleet, "btc").await;
    let limited = done.iter().filter(|record| record.reason == Some(Reason::Limited)).collect::<Vec<_>>();
    assert!(limited.len() > RUNS / 3, "{} of {RUNS} wait still", limited.len());
    for record in limited {
        assert_eq!((record.status, record.attempt), (RunState::Pending, 0), "{record:?}");
        assert!(record.note.as_ref().is_some_and(|note| note.contains("symbol=BTC")), "{record:?}");
    }
    all_succeed(&fleet, "btc", RUNS).await;
    for name in ["btc.", "eth."] {
        assert_eq!(fleet.target.most_at_once(|call| call.run.starts_with(name)), 1, "{name}");
    }
    assert_eq!(fleet.target.most_at_once(|_| true), 2, "keys do not wait for each other");
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn the_permit_of_a_worker_that_died_comes_free_although_nobody_serves_its_queue_any_more() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, max_concurrent: 1}}\n\
         queues: {lonely: {ack_wait: 2s}, default: {}}",
    );
    let mut lonely = fleet.worker(&["--queue", "lonely"]);
    let run = "lost.1".parse().expect("run");
    let task = json!({"target_service": "target", "action": "hang"}).to_string();
    fleet
        .streams
        .submit(&"lonely".parse().expect("queue"), &run, task.as_bytes(), None)
        .await
        .expect("submitted");
    eventually("the call", async || {
        if calls_of(&fleet, "lost") == 1 { Ok(()) } else { Err("none") }.map_err(str::to_owned)
    })
    .await;
    let _worker = fleet.worker(&[]);
    fleet.submit("next.1", &slow(10, None)).await.expect("submitted");
    eventually("that the next one waits", async || match fleet.record("next.1").await {
        Some(record) if record.reason == Some(Reason::Limited) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    let target = fleet.cronfleet_json(&["get", "targets", "target"]);
    assert_eq!((&target["holders"][0]["run"], &target["waiting"]), (&json!("lost.1"), &json!(1)), "{target}");
    lonely.kill();
    let record = fleet.end_of("next.1").await;
    assert_eq!((record.status, record.attempt), (RunState::Success, 1));
    assert_eq!(fleet.target.most_at_once(|_| true), 1);
}

#[tokio::test]
async fn an_attempt_that_follows_at_once_passes_for_itself() {
    const RUNS: usize = 40;
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, max_concurrent: 1}}");
    let _worker = fleet.worker(&["--places", "8"]);
    let task = json!({
        "target_service": "target", "action": "slow_after_a_failure", "parameters": {"ms": 60},
        "retry": {"attempts": 3, "backoff": "0s"},
    });
    submit_many(&fleet, "again", RUNS, &task).await;
    all_succeed(&fleet, "again", RUNS).await;
    assert_eq!(calls_of(&fleet, "again"), 2 * RUNS);
    assert_eq!(fleet.target.most_at_once(|_| true), 1);
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn a_worker_that_stood_still_beyond_its_hold_lets_nobody_pass_twice() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, limit: {key: parameters.symbol, max: 1}}}\n\
         queues: {default: {ack_wait: 3s}}",
    );
    let first = fleet.worker(&["--places", "2"]);
    fleet.submit_until_called("zombie.1", &slow(2_500, Some("BTC"))).await;
    first.pause();
    let _second = fleet.worker(&["--places", "2"]);
    submit_many(&fleet, "next", 4, &slow(200, Some("BTC"))).await;
    let taken_over = fleet.end_of("zombie.1").await;
    assert_eq!((taken_over.status, taken_over.attempt), (RunState::Success, 2));
    first.resume();
    all_succeed(&fleet, "next", 4).await;
    // Only the request of the one that stood still may be at the target beside others, and its fence is the lowest.
    let stale = fleet.target.calls_of("zombie.1").into_iter().find(|call| call.attempt == 1).expect("a call");
    let is_live = |call: &harness::target::Call| call.fence != stale.fence;
    assert_eq!(fleet.target.most_at_once(is_live), 1);
    assert!(fleet.target.calls().iter().filter(|call| is_live(call)).all(|call| call.fence > stale.fence));
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn a_limit_holds_while_its_server_is_killed_and_comes_back() {
    const RUNS: usize = 80;
    let mut fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, max_concurrent: 2}}\n\
         queues: {default: {ack_wait: 5s}}",
    );
    let _workers: Vec<_> = (0..3).map(|_| fleet.worker(&["--places", "4"])).collect();
    fleet.members("worker", 3).await;
    submit_many(&fleet, "load", RUNS, &slow(100, None)).await;
    for part in 1..=2 {
        within(PATIENCE, "some calls", async || {
            let calls = calls_of(&fleet, "load");
            if calls > RUNS / 4 * part { Ok(()) } else { Err(calls.to_string()) }
        })
        .await;
        fleet.nats.restart().await;
    }
    all_succeed(&fleet, "load", RUNS).await;
    assert_eq!(fleet.target.most_at_once(|_| true), 2);
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn runs_whose_message_is_their_schedules_lock_wait_in_their_queue_and_keep_the_lock() {
    let fleet = Fleet::start().await;
    let schedules = ["one", "two", "three"]
        .iter()
        .map(|name| {
            format!(
                "  {name}: {{every: 1s, task: {{target_service: target, action: slow, parameters: {{ms: 400}}}}}}\n"
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet
        .apply(&format!("targets: {{target: {{http: TARGET, max_concurrent: 1}}}}\nschedules:\n{schedules}"));
    for name in ["one", "two", "three"] {
        within(PATIENCE, &format!("three calls of {name}"), async || {
            let calls = calls_of(&fleet, name);
            if calls >= 3 { Ok(()) } else { Err(calls.to_string()) }
        })
        .await;
    }
    assert_eq!(fleet.target.most_at_once(|_| true), 1);
}

#[tokio::test]
async fn a_rate_holds_over_three_workers_and_is_used() {
    const RUNS: usize = 100;
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, rate: 20/s}, other: {http: TARGET}}");
    let _workers: Vec<_> = (0..3).map(|_| fleet.worker(&["--places", "4"])).collect();
    fleet.members("worker", 3).await;
    submit_many(&fleet, "paced", RUNS, &slow(1, None)).await;
    submit_many(&fleet, "free", 20, &json!({"target_service": "other", "action": "ok"})).await;
    all_succeed(&fleet, "free", 20).await;
    assert!(calls_of(&fleet, "paced") < RUNS, "what waits for its turn holds up nobody else");
    all_succeed(&fleet, "paced", RUNS).await;
    let mut began: Vec<i64> = fleet
        .target
        .calls()
        .iter()
        .filter(|call| call.run.starts_with("paced."))
        .map(|call| call.began_ms)
        .collect();
    began.sort_unstable();
    // 20 in any second, one that stands on its edge, one by the slack of 50 ms, and as many for requests that were on their
    // way for up to 100 ms on a busy machine.
    let most =
        began.iter().map(|from| began.iter().filter(|at| (*from..from + 1_000).contains(at)).count()).max();
    assert!(most <= Some(24), "{most:?} in one second");
    let took = began[RUNS - 1] - began[0];
    assert!(took >= 4_850, "{RUNS} turns 50 ms apart took {took} ms");
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn a_run_that_was_too_slow_for_its_turn_takes_another_and_its_only_attempt_is_not_spent() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, rate: 20/m}}");
    let once = json!({"target_service": "target", "action": "ok", "delivery": "at_most_once"});
    fleet.submit("slow.1", &once).await.expect("submitted");
    // Between its passing and its claim.
    let at = (harness::crash::SLOW_AT, "limits.gate:1".to_owned());
    let _worker = fleet.spawn_with("slow", &["worker"], &[at]);
    let record = fleet.end_of("slow.1").await;
    assert_eq!((record.status, record.attempt), (RunState::Success, 1), "{record:?}");
    let life = fleet.life("slow.1").await;
    assert!(life.starts_with(&[RunState::Running, RunState::Pending]), "it was handed back: {life:?}");
    assert_eq!(fleet.target.calls_of("slow.1").len(), 1);
    is_tidy(&fleet).await;
}

#[tokio::test]
async fn a_limit_that_is_changed_counts_at_once_and_one_that_is_taken_away_holds_up_nobody() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, rate: 1/h, max_concurrent: 1}, other: {http: TARGET}}");
    let _worker = fleet.worker(&["--places", "4"]);
    fleet.submit_until_called("first.1", &slow(10, None)).await;
    submit_many(&fleet, "many", 6, &slow(10, None)).await;
    within(PATIENCE, "that all others wait", async || {
        let records = records_of(&fleet, "many").await;
        let waiting = records.iter().filter(|record| record.reason == Some(Reason::Limited)).count();
        if waiting == 6 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    let target = fleet.cronfleet_json(&["get", "targets", "target"]);
    assert_eq!((&target["waiting"], &target["max_concurrent"]), (&json!(6), &json!(1)), "{target}");
    for_a_while(Duration::from_secs(3)).await;
    let other = json!({"target_service": "other", "action": "ok"});
    fleet.submit("other.1", &other).await.expect("submitted");
    assert_eq!(fleet.end_of("other.1").await.status, RunState::Success, "its worker is at work");
    assert_eq!(calls_of(&fleet, "many"), 0);
    fleet.apply("targets: {target: {http: TARGET}}");
    all_succeed(&fleet, "many", 6).await;
}

#[tokio::test]
async fn what_is_submitted_once_more_while_its_run_waits_for_a_limit_is_dropped_and_starves_no_queue() {
    const RUNS: usize = 8;
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET, limit: {key: parameters.symbol, max: 1}}, other: {http: TARGET}}\n\
         queues: {default: {max_in_flight: 4}}",
    );
    let _worker = fleet.worker(&[]);
    fleet.submit_until_called("first.1", &slow(8_000, Some("A"))).await;
    submit_many(&fleet, "again", RUNS, &slow(10, Some("A"))).await;
    let all_wait = async || {
        eventually("all of them wait outside the queue", async || {
            let scope = "t-target".parse().expect("scope");
            let waiting = fleet.streams.count_waiting(&scope).await.map_err(|error| error.to_string())?;
            let depth = fleet.streams.queue_depth(&"default".parse().expect("queue")).await;
            let depth = depth.map_err(|error| error.to_string())?;
            let seen = (waiting, depth.waiting, depth.in_flight);
            if seen == (RUNS as u64, 0, 1) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    all_wait().await;
    submit_many(&fleet, "again", RUNS, &slow(10, Some("A"))).await;
    let other = json!({"target_service": "other", "action": "ok"});
    submit_many(&fleet, "free", 8, &other).await;
    all_succeed(&fleet, "free", 8).await;
    all_wait().await;
    assert_eq!(calls_of(&fleet, "again"), 0, "the gate was closed all the time");
    all_succeed(&fleet, "again", RUNS).await;
    assert_eq!(calls_of(&fleet, "again"), RUNS, "each ran once");
    is_tidy(&fleet).await;
}
