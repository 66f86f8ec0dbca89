//! A seeded platform in a folder of its own, at a fixed time.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use chrono::{DateTime, Utc};
use marketprism::{SeedReport, Settings, seed_if_empty};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// The 1st of July, 00:00 in Shanghai: when the monthly report is due. In UTC it is still June.
pub(crate) const NOW: &str = "2026-06-30T16:00:00Z";

pub(crate) struct Platform {
    pub(crate) settings: Settings,
    pub(crate) seeded: SeedReport,
    folder: TempDir,
}

impl Platform {
    pub(crate) fn seeded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings_in(folder.path().to_owned(), NOW);
        let seeded = seed_if_empty(&settings).unwrap();
        Self { settings, seeded, folder }
    }

    /// The same folder at another time.
    pub(crate) fn at(&self, now: &str) -> Settings {
        settings_in(self.folder.path().to_owned(), now)
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.settings.now)()
    }

    /// A connection of our own to `hot` (as main), with `cold` attached.
    pub(crate) fn sql(&self) -> Connection {
        let connection = Connection::open(self.path("hot.sqlite3")).unwrap();
        let cold = self.path("cold.sqlite3");
        connection.execute("ATTACH DATABASE ?1 AS cold", [cold.to_str().unwrap()]).unwrap();
        connection
    }

    pub(crate) fn number(&self, query: &str) -> i64 {
        self.sql().query_row(query, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    pub(crate) fn real(&self, query: &str) -> f64 {
        self.sql().query_row(query, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

fn settings_in(data_dir: PathBuf, now: &str) -> Settings {
    let now: DateTime<Utc> = now.parse().unwrap();
    Settings { data_dir, seed: 42, now: Arc::new(move || now) }
}

/// What a worker sends.
pub(crate) fn request_body(action: &str, parameters: &Value) -> Vec<u8> {
    let body = json!({
        "task_name": "test", "target_service": "any", "action": action, "parameters": parameters,
        "run": "test.1767225600", "attempt": 1, "something_new": {"is": "ignored"},
    });
    body.to_string().into_bytes()
}

pub(crate) async fn act(router: &Router, action: &str, parameters: Value) -> (StatusCode, Value) {
    send(router, "POST", &format!("/actions/{action}"), request_body(action, &parameters)).await
}

/// An action that succeeds.
pub(crate) async fn done(router: &Router, action: &str, parameters: Value) -> Value {
    let (status, answer) = act(router, action, parameters).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

pub(crate) async fn send(router: &Router, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 16 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("not JSON: {}", body.escape_ascii())))
}
