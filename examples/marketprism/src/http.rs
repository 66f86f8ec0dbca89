//! The HTTP side: `POST /actions/<action>` and `GET /healthz`, the same for every service. Every answer is JSON.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{Method, StatusCode, Uri},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    error::ServiceError,
    parameters::Parameters,
    service::{Service, answer, blocking},
};

/// The largest request body. Parameters are a few hundred bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

pub(crate) fn router<S: Service>(service: S) -> Router {
    Router::new()
        .route("/actions/{action}", post(act::<S>))
        .route("/healthz", get(health::<S>))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(service))
}

async fn act<S: Service>(
    State(service): State<Arc<S>>,
    Path(action): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ServiceError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ServiceError::too_large(BODY_BYTES_MAX),
        _ => ServiceError::bad_request(format!("the body could not be read: {rejection}; send it again")),
    })?;
    let parameters = Parameters::of_request(&body)?;
    answer(service, action, parameters).await.map(Json)
}

async fn health<S: Service>(State(service): State<Arc<S>>) -> Result<Json<Value>, ServiceError> {
    let name = service.name();
    blocking(move || service.check()).await.map_err(|error| ServiceError { code: 503, ..error })?;
    Ok(Json(json!({ "status": "ok", "service": name })))
}

async fn nothing_here(uri: Uri) -> ServiceError {
    let path = uri.path();
    ServiceError {
        code: 404,
        message: format!("there is nothing at {path}; POST /actions/<action> or GET /healthz"),
    }
}

async fn other_method(method: Method, uri: Uri) -> ServiceError {
    let path = uri.path();
    let message = format!("{path} does not take {method}; POST /actions/<action> or GET /healthz");
    ServiceError { code: 405, message }
}
