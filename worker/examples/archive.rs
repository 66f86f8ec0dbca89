//! A worker in Rust: it executes `archive_tables` itself, whatever target a task names, and serves a queue of its own: workers
//! without the handler would ask the target.
//!
//! ```sh
//! cronfleet up --except archive                            # or any fleet, and NATS_URL=… below
//! echo 'queues: {archive: {}}' | cronfleet apply -f -
//! cargo run -p cronfleet-worker --example archive
//! cronfleet submit archive --queue archive --wait -d '{"target_service": "storage", "action": "archive_tables",
//!                                                      "parameters": {"cutoff_days": 7}}'
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use worker::{HandlerError, RunContext, Stop, Worker};

#[derive(Deserialize)]
struct Archive {
    cutoff_days: u32,
}

#[derive(Serialize)]
struct Archived {
    tables: usize,
}

async fn archive(ctx: RunContext, what: Archive) -> Result<Archived, HandlerError> {
    if what.cutoff_days == 0 {
        return Err(HandlerError::permanent("cutoff_days is 0; give it 1 or more"));
    }
    let tables = ["trades", "orders", "quotes"];
    for (done, table) in tables.into_iter().enumerate() {
        if ctx.is_cancelled() {
            return Err(HandlerError::retry(format!("stopped before {table}")));
        }
        ctx.progress(done as f64 / tables.len() as f64, table);
        move_rows(table, what.cutoff_days).await?; // any error: the run is tried again
        ctx.log(format!("{table} is archived, as fence {}", ctx.fence()));
    }
    Ok(Archived { tables: tables.len() })
}

async fn move_rows(table: &str, cutoff_days: u32) -> anyhow::Result<()> {
    // Here the work would be. What blocks its thread belongs into `tokio::task::spawn_blocking`.
    tokio::task::yield_now().await;
    anyhow::ensure!(cutoff_days < 10_000, "{table} has no rows of {cutoff_days} days ago");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let worker = Worker::builder(url)
        .queue("archive", 1)
        .drain(Duration::from_secs(20))
        .handler("archive_tables", archive)
        .build()
        .await?;
    let stop = Stop::default();
    tokio::spawn(on_interrupt(stop.clone()));
    Ok(worker.run(stop).await?)
}

/// The first Ctrl-C lets runs finish, the second hands them back.
async fn on_interrupt(stop: Stop) {
    for token in [&stop.drain, &stop.abort] {
        if tokio::signal::ctrl_c().await.is_ok() {
            token.cancel();
        }
    }
}
