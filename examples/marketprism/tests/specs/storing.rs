//! `data-storage-service`.

use std::collections::HashSet;

use chrono::TimeDelta;
use marketprism::{data_storage_router, seed_if_empty};
use serde_json::json;

use crate::platform::{Platform, act, done};

/// Rows and sums over both files; a row that is in both counts twice.
fn whole_market(platform: &Platform) -> (i64, f64, i64, f64) {
    let count = |table| {
        platform.number(&format!(
            "SELECT (SELECT count(*) FROM main.{table}) + (SELECT count(*) FROM cold.{table})"
        ))
    };
    let sum = |table, column| {
        platform.real(&format!(
            "SELECT (SELECT total({column}) FROM main.{table}) + (SELECT total({column}) FROM cold.{table})"
        ))
    };
    let (volume, quantity) = (sum("market_data", "volume"), sum("trade_history", "quantity"));
    (count("market_data"), volume.round(), count("trade_history"), quantity.round())
}

fn cutoff_ms(platform: &Platform) -> i64 {
    (platform.now() - TimeDelta::days(7)).timestamp_millis()
}

#[tokio::test]
async fn archiving_moves_exactly_the_old_rows_and_loses_none() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let (before, cutoff) = (whole_market(&platform), cutoff_ms(&platform));
    let old =
        |table: &str| platform.number(&format!("SELECT count(*) FROM main.{table} WHERE ts < {cutoff}"));
    let (old_candles, old_trades) = (old("market_data"), old("trade_history"));

    let parameters = json!({"cutoff_date": "7_days_ago", "batch_size": 10_000});
    let answer = done(&router, "archive_hot_data", parameters.clone()).await;

    assert!(old_candles > 10_000 && old_trades > 1_000, "{old_candles} {old_trades}");
    assert_eq!(answer["rows_archived"], old_candles + old_trades);
    assert_eq!(answer["tables"]["market_data"]["rows_archived"], old_candles);
    assert_eq!(answer["batches"], (old_candles + 9_999) / 10_000 + (old_trades + 9_999) / 10_000);
    assert_eq!(answer["cutoff"], "2026-06-23T16:00:00Z");
    assert_eq!((old("market_data"), old("trade_history")), (0, 0), "gone from the hot file");
    assert_eq!(platform.number("SELECT count(*) FROM cold.market_data"), old_candles);
    assert_eq!(answer["cold_rows"], old_candles + old_trades);
    let hot = "SELECT (SELECT count(*) FROM main.market_data) + (SELECT count(*) FROM main.trade_history)";
    assert_eq!(answer["remaining_hot_rows"], platform.number(hot));
    assert_eq!(platform.number(&format!("SELECT count(*) FROM cold.market_data WHERE ts >= {cutoff}")), 0);
    assert_eq!(whole_market(&platform), before, "rows and sums over both files are as before");

    let again = done(&router, "archive_hot_data", parameters).await;
    assert_eq!((&again["rows_archived"], &again["batches"]), (&json!(0), &json!(0)));
    assert_eq!(whole_market(&platform), before);
}

#[tokio::test]
async fn archiving_that_was_killed_between_copy_and_delete_neither_doubles_nor_loses_a_row() {
    let platform = Platform::seeded();
    let (before, cutoff) = (whole_market(&platform), cutoff_ms(&platform));
    for table in ["market_data", "trade_history"] {
        let copy = format!(
            "INSERT INTO cold.{table} SELECT * FROM main.{table} WHERE ts < {cutoff} ORDER BY ts LIMIT 700"
        );
        platform.sql().execute(&copy, []).unwrap();
    }
    assert_ne!(whole_market(&platform), before, "the copies are in both files");

    let router = data_storage_router(&platform.settings).unwrap();
    let parameters = json!({"cutoff_date": "2026-06-23T16:00:00Z", "batch_size": 1_000});
    let answer = done(&router, "archive_hot_data", parameters).await;

    assert_eq!(answer["rows_already_cold"], 1_400);
    assert_eq!(whole_market(&platform), before);
    assert_eq!(answer["cold_rows"], answer["rows_archived"]);
}

