//! Time limits of runs as a whole: until they begin, until they end, until their last attempt.

use std::time::Duration;

use harness::{Fleet, eventually, wait::for_a_while};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason},
    run_state::RunState::{Cancelled, Failed, Success},
};

fn task(action: &str, limits: &Value) -> Value {
    let mut task =
        json!({"target_service": "target", "action": action, "retry": {"attempts": 9, "backoff": "4s"}});
    for (name, value) in limits.as_object().into_iter().flatten() {
        task[name] = value.clone();
    }
    task
}

#[tokio::test]
async fn a_run_that_no_worker_began_in_time_is_not_begun_any_more_and_says_so() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    fleet.submit("late.1", &task("ok", &json!({"start_deadline": "1s"}))).await.expect("submitted");
    fleet.submit("late.2", &task("ok", &json!({"deadline": "1s"}))).await.expect("submitted");
    fleet.submit("patient.1", &task("ok", &json!({"start_deadline": "1h"}))).await.expect("submitted");
    // Nobody is there meanwhile: the time of a submission counts all the same.
    for_a_while(Duration::from_millis(1_500)).await;
    let _worker = fleet.worker(&[]);
    for (run, words) in [("late.1", "start_deadline of 1s"), ("late.2", "deadline of 1s")] {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.reason, record.attempt), (Cancelled, Some(Reason::Expired), 0));
        assert!(record.note.as_deref().is_some_and(|note| note.contains(words)), "{record:?}");
        assert!(fleet.target.calls_of(run).is_empty(), "{run} was not begun");
    }
    assert_eq!(fleet.end_of("patient.1").await.status, Success);
    eventually("the queue is empty", async || {
        let depth = fleet.streams.queue_depth(&"default".parse().expect("queue")).await;
        let depth = depth.map_err(|error| error.to_string())?;
        if (depth.waiting, depth.in_flight) == (0, 0) { Ok(()) } else { Err(format!("{depth:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_takes_longer_than_its_deadline_is_stopped_and_goes_among_the_dead_letters() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    fleet.submit_until_called("slow.1", &task("hang", &json!({"timeout": "5m", "deadline": "3s"}))).await;
    let record = fleet.end_of("slow.1").await;
    assert_eq!((record.status, record.reason, record.attempt), (Failed, Some(Reason::Deadline), 1));
    let error = record.error.clone().expect("an error");
    assert!(error.kind == ErrorKind::Timeout && error.message.contains("deadline of 3s"), "{error:?}");
    fleet.dead_letter(&record).await;
    eventually("its request is dropped", async || {
        fleet.target.calls()[0].dropped_ms.ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_would_come_too_late_is_not_waited_for() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let aged = json!({"retry": {"attempts": 9, "backoff": "4s", "max_age": "3s"}});
    for (run, limits, reason) in
        [("bad.1", json!({"deadline": "3s"}), Reason::Deadline), ("bad.2", aged, Reason::MaxAge)]
    {
        fleet.submit(run, &task("fail", &limits)).await.expect("submitted");
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.reason, record.attempt), (Failed, Some(reason), 1), "{record:?}");
        fleet.dead_letter(&record).await;
    }
}
