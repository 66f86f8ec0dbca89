//! `api-gateway-service` and `monitoring-service`: what they write.

use std::{fs, process::Command};

use marketprism::{api_gateway_router, data_storage_router, monitoring_router};
use serde_json::{Value, json};

use crate::platform::{Platform, act, done, send};

/// June in Shanghai.
const JUNE: &str = "ts >= 1780243200000 AND ts < 1782835200000";

fn monthly() -> Value {
    json!({"period": "last_month", "breakdown": ["exchange", "symbol", "day"], "format": "pdf", "delivery": "email"})
}

fn close(answer: &Value, expected: f64) -> bool {
    (answer.as_f64().unwrap() - expected).abs() <= expected * 1e-9
}

#[tokio::test]
async fn the_volume_report_is_a_pdf_with_the_months_sums() {
    let platform = Platform::seeded();
    let router = api_gateway_router(&platform.settings).unwrap();
    let answer = done(&router, "generate_volume_stats", monthly()).await;

    let turnover =
        platform.real(&format!("SELECT sum(price * quantity) FROM main.trade_history WHERE {JUNE}"));
    assert!(close(&answer["total_volume"], turnover), "{answer}, not {turnover}");
    let trades = platform.number(&format!("SELECT count(*) FROM main.trade_history WHERE {JUNE}"));
    assert_eq!(answer["trades"], trades);
    assert_eq!(answer["period"]["name"], "2026-06");
    assert_eq!(answer["rows"], json!({"exchange": 3, "symbol": 4, "day": 30}));
    assert_eq!(answer["detail_rows"], 3 * 4 * 30);

    let path = answer["report"].as_str().unwrap();
    let pdf = fs::read(path).unwrap();
    assert_eq!(answer["bytes"], pdf.len());
    assert!(pdf.starts_with(b"%PDF-") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
    let pages = answer["pages"].as_u64().unwrap();
    assert!(pages > 5, "{pages}");
    let text = String::from_utf8_lossy(&pdf);
    assert_eq!(text.matches("/Type /Page\n").count() as u64, pages);
    assert!(text.contains(&format!("/Count {pages}")) && text.contains("(turnover, USDT)"), "{pages}");
    // Where there is a reader, it must be able to read it.
    if let Ok(read) = Command::new("pdftotext").args(["-layout", path, "-"]).output() {
        let read = String::from_utf8_lossy(&read.stdout).into_owned();
        assert!(
            read.contains("Trade volumes of 2026-06") && read.contains(&format!("page {pages} of {pages}"))
        );
    }
}

#[tokio::test]
async fn archiving_does_not_change_the_volume_report_even_when_killed_half_way() {
    let platform = Platform::seeded();
    let router = api_gateway_router(&platform.settings).unwrap();
    let before = done(&router, "generate_volume_stats", monthly()).await;

    let half = "INSERT INTO cold.trade_history SELECT * FROM main.trade_history ORDER BY ts LIMIT 3000";
    platform.sql().execute(half, []).unwrap();
    let between = done(&router, "generate_volume_stats", monthly()).await;
    let storage = data_storage_router(&platform.settings).unwrap();
    done(&storage, "archive_hot_data", json!({"cutoff_date": "7_days_ago"})).await;
    let after = done(&router, "generate_volume_stats", monthly()).await;

    for later in [between, after] {
        assert_eq!((&later["trades"], &later["rows"]), (&before["trades"], &before["rows"]));
        assert!(close(&later["total_volume"], before["total_volume"].as_f64().unwrap()));
        assert_eq!(later["report"], before["report"], "a repeat replaces the file");
    }
}

#[tokio::test]
async fn the_mail_waits_in_the_outbox_and_says_so() {
    let platform = Platform::seeded();
    let router = api_gateway_router(&platform.settings).unwrap();
    let answer = done(&router, "generate_volume_stats", monthly()).await;
    done(&router, "generate_volume_stats", monthly()).await;

    assert_eq!(answer["delivery"]["delivered"], false);
    assert!(answer["delivery"]["reason"].as_str().unwrap().contains("no mail server"));
    let mail = fs::read_to_string(answer["delivery"]["outbox"].as_str().unwrap()).unwrap();
    assert!(mail.contains(&format!("name=\"{}\"", answer["report"].as_str().unwrap())), "{mail}");
    assert!(
        mail.contains("Content-Type: application/pdf")
            && mail.contains("To: reports@marketprism.example\r\n")
    );
    assert_eq!(fs::read_dir(platform.path("outbox")).unwrap().count(), 1, "a repeat is not a second mail");
}

#[tokio::test]
async fn a_month_without_trades_has_a_report_that_says_so() {
    let platform = Platform::seeded();
    let router = api_gateway_router(&platform.settings).unwrap();
    let answer =
        done(&router, "generate_volume_stats", json!({"period": "2020-02", "delivery": "none"})).await;
    assert_eq!((&answer["trades"], &answer["total_volume"]), (&json!(0), &json!(0.0)));
    assert_eq!(answer["delivery"]["reason"], "not asked for");
    let pdf = fs::read(answer["report"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8_lossy(&pdf).contains("(There were no trades in this month.)"));
}

#[tokio::test]
async fn the_gateway_refuses_formats_and_recipients_it_cannot_serve() {
    let platform = Platform::seeded();
    let router = api_gateway_router(&platform.settings).unwrap();
    for (parameters, says) in [
        (json!({"format": "xlsx"}), "parameters.format = \"xlsx\": it must be one of pdf"),
        (json!({"period": "last_decade"}), "last_month, this_month"),
        (json!({"breakdown": ["trader"]}), "exchange, symbol, day"),
        (json!({"recipients": ["a@b\r\nBcc: c@d"]}), "mail addresses"),
        (json!({"recipients": []}), "1 to 20"),
    ] {
        let (status, answer) = act(&router, "generate_volume_stats", parameters).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
    }
    assert!(!platform.path("outbox").exists());
}

#[tokio::test]
async fn the_performance_report_has_this_machines_numbers_and_says_what_it_measured() {
    let platform = Platform::seeded();
    let router = monitoring_router(&platform.settings).unwrap();
    let parameters = json!({
        "time_range": "last_24_hours", "metrics": ["cpu", "memory", "disk", "network"],
        "recipients": ["admin@company.com"]
    });
    let answer = done(&router, "generate_performance_report", parameters).await;

    let window = &answer["window"];
    assert_eq!(window["asked_seconds"], 86_400.0);
    assert!(window["measured_seconds"].as_f64().unwrap() < 60.0, "only since this service opened: {window}");
    assert!(window["note"].is_string());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    let metrics = &answer["metrics"];
    assert_eq!(metrics["memory"]["total_bytes"], total * 1024);
    assert!(metrics["memory"]["own_resident_bytes"].as_u64().unwrap() > 0);
    let used = metrics["disk"]["used_percent"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&used) && metrics["disk"]["total_bytes"].as_u64().unwrap() > 0);
    assert!(metrics["cpu"]["cpus"].as_u64().unwrap() > 0 && metrics["cpu"]["load_1m"].is_number());
    assert!(metrics["network"]["received_bytes"].is_u64());

    let text = fs::read_to_string(answer["report"].as_str().unwrap()).unwrap();
    assert_eq!(answer["bytes"], text.len());
    for heading in
        ["# Performance report, 2026-06-30T16:00:00Z", "## cpu", "## memory", "## disk", "## network"]
    {
        assert!(text.contains(heading), "{text}");
    }
    let mail = fs::read_to_string(answer["delivery"]["outbox"].as_str().unwrap()).unwrap();
    assert!(mail.contains("To: admin@company.com\r\n"));
}

#[tokio::test]
async fn readings_outlive_a_restart_and_those_of_another_boot_are_dropped() {
    let platform = Platform::seeded();
    let kept = platform.path("monitoring/readings.jsonl");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let reading = |boot: &str, up_s: f64| {
        json!({"boot": boot.trim(), "up_s": up_s, "cpu": [0, 1], "cpus": 1, "load": [99.0, 0, 0],
            "memory": [1, 1], "disk": [1, 1], "own_bytes": 1, "network": [0, 0]})
        .to_string()
    };
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    let lines = [reading("another", 0.0), reading(&boot, (uptime - 70.0).max(0.0)), "half a li".to_owned()];
    fs::write(&kept, lines.join("\n")).unwrap();

    let router = monitoring_router(&platform.settings).unwrap();
    let answer = done(&router, "generate_performance_report", json!({"time_range": "last_1_hour"})).await;
    assert_eq!(answer["window"]["readings"], 3, "one kept, one of the opening, one of now: {answer}");
    assert_eq!(answer["metrics"]["cpu"]["load_1m_highest_read"], 99.0);
    let (status, _) = send(&router, "GET", "/healthz", Vec::new()).await;
    assert_eq!(status, 200);
}
