//! What people and programs operate a fleet with: an HTTP API, a read model that keeps lists fast, and a live page.
//!
//! Promise: nothing here decides what runs. The ledger and the buckets of definitions do; a console may be stopped, deleted
//! or run several times, and no run notices.
//!
//! | folder | what it does |
//! |---|---|
//! | `api/` | resources and verbs, over HTTP and over NATS |
//! | `server/` | who is let in, and how much comes in |
//! | `read_model/` | the ledger as tables that can be searched, kept in SQLite, disposable |
//! | `schedule_book.rs` | all schedules in memory, so that they are searched quickly |
//! | `settings.rs` | what a console is told, and what it refuses to be told |

pub mod api;
pub mod read_model;
pub mod schedule_book;
pub mod server;
pub mod settings;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use shared::clock::SharedClock;
use streams::Streams;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    api::{nats, state::Api},
    read_model::{OpenError, Projection, ReadModel},
    schedule_book::ScheduleBook,
};
pub use settings::{ConsoleSettings, SettingsError, Token};

/// The read model's file in the data directory.
const MODEL_FILE: &str = "runs.sqlite";
/// Before the service is offered again after it was lost.
const SERVE_AGAIN: Duration = Duration::from_secs(2);

/// A console that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// What it was told.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Its address is taken.
    #[error(
        "cannot listen on {address}: {source}; is another console running? Take another address with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// Its data directory.
    #[error("the data directory {}: {source}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Its read model.
    #[error("the read model: {0}")]
    Model(#[from] OpenError),
}

/// A console that listens and does not answer yet.
pub struct Console {
    settings: ConsoleSettings,
    streams: Streams,
    listener: TcpListener,
    model: ReadModel,
    projection: Projection,
}

impl Console {
    /// Checks the settings, takes the address and the read model's file.
    pub async fn new(settings: ConsoleSettings, streams: Streams) -> Result<Self, ConsoleError> {
        settings.check()?;
        let address = settings.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| ConsoleError::Listen { address, source })?;
        let path = &settings.data_dir;
        std::fs::create_dir_all(path).map_err(|source| ConsoleError::Data { path: path.clone(), source })?;
        let (model, projection) = ReadModel::open(&path.join(MODEL_FILE), streams.clone())?;
        Ok(Self { settings, streams, listener, model, projection })
    }

    /// The address it serves: `http://127.0.0.1:8640`.
    pub fn url(&self) -> String {
        let address = self.listener.local_addr().unwrap_or(self.settings.listen);
        format!("http://{address}")
    }

    /// Answers until it is told to stop, and until what goes on then has ended.
    pub async fn run(self, stop: CancellationToken) {
        let Self { settings, streams, listener, model, projection } = self;
        let clock = streams.clock().clone();
        let book = ScheduleBook::default();
        let api = Arc::new(Api::new(streams.clone(), book.clone(), model, stop.clone()));
        let router = server::router(&api, &settings, Router::new());
        let _following = AbortOnDropHandle::new(tokio::spawn(book.follow(streams, stop.clone())));
        let projecting = tokio::spawn(projection.run(stop.clone()));
        let serving = tokio::spawn(serve_nats(api, clock.clone(), stop.clone()));
        server::serve(listener, router, clock, stop).await;
        // Both end by themselves when they are told to; what panicked there was said.
        let _ = serving.await;
        let _ = projecting.await;
    }
}

async fn serve_nats(api: Arc<Api>, clock: SharedClock, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = nats::serve(Arc::clone(&api), stop.clone()).await {
            tracing::warn!(%error, "The verbs are not served over NATS just now, trying again: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(SERVE_AGAIN) => {}
        }
    }
}
