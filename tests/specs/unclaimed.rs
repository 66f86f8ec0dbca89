//! Runs that are begun without a claim: short ones have no RUNNING, and whatever comes between their begin and their end they
//! are begun at least once, recorded once, and every attempt is counted.

use std::time::Duration;

use futures::future::join_all;
use harness::{Fleet, Process, crash::CRASH_AT, eventually, within};
use serde_json::{Value, json};
use shared::{
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    schedule::Overlap,
    task::Task,
};
use streams::{
    cancel::CancelRequest,
    ledger::{Creation, Update},
    tasks::{DueTask, Pulled},
};

const SOON: &str =
    "targets: {target: {http: TARGET}}\nqueues: {default: {ack_wait: 2s}, other: {ack_wait: 2s}}";

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action})
}

fn slow(ms: u32) -> Value {
    json!({"target_service": "target", "action": "slow", "parameters": {"ms": ms}, "retry": {"backoff": "100ms"}})
}

fn attempts(fleet: &Fleet, run: &str) -> Vec<u64> {
    fleet.target.calls_of(run).iter().map(|call| call.attempt).collect()
}

/// A worker that dies as by kill -9 when it passes this point.
fn doomed(fleet: &Fleet, point: &str) -> Process {
    fleet.spawn_with("doomed", &["worker"], &[(CRASH_AT, point.to_owned())])
}

async fn its_queue_is_empty(fleet: &Fleet) {
    eventually("an empty queue", async || match fleet.streams.tasks_stored().await {
        Ok((0, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_short_run_is_recorded_once_with_all_that_a_claim_would_have_said() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.submit("short.1", &task("ok")).await.expect("submitted");
    let record = fleet.end_of("short.1").await;
    assert_eq!((record.status, record.attempt, record.fence), (RunState::Success, 1, Some(0)));
    assert!(record.worker.is_some() && record.started_at.is_some() && record.duration_ms.is_some());
    assert!(record.started_at >= Some(record.created_at) && record.started_at <= record.finished_at);
    assert_eq!(fleet.life("short.1").await, [RunState::Success]);
    assert_eq!(fleet.target.calls_of("short.1")[0].headers["cronfleet-fence"], "0");

    let _planner = fleet.planner();
    fleet.apply(
        "schedules: {free: {cron: '0 0 1 1 *', overlap: allow, task: {target_service: target, action: ok}}, \
         locked: {cron: '0 0 1 1 *', task: {target_service: target, action: ok}}}",
    );
    let free = fleet.cronfleet(&["trigger", "free"]).trim().to_owned();
    let record = fleet.end_of(&free).await;
    assert_eq!(fleet.life(&free).await, [RunState::Pending, RunState::Success]);
    let history = fleet.streams.ledger().history(&free.parse().expect("run")).await.expect("history");
    assert_eq!(record.fence, Some(history[0].revision), "the fence is the revision of the planner's record");
    // Never two at once: who holds a lock is claimed before it begins.
    let locked = fleet.cronfleet(&["trigger", "locked"]).trim().to_owned();
    fleet.end_of(&locked).await;
    assert_eq!(fleet.life(&locked).await, [RunState::Pending, RunState::Running, RunState::Success]);
}

#[tokio::test]
async fn a_run_that_takes_longer_is_seen_running_and_ends_over_its_late_claim() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.submit("longer.1", &slow(1_500)).await.expect("submitted");
    let running = eventually("the late claim", async || match fleet.record("longer.1").await {
        Some(record) if record.status == RunState::Running => Ok(record),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!((running.attempt, running.fence), (1, Some(0)), "the fence its target was told");
    let ended = fleet.end_of("longer.1").await;
    assert_eq!(fleet.life("longer.1").await, [RunState::Running, RunState::Success]);
    assert_eq!((ended.fence, ended.started_at), (Some(0), running.started_at));
    assert_eq!(attempts(&fleet, "longer.1"), [1]);
}

#[tokio::test]
async fn a_queue_may_claim_each_attempt_before_it_begins() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}\nqueues: {default: {claim: each}}");
    let _worker = fleet.worker(&[]);
    fleet.submit("seen.1", &task("ok")).await.expect("submitted");
    let record = fleet.end_of("seen.1").await;
    assert_eq!(fleet.life("seen.1").await, [RunState::Running, RunState::Success]);
    assert!(record.fence > Some(0));
}

#[tokio::test]
async fn an_attempt_whose_worker_dies_before_it_wrote_a_word_is_counted_and_the_next_is_the_second() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let mut worker = doomed(&fleet, "attempt.ended:1");
    fleet.submit("unlucky.1", &slow(1)).await.expect("submitted");
    worker.ended().await;
    assert_eq!(fleet.record("unlucky.1").await, None, "it left no trace of having begun");
    let _heir = fleet.worker(&[]);
    let record = fleet.end_of("unlucky.1").await;
    assert_eq!((record.status, record.attempt), (RunState::Success, 2));
    assert_eq!(
        fleet.life("unlucky.1").await,
        [RunState::Retry, RunState::Running, RunState::Success],
        "the first is written down as lost before the second begins"
    );
    assert_eq!(attempts(&fleet, "unlucky.1"), [1, 2]);
    let fences: Vec<u64> = fleet.target.calls_of("unlucky.1").iter().map(|call| call.fence).collect();
    assert!(fences[0] < fences[1], "{fences:?}");
    its_queue_is_empty(&fleet).await;
}

#[tokio::test]
async fn a_worker_that_dies_between_the_end_and_its_answer_leaves_a_run_that_has_ended() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let mut worker = doomed(&fleet, "runs.create:1");
    fleet.submit("recorded.1", &task("ok")).await.expect("submitted");
    worker.ended().await;
    assert_eq!(fleet.record("recorded.1").await.map(|record| record.status), Some(RunState::Success));
    let _heir = fleet.worker(&[]);
    its_queue_is_empty(&fleet).await;
    assert_eq!(fleet.life("recorded.1").await, [RunState::Success]);
    assert_eq!(attempts(&fleet, "recorded.1"), [1]);
}

#[tokio::test]
async fn a_task_that_kills_its_workers_is_counted_from_the_first_and_goes_among_the_dead_letters() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    poison_ends(&fleet).await;
}

