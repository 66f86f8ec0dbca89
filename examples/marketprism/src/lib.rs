//! The target services of the `MarketPrism` example: small, and real.
//!
//! The origin of Cronfleet is a market-data platform whose seven schedules act on four services. Here they are:
//! `data-storage-service` moves, cleans, rebuilds and examines rows in `SQLite`; `market-data-collector` looks for
//! gaps in what it collected; `monitoring-service` reads `/proc`; `api-gateway-service` writes a PDF. Only the market
//! is invented: its data comes from a seed, and the same seed and time give the same data.
//!
//! Promise: every action may be repeated and may be killed anywhere, since a run is executed *at least* once. A
//! repeat finds less or nothing left to do, or writes the same file again; it never doubles or loses a row.
//! Limit: one connection per service, guarded by a mutex; this is an example's load, not a platform's.

#![allow(clippy::cast_possible_wrap, reason = "counts of rows, candles and minutes are far from 2^63")]

mod database;
mod error;
mod files;
mod http;
mod mail;
mod market;
mod parameters;
mod periods;
mod random;
mod service;

mod collector;
mod monitoring;
mod seed;
mod storage;
mod volume_report;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use axum::Router;
use chrono::{DateTime, Utc};

pub use crate::{
    collector::Collector,
    error::ServiceError,
    market::AnomalyKind,
    seed::{SeedReport, SeededAnomaly, seed_if_empty},
};

/// What tells a service the time. Handed in, so that a test decides what "last month" is.
pub type NowFn = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What the services need to know; the same value for all four, so that they meet at the same files.
#[derive(Clone)]
pub struct Settings {
    /// Where databases, reports and outgoing mail are. Created when absent.
    pub data_dir: PathBuf,
    /// The generated market follows from this number and from the time of seeding.
    pub seed: u64,
    /// The time.
    pub now: NowFn,
}

/// The services by the names the schedules use, in the order of the origin.
pub const SERVICES: [&str; 4] = [storage::NAME, collector::NAME, monitoring::NAME, volume_report::NAME];

/// The origin's seven schedules, with targets and queue: what `cronfleet apply` is given.
pub const SCHEDULES_YAML: &str = include_str!("../schedules.yaml");

/// `data-storage-service`: archive, clean up, optimize, detect anomalies.
pub fn data_storage_router(settings: &Settings) -> anyhow::Result<Router> {
    let service = storage::Storage::open(settings).context("data-storage-service does not open")?;
    Ok(http::router(service))
}

/// `monitoring-service`: performance reports from the machine's own counters, measured from this call on.
pub fn monitoring_router(settings: &Settings) -> anyhow::Result<Router> {
    let service = monitoring::Monitoring::open(settings).context("monitoring-service does not open")?;
    Ok(http::router(service))
}

/// `api-gateway-service`: the volume report as a PDF.
pub fn api_gateway_router(settings: &Settings) -> anyhow::Result<Router> {
    let service = volume_report::VolumeReport::open(settings).context("api-gateway-service does not open")?;
    Ok(http::router(service))
}
