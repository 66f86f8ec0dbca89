//! Where targets leave their answers over HTTP, for those that do not speak NATS. Whichever worker takes one in only keeps it: the
//! stream has it then, and the run ends as if it had come over NATS.
//!
//! Only who knows an attempt's token is answered with more than 404. There is no other lock on this door, so it is closed unless a
//! worker is told to open it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    routing::post,
};
use serde_json::{Value, json};
use shared::{
    callback::Callback,
    limits::{CALLBACK_BYTES_MAX, CALLBACKS_AT_ONCE_MAX},
    run::RunId,
    run_record::RunRecord,
    run_state::RunState,
};
use streams::Streams;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{WorkerError, connections};

/// An answer may be faster than the record that it is awaited: looks, and the time between two of them.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Door {
    streams: Streams,
    places: Arc<Semaphore>,
}

type Answer = (StatusCode, Json<Value>);

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address).await.map_err(|source| WorkerError::Listen { address, source })
}

/// Takes answers in until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, streams: Streams, stop: CancellationToken) {
    let clock = streams.clock().clone();
    let door = Door { streams, places: Arc::new(Semaphore::new(CALLBACKS_AT_ONCE_MAX)) };
    let app = Router::new()
        .route("/callbacks/{name}/{key}/{token}", post(take_in))
        .layer(DefaultBodyLimit::max(CALLBACK_BYTES_MAX))
        .with_state(door);
    tokio::select! {
        () = stop.cancelled() => {}
        () = connections::serve(listener, app, clock) => {}
    }
}

async fn take_in(
    State(door): State<Door>,
    Path((name, key, token)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    let Ok(_place) = door.places.try_acquire() else {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many answers at once; leave it again in a moment",
        );
    };
    let Ok(run) = format!("{name}.{key}").parse::<RunId>() else { return unknown() };
    let record = match door.awaiting(&run, &token).await {
        Ok(Some(record)) => record,
        Ok(None) => return unknown(),
        Err(answer) => return answer,
    };
    if record.awaits().is_none() {
        let words = format!("the attempt is over and the run is {}; nothing was changed", record.status);
        return refused(StatusCode::CONFLICT, &words);
    }
    let status = match Callback::read(&body) {
        Ok(callback) => callback.status(),
        Err(words) => return refused(StatusCode::BAD_REQUEST, &words),
    };
    match door.streams.leave(&run, &token, status, body).await {
        Ok(_) => (StatusCode::ACCEPTED, Json(json!({ "run": run, "status": status }))),
        Err(error) => {
            tracing::warn!(run.id = %run, %error, "An answer for `{run}` could not be kept: {error}");
            refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "it could not be kept just now; leave it again in a moment",
            )
        }
    }
}

impl Door {
    /// The record of a run of which this is a token; nothing if it is not, or not any more.
    async fn awaiting(&self, run: &RunId, token: &str) -> Result<Option<RunRecord>, Answer> {
        for _ in 0..LOOKS {
            let found = self.streams.ledger().get(run).await.map_err(|error| {
                tracing::warn!(run.id = %run, %error, "The record of `{run}` cannot be read: {error}");
                refused(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the run cannot be looked up just now; leave it again in a moment",
                )
            })?;
            let Some(record) = found.map(|found| found.value) else { return Ok(None) };
            match &record.callback {
                Some(awaited) if awaited.is_answered_under(token) => return Ok(Some(record)),
                None if record.status == RunState::Running => {}
                _ => return Ok(None),
            }
            self.streams.clock().sleep(BETWEEN_LOOKS).await;
        }
        Ok(None)
    }
}

fn refused(status: StatusCode, words: &str) -> Answer {
    (status, Json(json!({ "error": words })))
}

fn unknown() -> Answer {
    refused(StatusCode::NOT_FOUND, "no attempt waits for an answer here")
}
