//! HTTP: what a target is sent, and what its answers become.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    routing::{get, post},
};
use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tokio_util::sync::CancellationToken;
use worker::executors::{Attempt, Failure, http::HttpExecutor};

use crate::{
    support::{body, upstream, wait_for},
    target::{Service, archive, output},
};

async fn execute(service: &Service, attempt: &Attempt) -> Result<Value, Failure> {
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    executor.execute(attempt, &service.target(), &CancellationToken::new()).await.map(output)
}

#[tokio::test]
async fn the_target_is_told_which_attempt_of_which_run_this_is() {
    async fn echo(headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
        let headers: serde_json::Map<String, Value> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()))
            .collect();
        Json(json!({ "headers": headers, "body": body }))
    }
    let service = Service::with(Router::new().route("/actions/archive", post(echo))).await;
    let output = execute(&service, &archive()).await.expect("a success");
    for (name, value) in [
        ("idempotency-key", "nightly.20261124T020000Z"),
        ("cronfleet-run", "nightly.20261124T020000Z"),
        ("cronfleet-attempt", "2"),
        ("cronfleet-fence", "4711"),
        ("cronfleet-slot", "2026-11-24T02:00:00Z"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("content-type", "application/json"),
        ("user-agent", concat!("cronfleet/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(output["headers"][name], value, "{name}");
    }
    assert_eq!(output["body"], body(&archive()));
    assert_eq!(output["body"]["parameters"], json!({"batch_size": 10_000}));
}

#[tokio::test]
async fn the_target_is_told_how_the_run_ended_that_its_run_follows() {
    async fn echo(headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = [header("cronfleet-upstream-run"), header("cronfleet-upstream-status")];
        Json(json!({ "headers": said, "upstream": body["upstream"] }))
    }
    let service = Service::with(Router::new().route("/actions/archive", post(echo))).await;
    let attempt = Attempt { upstream: Some(upstream(json!({"rows": 3}))), ..archive() };
    let output = execute(&service, &attempt).await.expect("a success");
    assert_eq!(output["headers"], json!(["load.20261124T010000Z", "SUCCESS"]));
    assert_eq!(
        output["upstream"],
        json!({"run": "load.20261124T010000Z", "status": "SUCCESS", "ended_at": "2026-11-24T01:00:09Z", "output": {"rows": 3}})
    );
}

#[tokio::test]
async fn an_ad_hoc_run_has_no_slot_and_a_broken_trace_context_is_left_out() {
    async fn names(headers: HeaderMap) -> Json<Vec<String>> {
        Json(headers.keys().map(ToString::to_string).collect())
    }
    let service = Service::with(Router::new().route("/actions/archive", post(names))).await;
    let attempt = Attempt { slot: None, traceparent: Some("00\r\nCookie: x".to_owned()), ..archive() };
    let output = execute(&service, &attempt).await.expect("a success").to_string();
    assert!(output.contains("cronfleet-run"));
    for absent in ["cronfleet-slot", "traceparent", "cookie"] {
        assert!(!output.contains(absent), "{absent}: {output}");
    }
}

#[tokio::test]
async fn an_answer_becomes_the_output_whatever_it_calls_itself() {
    for (content_type, body, output) in [
        ("application/json", r#"{"rows":3}"#, json!({"rows": 3})),
        ("text/plain", r#"{"rows":3}"#, json!({"rows": 3})),
        ("application/json", "archived 3 rows", json!({"text": "archived 3 rows"})),
        ("text/plain", "", Value::Null),
    ] {
        let answer = move || async move { ([(header::CONTENT_TYPE, content_type)], body) };
        let service = Service::with(Router::new().route("/actions/archive", post(answer))).await;
        assert_eq!(execute(&service, &archive()).await, Ok(output), "{content_type} {body}");
    }
    let bytes = || async { Bytes::from_static(b"\xff\xfe") };
    let service = Service::with(Router::new().route("/actions/archive", post(bytes))).await;
    assert_eq!(execute(&service, &archive()).await, Ok(json!({"text": "\u{fffd}\u{fffd}"})));
    let nothing = || async { StatusCode::NO_CONTENT };
    let service = Service::with(Router::new().route("/actions/archive", post(nothing))).await;
    assert_eq!(execute(&service, &archive()).await, Ok(Value::Null));
}

#[tokio::test]
async fn a_target_that_never_answers_is_left_when_the_attempt_is_stopped() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (arrived, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (arriving, going) = (Arc::clone(&arrived), Arc::clone(&gone));
    let hang = move || async move {
        let _gone = Gone(going);
        arriving.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    };
    let service = Service::with(Router::new().route("/actions/archive", post(hang))).await;
    let (target, stop) = (service.target(), CancellationToken::new());
    let stopping = stop.clone();
    let executing = tokio::spawn(async move {
        HttpExecutor::new(SystemClock::shared())
            .expect("a client")
            .execute(&archive(), &target, &stopping)
            .await
    });
    wait_for("the request", || arrived.load(Ordering::SeqCst).then_some(())).await;
    stop.cancel();
    let failure = executing.await.expect("no panic").expect_err("a failure");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Timeout, false));
    assert!(failure.error.message.contains("stopped"), "{}", failure.error.message);
    wait_for("the target to see its caller go", || gone.load(Ordering::SeqCst).then_some(())).await;
}

#[tokio::test]
async fn one_attempt_is_one_request_and_a_redirect_is_not_followed() {
    let followed = Arc::new(AtomicU32::new(0));
    let following = Arc::clone(&followed);
    let elsewhere = move || async move {
        following.fetch_add(1, Ordering::SeqCst);
    };
    let there =
        || async { (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere?token=secret")]) };
    let routes = Router::new()
        .route("/actions/archive", post(there))
        .route("/elsewhere", get(elsewhere.clone()).post(elsewhere));
    let service = Service::with(routes).await;
    let failure = execute(&service, &archive()).await.expect_err("a failure");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Target, true));
    let message = &failure.error.message;
    assert!(message.contains("307") && message.contains("/elsewhere;"), "{message}");
    assert!(!message.contains("secret"), "{message}");
    assert_eq!(followed.load(Ordering::SeqCst), 0);
}
