//! HTTP: what goes wrong, and whether another attempt would mend it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::post,
};
use chrono::TimeDelta;
use futures::StreamExt as _;
use shared::{
    clock::{Clock as _, SystemClock},
    limits,
    run_record::ErrorKind,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use worker::executors::{Failure, http::HttpExecutor};

use crate::target::{Service, archive, nobody, output, target};

async fn failure_at(base: &str) -> Failure {
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    let stop = CancellationToken::new();
    executor.execute(&archive(), &target(base), &stop).await.expect_err("a failure")
}

async fn answering(status: u16, headers: HeaderMap, body: &'static str) -> Failure {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = move || async move { (status, headers, body) };
    let service = Service::with(Router::new().route("/actions/archive", post(answer))).await;
    failure_at(&service.base).await
}

#[tokio::test]
async fn what_the_target_calls_our_fault_is_permanent_and_the_rest_is_tried_again() {
    for (status, permanent) in [
        (400, true),
        (404, true),
        (422, true),
        (408, false),
        (425, false),
        (429, false),
        (500, false),
        (503, false),
    ] {
        let failure = answering(status, HeaderMap::new(), "disk \u{1b}[31mfull\n").await;
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Target, permanent), "{status}");
        let message = &failure.error.message;
        assert!(message.contains(&format!("/actions/archive answered {status}: disk [31mfull")), "{message}");
    }
}

#[tokio::test]
async fn a_target_that_asks_to_be_left_alone_is_obeyed_within_reason() {
    async fn asking(status: u16, wait: &str) -> Option<Duration> {
        let headers =
            HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(wait).expect("a value"))]);
        answering(status, headers, "").await.retry_after
    }
    assert_eq!(asking(429, "120").await, Some(Duration::from_mins(2)));
    assert_eq!(asking(503, "7").await, Some(Duration::from_secs(7)));
    assert_eq!(asking(429, "99999999999999999999").await, Some(limits::BACKOFF_MAX));
    for garbage in ["soon", "-1", ""] {
        assert_eq!(asking(429, garbage).await, None, "{garbage:?}");
    }
    assert_eq!(asking(404, "120").await, None, "nobody comes back");
    let date = (SystemClock.now() + TimeDelta::seconds(600)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let wait = asking(503, &date).await.expect("a wait");
    assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn an_error_is_quoted_up_to_a_point_and_its_body_is_not_waited_for() {
    let long: &'static str = Box::leak("é".repeat(100_000).into_boxed_str());
    let failure = answering(500, HeaderMap::new(), long).await;
    assert_eq!(failure.error.message.matches('é').count(), 500);
    let hang = || async {
        let beginning = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"no such table"))]);
        (StatusCode::NOT_FOUND, Body::from_stream(beginning.chain(futures::stream::pending())))
    };
    let service = Service::with(Router::new().route("/actions/archive", post(hang))).await;
    let failure = failure_at(&service.base).await;
    assert!(
        failure.permanent && failure.error.message.contains("404: no such table"),
        "{}",
        failure.error.message
    );
}

#[tokio::test]
async fn an_answer_without_end_is_left_at_the_bound() {
    const CHUNK: &[u8] = &[b'x'; 16 * 1024];
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = Arc::clone(&sent);
    let endless = move || async move {
        Body::from_stream(futures::stream::repeat_with(move || {
            sending.fetch_add(CHUNK.len(), Ordering::SeqCst);
            Ok::<_, Infallible>(Bytes::from_static(CHUNK))
        }))
    };
    let service = Service::with(Router::new().route("/actions/archive", post(endless))).await;
    let failure = failure_at(&service.base).await;
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::ResponseTooLarge, true));
    assert!(failure.error.message.contains("reference"), "{}", failure.error.message);
    // What was read, and what the kernel's buffers on both sides hold.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < limits::RESPONSE_BYTES_MAX + 16 * 1024 * 1024, "{sent} bytes were taken");
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_not_read_and_one_at_the_bound_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let _ = connection.read(&mut [0; 1024]).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";
        connection.write_all(head).await.expect("sent");
        // Sends nothing more: who wanted to read it would wait for ever.
        let _ = connection.read(&mut [0; 1024]).await;
        std::future::pending::<()>().await;
    });
    assert_eq!(failure_at(&base).await.error.kind, ErrorKind::ResponseTooLarge);
    serving.abort();
    let full = || async { "1".repeat(limits::RESPONSE_BYTES_MAX) };
    let service = Service::with(Router::new().route("/actions/archive", post(full))).await;
    let executor = HttpExecutor::new(SystemClock::shared()).expect("a client");
    let output = executor
        .execute(&archive(), &service.target(), &CancellationToken::new())
        .await
        .map(output)
        .expect("a success");
    assert_eq!(output["text"].as_str().map(str::len), Some(limits::RESPONSE_BYTES_MAX));
}

#[tokio::test]
async fn a_target_that_is_not_there_may_come_back() {
    for base in [nobody().await, "http://nowhere.invalid".to_owned()] {
        let failure = failure_at(&base).await;
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Unreachable, false), "{base}");
        assert!(failure.error.message.contains(&base), "{}", failure.error.message);
    }
}

#[tokio::test]
async fn a_target_without_the_tls_it_promised_is_not_spoken_to_in_the_clear() {
    let service = Service::with(Router::new()).await;
    let failure = failure_at(&service.base.replace("http://", "https://")).await;
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Unreachable, false));
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_attempt_to_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rows\""] {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let _ = connection.read(&mut [0; 1024]).await;
            connection.write_all(answer).await.expect("sent");
        }
    });
    for _ in 0..2 {
        let failure = failure_at(&base).await;
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Unreachable, false));
        assert!(failure.error.message.contains("may have acted"), "{}", failure.error.message);
    }
    serving.await.expect("no panic");
}

#[tokio::test]
async fn a_place_that_is_no_url_is_not_tried_again() {
    let failure = failure_at("http://[half").await;
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::UnknownTarget, true));
}
