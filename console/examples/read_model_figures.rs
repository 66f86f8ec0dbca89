//! Measures the read model: rebuilding it from a ledger, and asking it.
//!
//! ```text
//! nats-server -js -sd /tmp/figures &
//! cargo run --release -p cronfleet-console --example read_model_figures -- 1000000 100000 /tmp/figures.sqlite 200
//! ```
//!
//! That is runs, schedules, the model's file, and how often each question is asked. A ledger that holds as many runs already is
//! not filled again. Ends with one line of JSON.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use console::read_model::{Order, ReadModel, RunFilter, RunQuery, TimeRange, filling::Filling};
use serde_json::{Value, json};
use shared::{
    clock::{Clock, SystemClock},
    run_record::Reason,
    run_state::RunState,
};
use streams::{ConnectSettings, Streams, topology::Replicas};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (runs, schedules) = (number(100_000)?, number(10_000)?);
    let path = PathBuf::from(arguments.next().unwrap_or_else(|| "figures.sqlite".to_owned()));
    let asked = arguments.next().map_or(Ok(200), |text| text.parse::<u64>())?.max(1);
    let clock = SystemClock;
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let settings = ConnectSettings { url, client_name: "figures".to_owned(), ..ConnectSettings::default() };
    let streams = Streams::connect(&settings, SystemClock::shared()).await?;
    streams.init(Replicas::One).await?;
    let until = "2026-11-24T02:00:00Z".parse()?;
    let filling = Filling { runs, schedules, until };
    let before = clock.elapsed();
    if streams.ledger_extent_now().await?.last < 2 * runs {
        let writes = filling.fill(&streams).await?;
        eprintln!("{writes} writes in {:?}", since(before));
    }
    let written = streams.ledger_extent_now().await?.last;
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    let (model, projection) = ReadModel::open(&path, streams)?;
    let stop = CancellationToken::new();
    let before = clock.elapsed();
    let follows = tokio::spawn(projection.run(stop.clone()));
    while model.status().is_rebuilding || model.status().place < written {
        clock.sleep(Duration::from_millis(20)).await;
    }
    let rebuild = since(before);
    let status = model.status();
    eprintln!("{written} records in {rebuild:?}; {} runs, {} MiB", status.runs, status.bytes >> 20);
    let questions = ask(&model, schedules, asked).await?;
    stop.cancel();
    follows.await?;
    let figures = json!({
        "n": runs, "records": written, "seconds": rebuild.as_secs_f64(),
        "per_s": written as f64 / rebuild.as_secs_f64(), "runs_per_s": status.runs as f64 / rebuild.as_secs_f64(),
        "bytes": status.bytes, "rss_mb": rss_mb(), "p50_p95_max_ms": questions,
    });
    println!("{figures}");
    Ok(())
}

fn since(before: Duration) -> Duration {
    SystemClock.elapsed().saturating_sub(before)
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The lists that are asked for, the n-th time.
fn lists(n: u64, schedules: u64) -> [(&'static str, RunQuery); 14] {
    let schedule = || Filling::schedule(n * 37 % schedules).ok();
    let in_order = |order| RunQuery { order, ..RunQuery::default() };
    [
        ("newest", RunQuery::default()),
        ("oldest", in_order(Order::OldestFirst)),
        ("failures_first", in_order(Order::FailuresFirst)),
        ("schedule", of(|filter| filter.schedule = schedule())),
        (
            "schedule_failed",
            of(|filter| {
                filter.schedule = schedule();
                filter.statuses = vec![RunState::Failed];
            }),
        ),
        ("failed_or_retry", of(|filter| filter.statuses = vec![RunState::Failed, RunState::Retry])),
        (
            "worker_failed",
            of(|filter| {
                filter.worker = format!("worker-host{}-1a2b3c4d", n % 40).parse().ok();
                filter.statuses = vec![RunState::Failed];
            }),
        ),
        (
            "queue_target",
            of(|filter| {
                filter.queue = "reports".parse().ok();
                filter.target = format!("service-{}", n % 30).parse().ok();
            }),
        ),
        ("reason", of(|filter| filter.reasons = vec![Reason::SkippedOverlap])),
        ("error_common", of(|filter| filter.error_text = "Refused".parse().ok())),
        ("error_rare", of(|filter| filter.error_text = format!("shard {}", n * 991).parse().ok())),
        ("error_none", of(|filter| filter.error_text = "no such words".parse().ok())),
        ("id_prefix", of(|filter| filter.id_prefix = format!("schedule_00{n:03}").parse().ok())),
        (
            "few_slots",
            of(|filter| {
                filter.queue = "reports".parse().ok();
                filter.slot.to = "2026-08-27T00:00:00Z".parse().ok();
            }),
        ),
    ]
}

async fn ask(
    model: &ReadModel,
    schedules: u64,
    asked: u64,
) -> Result<BTreeMap<&'static str, Value>, Failure> {
    let mut told = BTreeMap::new();
    for (index, (name, _)) in lists(0, schedules).into_iter().enumerate() {
        let took = many(asked, async |n| model.runs(&lists(n, schedules)[index].1).await.map(|_| ())).await?;
        told.insert(name, took);
    }
    let all = TimeRange::default();
    told.insert(
        "count_all",
        many(asked, async |_| model.count(&RunFilter::default()).await.map(|_| ())).await?,
    );
    told.insert("statuses", many(asked, async |_| model.statuses(None, all).await.map(|_| ())).await?);
    let names: Vec<_> = (0..100).filter_map(|n| Filling::schedule(n * 7 % schedules).ok()).collect();
    told.insert("strips_of_100", many(asked, async |_| model.strips(&names, 20).await.map(|_| ())).await?);
    told.insert("minutes", many(asked, async |_| model.minutes().await.map(|_| ())).await?);
    let (first, last) = ("2025-11-25".parse()?, "2026-11-24".parse()?);
    let (zone, day) = (chrono_tz::Asia::Shanghai, Duration::from_hours(24));
    let name = |n: u64| &names[n as usize % names.len()];
    let took = many(asked, async |n| model.days(name(n), zone, first, last).await.map(|_| ())).await?;
    told.insert("days", took);
    let took = many(asked, async |n| model.durations(name(n), all, day).await.map(|_| ())).await?;
    told.insert("durations", took);
    let mut query = RunQuery { limit: 500, ..RunQuery::default() };
    let took = many(asked, async |_| {
        query.cursor = model.runs(&query).await?.next;
        Ok(())
    });
    told.insert("page_by_page_500", took.await?);
    Ok(told)
}

fn of(set: impl FnOnce(&mut RunFilter)) -> RunQuery {
    let mut query = RunQuery::default();
    set(&mut query.filter);
    query
}

async fn many(
    asked: u64,
    mut question: impl AsyncFnMut(u64) -> Result<(), console::read_model::ModelError>,
) -> Result<Value, Failure> {
    let clock = SystemClock;
    let mut took = Vec::new();
    for n in 0..asked {
        let before = clock.elapsed();
        question(n).await?;
        took.push(since(before).as_secs_f64() * 1_000.0);
    }
    took.sort_by(f64::total_cmp);
    let at = |part: usize| (took[(took.len() - 1) * part / 100] * 100.0).round() / 100.0;
    Ok(json!([at(50), at(95), at(100)]))
}