#[tokio::test]
async fn a_task_that_kills_its_workers_under_a_limit_is_counted_all_the_same() {
    let fleet = Fleet::start().await;
    fleet.apply(&SOON.replace("http: TARGET", "http: TARGET, max_concurrent: 1"));
    // The permit of each worker that died is in the way of the next attempt for a while.
    poison_ends(&fleet).await;
}

/// Two workers die as they begin it, and the third ends it.
async fn poison_ends(fleet: &Fleet) {
    let poison =
        json!({"target_service": "target", "action": "ok", "retry": {"attempts": 2, "backoff": "100ms"}});
    fleet.submit("poison.1", &poison).await.expect("submitted");
    for _ in 0..2 {
        doomed(fleet, "attempt.begins:1").ended().await;
    }
    let _last = fleet.worker(&[]);
    let record = fleet.end_of("poison.1").await;
    assert_eq!((record.status, record.reason, record.attempt), (RunState::Failed, Some(Reason::Lost), 2));
    fleet.dead_letter(&record).await;
    assert!(fleet.target.calls_of("poison.1").is_empty(), "it was not begun a third time");
}

#[tokio::test]
async fn a_worker_that_stood_still_before_it_claimed_cannot_write_a_word_when_it_wakes_up() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let first = fleet.worker(&[]);
    fleet.submit_until_called("still.1", &slow(200)).await;
    first.pause();
    let _second = fleet.worker(&[]);
    let record = fleet.end_of("still.1").await;
    // It may have been quick enough to claim it, or even to end it.
    assert_eq!(record.attempt as usize, fleet.target.calls_of("still.1").len());
    first.resume();
    its_queue_is_empty(&fleet).await;
    assert_eq!(fleet.record("still.1").await, Some(record), "the record is as it was");
    let ends = fleet.life("still.1").await.into_iter().filter(|state| state.is_final()).count();
    assert_eq!(ends, 1);
}

