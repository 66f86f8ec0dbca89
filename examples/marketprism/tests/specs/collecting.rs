//! `market-data-collector`.

use marketprism::Collector;
use rusqlite::Connection;
use serde_json::json;

use crate::platform::{Platform, request_body};

fn quotes(platform: &Platform) -> Connection {
    Connection::open(platform.path("collector.sqlite3")).unwrap()
}

#[tokio::test]
async fn huobis_gap_raises_an_alert_and_the_numbers_are_those_of_the_database() {
    let platform = Platform::seeded();
    let collector = Collector::open(&platform.settings).unwrap();
    let parameters = json!({
        "exchanges": ["binance", "okx", "huobi"], "time_window": "last_30_minutes", "alert_threshold": 0.95
    });
    let answer =
        collector.handle("check_data_gaps", &request_body("check_data_gaps", &parameters)).await.unwrap();

    assert_eq!(answer["alerts"], json!(["huobi"]));
    assert_eq!(answer["window"]["from"], "2026-06-30T15:30:00Z");
    let to = platform.now().timestamp_millis();
    for exchange in answer["exchanges"].as_array().unwrap() {
        let query = "SELECT count(*) FROM quotes WHERE exchange = ?1 AND ts >= ?2 AND ts < ?3";
        let window = rusqlite::params![exchange["exchange"].as_str(), to - 30 * 60_000, to];
        let present: i64 = quotes(&platform).query_row(query, window, |row| row.get(0)).unwrap();
        assert_eq!((&exchange["expected"], &exchange["present"]), (&json!(120), &json!(present)));
        let missing = exchange["gaps"].as_array().unwrap().iter().map(|gap| gap["minutes"].as_i64().unwrap());
        assert_eq!(missing.sum::<i64>(), 120 - present);
        assert_eq!(exchange["alert"], present < 114, "{exchange}");
    }
    let huobi = &answer["exchanges"][2];
    assert_eq!(huobi["gaps_total"], 4, "one per symbol: {huobi}");
    assert_eq!(huobi["gaps"][0]["minutes"], 4);
    assert_eq!(answer["exchanges"][0]["completeness"], 1.0);
}

#[tokio::test]
async fn a_collector_that_was_on_all_day_still_sees_only_huobis_gap() {
    let platform = Platform::seeded();
    for now in ["2026-06-30T16:30:00Z", "2026-06-30T23:17:31Z", "2026-07-08T00:00:00Z"] {
        let collector = Collector::open(&platform.at(now)).unwrap();
        let answer = collector.handle("check_data_gaps", b"{}").await.unwrap();
        assert_eq!(answer["alerts"], json!(["huobi"]), "{now}: {answer}");
    }
    let kept: i64 =
        quotes(&platform).query_row("SELECT max(ts) - min(ts) FROM quotes", [], |row| row.get(0)).unwrap();
    assert!(kept < 3 * 3_600_000, "old quotes go");
}

#[tokio::test]
async fn quotes_that_get_lost_are_missed() {
    let platform = Platform::seeded();
    let collector = Collector::open(&platform.settings).unwrap();
    let to = platform.now().timestamp_millis();
    let delete =
        "DELETE FROM quotes WHERE exchange = 'binance' AND symbol = 'BTC-USDT' AND ts >= ?1 AND ts < ?2";
    quotes(&platform).execute(delete, [to - 10 * 60_000, to - 3 * 60_000]).unwrap();

    let parameters = json!({"exchanges": ["binance"], "alert_threshold": 0.95});
    let answer =
        collector.handle("check_data_gaps", &request_body("check_data_gaps", &parameters)).await.unwrap();
    let binance = &answer["exchanges"][0];
    assert_eq!(answer["alert"], true);
    assert_eq!(
        binance["gaps"],
        json!([{"symbol": "BTC-USDT", "from": "2026-06-30T15:50:00Z", "to": "2026-06-30T15:57:00Z", "minutes": 7}])
    );
}

#[tokio::test]
async fn the_collector_refuses_what_it_cannot_do() {
    let platform = Platform::seeded();
    let collector = Collector::open(&platform.settings).unwrap();
    let too_large = vec![b' '; 1024 * 1024 + 1];
    for (action, body, code, says) in [
        ("check_gaps", b"{}".as_slice(), 404, "check_data_gaps"),
        ("check_data_gaps", b"{", 400, "not JSON"),
        ("check_data_gaps", b"[]", 400, "JSON object"),
        ("check_data_gaps", &too_large, 413, "1048576"),
        ("check_data_gaps", br#"{"parameters": {"exchanges": ["nasdaq"]}}"#, 400, "binance, okx, huobi"),
        ("check_data_gaps", br#"{"parameters": {"time_window": "last_3_hours"}}"#, 400, "up to 120 minutes"),
        ("check_data_gaps", br#"{"parameters": {"alert_threshold": 95}}"#, 400, "above 0 and at most 1"),
    ] {
        let error = collector.handle(action, body).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}
