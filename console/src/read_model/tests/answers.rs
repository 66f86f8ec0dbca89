//! Sums, relatives, what the model says of itself, and what becomes of the file.

use std::time::Duration;

use shared::{
    after::{Upstream, run_after},
    clock::{Clock, SystemClock},
    names::QueueName,
    run_record::{Reason, RunRecord},
    run_state::{RunEvent, RunState},
    shard::{Shard, Shards, shard_of},
    slot::Slot,
};
use streams::ledger_changes::LedgerExtent;

use super::{Table, at, change, deletion, open};
use crate::read_model::{
    BuiltBecause, ModelError, Order, QueryError, RunFilter, RunQuery, StatusCounts, TimeRange, writer::Ended,
};

const HOUR: i64 = 3_600_000;

fn planned(schedule: &str, millisecond: i64) -> RunRecord {
    let (schedule, at) = (schedule.parse().expect("name"), at(millisecond));
    RunRecord::planned(&schedule, Slot::at(at), QueueName::default_queue(), at)
}

fn ended(record: &RunRecord, event: RunEvent, after: i64) -> RunRecord {
    let started = record.apply(RunEvent::Started, record.created_at).expect("starts");
    started.apply(event, record.created_at + chrono::Duration::milliseconds(after)).expect("ends")
}

fn skipped(record: &RunRecord, reason: Reason) -> RunRecord {
    record.apply(RunEvent::Skipped, record.created_at).expect("skipped").because(reason)
}

#[tokio::test]
async fn the_last_runs_the_days_the_counts_and_the_durations_of_a_schedule_are_told() {
    let mut table = Table::new();
    let runs = [
        ended(&planned("daily", 0), RunEvent::Succeeded, 100),
        ended(&planned("daily", HOUR), RunEvent::FailedForGood, 300),
        skipped(&planned("daily", 2 * HOUR), Reason::SkippedOverlap),
        // 16:30 UTC is the next day in Shanghai.
        ended(&planned("daily", 14 * HOUR + HOUR / 2), RunEvent::Succeeded, 200),
        ended(&planned("other", HOUR), RunEvent::Succeeded, 7),
        RunRecord { schedule: None, ..planned("daily", 3 * HOUR) },
    ];
    let changes: Vec<_> = runs.iter().zip(1..).map(|(record, revision)| change(record, revision)).collect();
    table.store(&changes);
    let (daily, model) = ("daily".parse().expect("name"), &table.model);
    let strips = model.strips(&[daily, "unheard".parse().expect("name")], 3).await.expect("strips");
    let states: Vec<_> = strips[0].runs.iter().map(|run| (run.status, run.reason)).collect();
    let overlap = Some(Reason::SkippedOverlap);
    assert_eq!(states, [(RunState::Success, None), (RunState::Cancelled, overlap), (RunState::Failed, None)]);
    assert_eq!((strips[0].runs[0].duration_ms, strips[1].runs.len()), (Some(200), 0));
    let daily = "daily".parse().expect("name");
    let counts = model.statuses(Some(&daily), TimeRange::default()).await.expect("counts");
    assert_eq!(counts, StatusCounts { success: 2, failed: 1, cancelled: 1, ..StatusCounts::default() });
    let all = model.statuses(None, TimeRange::since(at(HOUR))).await.expect("counts");
    assert_eq!(
        all,
        StatusCounts { success: 2, failed: 1, cancelled: 1, pending: 1, ..StatusCounts::default() }
    );
    let buckets =
        model.durations(&daily, TimeRange::default(), Duration::from_hours(12)).await.expect("durations");
    let told: Vec<_> = buckets.iter().map(|bucket| (bucket.runs, bucket.p50_ms, bucket.p99_ms)).collect();
    assert_eq!(told, [(2, 100, 300), (1, 200, 200)]);
    let (first, last) = ("2026-01-01".parse().expect("day"), "2026-12-31".parse().expect("day"));
    let days = model.days(&daily, chrono_tz::Asia::Shanghai, first, last).await.expect("days");
    let told: Vec<_> =
        days.iter().map(|day| (day.day.to_string(), day.success, day.failed, day.skipped)).collect();
    assert_eq!(told, [("2026-11-24".to_owned(), 1, 1, 1), ("2026-11-25".to_owned(), 1, 0, 0)]);
    let skips = model.runs(&RunQuery { filter: RunFilter::skips_of(&daily), ..RunQuery::default() }).await;
    assert_eq!(skips.expect("skips").items.len(), 1);
}

