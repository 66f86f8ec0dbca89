//! HTTP: requests as their target declares them, and what that makes of answers.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    routing::{any, post},
};
use serde_json::{Value, json};
use shared::{clock::SystemClock, limits, run_record::ErrorKind};
use tokio_util::sync::CancellationToken;
use worker::executors::{Attempt, Failure, http::HttpExecutor};

use crate::{
    support::attempt,
    target::{Service, archive, output, target_with},
};

async fn execute(base: &str, fields: Value, attempt: &Attempt) -> Result<Value, Failure> {
    execute_with(&HttpExecutor::new(SystemClock::shared()).expect("a client"), base, fields, attempt).await
}

async fn execute_with(
    executor: &HttpExecutor,
    base: &str,
    fields: Value,
    attempt: &Attempt,
) -> Result<Value, Failure> {
    executor.execute(attempt, &target_with(base, fields), &CancellationToken::new()).await.map(output)
}

/// A service that answers with what it was asked.
async fn mirror() -> Service {
    async fn tell(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
        let header = |name: &str| {
            headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let names = ["content-type", "x-team", "x-key", "cronfleet-run"];
        let headers: Value =
            names.iter().filter_map(|name| Some(((*name).to_owned(), Value::from(header(name)?)))).collect();
        Json(json!({
            "method": method.as_str(), "uri": uri.to_string(), "headers": headers,
            "body": String::from_utf8_lossy(&body),
        }))
    }
    Service::with(Router::new().fallback(tell)).await
}

fn parametrised(parameters: Value) -> Attempt {
    let mut task = json!({"target_service": "storage", "action": "archive"});
    task["parameters"] = parameters;
    attempt(task)
}

#[tokio::test]
async fn a_request_is_made_as_its_target_and_action_declare() {
    let service = mirror().await;
    let fields = json!({
        "method": "PUT",
        "path": "/tables/{parameters.table}/{action}",
        "query": {"run": "{run}", "q": "{parameters.text}"},
        "body": "parameters",
        "actions": {"archive": {"method": "DELETE", "query": {"day": "{slot}"}}},
    });
    let attempt = parametrised(json!({"table": "a b/../c", "text": "1&2=3 +#"}));
    let output = execute(&service.base, fields, &attempt).await.expect("a success");
    assert_eq!(output["method"], "DELETE");
    assert_eq!(
        output["uri"],
        "/tables/a%20b%2F..%2Fc/archive?day=2026-11-24T02%3A00%3A00Z&q=1%262%3D3%20%2B%23&run=nightly.20261124T020000Z"
    );
    assert_eq!(output["body"], r#"{"table":"a b/../c","text":"1&2=3 +#"}"#);
    assert_eq!(output["headers"]["content-type"], "application/json");
    let bare = execute(&service.base, json!({"method": "GET"}), &attempt).await.expect("a success");
    assert_eq!((&bare["uri"], &bare["body"]), (&json!("/actions/archive"), &json!("")));
    assert_eq!(bare["headers"], json!({"cronfleet-run": "nightly.20261124T020000Z"}), "no body, no type");
}

#[tokio::test]
async fn a_place_that_the_run_does_not_fill_ends_it_before_anything_is_sent() {
    let service = mirror().await;
    let long = "x".repeat(limits::URL_BYTES_MAX);
    for (fields, parameters, part) in [
        (json!({"path": "/{parameters.day}"}), json!({}), "{parameters.day} has no value"),
        (json!({"path": "/{parameters.day}"}), json!({"day": ".."}), "another place"),
        (json!({"query": {"d": "{parameters.day}"}}), json!({"day": [1]}), "is a list"),
        (json!({"query": {"d": "{parameters.day}"}}), json!({"day": long}), "hand the data over in the body"),
        (json!({"max_request_bytes": 10}), json!({}), "takes at most 10"),
    ] {
        let failure = execute(&service.base, fields, &parametrised(parameters)).await.expect_err(part);
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Request, true), "{part}");
        assert!(failure.error.message.contains(part), "{part}: {}", failure.error.message);
    }
    let ad_hoc = Attempt { slot: None, ..archive() };
    let failure = execute(&service.base, json!({"path": "/{slot}"}), &ad_hoc).await.expect_err("no slot");
    assert!(failure.error.message.contains("only planned runs have a slot"), "{}", failure.error.message);
}

