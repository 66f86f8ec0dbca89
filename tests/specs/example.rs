//! The origin's seven tasks, run for real: planner, queue, worker, target services, and the numbers in the database.

use std::path::{Path, PathBuf};

use harness::{Process, eventually};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::up::Up;

fn database(data: &Path, file: &str) -> Connection {
    Connection::open(data.join("marketprism").join(file)).expect("the database")
}

fn count(database: &Connection, query: &str) -> i64 {
    database.query_row(query, [], |row| row.get(0)).expect(query)
}

struct Demo {
    up: Up,
    data: PathBuf,
    _process: Process,
}

impl Demo {
    async fn start() -> Self {
        let up = Up::new();
        let process = up.start(&["--example", "marketprism"]);
        up.address().await;
        let demo = Self { data: up.data(), up, _process: process };
        eventually("seven schedules", async || {
            // Until its streams are there the verb says so, on stderr, and prints no list.
            let listed = demo.try_json(&["get", "schedules"])?;
            if listed.as_array().is_some_and(|list| list.len() == 7) {
                Ok(())
            } else {
                Err(listed.to_string())
            }
        })
        .await;
        demo
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.try_json(arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_json(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.up.cronfleet(&[arguments, &["-o", "json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{arguments:?}: {error}: {said}"))
    }

    /// Runs a schedule now and returns what its target answered.
    fn run(&self, schedule: &str) -> Value {
        let record = self.json(&["trigger", schedule, "--wait", "--timeout", "2m"]);
        assert_eq!(record["status"], "SUCCESS", "{schedule}: {record}");
        assert_eq!(record["schedule"], schedule);
        record["output"].clone()
    }
}

#[tokio::test]
async fn the_origins_seven_tasks_do_their_work_and_the_database_agrees() {
    let demo = Demo::start().await;
    let (hot, cold) = (database(&demo.data, "hot.sqlite3"), database(&demo.data, "cold.sqlite3"));
    let rows = |db: &Connection| {
        count(db, "SELECT (SELECT count(*) FROM market_data) + (SELECT count(*) FROM trade_history)")
    };

    let integrity = demo.run("data_integrity_check");
    let alert_of = |exchange: &str| {
        let exchanges = integrity["exchanges"].as_array().cloned().unwrap_or_default();
        let found = exchanges.into_iter().find(|one| one["exchange"] == exchange);
        found.unwrap_or_else(|| panic!("{exchange} is not in {integrity}"))["alert"].clone()
    };
    assert_eq!(
        (alert_of("binance"), alert_of("okx"), alert_of("huobi")),
        (json!(false), json!(false), json!(true))
    );

    let anomalies = demo.run("anomaly_detection");
    assert!(anomalies["anomalies_total"].as_i64().expect("a number") > 0, "{anomalies}");
    assert_eq!(anomalies["rows_examined"], count(&hot, "SELECT count(*) FROM market_data"));

    let volumes = demo.run("monthly_volume_report");
    let pdf = std::fs::read(volumes["report"].as_str().expect("a path")).expect("the report");
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() as u64 == volumes["bytes"].as_u64().expect("bytes"));
    assert!(volumes["trades"].as_i64().expect("trades") > 0);

    let (hot_before, cold_before) = (rows(&hot), rows(&cold));
    let archive = demo.run("daily_data_archive");
    let moved = archive["rows_archived"].as_i64().expect("a number");
    assert!(moved > 0, "{archive}");
    assert_eq!(
        (rows(&hot), rows(&cold)),
        (hot_before - moved, cold_before + moved),
        "gone from hot, there in cold"
    );
    assert_eq!(archive["remaining_hot_rows"], rows(&hot));
    let cutoff: chrono::DateTime<chrono::Utc> =
        archive["cutoff"].as_str().expect("a cutoff").parse().expect("a date");
    let older = format!("SELECT count(*) FROM market_data WHERE ts < {}", cutoff.timestamp_millis());
    assert_eq!(count(&hot, &older), 0);

    let expired = "SELECT count(*) FROM temp_calculations WHERE created_at < (unixepoch() - 90*86400) * 1000";
    assert!(count(&hot, expired) > 0, "there is something to clean up");
    let cleanup = demo.run("weekly_data_cleanup");
    assert!(cleanup["rows_deleted"].as_i64().expect("a number") > 0, "{cleanup}");
    assert_eq!(count(&hot, expired), 0);

    let optimized = demo.run("weekly_database_optimization");
    let pages = |name: &str| optimized[name].as_i64().expect("pages");
    assert!(pages("pages_after") < pages("pages_before"), "what was deleted is given back: {optimized}");
    assert_eq!(pages("pages_after"), count(&hot, "PRAGMA page_count"));

    let performance = demo.run("daily_performance_report");
    assert!(performance.to_string().contains("memory"), "{performance}");
}

#[tokio::test]
async fn the_seven_schedules_have_the_slots_the_origin_means() {
    let demo = Demo::start().await;
    let next = demo.json(&["get", "schedules"]);
    assert_eq!(next.as_array().map(Vec::len), Some(7));
    // Shanghai is eight hours ahead: Sunday 03:00 and Monday 01:00 there are the evening before in UTC.
    for (schedule, slots) in [
        ("daily_data_archive", ["2026-11-24T18:00:00Z", "2026-11-25T18:00:00Z"]),
        ("weekly_data_cleanup", ["2026-11-28T19:00:00Z", "2026-12-05T19:00:00Z"]),
        ("daily_performance_report", ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"]),
        ("weekly_database_optimization", ["2026-11-29T17:00:00Z", "2026-12-06T17:00:00Z"]),
        ("data_integrity_check", ["2026-11-24T00:30:00Z", "2026-11-24T01:00:00Z"]),
        ("anomaly_detection", ["2026-11-24T04:00:00Z", "2026-11-24T10:00:00Z"]),
        ("monthly_volume_report", ["2026-11-30T16:00:00Z", "2026-12-31T16:00:00Z"]),
    ] {
        let found = demo.json(&["next", schedule, "--from", "2026-11-24T00:00:00Z", "--count", "2"]);
        assert_eq!(found, json!({ schedule: slots }));
    }
}

#[test]
fn the_examples_file_is_one_that_can_be_applied() {
    let definitions =
        shared::definitions::Definitions::parse(marketprism::SCHEDULES_YAML).expect("the example");
    assert_eq!(definitions.schedules.len(), 7);
    assert_eq!(definitions.check_references(&shared::definitions::Definitions::default()), Ok(()));
}
