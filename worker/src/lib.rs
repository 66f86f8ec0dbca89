//! Claims runs, executes them, records what came of it.
//!
//! Promise: a run that a worker claimed is executed at least once and recorded once. Two workers may both have begun it
//! (one was thought dead); only the attempt whose claim is the record's newest version can write its result, and the
//! target can tell the two apart by the attempt's fencing number.
//!
//! | file | what it decides or does |
//! |---|---|
//! | `credit.rs` | how many runs are asked for, from which queue (pure) |
//! | `fetch.rs` | asks for exactly as many runs as there are free places |
//! | `identify.rs` | reads a delivery: which run, which task (pure) |
//! | `limits/` | whether a run may begin, by the limits of the whole fleet |
//! | `elsewhere.rs` | a command that this worker may not run, and another of the queue may |
//! | `claim.rs` | PENDING or RETRY to RUNNING by compare-and-set; who may take a run over |
//! | `unclaimed.rs` | which runs are begun without a claim, and what a lost one of those means (pure) |
//! | `exclusive.rs` | finds out that nobody else can have a run; what is handed back or lost of those |
//! | `late.rs` | the claim of such a run that takes longer, and its end |
//! | `hold.rs` | the heartbeat of one run; stops the attempt when it cannot be renewed |
//! | `cancel.rs` | hears that a run is to be stopped, and looks for what was not heard |
//! | `callback.rs` | runs whose target answers later: what was left for them, and when their time is over |
//! | `callback_http.rs` | takes such answers in over HTTP |
//! | `executors/` | http, message, local, and handlers in this process |
//! | `handlers/`, `builder.rs` | the way to write a worker in Rust |
//! | `run_log.rs`, `progress.rs` | what a run says while it runs, and how far it is |
//! | `drain.rs` | hears that somebody wants the worker to stop |
//! | `time_limits.rs` | what has waited too long is not begun, what takes too long is stopped |
//! | `verdict.rs` | what an attempt's end means: done, again after a wait, or dead (pure) |
//! | `park.rs` | hands a run back until its next attempt |
//! | `serve.rs` | the way of one delivery through all of these: record, then ack |

pub mod builder;
pub mod executors;
pub mod handlers;

mod callback;
mod callback_http;
mod cancel;
mod claim;
mod connections;
mod credit;
mod drain;
mod elsewhere;
mod exclusive;
mod fetch;
mod hold;
mod identify;
mod late;
mod limits;
mod member;
mod park;
mod progress;
mod queues;
pub mod run_log;
mod running;
mod serve;
mod spans;
mod targets;
mod time_limits;
mod unclaimed;
mod upstream;
mod verdict;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use shared::{names::MemberId, queue::QueueShare};
use streams::{ReadError, lookups::Lookups};
use tokio::task::JoinSet;

pub use shared::{Timestamp, run::RunId, shard::Shard, task::Task};
pub use streams::{ConnectSettings, Namespace, Streams};
pub use tokio_util::sync::CancellationToken;

pub use crate::{
    builder::{BuildError, WorkerBuilder},
    executors::UpstreamEnd,
    handlers::{HandlerError, RunContext},
};

use crate::{
    builder::Connection,
    executors::{
        Executors, SecretsFolder, http::HttpSetupError, in_process::InProcess, local::LocalSettings,
    },
    limits::Limits,
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
    /// The queues it serves, with their weights.
    pub queues: Vec<QueueShare>,
    /// Runs it executes at once, of all queues: 1 to 1000. When it dies, that many wait for the acknowledge wait.
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
    /// The connection is its own.
    closes_connection: bool,
}