#[tokio::test]
async fn a_secret_reaches_its_target_and_no_record() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "s3cret-canary\n").expect("written");
    let executor = HttpExecutor::new(SystemClock::shared())
        .expect("a client")
        .with_secrets(folder.path().to_path_buf().into());
    let echo = |headers: HeaderMap| async move {
        let key = headers.get("x-key").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let status = if headers.contains_key("x-fail") { StatusCode::FORBIDDEN } else { StatusCode::OK };
        (status, Json(json!({"length": key.len(), "seen": key})))
    };
    let service = Service::with(Router::new().fallback(any(echo))).await;
    let secret = json!({"file": "key", "prefix": "Token "});
    let output =
        execute_with(&executor, &service.base, json!({"headers": {"X-Key": secret}}), &archive()).await;
    assert_eq!(output, Ok(json!({"length": 19, "seen": "Token ***"})));
    let fields = json!({"headers": {"X-Key": secret, "X-Fail": "1"}});
    let failure = execute_with(&executor, &service.base, fields, &archive()).await.expect_err("forbidden");
    assert!(failure.error.message.contains("403") && failure.error.message.contains("Token ***"));
    assert!(!failure.error.message.contains("canary"), "{}", failure.error.message);
    for (secret, part) in [
        (json!({"file": "other"}), "put it there, or name the folder with --secrets"),
        (json!({"env": "CRONFLEET_SECRET_NOBODY"}), "no variable CRONFLEET_SECRET_NOBODY"),
    ] {
        let fields = json!({"headers": {"X-Key": secret}});
        let failure = execute_with(&executor, &service.base, fields, &archive()).await.expect_err(part);
        assert_eq!(
            (failure.error.kind, failure.permanent),
            (ErrorKind::Request, false),
            "another worker may have it"
        );
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
}

#[tokio::test]
async fn statuses_mean_what_the_target_declares() {
    let answer = |uri: Uri| async move {
        let status = uri.path().rsplit('/').next().and_then(|status| status.parse().ok()).unwrap_or(500);
        (StatusCode::from_u16(status).expect("a status"), [(header::RETRY_AFTER, "7")], "3")
    };
    let service = Service::with(Router::new().fallback(any(answer))).await;
    let ends = async |status: u16| {
        let fields = json!({
            "path": "/{parameters.status}", "success": [200, 404, "3xx"], "permanent": [503], "retryable": [409, 202],
        });
        let result = execute(&service.base, fields, &parametrised(json!({"status": status}))).await;
        result.map_err(|failure| (failure.permanent, failure.retry_after.map(|wait| wait.as_secs())))
    };
    for status in [200, 404] {
        assert_eq!(ends(status).await, Ok(json!(3)), "{status}");
    }
    assert_eq!(ends(304).await, Ok(Value::Null));
    for (status, failure) in [
        (202, (false, Some(7))),
        (409, (false, Some(7))),
        (503, (true, None)),
        (500, (false, Some(7))),
        (400, (true, None)),
    ] {
        assert_eq!(ends(status).await, Err(failure), "{status}");
    }
}

#[tokio::test]
async fn a_target_has_a_timeout_of_its_own() {
    let service = Service::with(Router::new().fallback(any(std::future::pending::<()>))).await;
    let failure = execute(&service.base, json!({"timeout": "50ms"}), &archive()).await.expect_err("too slow");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Timeout, false));
    assert!(failure.error.message.contains("within 50ms"), "{}", failure.error.message);
}

#[tokio::test]
async fn an_answer_is_unpacked_and_bounded_by_what_it_is_then() {
    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("packed");
        encoder.finish().expect("packed")
    }
    let bomb = packed(&vec![b' '; 200 * 1024 * 1024]);
    assert!(bomb.len() < limits::RESPONSE_BYTES_MAX, "it looks harmless: {}", bomb.len());
    let answers =
        [("/good", packed(br#"{"rows":3}"#)), ("/bomb", bomb), ("/broken", b"\x1f\x8b no gzip".to_vec())];
    let routes = answers.into_iter().fold(Router::new(), |routes, (path, body)| {
        let body = Bytes::from(body);
        routes.route(path, post(move || async move { ([(header::CONTENT_ENCODING, "gzip")], body) }))
    });
    let service = Service::with(routes).await;
    let answer = async |path: &str| execute(&service.base, json!({ "path": path }), &archive()).await;
    assert_eq!(answer("/good").await, Ok(json!({"rows": 3})));
    let failure = answer("/bomb").await.expect_err("too large");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::ResponseTooLarge, true));
    let failure = answer("/broken").await.expect_err("no gzip");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Unreachable, false));
    let failure = execute(&service.base, json!({"path": "/good", "max_response_bytes": 9}), &archive())
        .await
        .expect_err("too large");
    assert!(failure.error.message.contains("more than 9 bytes"), "{}", failure.error.message);
}

#[tokio::test]
async fn connections_are_used_again_also_those_of_a_target_with_settings_of_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    let serving = tokio::spawn(async move {
        let app = Router::new().fallback(any(|_: Request| async { "3" }));
        let counting = axum::serve::ListenerExt::tap_io(listener, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        axum::serve(counting, app).await.expect("serves");
    });
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    for fields in [json!({}), json!({"connect_timeout": "1s"})] {
        let before = connections.load(Ordering::SeqCst);
        for _ in 0..5 {
            assert_eq!(execute_with(&executor, &base, fields.clone(), &archive()).await, Ok(json!(3)));
        }
        assert_eq!(connections.load(Ordering::SeqCst), before + 1, "{fields}");
    }
    serving.abort();
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_when_the_target_says() {
    // Nobody routes this address (RFC 5737); where a machine refuses it at once, that is as good.
    let fields = json!({"connect_timeout": "100ms", "timeout": "20s"});
    let failure = execute("http://192.0.2.1:81", fields, &archive()).await.expect_err("nobody");
    assert_eq!(failure.error.kind, ErrorKind::Unreachable, "{}", failure.error.message);
}
