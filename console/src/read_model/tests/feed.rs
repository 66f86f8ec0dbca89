//! Who listens is told each change once, in the ledger's order, however slow it is and wherever it resumes.

use shared::{limits::FEED_HELD_MAX, names::QueueName, run_record::RunRecord, run_state::RunEvent};

use super::{Table, at, change, deletion};
use crate::read_model::{FeedEvent, RunFilter, Subscription};

fn run(number: u64) -> RunRecord {
    let id = format!("adhoc.{number}").parse().expect("id");
    RunRecord::pending(id, QueueName::default_queue(), at(number.cast_signed()))
}

async fn revisions(feed: &mut Subscription, until: u64) -> Vec<u64> {
    let mut told = Vec::new();
    loop {
        match feed.next().await.expect("an event") {
            FeedEvent::Changed(listed) => {
                told.push(listed.revision);
                if listed.revision >= until {
                    return told;
                }
            }
            other => panic!("{other:?} after {told:?}"),
        }
    }
}

#[tokio::test]
async fn a_subscriber_is_told_each_version_after_it_was_stored_and_only_of_what_it_wants() {
    let mut table = Table::new();
    table.store(&[change(&run(1), 1)]);
    let mut all = table.model.subscribe(None, RunFilter::default());
    let only_2 = RunFilter { id_prefix: "adhoc.2".parse().ok(), ..RunFilter::default() };
    let mut one = table.model.subscribe(None, only_2);
    let started = run(2).apply(RunEvent::Started, at(3)).expect("starts");
    table.store(&[change(&run(2), 2), change(&run(3), 3), change(&started, 4), deletion("adhoc.3", 5)]);
    assert_eq!(revisions(&mut all, 4).await, [2, 3, 4]);
    let removed = FeedEvent::Removed { id: run(3).id, revision: 5 };
    assert_eq!(all.next().await, Ok(removed));
    assert_eq!(revisions(&mut one, 4).await, [2, 4]);
}

#[tokio::test]
async fn a_subscriber_that_resumes_is_told_the_newest_of_what_it_missed_and_then_goes_on_without_gap_or_double()
 {
    let mut table = Table::new();
    for number in 1..=500 {
        table.store(&[change(&run(number), number)]);
    }
    let mut feed = table.model.subscribe(Some(100), RunFilter::default());
    // While it reads what it missed, more comes, some of it of runs that it has not come to.
    table.store(&[change(&run(400), 501), change(&run(501), 502)]);
    let mut told = revisions(&mut feed, 300).await;
    table.store(&[change(&run(450), 503), change(&run(502), 504)]);
    told.extend(revisions(&mut feed, 504).await);
    let expected: Vec<u64> = (101..=504).filter(|revision| ![400, 450].contains(revision)).collect();
    // Of run 450 the old version may have been read before the new one was stored.
    told.retain(|revision| *revision != 450);
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_slow_subscriber_is_told_so_hurts_nobody_and_misses_no_run() {
    let mut table = Table::new();
    table.store(&[change(&run(1), 1)]);
    let mut slow = table.model.subscribe(None, RunFilter::default());
    let mut quick = table.model.subscribe(None, RunFilter::default());
    let last = 3 * FEED_HELD_MAX as u64;
    for number in 2..=last {
        table.store(&[change(&run(number), number)]);
        let event = quick.next().await.expect("an event");
        assert!(matches!(event, FeedEvent::Changed(listed) if listed.revision == number));
    }
    let lagged = slow.next().await.expect("an event");
    assert!(matches!(lagged, FeedEvent::Lagged { missed } if missed > FEED_HELD_MAX as u64), "{lagged:?}");
    assert_eq!(revisions(&mut slow, last).await, (2..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscriber_that_resumes_behind_what_the_ledger_never_had_is_told_to_ask_anew() {
    let mut table = Table::new();
    table.extent.last = 3;
    table.restart();
    table.store(&[change(&run(1), 1)]);
    let mut feed = table.model.subscribe(Some(77), RunFilter::default());
    assert_eq!(feed.next().await, Ok(FeedEvent::Anew));
    table.store(&[change(&run(2), 2)]);
    assert_eq!(revisions(&mut feed, 2).await, [2]);
}