#[tokio::test]
async fn days_and_times_at_the_ends_of_the_calendar_are_no_trouble() {
    let mut table = Table::new();
    table.store(&[change(&planned("daily", 0), 1)]);
    let daily = "daily".parse().expect("name");
    for (first, last) in [
        (chrono::NaiveDate::MIN, chrono::NaiveDate::MIN),
        (chrono::NaiveDate::MAX, chrono::NaiveDate::MAX),
        (chrono::NaiveDate::MAX, chrono::NaiveDate::MIN),
    ] {
        assert!(table.model.days(&daily, chrono_tz::UTC, first, last).await.expect("days").is_empty());
    }
    let ages = TimeRange {
        from: Some(chrono::DateTime::<chrono::Utc>::MIN_UTC),
        to: Some(chrono::DateTime::<chrono::Utc>::MAX_UTC),
    };
    let counts = table.model.statuses(None, ages).await.expect("counts");
    assert_eq!(counts.pending, 1);
    let buckets = table.model.durations(&daily, ages, Duration::MAX).await.expect("durations");
    assert!(buckets.is_empty(), "nothing has ended");
}

#[tokio::test]
async fn what_ended_in_the_last_hour_is_told_minute_by_minute() {
    let mut table = Table::new();
    let now = SystemClock.now();
    let run = |key: &str, ago: i64, delay: i64, event| {
        let created = now - chrono::Duration::minutes(ago);
        let id = format!("adhoc.{key}").parse().expect("id");
        let pending = RunRecord::pending(id, QueueName::default_queue(), created);
        let started = pending.apply(RunEvent::Started, created + chrono::Duration::milliseconds(delay));
        started.expect("starts").apply(event, created + chrono::Duration::milliseconds(delay)).expect("ends")
    };
    let runs = [
        run("a", 5, 10, RunEvent::Succeeded),
        run("b", 5, 30, RunEvent::FailedForGood),
        run("c", 70, 10, RunEvent::Succeeded),
    ];
    let changes: Vec<_> = runs.iter().zip(1..).map(|(record, revision)| change(record, revision)).collect();
    table.store(&changes);
    let minutes = table.model.minutes().await.expect("minutes");
    assert_eq!(minutes.len(), 60);
    assert!(minutes.is_sorted_by_key(|minute| minute.minute));
    let (success, failed) = minutes.iter().fold((0, 0), |sum, one| (sum.0 + one.success, sum.1 + one.failed));
    assert_eq!((success, failed), (1, 1), "that of 70 minutes ago is over");
    let delays: Vec<_> = minutes.iter().filter_map(|minute| minute.delay_p99_ms).collect();
    assert!(delays.contains(&30), "{delays:?}");
}