#[tokio::test]
async fn a_run_that_is_handed_back_before_its_claim_has_not_spent_its_attempt() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let mut worker = fleet.worker(&["--drain", "0s"]);
    let runs: Vec<String> = (0..8).map(|n| format!("back.{n}")).collect();
    for run in &runs {
        fleet.submit(run, &slow(700)).await.expect("submitted");
    }
    eventually(
        "a call",
        async || {
            if fleet.target.calls().is_empty() { Err("none".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    assert!(worker.stop().await.success());
    let _heir = fleet.worker(&[]);
    for run in &runs {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.attempt), (RunState::Success, 1), "{:?}", fleet.life(run).await);
    }
}

/// Takes a task out of the queue as a worker would that is written by somebody else.
async fn taken(fleet: &Fleet) -> std::sync::Arc<streams::delivery::Delivery> {
    let mut queue = fleet.streams.open_queue(&"default".parse().expect("queue")).await.expect("opened");
    queue.ask(1, None).await.expect("asked");
    loop {
        match queue.next().await {
            Pulled::Task(delivery) => return delivery,
            Pulled::Returned(_) => queue.ask(1, None).await.expect("asked"),
            Pulled::Lost(why) => panic!("{why}"),
        }
    }
}

#[tokio::test]
async fn what_was_taken_and_not_heard_of_is_a_lost_attempt_unless_its_record_says_that_it_was_handed_back() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let ids = ["gone.1", "back.1", "once.1"];
    let once = json!({"target_service": "target", "action": "ok", "retry": {"attempts": 1}});
    for (run, task) in ids.iter().zip([task("ok"), task("ok"), once]) {
        fleet.submit(run, &task).await.expect("submitted");
        let delivery = taken(&fleet).await;
        if *run == "back.1" {
            let pending = RunRecord::pending(
                "back.1".parse().expect("id"),
                "default".parse().expect("queue"),
                fleet.now(),
            );
            let marked = pending.because(Reason::Drained);
            assert!(matches!(fleet.streams.ledger().write(&marked, 0).await, Ok(Update::Stored(_))));
            delivery.hand_back(Duration::ZERO).await.expect("handed back");
        }
    }
    let _worker = fleet.worker(&[]);
    let spent = join_all(ids.iter().map(async |run| fleet.end_of(run).await.attempt)).await;
    assert_eq!(
        spent,
        [2, 1, 1],
        "one that has a single attempt is claimed before it begins, so it was not begun"
    );
}

#[tokio::test]
async fn a_run_that_its_planner_published_twice_is_not_begun_again_after_its_end() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let run: RunId = "twice.20261124T020000Z".parse().expect("id");
    let record = RunRecord::pending(run.clone(), "default".parse().expect("queue"), fleet.now());
    let Ok(Creation::Created(revision)) = fleet.streams.ledger().create(&record).await else { panic!() };
    let due = DueTask {
        run: record.into(),
        task: Task::from_json(task("ok").to_string().as_bytes()).expect("task").into(),
    };
    let _worker = fleet.worker(&[]);
    for _ in 0..2 {
        fleet.streams.dispatch(&due, revision, Overlap::Allow, None).await.expect("published");
        fleet.end_of(&run.to_string()).await;
        its_queue_is_empty(&fleet).await;
    }
    assert_eq!(attempts(&fleet, &run.to_string()), [1]);
    assert_eq!(fleet.life(&run.to_string()).await, [RunState::Pending, RunState::Success]);
}

