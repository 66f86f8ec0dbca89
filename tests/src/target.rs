//! A real HTTP service that does as a spec tells it, and writes down itself what it was asked: a spec never takes the
//! fleet's own word for how often something ran.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;

/// What an action does. The action's name says it: `ok`, `echo`, `later`, `taken_slowly`, `fail`, `refuse`, `hang`, `endless`, `slow`, `flaky`,
/// `third_time`, `slow_after_a_failure`.
#[derive(Debug, Clone)]
pub struct Call {
    /// The action.
    pub action: String,
    /// The run.
    pub run: String,
    /// The attempt, as the body says.
    pub attempt: u64,
    /// The fencing number.
    pub fence: u64,
    /// The headers it came with, lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Value,
    /// When it came, in milliseconds of the wall clock.
    pub began_ms: i64,
    /// When it was answered; none if it was dropped before.
    pub ended_ms: Option<i64>,
    /// When its caller went away before it was answered.
    pub dropped_ms: Option<i64>,
}

/// A service with its memory. It serves on a thread of its own, so that it answers while a spec waits for a command.
pub struct TargetService {
    address: String,
    calls: Calls,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

/// A connection that its caller closed is noticed this much later on a busy machine.
const DROP_NOTICED_MS: i64 = 250;

type Calls = Arc<Mutex<Vec<Call>>>;

impl TargetService {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let calls = Calls::default();
        let app = Router::new()
            .route("/actions/{action}", post(act))
            .route("/healthz", get(|| async { "fine" }))
            .with_state(Arc::clone(&calls));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let stop = CancellationToken::new();
        let until = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    served = axum::serve(listener, app) => served.expect("it serves"),
                    () = until.cancelled() => {}
                }
            });
        });
        Self { address, calls, stop, server: Some(server) }
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("calls").clone()
    }

    /// The most calls that it was busy with at one moment, by its own clock, of those that are meant.
    pub fn most_at_once(&self, is_meant: impl Fn(&Call) -> bool) -> usize {
        let mut moments = Vec::new();
        for call in self.calls().into_iter().filter(is_meant) {
            let dropped = call.dropped_ms.map(|dropped| (dropped - DROP_NOTICED_MS).max(call.began_ms));
            moments.push((call.began_ms, 1));
            // What ends and what begins in the same millisecond do not overlap.
            moments.extend(call.ended_ms.or(dropped).map(|over| (over, -1)));
        }
        moments.sort_unstable();
        let (mut now, mut most) = (0_isize, 0);
        for (_, change) in moments {
            now += change;
            most = most.max(now);
        }
        most.unsigned_abs()
    }

    /// No two calls that these runs made overlapped, by this service's own clock.
    pub fn assert_never_two_at_once(&self, name: &str) {
        let mut calls = self.calls();
        calls.retain(|call| call.run.starts_with(&format!("{name}.")));
        calls.sort_by_key(|call| call.began_ms);
        for pair in calls.windows(2) {
            let dropped = pair[0].dropped_ms.map(|dropped| dropped - DROP_NOTICED_MS);
            let over = pair[0].ended_ms.or(dropped).expect("an end before the next begins");
            assert!(over <= pair[1].began_ms, "{} overlaps {}", pair[0].run, pair[1].run);
        }
    }

    /// What it was asked for one run.
    pub fn calls_of(&self, run: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.run == run).collect()
    }
}

impl Drop for TargetService {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

async fn act(
    State(calls): State<Calls>,
    Path(action): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let number = |name: &str| body[name].as_u64().unwrap_or_default();
    let call = Call {
        run: body["run"].as_str().unwrap_or_default().to_owned(),
        attempt: number("attempt"),
        fence: number("fence"),
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: body.clone(),
        began_ms: SystemClock.now().timestamp_millis(),
        ended_ms: None,
        dropped_ms: None,
        action: action.clone(),
    };
    let (place, before) = {
        let mut calls = calls.lock().expect("calls");
        let before = calls.iter().filter(|other| other.run == call.run).count();
        calls.push(call);
        (calls.len() - 1, before)
    };
    let mut presence = Presence { calls, place, is_answered: false };
    let answer = answer(&action, &body, before).await;
    presence.is_answered = true;
    answer
}

/// Notes when a call is over: answered, or dropped by a caller that went away.
struct Presence {
    calls: Calls,
    place: usize,
    is_answered: bool,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let now = SystemClock.now().timestamp_millis();
        let mut calls = self.calls.lock().expect("calls");
        let call = &mut calls[self.place];
        if self.is_answered { call.ended_ms = Some(now) } else { call.dropped_ms = Some(now) }
    }
}

async fn answer(action: &str, body: &Value, calls_before: usize) -> Response {
    let milliseconds = || Duration::from_millis(body["parameters"]["ms"].as_u64().unwrap_or(1_000));
    match action {
        "echo" => Json(body.clone()).into_response(),
        "later" => (StatusCode::ACCEPTED, "at work").into_response(),
        "taken_slowly" => {
            SystemClock.sleep(milliseconds()).await;
            (StatusCode::ACCEPTED, "at work").into_response()
        }
        "fail" => (StatusCode::INTERNAL_SERVER_ERROR, "it broke").into_response(),
        "refuse" => (StatusCode::UNPROCESSABLE_ENTITY, "not like this").into_response(),
        "flaky" if calls_before == 0 => (StatusCode::SERVICE_UNAVAILABLE, "not yet").into_response(),
        "slow_after_a_failure" if calls_before == 0 => {
            (StatusCode::SERVICE_UNAVAILABLE, "not yet").into_response()
        }
        "third_time" if body["attempt"].as_u64() < Some(3) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not yet").into_response()
        }
        "hang" => std::future::pending::<Response>().await,
        "endless" => {
            let piece = || Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024]);
            let body = futures::stream::repeat_with(piece);
            axum::body::Body::from_stream(body).into_response()
        }
        "nested" => {
            let levels = body["parameters"]["levels"].as_u64().unwrap_or(1) as usize;
            format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_response()
        }
        "slow" | "slow_after_a_failure" => {
            SystemClock.sleep(milliseconds()).await;
            Json(json!({"slept": true})).into_response()
        }
        _ => Json(json!({"ok": true})).into_response(),
    }
}