#[tokio::test]
async fn a_run_is_found_with_what_it_follows_what_follows_it_and_its_parts() {
    let mut table = Table::new();
    let up = ended(&planned("up", 0), RunEvent::Succeeded, 5);
    let upstream = Upstream { run: up.id.clone(), status: up.status, ended_at: at(5), retried: 0 };
    let down = "down".parse().expect("name");
    let whole = RunRecord {
        shards: Some(Shards::new(2)),
        ..RunRecord::chained(&down, upstream, QueueName::default_queue(), at(9))
    };
    let shard = |index| RunRecord {
        schedule: Some(down.clone()),
        shard: Some(Shard { parent: whole.id.clone(), index, total: 2 }),
        ..RunRecord::pending(shard_of(&whole.id, index), QueueName::default_queue(), at(10))
    };
    let runs = [up.clone(), whole.clone(), shard(1), shard(0)];
    let changes: Vec<_> = runs.iter().zip(1..).map(|(record, revision)| change(record, revision)).collect();
    table.store(&changes);
    assert_eq!(whole.id, run_after(&down, &up.id));
    let relatives = table.model.relatives(&whole.id).await.expect("relatives");
    let indexes: Vec<_> = relatives
        .shards
        .iter()
        .filter_map(|one| one.record.shard.as_ref())
        .map(|shard| shard.index)
        .collect();
    assert_eq!((relatives.upstream.expect("the run before").record.id, indexes), (up.id.clone(), vec![0, 1]));
    let relatives = table.model.relatives(&up.id).await.expect("relatives");
    assert_eq!(relatives.downstream.len(), 1);
    let relatives = table.model.relatives(&shard(1).id).await.expect("relatives");
    assert_eq!(relatives.whole.expect("the whole").record.id, whole.id);
}

#[tokio::test]
async fn runs_that_the_ledger_has_forgotten_are_forgotten_with_the_words_that_only_they_had() {
    let mut table = Table::new();
    let ends = table.fill(2_000, 10);
    assert_eq!(table.model.status().runs, 2_000);
    let extent = LedgerExtent { first: 3_001, ..table.extent.clone() };
    table.writer().look(&extent).expect("looked");
    for _ in 0..10 {
        table.writer().forget_some().expect("forgotten");
    }
    assert_eq!(table.model.status().runs, 500);
    let page =
        table.model.runs(&RunQuery { order: Order::OldestFirst, limit: 1, ..RunQuery::default() }).await;
    let oldest = &page.expect("a page").items[0];
    assert!(oldest.revision > 3_000, "{}", oldest.revision);
    let extent = LedgerExtent { first: 5_000, ..extent };
    table.writer().look(&extent).expect("looked");
    for _ in 0..10 {
        table.writer().forget_some().expect("forgotten");
    }
    assert_eq!(table.model.status().runs, 0);
    let conn = crate::read_model::file::reader(&table.path()).expect("a connection");
    for (sql, expected) in [
        ("SELECT count(*) FROM words WHERE kind IN (0, 2)", 0),
        ("SELECT count(*) FROM records", 0),
        ("SELECT count(*) FROM errors", 0),
    ] {
        let found: i64 = conn.query_row(sql, [], |row| row.get(0)).expect("a count");
        assert_eq!(found, expected, "{sql}");
    }
    // A word that was forgotten gets a new number.
    table.store(&[change(&ends[0], 9_000)]);
    let of_schedule = RunFilter::of_schedule(&ends[0].id.name);
    assert_eq!(table.model.count(&of_schedule).await.expect("a count").number, 1);
}

#[tokio::test]
async fn a_key_that_is_deleted_is_gone_and_may_come_again() {
    let mut table = Table::new();
    let record = planned("daily", 0);
    let id = record.id.to_string();
    table.store(&[change(&record, 1), deletion(&id, 2)]);
    assert_eq!(table.model.run(&record.id).await.expect("read"), None);
    table.store(&[change(&record, 3), deletion("nobody.knows", 4), deletion("no id", 5)]);
    assert_eq!(table.model.run(&record.id).await.expect("read").map(|one| one.revision), Some(3));
    assert_eq!((table.model.status().runs, table.model.status().unreadable), (1, 1));
}

