//! What is the same for every HTTP service.

use marketprism::{api_gateway_router, data_storage_router, monitoring_router};
use serde_json::json;

use crate::platform::{Platform, act, send};

#[tokio::test]
async fn every_service_is_healthy_and_knows_what_it_does_not_do() {
    let platform = Platform::seeded();
    for (router, name) in [
        (data_storage_router(&platform.settings).unwrap(), "data-storage-service"),
        (monitoring_router(&platform.settings).unwrap(), "monitoring-service"),
        (api_gateway_router(&platform.settings).unwrap(), "api-gateway-service"),
    ] {
        let (status, answer) = send(&router, "GET", "/healthz", Vec::new()).await;
        assert_eq!((status.as_u16(), answer), (200, json!({"status": "ok", "service": name})));
        let (status, answer) = act(&router, "make_coffee", json!({})).await;
        assert_eq!(status, 404);
        assert!(answer["error"].as_str().unwrap().contains("make_coffee"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_json() {
    let platform = Platform::seeded();
    let router = data_storage_router(&platform.settings).unwrap();
    let too_large = format!("{{\"parameters\": {{}}, \"filler\": \"{}\"}}", "x".repeat(1024 * 1024));
    for (method, path, body, status, says) in [
        ("POST", "/actions/archive_hot_data", "{\"parameters\":", 400, "not JSON"),
        ("POST", "/actions/archive_hot_data", "\"text\"", 400, "JSON object"),
        ("POST", "/actions/archive_hot_data", &too_large, 413, "1048576 bytes"),
        ("GET", "/actions/archive_hot_data", "", 405, "does not take GET"),
        ("GET", "/", "", 404, "nothing at /"),
    ] {
        let (answered, answer) = send(&router, method, path, body.as_bytes().to_vec()).await;
        assert_eq!(answered, status, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
    }
}
