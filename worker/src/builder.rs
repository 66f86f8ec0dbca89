//! Building a worker in Rust: what it is told is checked as a whole, then it connects.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use shared::{
    clock::SystemClock,
    limits::{DRAIN_DEFAULT, PLACES_DEFAULT, PLACES_MAX, QUEUE_WEIGHT_MAX},
    names::{ActionName, NameError, QueueName, TargetName},
    queue::{QueueShare, ShareError},
};
use streams::{ConnectError, ConnectSettings, Streams};

use crate::{
    Worker, WorkerError, WorkerSettings,
    executors::{SecretsFolder, in_process::InProcess, local::LocalSettings},
    handlers::{HandlerError, RunContext, typed},
};

/// How a worker shows up at the server, if its settings say nothing else.
const CLIENT_NAME: &str = "cronfleet-worker";

/// How a worker reaches its fleet: an address, settings, or a connection that is there already.
pub enum Connection {
    /// It connects when it is built, and closes that connection when it has stopped.
    Settings(Box<ConnectSettings>),
    /// Somebody else's: it stays open.
    Streams(Streams),
}

impl From<&str> for Connection {
    fn from(url: &str) -> Self {
        ConnectSettings { url: url.to_owned(), ..ConnectSettings::default() }.into()
    }
}

impl From<String> for Connection {
    fn from(url: String) -> Self {
        url.as_str().into()
    }
}

impl From<ConnectSettings> for Connection {
    fn from(settings: ConnectSettings) -> Self {
        Self::Settings(Box::new(settings))
    }
}

impl From<Streams> for Connection {
    fn from(streams: Streams) -> Self {
        Self::Streams(streams)
    }
}

/// Something a worker was told that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuilderFault {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A weight that is none.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// No places, or more than one worker should have.
    #[error("places is {0}; it is 1 to {PLACES_MAX}")]
    Places(u16),
    /// One queue, two weights.
    #[error("queue {0} is named twice; name it once")]
    QueueTwice(QueueName),
    /// One action, two handlers.
    #[error("action {action}{} has two handlers; leave out one of them", of(.target.as_ref()))]
    HandlerTwice {
        /// The action.
        action: ActionName,
        /// The target they are for; none if for whatever target.
        target: Option<TargetName>,
    },
}

