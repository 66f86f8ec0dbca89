//! `/livez` and `/readyz`: whether the process works, and whether it can do what it is for.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use crate::api::{kinds, problem::Problem, state::Api};

/// How long NATS may take to answer while the console counts as ready.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

pub(super) fn routes(api: Arc<Api>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(api)
}

/// It answers, so it lives.
async fn livez() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Ready once NATS answers and what is listed is known; otherwise what it waits for.
async fn readyz(State(api): State<Arc<Api>>) -> axum::response::Response {
    use axum::response::IntoResponse;
    let mut waits = Vec::new();
    if api.streams.is_connected() {
        let catalog = api.streams.catalog();
        // A probe does not wait as long as a request of ours may.
        tokio::select! {
            read = catalog.queues() => waits.extend(read.err().map(|error| error.to_string())),
            () = api.clock().sleep(ANSWER_WAIT) => {
                waits.push(format!("NATS has not answered within {} s", ANSWER_WAIT.as_secs()));
            }
        }
    } else {
        waits.push("NATS is not connected".to_owned());
    }
    waits.extend(api.book.waits_for());
    waits.extend(api.runs_wait_for());
    if waits.is_empty() {
        return (StatusCode::OK, Json(json!({ "status": "ok" }))).into_response();
    }
    Problem::new(&kinds::NOT_READY, waits.join("; ")).response()
}