#[tokio::test]
async fn while_it_is_being_built_lists_show_what_is_there_and_sums_wait() {
    let mut table = Table::new();
    let ended = ended(&planned("daily", 0), RunEvent::FailedForGood, 100);
    table.writer().store(&[change(&ended, 1)], 5).expect("stored");
    assert!(table.model.status().is_rebuilding);
    for filter in [
        RunFilter::default(),
        RunFilter { id_prefix: "daily.".parse().ok(), ..RunFilter::default() },
        RunFilter { statuses: vec![RunState::Failed, RunState::Retry], ..RunFilter::default() },
        RunFilter { queue: "default".parse().ok(), attempts_min: Some(1), ..RunFilter::default() },
    ] {
        let page = table.model.runs(&RunQuery { filter, ..RunQuery::default() }).await.expect("a page");
        assert_eq!(page.items.len(), 1);
    }
    let minutes = table.model.minutes().await;
    assert!(matches!(minutes, Err(ModelError::Rebuilding)), "{minutes:?}");
    table.store(&[change(&planned("daily", HOUR), 6)]);
    assert_eq!(table.model.minutes().await.expect("minutes").len(), 60);
}

#[tokio::test]
async fn counting_stops_where_it_is_told_to_and_says_so() {
    let mut table = Table::new();
    table.fill(11_000, 10);
    let count = table.model.count(&RunFilter::default()).await.expect("a count");
    assert_eq!((count.number, count.is_exact), (shared::limits::COUNT_MAX, false));
    let query = RunQuery { limit: 0, ..RunQuery::default() };
    assert!(matches!(table.model.runs(&query).await, Err(ModelError::Query(QueryError::Value { .. }))));
}

#[tokio::test]
async fn a_model_of_another_ledger_or_one_that_was_removed_is_begun_anew_and_says_why() {
    let mut table = Table::new();
    table.fill(10, 2);
    table.restart();
    assert_eq!((table.model.status().runs, table.model.status().built.because), (10, BuiltBecause::New));
    table.extent.made = at(1);
    table.restart();
    let status = table.model.status();
    assert_eq!((status.runs, status.built.because), (0, BuiltBecause::OtherLedger));
    assert!(status.is_rebuilding);
    table.fill(10, 2);
    // The ledger has lost its newest records.
    table.extent.last = 7;
    table.restart();
    assert_eq!(table.model.status().built.because, BuiltBecause::OtherLedger);
    table.extent.last = 1_000;
    table.fill(10, 2);
    std::fs::remove_file(table.path()).expect("removed");
    let extent = table.extent.clone();
    let noticed = table.writer().look(&extent);
    assert!(matches!(noticed, Err(Ended::Spoiled(BuiltBecause::Removed))), "{noticed:?}");
    table.restart();
    assert_eq!(table.model.status().built.because, BuiltBecause::Removed);
    assert_eq!(table.model.count(&RunFilter::default()).await.expect("read").number, 0);
}

#[tokio::test]
async fn a_model_that_is_opened_again_answers_with_what_it_had_before_anybody_writes() {
    let mut table = Table::new();
    table.fill(10, 2);
    let path = table.path();
    let copy = path.with_file_name("copy.sqlite");
    table.writer = None;
    rusqlite::Connection::open(&path)
        .and_then(|conn| conn.execute("VACUUM INTO ?1", [copy.to_str().expect("a path")]))
        .expect("copied");
    let again = open(&copy);
    assert_eq!((again.status().runs, again.status().is_rebuilding), (10, false));
    assert_eq!(again.runs(&RunQuery::default()).await.expect("a page").items.len(), 10);
}

#[tokio::test]
async fn damage_that_a_question_finds_is_told_to_who_mends_it() {
    let mut table = Table::new();
    table.fill(10, 2);
    let conn = rusqlite::Connection::open(table.path()).expect("opened");
    conn.execute("UPDATE records SET json = CAST('{' AS BLOB)", []).expect("spoiled");
    let asked = table.model.runs(&RunQuery::default()).await;
    assert!(matches!(asked, Err(ModelError::Unreadable(_))), "{asked:?}");
    let told = table.model.readers().damage().await;
    assert!(told.contains("cannot be understood"), "{told}");
}
