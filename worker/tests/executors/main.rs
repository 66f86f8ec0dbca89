//! Executors against real servers and real processes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod health;
mod http;
mod http_failures;
mod http_redirects;
mod http_shape;
mod http_tls;
mod local;
#[path = "../support/mod.rs"]
mod support;
mod target;
