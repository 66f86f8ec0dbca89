//! Claims runs, executes them, records what came of it.
//!
//! Promise: a run that a worker claimed is executed at least once and recorded once. Two workers may both have begun it
//! (one was thought dead); only the attempt whose claim is the record's newest version can write its result, and the
//! target can tell the two apart by the attempt's fencing number.
//!
//! | file | what it decides or does |
//! |---|---|
//! | `fetch.rs` | asks for exactly as many runs as there are free places |
//! | `identify.rs` | reads a delivery: which run, which task (pure) |
//! | `claim.rs` | PENDING or RETRY to RUNNING by compare-and-set; who may take a run over |
//! | `hold.rs` | the heartbeat of one run; stops the attempt when it cannot be renewed |
//! | `cancel.rs` | hears that a run is to be stopped, and looks for what was not heard |
//! | `callback.rs` | runs whose target answers later: what was left for them, and when their time is over |
//! | `callback_http.rs` | takes such answers in over HTTP |
//! | `executors/` | http, message, local |
//! | `verdict.rs` | what an attempt's end means: done, again after a wait, or dead (pure) |
//! | `serve.rs` | the way of one delivery through all of these: record, then ack |

pub mod executors;

mod callback;
mod callback_http;
mod cancel;
mod claim;
mod fetch;
mod hold;
mod identify;
mod member;
mod running;
mod serve;
mod spans;
mod targets;
mod upstream;
mod verdict;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shared::names::{MemberId, QueueName};
use streams::{ReadError, Streams};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    executors::{Executors, SecretsFolder, http::HttpSetupError, local::LocalSettings},
    member::Status,
    running::Running,
    serve::Server,
    targets::Targets,
};

/// What a worker is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The name of its machine, for its id.
    pub host: String,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// Runs of one queue it executes at once: 1 to 1000. When it dies, that many wait for the acknowledge wait.
    pub places: u16,
    /// How long it lets its runs finish when it is told to stop; then it hands them back.
    pub drain: Duration,
    /// The commands it may run.
    pub local: LocalSettings,
    /// Where it finds the secrets that targets' headers name.
    pub secrets: SecretsFolder,
    /// Where it takes in, over HTTP, what targets answer later.
    pub callback_listen: Option<SocketAddr>,
    /// The URL at which targets reach that, or the same of another worker.
    pub callback_url: Option<String>,
}

/// How a worker is told to stop, in two steps.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Fetch no more, let the runs finish.
    pub drain: CancellationToken,
    /// Stop the attempts and hand the runs back, their attempts unspent.
    pub abort: CancellationToken,
}

/// Why a worker ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its HTTP client could not be made.
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    /// Something it needs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The address for callbacks cannot be listened on.
    #[error("--callback-listen {address}: {source}; choose an address of this machine and a free port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// It was told to serve nothing.
    #[error("no queue is named; name at least one with --queue")]
    NoQueue,
    /// One of its parts ended without being told to.
    #[error("the worker's {part} ended unexpectedly: {detail}")]
    Part {
        /// Which part.
        part: String,
        /// How it ended.
        detail: String,
    },
}

/// A worker.
pub struct Worker {
    status: Arc<Status>,
    settings: WorkerSettings,
    streams: Streams,
    executors: Executors,
}

impl Worker {
    /// A worker with an id of its own; it does nothing before it is run.
    pub fn new(settings: WorkerSettings, streams: Streams) -> Result<Self, WorkerError> {
        if settings.queues.is_empty() {
            return Err(WorkerError::NoQueue);
        }
        let executors = Executors::new(
            &streams,
            settings.local.clone(),
            settings.secrets.clone(),
            settings.callback_url.as_deref(),
        )?;
        let id = MemberId::new("worker", &settings.host);
        let status = Arc::new(Status::new(id, &settings, streams.clock().now()));
        Ok(Self { status, settings, streams, executors })
    }

    /// The id it has among the members.
    pub fn id(&self) -> &MemberId {
        self.status.id()
    }

    /// Works until it is told to stop and has finished, or handed back, what it had.
    pub async fn run(self, stop: Stop) -> Result<(), WorkerError> {
        let running = Running::default();
        let targets = Targets::load(&self.streams).await?;
        let server = Server::new(
            self.streams.clone(),
            self.executors.clone(),
            targets.clone(),
            running.clone(),
            Arc::clone(&self.status),
        );
        let closing = CancellationToken::new();
        let mut helpers = JoinSet::new();
        helpers.spawn(targets.follow(self.streams.clone(), closing.clone()));
        helpers.spawn(cancel::follow(self.streams.clone(), running.clone(), closing.clone()));
        helpers.spawn(callback::follow(self.streams.clone(), closing.clone()));
        if let Some(address) = self.settings.callback_listen {
            let listener = callback_http::listen(address).await?;
            helpers.spawn(callback_http::serve(listener, self.streams.clone(), closing.clone()));
        }
        helpers.spawn(member::beat(
            self.streams.clone(),
            Arc::clone(&self.status),
            running.clone(),
            closing.clone(),
        ));

        let mut fetching = JoinSet::new();
        for queue in &self.settings.queues {
            let fetch = fetch::Fetch {
                streams: self.streams.clone(),
                queue: queue.clone(),
                places: self.settings.places.into(),
                server: server.clone(),
            };
            let (stop, queue) = (stop.clone(), queue.clone());
            fetching.spawn(async move { (queue, fetch.run(stop).await) });
        }
        tracing::info!(worker.id = %self.status.id(), "Worker `{}` is at work", self.status.id());
        let watchdog = self.watchdog(stop.clone());
        tokio::pin!(watchdog);
        let result = loop {
            tokio::select! {
                () = &mut watchdog => {}
                ended = fetching.join_next() => match ended {
                    None => break Ok(()),
                    Some(Ok((_, ()))) => {}
                    Some(Err(panic)) => {
                        // The other queues' fetchers must not go on in a worker that is half dead.
                        stop.abort.cancel();
                        stop.drain.cancel();
                        break Err(WorkerError::Part { part: "fetching".into(), detail: panic.to_string() });
                    }
                },
                Some(ended) = helpers.join_next() => {
                    let detail = ended.map_or_else(|panic| panic.to_string(), |()| "without an error".to_owned());
                    stop.abort.cancel();
                    stop.drain.cancel();
                    break Err(WorkerError::Part { part: "helper".into(), detail });
                }
            }
        };
        while fetching.join_next().await.is_some() {}
        closing.cancel();
        while helpers.join_next().await.is_some() {}
        tracing::info!(worker.id = %self.status.id(), "Worker `{}` has stopped", self.status.id());
        result
    }

    /// Turns a drain that takes too long into an abort. Never returns after that.
    async fn watchdog(&self, stop: Stop) {
        stop.drain.cancelled().await;
        self.status.note_draining();
        self.streams.clock().sleep(self.settings.drain).await;
        stop.abort.cancel();
        std::future::pending::<()>().await;
    }
}