impl Worker {
    /// A worker in Rust: handlers with typed parameters, executed in this process. It is given how to reach its fleet: an address,
    /// [`ConnectSettings`], or [`Streams`].
    ///
    /// ```
    /// use serde::Deserialize;
    /// use serde_json::json;
    /// use worker::{HandlerError, Stop, Worker};
    ///
    /// #[derive(Deserialize)]
    /// struct Archive {
    ///     cutoff_days: u32,
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let worker = Worker::builder("nats://127.0.0.1:4222")
    ///     .queue("archive", 3)
    ///     .queue("default", 1)
    ///     .places(8)
    ///     .handler("archive_hot_data", |ctx, what: Archive| async move {
    ///         if what.cutoff_days == 0 {
    ///             return Err(HandlerError::permanent("cutoff_days is 0; give it 1 or more"));
    ///         }
    ///         ctx.progress(0.4, "trades");
    ///         let rows: u64 = std::fs::read_to_string("/tmp/rows")?.trim().parse()?;
    ///         Ok(json!({ "rows": rows }))
    ///     });
    /// # if false {
    /// let stop = Stop::default(); // cancel `stop.drain` to let its runs finish, `stop.abort` to hand them back
    /// worker.build().await?.run(stop).await?;
    /// # }
    ///
    /// // What it is told is checked before it connects, all of it.
    /// let refused = Worker::builder("nats://127.0.0.1:4222")
    ///     .handler("archive hot data", |_, _: Archive| async { Ok(()) })
    ///     .places(0)
    ///     .build()
    ///     .await;
    /// let why = refused.err().expect("two faults").to_string();
    /// assert!(why.contains("try \"archive_hot_data\"") && why.contains("places is 0; it is 1 to 1000"));
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn builder(connection: impl Into<Connection>) -> WorkerBuilder {
        WorkerBuilder::new(connection.into())
    }

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
        Ok(Self { status, settings, streams, executors, closes_connection: false })
    }

    /// The same worker with handlers of its own: what has one is executed in this process.
    #[must_use]
    pub fn with_handlers(self, handlers: InProcess) -> Self {
        Self { executors: self.executors.with_handlers(handlers), ..self }
    }

    /// The id it has among the members.
    pub fn id(&self) -> &MemberId {
        self.status.id()
    }

    /// Works until it is told to stop and has finished, or handed back, what it had.
    ///
    /// To drop this before it returns, as a `select!` beside a signal does, is to die: what runs is aborted and comes out again
    /// only after the acknowledge wait, with one attempt spent. Cancel `stop.drain` instead, and wait.
    pub async fn run(self, stop: Stop) -> Result<(), WorkerError> {
        let result = self.work(stop).await;
        if self.closes_connection {
            self.streams.close().await;
        }
        result
    }

    async fn work(&self, stop: Stop) -> Result<(), WorkerError> {
        // What can be refused comes before anything is begun.
        let door = match self.settings.callback_listen {
            Some(address) => Some(callback_http::listen(address).await?),
            None => None,
        };
        let running = Running::new(Arc::clone(self.streams.clock()));
        let targets = Targets::load(&self.streams).await?;
        let is_on_one_server = self.streams.ledger().is_on_one_server().await?;
        let lookups = is_on_one_server.then(|| self.streams.lookups());
        let limits =
            Limits::new(self.streams.clone(), targets.clone(), running.clone(), Arc::clone(&self.status));
        let server = Server::new(
            self.streams.clone(),
            self.executors.clone(),
            targets.clone(),
            running.clone(),
            Arc::clone(&self.status),
            lookups.clone(),
            limits.clone(),
        );
        let requests = cancel::subscribe(&self.streams).await;
        cancel::catch_up(&self.streams, &running).await?;
        let closing = CancellationToken::new();
        let mut helpers = JoinSet::new();
        helpers.spawn(targets.follow(self.streams.clone(), closing.clone()));
        helpers.spawn(limits.keep(closing.clone()));
        if let Some(lookups) = lookups {
            helpers.spawn(watch_over(lookups, closing.clone()));
        }
        helpers.spawn(cancel::follow(self.streams.clone(), running.clone(), requests, closing.clone()));
        let status = Arc::clone(&self.status);
        helpers.spawn(drain::follow(self.streams.clone(), status, stop.clone(), closing.clone()));
        helpers.spawn(callback::follow(self.streams.clone(), closing.clone()));
        if let Some(listener) = door {
            helpers.spawn(callback_http::serve(listener, self.streams.clone(), closing.clone()));
        }
        helpers.spawn(member::beat(
            self.streams.clone(),
            Arc::clone(&self.status),
            running.clone(),
            closing.clone(),
        ));

        let mut fetching = JoinSet::new();
        let fetch = fetch::Fetch {
            streams: self.streams.clone(),
            queues: self.settings.queues.clone(),
            places: self.settings.places.into(),
            server: server.clone(),
        };
        fetching.spawn(fetch.run(stop.clone()));
        tracing::info!(worker.id = %self.status.id(), "Worker `{}` is at work", self.status.id());
        let watchdog = self.watchdog(stop.clone());
        tokio::pin!(watchdog);
        let result = loop {
            tokio::select! {
                () = &mut watchdog => {}
                ended = fetching.join_next() => match ended {
                    None => break Ok(()),
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(ended))) => break Err(ended),
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

/// Ends when the reader of records has ended, which nobody else would notice.
async fn watch_over(lookups: Lookups, closing: CancellationToken) {
    tokio::select! {
        () = closing.cancelled() => {}
        () = lookups.ended() => tracing::error!("The reader of records has ended"),
    }
}
