//! Targets that are real: axum on a port of its own.

use axum::Router;
use serde_json::json;
use shared::target::Target;
use tokio::{net::TcpListener, task::JoinHandle};
use worker::executors::{Attempt, Done};

use crate::support::attempt;

/// A service; it is gone when this is dropped.
pub(crate) struct Service {
    pub base: String,
    serving: JoinHandle<()>,
}

impl Service {
    /// Serves these routes on a free port.
    pub(crate) async fn with(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Self { base, serving }
    }

    /// The target as it would be declared, with a health check.
    pub(crate) fn target(&self) -> Target {
        target(&self.base)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A target at this base URL.
pub(crate) fn target(base: &str) -> Target {
    serde_json::from_value(json!({ "http": base, "health": "/healthz" })).expect("a target")
}

/// A target at this base URL, with more fields.
pub(crate) fn target_with(base: &str, fields: serde_json::Value) -> Target {
    let mut written = json!({ "http": base });
    if let serde_json::Value::Object(fields) = fields {
        for (name, value) in fields {
            written[name] = value;
        }
    }
    serde_json::from_value(written).expect("a target")
}

/// An attempt at the action `archive`.
pub(crate) fn archive() -> Attempt {
    attempt(json!({
        "target_service": "storage", "action": "archive", "task_name": "daily_archive",
        "parameters": { "batch_size": 10_000 },
    }))
}

/// A port on which nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// The output of an attempt that is done.
pub(crate) fn output(done: Done) -> serde_json::Value {
    done.output().expect("an output")
}
