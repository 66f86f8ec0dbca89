//! What a service says when it cannot do what was asked.

use std::fmt;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A refusal or a failure. The code is an HTTP status, over messages too, so that a worker tells by one rule whether
/// to try again: 4xx will not get better by repeating, 5xx may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// 400 bad parameters, 404 unknown action, 413 body too large, 500 our fault, 503 busy: try again.
    pub code: u16,
    /// What is wrong, by which rule, and what to do about it.
    pub message: String,
}

impl ServiceError {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, message: message.into() }
    }

    pub(crate) fn unknown_action(service: &str, action: &str, known: &[&str]) -> Self {
        let action: String = action.chars().take(100).collect();
        let known = known.join(", ");
        Self { code: 404, message: format!("{service} has no action {action:?}; it has: {known}") }
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        Self { code: 413, message: format!("the body is larger than {bytes_max} bytes; send less") }
    }

    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self { code: 500, message: message.to_string() }
    }

    pub(crate) fn busy(message: impl fmt::Display) -> Self {
        Self { code: 503, message: format!("{message}; try again") }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ServiceError {}

impl From<rusqlite::Error> for ServiceError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => {
                Self::busy(format!("another service holds the database: {error}"))
            }
            _ => Self::internal(format!("the database failed: {error}")),
        }
    }
}

impl From<std::io::Error> for ServiceError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(format!("a file could not be read or written: {error}"))
    }
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": self.message }))).into_response()
    }
}
