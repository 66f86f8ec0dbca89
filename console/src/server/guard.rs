//! What every request passes before its verb, and every answer after it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, header},
    middleware::Next,
};
use shared::limits::{CONSOLE_HEADERS_BYTES_MAX, CONSOLE_URI_BYTES_MAX};

use super::access::{check_host, check_origin, check_token};
use crate::{
    api::{kinds, problem::Problem, table},
    settings::{ConsoleSettings, Token},
};

/// Paths that are open to whoever reaches the console: probes know no token, and neither document says anything of a fleet.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/openapi.json"];

/// Only what the console itself serves is loaded, and nothing is framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src \
                      'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the settings say of access.
pub(super) struct Guard {
    token: Option<Token>,
    names: Vec<String>,
    is_loopback: bool,
}

impl Guard {
    pub(super) fn new(settings: &ConsoleSettings) -> Self {
        Self {
            token: settings.token.clone(),
            names: settings.names.clone(),
            is_loopback: settings.listen.ip().is_loopback(),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let (headers, uri) = (request.headers(), request.uri());
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if bytes > CONSOLE_HEADERS_BYTES_MAX {
            let words =
                format!("the headers have {bytes} bytes; at most {CONSOLE_HEADERS_BYTES_MAX} are read");
            return Err(Problem::new(&kinds::HEADERS_TOO_LARGE, words));
        }
        let length = uri.path().len() + uri.query().map_or(0, str::len);
        if length > CONSOLE_URI_BYTES_MAX {
            let words =
                format!("path and query have {length} bytes; at most {CONSOLE_URI_BYTES_MAX} are read");
            return Err(Problem::new(&kinds::URI_TOO_LONG, words));
        }
        check_host(headers, &self.names, self.is_loopback)?;
        check_origin(request.method(), headers, table::is_stream(uri.path()))?;
        if OPEN.contains(&uri.path()) || uri.path().starts_with("/problems/") {
            return Ok(());
        }
        check_token(headers, self.token.as_ref())
    }
}

/// Lets a request in or refuses it, and puts on every answer what a browser is to know.
pub(super) async fn pass(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response<Body> {
    let mut response = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.response(),
    };
    // What the framework refuses by itself has no body: it gets one here, so that all errors are alike.
    if response.status().is_client_error() && !has_kind(response.headers()) {
        let kind = match response.status().as_u16() {
            405 => &kinds::METHOD_NOT_ALLOWED,
            404 => &kinds::NOT_FOUND,
            413 => &kinds::TOO_LARGE,
            415 => &kinds::UNSUPPORTED_MEDIA,
            _ => &kinds::BAD_REQUEST,
        };
        let allow = response.headers_mut().remove(header::ALLOW);
        response = Problem::new(kind, "the request cannot be understood").response();
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    secure(response.headers_mut());
    response
}

fn has_kind(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json")
}

fn secure(headers: &mut HeaderMap) {
    let fixed = [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // What a page is made of may say otherwise; what is known of a fleet is not kept by caches.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
