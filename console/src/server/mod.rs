//! The console's server: listens, bounds what comes in, and ends in order.
//!
//! | file | what |
//! |---|---|
//! | `access.rs` | who is let in, and from where (pure) |
//! | `guard.rs` | what every request passes before its verb, and every answer after it |
//! | `connections.rs` | connections, bounded in number and in time |
//! | `health.rs` | `/livez` and `/readyz` |

mod access;
mod connections;
mod guard;
mod health;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderValue, Response, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::guard::Guard;
use crate::{
    api::{http, kinds, openapi, problem::Problem, state::Api},
    settings::ConsoleSettings,
};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Everything the console serves. `page` is merged in: what is no verb and wants the same guard.
pub fn router(api: &Arc<Api>, settings: &ConsoleSettings, page: Router) -> Router {
    let guard = Arc::new(Guard::new(settings));
    Router::new()
        .merge(http::routes(Arc::clone(api)))
        .merge(health::routes(Arc::clone(api)))
        .route("/openapi.json", get(openapi_document))
        .route("/problems/{name}", get(problem_page))
        .merge(page)
        .fallback(async || {
            Problem::new(&kinds::NOT_FOUND, "nothing is served at this path; `/openapi.json` lists all")
                .response()
        })
        .method_not_allowed_fallback(async || {
            Problem::new(
                &kinds::METHOD_NOT_ALLOWED,
                "this path has no such method; `Allow` lists those it has",
            )
            .response()
        })
        .layer(axum::middleware::from_fn_with_state(guard, guard::pass))
}

/// Serves until it is told to stop, and until what goes on then has ended or had its time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    clock: shared::clock::SharedClock,
    stop: CancellationToken,
) {
    connections::serve(listener, router, clock, stop).await;
}

async fn openapi_document() -> Response<Body> {
    let mut response = Response::new(Body::from(openapi::page()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn problem_page(Path(name): Path<String>) -> Response<Body> {
    match kinds::find(&name) {
        Some(kind) => axum::response::Html(kinds::html(kind)).into_response(),
        None => Problem::new(&kinds::UNKNOWN, "there is no such kind of problem").response(),
    }
}
