//! Connections of strangers to the door for callbacks: so many at once, and for so long. Whoever sends half a request, or
//! nothing, keeps a place for seconds; those that come meanwhile wait until they are taken.

use std::{io::ErrorKind, pin::pin, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header::CONNECTION},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use shared::{
    clock::SharedClock,
    limits::{CALLBACK_CONNECTION_LIFE, CALLBACK_CONNECTIONS_MAX, CALLBACK_HEAD_WAIT, CALLBACK_REQUEST_WAIT},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Before the next connection is taken after one could not be: this process may have no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves whoever connects, for ever.
pub(crate) async fn serve(listener: TcpListener, app: Router, clock: SharedClock) {
    let app = app.layer(from_fn_with_state(clock.clone(), in_time));
    let places = Arc::new(Semaphore::new(CALLBACK_CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (app, clock) = (app.clone(), clock.clone());
                tokio::spawn(async move {
                    converse(stream, app, clock).await;
                    drop(place);
                });
            }
            // Whoever connected has gone again.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "A callback over HTTP could not be taken in: {error}");
                clock.sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Answers the requests of one connection, until it is idle, slow or old.
async fn converse(stream: TcpStream, app: Router, clock: SharedClock) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(CALLBACK_HEAD_WAIT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    // What goes wrong with a connection is its caller's to see.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = clock.sleep(CALLBACK_CONNECTION_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = clock.sleep(CALLBACK_REQUEST_WAIT) => {}
    }
}

/// Gives a request up whose body does not come.
async fn in_time(State(clock): State<SharedClock>, request: Request, next: Next) -> Response {
    tokio::select! {
        answer = next.run(request) => answer,
        () = clock.sleep(CALLBACK_REQUEST_WAIT) => {
            let words = format!("it took longer than {} s; leave it again", CALLBACK_REQUEST_WAIT.as_secs());
            (StatusCode::REQUEST_TIMEOUT, [(CONNECTION, "close")], Json(json!({ "error": words }))).into_response()
        }
    }
}
