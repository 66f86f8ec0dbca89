//! One run that failed, retried by many people at once.

use harness::{Fleet, eventually};
use shared::run_state::RunState::{Failed, Pending, Success};
use streams::dead::Retrying;

use crate::dead_letters::task;

const TOGETHER: usize = 6;

/// Failed runs of ad-hoc tasks, with their letters.
async fn some_failed(fleet: &Fleet, action: &str, count: usize) -> Vec<String> {
    let runs: Vec<String> = (0..count).map(|number| format!("load.{number}")).collect();
    for run in &runs {
        fleet.submit(run, &task(action, 1)).await.expect("submitted");
    }
    for run in &runs {
        let record = fleet.end_of(run).await;
        assert_eq!(record.status, Failed);
        fleet.dead_letter(&record).await;
    }
    runs
}

/// Many retry this run at once; how many of them queued it.
async fn retried_together(fleet: &Fleet, run: &str) -> usize {
    let id = run.parse().expect("an id");
    let all = futures::future::join_all((0..TOGETHER).map(async |number| {
        // Not all in the very same moment: the one is to find what another has just done.
        for _ in 0..number * 8 {
            tokio::task::yield_now().await;
        }
        fleet.streams.retry(&id, "ann@laptop").await.expect("retried")
    }))
    .await;
    all.iter().filter(|said| matches!(said, Retrying::Queued(_))).count()
}

async fn has_no_letters(fleet: &Fleet) {
    eventually("no letter is left", async || {
        match fleet.cronfleet(&["get", "dead", "-o", "name", "--limit", "1000"]).lines().count() {
            0 => Ok(()),
            some => Err(format!("{some} are there")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_many_retry_while_no_worker_lives_is_queued_and_runs_once() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&[]);
    let runs = some_failed(&fleet, "flaky", 40).await;
    worker.stop().await;
    for run in &runs {
        assert!(retried_together(&fleet, run).await >= 1, "somebody queued {run}");
        let record = fleet.record(run).await.expect("a record");
        assert_eq!((record.status, record.times_retried()), (Pending, 1));
        let queued = fleet.streams.queued(&record.queue, &record.id).await.expect("read");
        assert!(queued.is_some(), "{run} is PENDING, and nothing of it is in its queue");
    }
    let _worker = fleet.worker(&[]);
    for run in &runs {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.attempt, record.times_retried()), (Success, 2, 1), "{record:?}");
    }
    assert_eq!(fleet.target.calls().len(), 2 * runs.len(), "each ran once before and once after");
    has_no_letters(&fleet).await;
}

#[tokio::test]
async fn a_run_that_many_retry_while_workers_are_at_it_ends_each_time_with_its_letter_or_none() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _workers = (fleet.worker(&[]), fleet.worker(&[]));
    let runs = some_failed(&fleet, "flaky", 30).await;
    for run in &runs {
        retried_together(&fleet, run).await;
    }
    for run in &runs {
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.times_retried()), (Success, 1), "{record:?}");
    }
    has_no_letters(&fleet).await;
    fleet.submit("again.1", &task("fail", 1)).await.expect("submitted");
    fleet.dead_letter(&fleet.end_of("again.1").await).await;
    // It fails again at once, so that some retry its second life, and its third.
    for _ in 0..8 {
        retried_together(&fleet, "again.1").await;
        let record = eventually("it has ended, and its letter is of this life", async || {
            let record = fleet.end_of("again.1").await;
            let letter = fleet.streams.dead_letter(&record).await.expect("read");
            match letter {
                Some(letter) if letter.run == record => Ok(record),
                other => Err(format!("{record:?} {other:?}")),
            }
        })
        .await;
        assert_eq!(record.status, Failed);
    }
}

#[tokio::test]
async fn what_was_submitted_once_more_under_the_key_of_a_run_does_not_stand_for_its_retry() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut worker = fleet.worker(&[]);
    let runs = some_failed(&fleet, "flaky", 1).await;
    worker.stop().await;
    let (run, record) = (&runs[0], fleet.record(&runs[0]).await.expect("a record"));
    fleet.submit(run, &task("flaky", 1)).await.expect("submitted once more");
    let before = fleet.streams.queued(&record.queue, &record.id).await.expect("read").expect("it is there");
    assert_eq!(retried_together(&fleet, run).await, 1);
    let after = fleet.streams.queued(&record.queue, &record.id).await.expect("read").expect("it is there");
    assert!(after.sequence > before.sequence && after.revision.is_some(), "{after:?}");
    let _worker = fleet.worker(&[]);
    assert_eq!(fleet.end_of(run).await.status, Success);
}

#[tokio::test]
async fn runs_that_many_retry_at_once_do_not_free_their_schedules_lock_for_another() {
    let fleet = Fleet::start().await;
    let (_workers, _planner) = ((fleet.worker(&[]), fleet.worker(&[])), fleet.planner());
    fleet.apply(
        "targets: {target: {http: TARGET}}\nschedules: {yearly: {cron: '0 0 1 1 *', task: {target_service: target, \
         action: flaky, retry: {attempts: 1}}}}",
    );
    fleet.members("planner", 1).await;
    for _ in 0..6 {
        let failed = eventually("a run of it that failed", async || {
            let run = fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned();
            let record = fleet.end_of(&run).await;
            if record.status == Failed { Ok(record) } else { Err(format!("{:?}", record.reason)) }
        })
        .await;
        fleet.dead_letter(&failed).await;
        let run = failed.id.to_string();
        let (_, beside) = tokio::join!(retried_together(&fleet, &run), async {
            fleet.cronfleet(&["trigger", "yearly"]).trim().to_owned()
        });
        fleet.end_of(&beside).await;
        // The one that was triggered beside it may have had the lock.
        eventually("it is retried and ends well", async || {
            fleet.streams.retry(&failed.id, "ann@laptop").await.expect("retried");
            let record = fleet.end_of(&run).await;
            if record.status == Success { Ok(()) } else { Err(format!("{record:?}")) }
        })
        .await;
    }
    fleet.target.assert_never_two_at_once("yearly");
}
