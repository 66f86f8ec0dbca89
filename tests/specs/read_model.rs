//! The console's read model: it holds what the ledger holds, whatever becomes of its file, its process or the server.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use console::read_model::{
    BuiltBecause, FeedEvent, ModelStatus, OpenError, Order, Projection, ReadModel, RunFilter, RunQuery,
    filling::Filling,
};
use harness::{Fleet, PlainClient, eventually};
use serde_json::{Value, json};
use shared::{names::QueueName, run::RunId, run_record::RunRecord, run_state::RunEvent, run_state::RunState};
use streams::{Streams, ledger::Creation, topology::Replicas};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A model at work, as a console has it.
struct Following {
    model: ReadModel,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Following {
    fn start(path: &Path, streams: &Streams) -> Self {
        let (model, projection) = ReadModel::open(path, streams.clone()).expect("opened");
        let stop = CancellationToken::new();
        let task = tokio::spawn(Projection::run(projection, stop.clone()));
        Self { model, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("it ends");
    }

    /// Waits until it holds what the ledger holds, version for version.
    async fn holds_the_ledger(&self, fleet: &Fleet) -> ModelStatus {
        eventually("the model holds the ledger", async || {
            let status = self.model.status();
            if status.is_rebuilding || status.behind > 0 {
                return Err(format!("{status:?}"));
            }
            let mut expected: Vec<_> = fleet
                .records()
                .await
                .into_iter()
                .map(|stored| (stored.value.id.to_string(), stored.revision))
                .collect();
            let mut found = self.ids().await?;
            expected.sort();
            found.sort();
            // What was counted before may be of a moment before.
            if expected == found {
                Ok(self.model.status())
            } else {
                Err(format!("{found:?}, and {status:?}"))
            }
        })
        .await
    }

    async fn ids(&self) -> Result<Vec<(String, u64)>, String> {
        let mut query = RunQuery { limit: 300, order: Order::OldestFirst, ..RunQuery::default() };
        let mut all = Vec::new();
        loop {
            let page = self.model.runs(&query).await.map_err(|error| error.to_string())?;
            all.extend(page.items.into_iter().map(|one| (one.record.id.to_string(), one.revision)));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(all),
            }
        }
    }
}

fn file(fleet: &Fleet) -> PathBuf {
    fleet.folder().join("console/model.sqlite")
}

fn filling(runs: u64) -> Filling {
    Filling { runs, schedules: 10, until: "2026-11-24T02:00:00Z".parse().expect("instant") }
}

async fn write(streams: &Streams, id: &str) -> RunRecord {
    let id: RunId = id.parse().expect("id");
    let record = RunRecord::pending(id, QueueName::default_queue(), streams.clock().now());
    assert!(matches!(streams.ledger().create(&record).await, Ok(Creation::Created(_))));
    record
}

/// Asks the server something of its own.
async fn ask(fleet: &Fleet, subject: &str, body: &Value) -> Value {
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let answer = client.request(subject, body.to_string().as_bytes()).await;
    serde_json::from_str(&answer.payload).unwrap_or_else(|error| panic!("{error}: {}", answer.payload))
}

#[tokio::test]
async fn a_model_that_is_deleted_or_damaged_while_it_is_used_is_built_anew_and_says_why() {
    let fleet = Fleet::start().await;
    filling(1_000).fill(&fleet.streams).await.expect("filled");
    let path = file(&fleet);
    let console = Following::start(&path, &fleet.streams);
    let first = console.holds_the_ledger(&fleet).await;
    assert_eq!((first.runs, first.built.because, first.trouble), (1_000, BuiltBecause::New, None));
    std::fs::remove_file(&path).expect("removed");
    let is_built_because = async |is: fn(&BuiltBecause) -> bool| {
        eventually("it is built anew", async || {
            // Whoever reads or writes notices.
            let _ = console.model.runs(&RunQuery::default()).await;
            let built = console.model.status().built;
            if is(&built.because) { Ok(()) } else { Err(format!("{built:?}")) }
        })
        .await;
    };
    is_built_because(|because| *because == BuiltBecause::Removed).await;
    console.holds_the_ledger(&fleet).await;
    write(&fleet.streams, "adhoc.after").await;
    assert_eq!(console.holds_the_ledger(&fleet).await.runs, 1_001);
    // What lies in the file is nonsense from here on; its log is put away first, so that no page comes from there.
    let conn = rusqlite::Connection::open(&path).expect("opened");
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("written");
    let length = std::fs::metadata(&path).expect("there").len() as usize;
    let keep = 100;
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[keep..length].fill(0xa5);
    let damaged = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
    damaged.write_all_at(&bytes, 0).expect("written");
    write(&fleet.streams, "adhoc.damaged").await;
    is_built_because(|because| matches!(because, BuiltBecause::Damaged(_))).await;
    assert_eq!(console.holds_the_ledger(&fleet).await.runs, 1_002);
    console.stop().await;
}

#[tokio::test]
async fn a_model_goes_on_where_it_stopped_and_its_file_is_for_one_console() {
    let fleet = Fleet::start().await;
    filling(200).fill(&fleet.streams).await.expect("filled");
    let path = file(&fleet);
    let console = Following::start(&path, &fleet.streams);
    let before = console.holds_the_ledger(&fleet).await;
    let second = ReadModel::open(&path, fleet.streams.clone());
    assert!(matches!(second, Err(OpenError::InUse(_))));
    // Another has a file of its own, the same lists, and takes the other's cursors.
    let other = Following::start(&fleet.folder().join("other/model.sqlite"), &fleet.streams);
    other.holds_the_ledger(&fleet).await;
    let query = RunQuery { limit: 50, ..RunQuery::default() };
    let page = console.model.runs(&query).await.expect("a page");
    let next = RunQuery { cursor: page.next, ..query };
    let here = console.model.runs(&next).await.expect("a page");
    let there = other.model.runs(&next).await.expect("a page");
    assert_eq!((here.items.len(), here), (50, there));
    other.stop().await;
    console.stop().await;
    write(&fleet.streams, "adhoc.meanwhile").await;
    let console = Following::start(&path, &fleet.streams);
    assert_eq!(console.model.status().runs, 200, "it answers before it has heard of anything");
    let after = console.holds_the_ledger(&fleet).await;
    assert_eq!((after.runs, after.built), (201, before.built), "it was not built anew");
    console.stop().await;
}

#[tokio::test]
async fn a_model_survives_the_death_of_the_server_the_loss_of_its_consumer_and_a_ledger_that_is_made_anew() {
    let mut fleet = Fleet::start().await;
    filling(100).fill(&fleet.streams).await.expect("filled");
    let console = Following::start(&file(&fleet), &fleet.streams);
    console.holds_the_ledger(&fleet).await;
    fleet.nats.kill();
    eventually("it says that it does not get on, and answers", async || {
        let count = console.model.count(&RunFilter::default()).await.map_err(|error| error.to_string())?;
        assert_eq!(count.number, 100);
        console.model.status().trouble.map(|_| ()).ok_or("no trouble".to_owned())
    })
    .await;
    fleet.nats.restart().await;
    eventually("a write goes through", async || {
        let id = "adhoc.restarted".parse().expect("id");
        let record = RunRecord::pending(id, QueueName::default_queue(), fleet.now());
        fleet.streams.ledger().create(&record).await.map_err(|error| error.to_string())
    })
    .await;
    let status = console.holds_the_ledger(&fleet).await;
    assert_eq!((status.runs, status.trouble), (101, None));
    let names = ask(&fleet, "$JS.API.CONSUMER.NAMES.KV_cronfleet_runs", &json!({})).await;
    for name in names["consumers"].as_array().expect("consumers") {
        let name = name.as_str().expect("a name");
        ask(&fleet, &format!("$JS.API.CONSUMER.DELETE.KV_cronfleet_runs.{name}"), &json!({})).await;
    }
    write(&fleet.streams, "adhoc.consumer").await;
    let status = console.holds_the_ledger(&fleet).await;
    assert_eq!((status.runs, status.built.because), (102, BuiltBecause::New));
    let deleted = ask(&fleet, "$JS.API.STREAM.DELETE.KV_cronfleet_runs", &json!({})).await;
    assert_eq!(deleted["success"], true);
    fleet.streams.init(Replicas::One).await.expect("init");
    write(&fleet.streams, "adhoc.anew").await;
    eventually("it is of the new ledger", async || {
        let status = console.model.status();
        let is_of_it = status.built.because == BuiltBecause::OtherLedger && status.runs == 1;
        if is_of_it { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    console.holds_the_ledger(&fleet).await;
    console.stop().await;
}

#[tokio::test]
async fn a_model_forgets_what_the_ledger_forgets() {
    let fleet = Fleet::start().await;
    filling(2_000).fill(&fleet.streams).await.expect("filled");
    let console = Following::start(&file(&fleet), &fleet.streams);
    assert_eq!(console.holds_the_ledger(&fleet).await.runs, 2_000);
    let info = ask(&fleet, "$JS.API.STREAM.INFO.KV_cronfleet_runs", &json!({})).await;
    let mut config = info["config"].clone();
    config["max_age"] = json!(1_000_000_000_u64);
    config["duplicate_window"] = json!(1_000_000_000_u64);
    let updated = ask(&fleet, "$JS.API.STREAM.UPDATE.KV_cronfleet_runs", &config).await;
    assert!(updated["error"].is_null(), "{updated}");
    eventually("all is forgotten", async || match console.model.status().runs {
        0 => Ok(()),
        runs => Err(format!("{runs}")),
    })
    .await;
    assert_eq!(console.holds_the_ledger(&fleet).await.built.because, BuiltBecause::New);
    console.stop().await;
}

#[tokio::test]
async fn who_listens_hears_of_a_runs_end_and_who_is_slow_is_told_and_misses_none() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Following::start(&file(&fleet), &fleet.streams);
    console.holds_the_ledger(&fleet).await;
    let ended = RunFilter { statuses: vec![RunState::Success], ..RunFilter::default() };
    let mut live = console.model.subscribe(None, ended.clone());
    let mut slow = console.model.subscribe(None, ended.clone());
    let _worker = fleet.worker(&[]);
    fleet
        .submit("adhoc.heard", &json!({"target_service": "target", "action": "ok"}))
        .await
        .expect("submitted");
    let end = fleet.end_of("adhoc.heard").await;
    let FeedEvent::Changed(heard) = live.next().await.expect("an event") else { panic!("no change") };
    assert_eq!((heard.record.id.clone(), heard.record.status), (end.id, RunState::Success));
    let stored = console.model.run(&heard.record.id).await.expect("read").expect("it is stored by then");
    assert_eq!(stored.revision, heard.revision);
    // The slow one has not listened yet; now more ends than are held for it.
    let started = |record: &RunRecord| record.apply(RunEvent::Started, fleet.now()).expect("starts");
    for number in 0..1_200 {
        let id = format!("many.{number}").parse().expect("id");
        let record = RunRecord::pending(id, QueueName::default_queue(), fleet.now());
        let done = started(&record).apply(RunEvent::Succeeded, fleet.now()).expect("ends");
        fleet.streams.ledger().create(&done).await.expect("written");
    }
    console.holds_the_ledger(&fleet).await;
    let (mut told, mut lagged) = (Vec::new(), 0);
    while told.len() < 1_201 {
        match slow.next().await.expect("an event") {
            FeedEvent::Changed(listed) => told.push(listed.revision),
            FeedEvent::Lagged { missed } => lagged += missed,
            other => panic!("{other:?}"),
        }
    }
    assert!(lagged > 0 && told.is_sorted(), "{lagged}");
    // Whoever comes back with the last it was told hears the rest.
    let mut again = console.model.subscribe(Some(told[600]), ended);
    let FeedEvent::Changed(next) = again.next().await.expect("an event") else { panic!("no change") };
    assert_eq!(next.revision, told[601]);
    console.stop().await;
}
