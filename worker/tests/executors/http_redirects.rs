//! HTTP: redirects, where a target's declaration allows them.

use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    routing::any,
};
use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tokio_util::sync::CancellationToken;
use worker::executors::{Failure, http::HttpExecutor};

use crate::target::{Service, archive, output, target_with};

/// Answers `/go/<status>?<place>` with a redirect, and everything else with what it was asked.
async fn signpost() -> Service {
    async fn answer(
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, [(header::HeaderName, String); 1], Json<Value>) {
        let said = json!({
            "method": method.as_str(), "path": uri.path(), "body": body.len(),
            "key": headers.contains_key("x-key"), "run": headers.contains_key("cronfleet-run"),
            "type": headers.contains_key("content-type"),
        });
        let status = uri.path().strip_prefix("/go/").and_then(|status| status.parse().ok()).unwrap_or(200);
        let location =
            uri.query().unwrap_or_default().replace("%2F", "/").replace("%3A", ":").replace("to=", "");
        (StatusCode::from_u16(status).expect("a status"), [(header::LOCATION, location)], Json(said))
    }
    Service::with(Router::new().fallback(any(answer))).await
}

async fn ask(base: &str, status: u16, to: &str, redirects: u8) -> Result<Value, Failure> {
    let fields = json!({
        "path": format!("/go/{status}"), "query": {"to": to}, "redirects": redirects, "headers": {"X-Key": "canary"},
    });
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    executor.execute(&archive(), &target_with(base, fields), &CancellationToken::new()).await.map(output)
}

#[tokio::test]
async fn a_redirect_that_is_allowed_is_followed_as_its_status_says() {
    let service = signpost().await;
    for (status, method, keeps_body) in [
        (301, "GET", false),
        (302, "GET", false),
        (303, "GET", false),
        (307, "POST", true),
        (308, "POST", true),
    ] {
        let output = ask(&service.base, status, "/there", 1).await.expect("followed");
        assert_eq!((&output["method"], &output["path"]), (&json!(method), &json!("/there")), "{status}");
        assert_eq!(output["body"].as_u64().is_some_and(|bytes| bytes > 0), keeps_body, "{status}");
        assert_eq!(
            (&output["type"], &output["key"], &output["run"]),
            (&json!(keeps_body), &json!(true), &json!(true))
        );
    }
}

#[tokio::test]
async fn what_is_the_targets_alone_does_not_follow_a_redirect_to_another_place() {
    let (here, there) = (signpost().await, signpost().await);
    let output = ask(&here.base, 307, &format!("{}/there", there.base), 3).await.expect("followed");
    assert_eq!(
        (&output["key"], &output["run"], &output["method"]),
        (&json!(false), &json!(true), &json!("POST"))
    );
}

#[tokio::test]
async fn redirects_that_never_end_or_lead_out_of_http_are_left() {
    let service = signpost().await;
    let failure = ask(&service.base, 307, "/go/307", 3).await.expect_err("too many");
    // It ends at /go/307 without a query, which points nowhere.
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Target, true));
    let round = Service::with(
        Router::new()
            .fallback(any(|| async { (StatusCode::FOUND, [(header::LOCATION, "/again?token=secret")]) })),
    )
    .await;
    let failure = ask(&round.base, 302, "/", 3).await.expect_err("too many");
    assert!(failure.error.message.contains("no more than 3 redirects"), "{}", failure.error.message);
    assert!(!failure.error.message.contains("secret"), "{}", failure.error.message);
    let failure = ask(&service.base, 302, "file:///etc/passwd", 3).await.expect_err("no HTTP");
    assert!(failure.permanent && failure.error.message.contains("not HTTP"), "{}", failure.error.message);
}
