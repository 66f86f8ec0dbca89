//! The file of the seven schedules says what the origin says, and the services take it.

use marketprism::{
    Collector, SCHEDULES_YAML, SERVICES, api_gateway_router, data_storage_router, monitoring_router,
};
use serde_json::{Value, json};

use crate::platform::{Platform, act, request_body};

fn file() -> Value {
    serde_saphyr::from_str(SCHEDULES_YAML).unwrap()
}

#[test]
fn the_seven_schedules_are_the_origins() {
    let origin = [
        (
            "daily_data_archive",
            "0 2 * * *",
            "data-storage-service",
            "archive_hot_data",
            json!({"cutoff_date": "7_days_ago", "batch_size": 10000}),
        ),
        (
            "weekly_data_cleanup",
            "0 3 * * 0",
            "data-storage-service",
            "cleanup_expired_data",
            json!({"retention_days": 90, "data_types": ["temp_calculations", "cache_data"]}),
        ),
        (
            "daily_performance_report",
            "0 8 * * *",
            "monitoring-service",
            "generate_performance_report",
            json!({"time_range": "last_24_hours", "metrics": ["cpu", "memory", "disk", "network"],
                "recipients": ["admin@company.com"]}),
        ),
        (
            "weekly_database_optimization",
            "0 1 * * 1",
            "data-storage-service",
            "optimize_tables",
            json!({"tables": ["market_data", "trade_history"],
                "operations": ["analyze", "optimize", "rebuild_index"]}),
        ),
        (
            "data_integrity_check",
            "*/30 * * * *",
            "market-data-collector",
            "check_data_gaps",
            json!({"exchanges": ["binance", "okx", "huobi"], "time_window": "last_30_minutes",
                "alert_threshold": 0.95}),
        ),
        (
            "anomaly_detection",
            "0 */6 * * *",
            "data-storage-service",
            "detect_anomalies",
            json!({"detection_models": ["price_spike", "volume_anomaly"], "sensitivity": "medium",
                "notification": true}),
        ),
        (
            "monthly_volume_report",
            "0 0 1 * *",
            "api-gateway-service",
            "generate_volume_stats",
            json!({"period": "last_month", "breakdown": ["exchange", "symbol", "day"], "format": "pdf",
                "delivery": "email"}),
        ),
    ];
    let file = file();
    assert_eq!(file["schedules"].as_object().unwrap().len(), origin.len());
    for (name, cron, target, action, parameters) in origin {
        let schedule = &file["schedules"][name];
        assert_eq!(schedule["cron"], cron, "{name}");
        assert_eq!(schedule["timezone"], "Asia/Shanghai", "{name}");
        assert_eq!(schedule["task"]["target_service"], target, "{name}");
        assert_eq!(schedule["task"]["action"], action, "{name}");
        assert_eq!(schedule["task"]["parameters"], parameters, "{name}");
    }
    let targets: Vec<&String> = file["targets"].as_object().unwrap().keys().collect();
    assert!(
        targets.len() == SERVICES.len() && targets.iter().all(|target| SERVICES.contains(&target.as_str()))
    );
}

#[tokio::test]
async fn every_schedules_request_succeeds_at_its_target_as_written_and_again() {
    let platform = Platform::seeded();
    let storage = data_storage_router(&platform.settings).unwrap();
    let monitoring = monitoring_router(&platform.settings).unwrap();
    let gateway = api_gateway_router(&platform.settings).unwrap();
    let collector = Collector::open(&platform.settings).unwrap();
    let file = file();
    for name in
        file["schedules"].as_object().unwrap().keys().chain(file["schedules"].as_object().unwrap().keys())
    {
        let task = &file["schedules"][name]["task"];
        let (action, parameters) = (task["action"].as_str().unwrap(), task["parameters"].clone());
        let router = match task["target_service"].as_str().unwrap() {
            "data-storage-service" => &storage,
            "monitoring-service" => &monitoring,
            "api-gateway-service" => &gateway,
            _ => {
                let answer = collector.handle(action, &request_body(action, &parameters)).await.unwrap();
                assert!(answer["took_ms"].is_u64());
                continue;
            }
        };
        let (status, answer) = act(router, action, parameters).await;
        assert_eq!(status, 200, "{name}: {answer}");
        assert!(answer["took_ms"].is_u64(), "{name}: {answer}");
    }
}