#[tokio::test]
async fn two_archivers_at_once_move_every_row_once() {
    let platform = Platform::seeded();
    let before = whole_market(&platform);
    let (first, second) =
        (data_storage_router(&platform.settings).unwrap(), data_storage_router(&platform.settings).unwrap());
    let parameters = json!({"cutoff_date": "7_days_ago", "batch_size": 2_000});
    let (first, second) = tokio::join!(
        done(&first, "archive_hot_data", parameters.clone()),
        done(&second, "archive_hot_data", parameters)
    );
    let archived = first["rows_archived"].as_i64().unwrap() + second["rows_archived"].as_i64().unwrap();
    let cold = "SELECT (SELECT count(*) FROM cold.market_data) + (SELECT count(*) FROM cold.trade_history)";
    assert_eq!(archived, platform.number(cold));
    assert_eq!(whole_market(&platform), before);
}

#[tokio::test]
async fn cleaning_up_deletes_what_expired_and_nothing_else() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let cutoff = (platform.now() - TimeDelta::days(90)).timestamp_millis();
    let count = |table: &str, rule: &str| {
        platform.number(&format!("SELECT count(*) FROM main.{table} WHERE created_at {rule} {cutoff}"))
    };
    let (expired, fresh) = (count("temp_calculations", "<"), count("temp_calculations", ">="));
    assert!(expired > 0 && fresh > 0);

    let only = json!({"retention_days": 90, "data_types": ["temp_calculations"]});
    let answer = done(&router, "cleanup_expired_data", only).await;
    assert_eq!(answer["rows_deleted"], expired);
    assert_eq!((count("temp_calculations", "<"), count("temp_calculations", ">=")), (0, fresh));
    assert_eq!(answer["data_types"]["temp_calculations"]["remaining_rows"], fresh);
    assert!(count("cache_data", "<") > 0, "it was not asked for");

    let cached = count("cache_data", "<");
    let both = json!({"retention_days": 90, "data_types": ["temp_calculations", "cache_data"]});
    let answer = done(&router, "cleanup_expired_data", both).await;
    assert_eq!(answer["data_types"]["temp_calculations"]["rows_deleted"], 0);
    assert_eq!(answer["data_types"]["cache_data"]["rows_deleted"], cached);
    assert_eq!(count("cache_data", "<"), 0);
}

#[tokio::test]
async fn optimizing_gives_pages_back_and_leaves_statistics() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    done(&router, "archive_hot_data", json!({"cutoff_date": "7_days_ago"})).await;
    let (rows, pages) = (whole_market(&platform), platform.number("PRAGMA main.page_count"));

    let parameters = json!({
        "tables": ["market_data", "trade_history"], "operations": ["analyze", "optimize", "rebuild_index"]
    });
    let answer = done(&router, "optimize_tables", parameters).await;

    assert_eq!(answer["pages_before"], pages);
    assert!(answer["free_pages_before"].as_i64().unwrap() > 0);
    assert_eq!(answer["pages_after"], platform.number("PRAGMA main.page_count"));
    assert!(answer["pages_after"].as_i64().unwrap() < pages);
    assert_eq!(answer["free_pages_after"], 0);
    assert_eq!(answer["operations"].as_array().unwrap().len(), 5, "per table, and once for the whole file");
    let analyzed =
        "SELECT count(DISTINCT tbl) FROM main.sqlite_stat1 WHERE tbl IN ('market_data', 'trade_history')";
    assert_eq!(platform.number(analyzed), 2);
    assert_eq!(platform.sql().query_row("PRAGMA integrity_check", [], |row| row.get(0)), Ok("ok".to_owned()));
    assert_eq!(whole_market(&platform), rows);
}

#[tokio::test]
async fn every_planted_anomaly_is_found_and_nothing_else_at_medium_sensitivity() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let parameters = json!({
        "detection_models": ["price_spike", "volume_anomaly"], "sensitivity": "medium", "notification": true
    });
    let answer = done(&router, "detect_anomalies", parameters).await;

    let planted: HashSet<(String, String, String, String)> = platform
        .seeded
        .anomalies
        .iter()
        .map(|anomaly| {
            let at = anomaly.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            (anomaly.kind.model().to_owned(), anomaly.exchange.to_owned(), anomaly.symbol.to_owned(), at)
        })
        .collect();
    assert_eq!(planted.len(), 6);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let listed = answer["anomalies"].as_array().unwrap();
    let found =
        listed.iter().map(|a| (text(&a["model"]), text(&a["exchange"]), text(&a["symbol"]), text(&a["ts"])));
    assert_eq!(found.collect::<HashSet<_>>(), planted);
    assert_eq!(answer["anomalies_total"], 6);
    assert_eq!(answer["rows_examined"], platform.number("SELECT count(*) FROM main.market_data"));
    for anomaly in listed {
        let ts = anomaly["ts"]
            .as_str()
            .unwrap()
            .parse::<chrono::DateTime<chrono::Utc>>()
            .unwrap()
            .timestamp_millis();
        let column = if anomaly["model"] == "price_spike" { "price" } else { "volume" };
        let value = platform.real(&format!(
            "SELECT {column} FROM main.market_data WHERE exchange = {} AND symbol = {} AND ts = {ts}",
            anomaly["exchange"].to_string().replace('"', "'"),
            anomaly["symbol"].to_string().replace('"', "'"),
        ));
        assert_eq!(anomaly["value"].as_f64(), Some(value));
    }
    let told = std::fs::read(answer["notification"]["path"].as_str().unwrap()).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["anomalies"], answer["anomalies"]);
}

