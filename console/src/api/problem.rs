//! What is answered when something is wrong: `application/problem+json` (RFC 9457), always with a kind that has its own page.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use schemars::JsonSchema;
use serde::Serialize;
use streams::{
    ReadError, WriteError,
    operate::{apply::ApplyError, backfill::PlanError, submit::SubmitError},
};

use super::kinds::{self, Kind};
use crate::read_model::ModelError;

/// A problem, with what is to be said of this one.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its kind.
    pub kind: &'static Kind,
    /// The value, the rule and the repair.
    pub detail: String,
    /// The field of the body, or the parameter, that is wrong; none if it is none in particular.
    pub field: Option<String>,
    /// Seconds after which it may be worth another try.
    pub retry_after: Option<u32>,
}

/// A problem as it is written.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Written {
    /// Where its kind is explained: `/problems/<name>`. Stable.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in a few words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request: the value, the rule and the repair.
    detail: String,
    /// The field of the body, or the parameter, that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        let retry_after = matches!(kind.status, 429 | 503).then_some(1);
        Self { kind, detail: detail.into(), field: None, retry_after }
    }

    /// The same, about this field or parameter.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        let written = Written {
            kind: self.kind.path(),
            title: self.kind.title,
            status: self.kind.status,
            detail: self.detail.clone(),
            field: self.field.clone(),
        };
        // Texts and a number: always written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// As an answer over HTTP.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() =
            StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Unavailable { .. } => &kinds::UNAVAILABLE,
            ReadError::Missing { .. } => &kinds::NOT_SET_UP,
            ReadError::Corrupt { .. } => &kinds::UNREADABLE,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Conflict { .. } => &kinds::CHANGED_MEANWHILE,
            WriteError::Occupied { .. } => &kinds::CONFLICT,
            WriteError::Full { .. } | WriteError::Unknown { .. } | WriteError::Refused { .. } => {
                &kinds::UNAVAILABLE
            }
            WriteError::NoStream { .. } => &kinds::NOT_SET_UP,
            WriteError::TooLarge { .. } => &kinds::TOO_LARGE,
            WriteError::Header { .. } => &kinds::BAD_PARAMETER,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        let kind = match &error {
            ModelError::Busy => &kinds::BUSY,
            ModelError::TooSlow => &kinds::TIMED_OUT,
            ModelError::Unreadable(_) | ModelError::Rebuilding => &kinds::NOT_READY,
            ModelError::Query(_) => &kinds::BAD_PARAMETER,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Write(error) => error.into(),
            error => Self::new(&kinds::UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Read(error) => error.into(),
            SubmitError::Write(error) => error.into(),
            SubmitError::Nowhere(words) => Self::new(&kinds::BAD_TASK, words).at("queue"),
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Read(error) => error.into(),
            PlanError::Gone(_) => Self::new(&kinds::UNKNOWN, error.to_string()),
            PlanError::Range(words) => Self::new(&kinds::BAD_BODY, words.replace("--", "")),
        }
    }
}
