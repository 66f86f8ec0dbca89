//! Connections, bounded in number and in time. axum's own server bounds neither, nor the time a request's head may take.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use shared::{
    clock::SharedClock,
    limits::{
        CONSOLE_CONNECTIONS_MAX, CONSOLE_HEAD_WAIT, CONSOLE_HEADERS_BYTES_MAX, CONSOLE_STOP_WAIT,
        CONSOLE_URI_BYTES_MAX,
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Peer;
use crate::api::{kinds, problem::Problem};

/// Before another connection is accepted after the system refused one (no file descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What hyper reads of a head before it gives up by itself. The guard's own bounds are below it, and answer with a problem.
const HEAD_BYTES_MAX: usize = 4 * (CONSOLE_HEADERS_BYTES_MAX + CONSOLE_URI_BYTES_MAX);

pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONSOLE_CONNECTIONS_MAX));
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "A connection cannot be accepted: {error}");
                clock.sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            open.spawn(turn_away(stream));
            continue;
        };
        let connection = one(stream, peer, router.clone(), stop.clone());
        open.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    open.close();
    tokio::select! {
        () = open.wait() => {}
        () = clock.sleep(CONSOLE_STOP_WAIT) => {
            tracing::warn!(connections = open.len(), "{} connections are cut: their time is over", open.len());
        }
    }
}

async fn one(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Events are small, and wait for nobody.
    let _ = stream.set_nodelay(true);
    let inner = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONSOLE_HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "A connection ended: {error}");
    }
}

/// Says that there are too many, without reading anything.
async fn turn_away(mut stream: TcpStream) {
    let body =
        Problem::new(&kinds::BUSY, "the console has as many connections as it may; close some, or try again")
            .json();
    let head = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever does not hear it finds the connection closed.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
    let _ = stream.shutdown().await;
}