#[tokio::test]
async fn the_list_of_anomalies_is_bounded_by_the_strongest_and_the_count_is_of_all() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let answer =
        done(&router, "detect_anomalies", json!({"detection_models": ["price_spike"], "limit": 1})).await;
    assert_eq!((&answer["anomalies_total"], &answer["listed"]), (&json!(3), &json!(1)));
    assert_eq!(answer["anomalies"][0]["exchange"], "binance");
    assert_eq!(answer["notification"]["written"], false);
}

#[tokio::test]
async fn an_anomaly_is_reported_once_and_the_return_to_normal_is_none() {
    let platform = Platform::seeded();
    let sql = platform.sql();
    sql.execute("DELETE FROM main.market_data", []).unwrap();
    for index in 0..200_i64 {
        let price = if index == 150 { 200.0 } else { 100.0 + (index % 7) as f64 * 0.1 };
        let insert = "INSERT INTO main.market_data VALUES ('okx', 'TEST', ?1, ?2, 10.0 + ?1 % 3)";
        sql.execute(insert, rusqlite::params![index * 900_000, price]).unwrap();
    }
    let router = data_storage_router(&platform.settings).unwrap();
    let answer = done(&router, "detect_anomalies", json!({"detection_models": ["price_spike"]})).await;
    assert_eq!(answer["anomalies_total"], 1, "{answer}");
    assert_eq!(answer["anomalies"][0]["value"], 200.0);
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused_with_value_rule_and_repair() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let before = whole_market(&platform);
    for (action, parameters, says) in [
        ("archive_hot_data", json!({}), "parameters.cutoff_date is missing"),
        ("archive_hot_data", json!({"cutoff_date": "soon"}), "parameters.cutoff_date = \"soon\""),
        ("archive_hot_data", json!({"cutoff_date": "2999-01-01"}), "a past moment"),
        ("archive_hot_data", json!({"cutoff_date": "7_days_ago", "batch_size": 0}), "from 1 to 100000"),
        (
            "archive_hot_data",
            json!({"cutoff_date": "7_days_ago", "batchsize": 5}),
            "it has: cutoff_date, batch_size",
        ),
        ("cleanup_expired_data", json!({"data_types": ["market_data"]}), "take out \"market_data\""),
        ("cleanup_expired_data", json!({"data_types": []}), "at least one of temp_calculations, cache_data"),
        ("cleanup_expired_data", json!({"retention_days": -1}), "parameters.retention_days = -1"),
        ("optimize_tables", json!({"tables": ["sqlite_master; DROP TABLE market_data"]}), "may only have"),
        ("optimize_tables", json!({"operations": "analyze"}), "must be a list"),
        ("detect_anomalies", json!({"sensitivity": "extreme"}), "one of low, medium, high"),
        ("detect_anomalies", json!({"notification": "yes"}), "true or false"),
        ("detect_anomalies", json!([1]), "must be an object"),
    ] {
        let (status, answer) = act(&router, action, parameters.clone()).await;
        assert_eq!(status, 400, "{action} {parameters}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(says), "{action} {parameters}: {error}");
    }
    assert_eq!(whole_market(&platform), before);
}

#[test]
fn seeding_again_changes_nothing_and_the_same_seed_gives_the_same_market() {
    let (platform, other) = (Platform::seeded(), Platform::seeded());
    assert!(platform.seeded.seeded);
    assert_eq!(platform.seeded, other.seeded);
    assert_eq!(whole_market(&platform), whole_market(&other));
    let (_, volume, ..) = whole_market(&platform);

    let again = seed_if_empty(&platform.at("2026-07-02T16:00:00Z")).unwrap();
    assert!(!again.seeded && again.anomalies.is_empty());
    assert_eq!(
        (again.market_data, again.trade_history),
        (platform.seeded.market_data, platform.seeded.trade_history)
    );
    assert!((whole_market(&platform).1 - volume).abs() < 1.0);
}