fn of(target: Option<&TargetName>) -> String {
    target.map_or_else(String::new, |target| format!(" of target {target}"))
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What it was told; all faults at once.
    #[error("this worker cannot be: {}", listed(.0))]
    Faults(Vec<BuilderFault>),
    /// Its fleet cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// One of its parts could not be made.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

fn listed(faults: &[BuilderFault]) -> String {
    faults.iter().map(BuilderFault::to_string).collect::<Vec<_>>().join("; ")
}

/// What a worker is told before it is there; see [`Worker::builder`]. What is left out is as at `cronfleet worker`.
#[must_use = "it does nothing before it is built"]
pub struct WorkerBuilder {
    connection: Connection,
    settings: WorkerSettings,
    handlers: InProcess,
    faults: Vec<BuilderFault>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the connection: it may hold a password.
        let Self { settings, faults, .. } = self;
        f.debug_struct("WorkerBuilder")
            .field("settings", settings)
            .field("faults", faults)
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    pub(crate) fn new(connection: Connection) -> Self {
        let settings = WorkerSettings {
            host: host(),
            queues: Vec::new(),
            places: PLACES_DEFAULT,
            drain: DRAIN_DEFAULT,
            local: LocalSettings::default(),
            secrets: SecretsFolder::default(),
            callback_listen: None,
            callback_url: None,
        };
        Self { connection, settings, handlers: InProcess::default(), faults: Vec::new() }
    }

    /// Executes this action in this process, whatever target a task names: see [`crate::handlers`].
    pub fn handler<H, P, F, O>(self, action: &str, handler: H) -> Self
    where
        H: Fn(RunContext, P) -> F + Send + Sync + 'static,
        P: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Serialize + Send + 'static,
    {
        self.with_handler(Ok(None), action, handler)
    }

    /// The same for tasks of one target; goes before a handler for whatever target.
    pub fn handler_for<H, P, F, O>(self, target: &str, action: &str, handler: H) -> Self
    where
        H: Fn(RunContext, P) -> F + Send + Sync + 'static,
        P: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Serialize + Send + 'static,
    {
        self.with_handler(target.parse().map(Some), action, handler)
    }

    fn with_handler<H, P, F, O>(
        mut self,
        target: Result<Option<TargetName>, NameError>,
        action: &str,
        handler: H,
    ) -> Self
    where
        H: Fn(RunContext, P) -> F + Send + Sync + 'static,
        P: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Serialize + Send + 'static,
    {
        match (target, action.parse::<ActionName>()) {
            (Ok(target), Ok(action)) => {
                if !self.handlers.add(target.clone(), action.clone(), typed(handler)) {
                    self.faults.push(BuilderFault::HandlerTwice { action, target });
                }
            }
            (target, action) => {
                let errors = [target.err(), action.err()].into_iter().flatten();
                self.faults.extend(errors.map(BuilderFault::Name));
            }
        }
        self
    }

    /// Serves this queue. When places are scarce, each queue gets them by its weight, 1 to 1000. Without any it is the queue
    /// `default`.
    pub fn queue(mut self, name: &str, weight: u32) -> Self {
        match share(name, weight) {
            Ok(share) if self.settings.queues.iter().any(|known| known.queue == share.queue) => {
                self.faults.push(BuilderFault::QueueTwice(share.queue));
            }
            Ok(share) => self.settings.queues.push(share),
            Err(error) => self.faults.push(error.into()),
        }
        self
    }

    /// Runs it executes at once, of all queues: 1 to 1000, 16 if nothing is said.
    pub fn places(mut self, places: u16) -> Self {
        if !(1..=PLACES_MAX).contains(&places) {
            self.faults.push(BuilderFault::Places(places));
        }
        self.settings.places = places;
        self
    }

    /// How long it lets its runs finish when it is told to stop, before it hands them back: 20 s if nothing is said.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// The name of its machine, for its id among the members; the machine's own if nothing is said.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.settings.host = host.into();
        self
    }

    /// The commands it may run besides; none if nothing is said.
    pub fn local(mut self, local: LocalSettings) -> Self {
        self.settings.local = local;
        self
    }

    /// The folder with the secrets that targets' headers name; `/run/secrets` if nothing is said.
    pub fn secrets(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.secrets = folder.into().into();
        self
    }

    /// Takes in over HTTP, at this address of its own, what targets answer later; they reach it under this URL.
    pub fn callbacks(mut self, listen: SocketAddr, url: impl Into<String>) -> Self {
        self.settings.callback_listen = Some(listen);
        self.settings.callback_url = Some(url.into());
        self
    }

    /// Checks all it was told, then connects. Without a server that is an error, unless the settings say
    /// [`wait_for_server`](ConnectSettings::wait_for_server).
    pub async fn build(mut self) -> Result<Worker, BuildError> {
        if !self.faults.is_empty() {
            return Err(BuildError::Faults(self.faults));
        }
        if self.settings.queues.is_empty() {
            self.settings.queues.push(QueueName::default_queue().into());
        }
        let (streams, is_own) = match self.connection {
            Connection::Streams(streams) => (streams, false),
            Connection::Settings(settings) => (connect(*settings).await?, true),
        };
        let worker = Worker::new(self.settings, streams)?.with_handlers(self.handlers);
        Ok(Worker { closes_connection: is_own, ..worker })
    }
}

fn share(name: &str, weight: u32) -> Result<QueueShare, ShareError> {
    let queue: QueueName = name.parse()?;
    if (1..=QUEUE_WEIGHT_MAX).contains(&weight) {
        Ok(QueueShare { queue, weight })
    } else {
        Err(ShareError::Weight { queue, text: weight.to_string() })
    }
}

async fn connect(mut settings: ConnectSettings) -> Result<Streams, ConnectError> {
    if settings.client_name.is_empty() {
        CLIENT_NAME.clone_into(&mut settings.client_name);
    }
    // Once in a process; whoever embeds us may have chosen another before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Streams::connect(&settings, SystemClock::shared()).await
}

fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    async fn nothing(_: RunContext, _: Value) -> Result<(), HandlerError> {
        Ok(())
    }

    #[tokio::test]
    async fn all_faults_are_said_at_once_and_before_it_connects() {
        let built = WorkerBuilder::new("nats://user:pa55word@nowhere.invalid".into())
            .handler("archive data", nothing)
            .handler("tidy", nothing)
            .handler("tidy", nothing)
            .handler_for("storage", "tidy", nothing)
            .handler_for("a.b", "tidy", nothing)
            .queue("reports", 2)
            .queue("reports", 3)
            .queue("heavy", 0)
            .places(0);
        assert!(!format!("{built:?}").contains("pa55word"));
        let error = built.build().await.err().expect("refused").to_string();
        for words in [
            "action \"archive data\" has ' ' at position 8",
            "try \"archive_data\"",
            "action tidy has two handlers",
            "target name \"a.b\" has '.'",
            "queue reports is named twice",
            "the weight of queue heavy is \"0\"",
            "places is 0; it is 1 to 1000",
        ] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_said() {
        let built = WorkerBuilder::new("nats://127.0.0.1:1".into()).handler("tidy", nothing).build().await;
        let error = built.err().expect("nobody is there").to_string();
        assert!(error.contains("cannot connect to NATS at nats://127.0.0.1:1"), "{error}");
    }
}