#[tokio::test]
async fn one_key_in_two_queues_is_recorded_once_and_neither_copy_stays() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let _worker = fleet.worker(&["--queue", "default", "--queue", "other"]);
    let _second = fleet.worker(&["--queue", "other", "--queue", "default"]);
    let body = slow(50).to_string();
    for n in 0..5 {
        let run: RunId = format!("copied.{n}").parse().expect("id");
        let queues = ["default", "other"].map(|queue| queue.parse().expect("queue"));
        let submit = |queue| fleet.streams.submit(queue, &run, body.as_bytes(), None);
        let (first, second) = tokio::join!(submit(&queues[0]), submit(&queues[1]));
        first.expect("submitted");
        second.expect("submitted");
    }
    its_queue_is_empty(&fleet).await;
    for n in 0..5 {
        let life = fleet.life(&format!("copied.{n}")).await;
        assert_eq!(life.iter().filter(|state| state.is_final()).count(), 1, "{life:?}");
    }
}

#[tokio::test]
async fn a_late_claim_that_is_refused_stops_the_attempt() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let _worker = fleet.worker(&[]);
    let (ledger, mut tries) = (fleet.streams.ledger(), 0);
    let stolen = loop {
        tries += 1;
        let run = format!("stolen.{tries}");
        fleet.submit_until_called(&run, &task("hang")).await;
        let record =
            RunRecord::pending(run.parse().expect("id"), "default".parse().expect("queue"), fleet.now());
        let ended = record.apply(RunEvent::Cancelled, fleet.now()).expect("legal");
        // If it was claimed before we came, the next is tried.
        if matches!(ledger.create(&ended).await.expect("written"), Creation::Created(_)) {
            break run;
        }
        assert!(tries < 20, "each was claimed before we came");
        fleet.cronfleet(&["cancel", &run]);
    };
    within(Duration::from_secs(10), "the call is dropped", async || {
        match fleet.target.calls_of(&stolen).first() {
            Some(call) if call.dropped_ms.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    its_queue_is_empty(&fleet).await;
    assert_eq!(fleet.life(&stolen).await, [RunState::Cancelled]);
}

#[tokio::test]
async fn a_worker_that_comes_to_life_hears_of_the_cancels_of_a_moment_ago() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let request = CancelRequest {
        run: "early.1".parse().expect("id"),
        reason: Reason::ByOperator,
        by: "spec".to_owned(),
        at: fleet.now(),
    };
    fleet.submit("early.1", &task("hang")).await.expect("submitted");
    let (cancelling, _worker) = tokio::join!(fleet.streams.cancel(&request), async { fleet.worker(&[]) });
    cancelling.expect("cancelled");
    let record = fleet.end_of("early.1").await;
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    // One that was stopped as it began may not have come so far as to ask its target.
    assert!(fleet.target.calls_of("early.1").len() <= record.attempt as usize, "{record:?}");
}

#[tokio::test]
async fn what_a_cancel_finds_waiting_was_never_begun_and_what_was_begun_says_so() {
    let fleet = Fleet::start().await;
    fleet.apply(SOON);
    let _worker = fleet.worker(&[]);
    let race = async |n: u32| {
        let run = format!("race.{n}");
        fleet.submit(&run, &slow(n * 20)).await.expect("submitted");
        let request = CancelRequest {
            run: run.parse().expect("id"),
            reason: Reason::ByOperator,
            by: "spec".to_owned(),
            at: fleet.now(),
        };
        while fleet.streams.cancel(&request).await.is_err() {}
        (run.clone(), fleet.end_of(&run).await)
    };
    for (run, record) in join_all((1..=24).map(race)).await {
        let calls = fleet.target.calls_of(&run);
        assert!(calls.len() <= record.attempt as usize, "{record:?}");
        match record.status {
            RunState::Success => assert!(calls.len() == 1 && calls[0].ended_ms.is_some()),
            RunState::Cancelled => assert_eq!(record.reason, Some(Reason::ByOperator)),
            other => panic!("{run} is {other}"),
        }
    }
    its_queue_is_empty(&fleet).await;
}
