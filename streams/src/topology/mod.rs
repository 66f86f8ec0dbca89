//! The streams, buckets and consumers a fleet needs, as code.
//!
//! [`Streams::init`] creates what is missing; [`Streams::examine`] compares what is there with what should be. Nothing
//! else creates, and nothing here changes or recreates what exists: a difference is for an operator to judge. The one
//! exception is asked for by name: [`Streams::declare_queue`], with which `apply` adds or changes a queue.

mod compare;
mod wanted;

use std::collections::BTreeSet;

use async_nats::jetstream::{
    self, consumer,
    context::{ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy},
};
use shared::{names::QueueName, queue::QueueSettings};

pub use self::compare::Difference;
pub(crate) use self::wanted::raw;
use self::{
    compare::{compare_consumers, compare_streams, missing},
    wanted::{backfill_consumer, control_consumer, fixed_streams, queue_consumer, tasks},
};
use crate::{ReadError, Streams};

/// Why the topology could not be made or examined.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The server did not create it.
    #[error("{what} could not be created: {detail}")]
    Create {
        /// The stream or consumer.
        what: String,
        /// The server's words.
        detail: String,
    },
    /// It exists with another number of replicas than was asked for, and is as it should be otherwise.
    #[error(
        "{what} has {found}, not the {wanted} asked for; init never changes what exists. To change it: `nats stream edit \
         {what} --replicas {wanted}` (natscli), and so for every stream and bucket of the fleet; `cronfleet doctor` then \
         finds those that differ from {tasks}",
        found = copies(*.found)
    )]
    Replicas {
        /// The stream.
        what: String,
        /// How many it has.
        found: usize,
        /// How many were asked for.
        wanted: usize,
        /// The task stream, which the others are compared with.
        tasks: String,
    },
    /// It exists, and differs.
    #[error(
        "{what} exists and differs from what this version needs ({differences}); nothing was changed: look with `cronfleet doctor`"
    )]
    Differs {
        /// The stream or consumer.
        what: String,
        /// How.
        differences: String,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Replicas of every stream: 1 on a laptop, 3 in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// One copy.
    One,
    /// Three copies, on three servers.
    Three,
}

impl Replicas {
    pub(crate) fn number(self) -> usize {
        match self {
            Replicas::One => 1,
            Replicas::Three => 3,
        }
    }
}

impl Streams {
    /// Creates what is missing and returns its names; what exists and differs is an error, and stays as it is.
    pub async fn init(&self, replicas: Replicas) -> Result<Vec<String>, TopologyError> {
        let names = self.names().clone();
        let mut made = Vec::new();
        for config in fixed_streams(&names, replicas) {
            self.create_stream(config, &mut made).await?;
        }
        if self.stream_config(&names.tasks_stream()).await?.is_none() {
            self.create_stream(tasks(&names, &[QueueName::default_queue()], replicas), &mut made).await?;
        }
        for wanted in [control_consumer(&names), backfill_consumer(&names)] {
            self.create_consumer(&names.control_stream(), wanted, &mut made).await?;
        }
        let mut queues = self.catalog().queues().await?;
        queues.entry(QueueName::default_queue()).or_default();
        for (queue, settings) in queues {
            if !self.is_declared(&queue).await? {
                self.declare_queue(&queue, &settings).await?;
                made.push(format!("{}/{queue}", names.tasks_stream()));
            }
        }
        Ok(made)
    }

    /// Whether a queue has its subjects, its consumer and its entry; with what settings is not asked.
    async fn is_declared(&self, queue: &QueueName) -> Result<bool, ReadError> {
        let tasks = self.names().tasks_stream();
        let config = self.stream_config(&tasks).await?;
        let filters = self.names().queue_filters(queue);
        let has_subjects =
            config.is_some_and(|config| filters.iter().all(|filter| config.subjects.contains(filter)));
        Ok(has_subjects
            && self.consumer_config(&tasks, queue.as_str()).await?.is_some()
            && self.catalog().queue(queue).await?.is_some())
    }

    async fn create_stream(&self, wanted: Config, made: &mut Vec<String>) -> Result<(), TopologyError> {
        let name = wanted.name.clone();
        if let Some(found) = self.stream_config(&name).await? {
            let differences = compare_streams(&found, &wanted);
            return match differences.as_slice() {
                [] => Ok(()),
                [only] if only.setting == REPLICAS => Err(TopologyError::Replicas {
                    what: name,
                    found: found.num_replicas,
                    wanted: wanted.num_replicas,
                    tasks: self.names().tasks_stream(),
                }),
                _ => Err(differs(name, &differences)),
            };
        }
        match self.jetstream().create_stream(wanted).await {
            Ok(_) => {
                made.push(name);
                Ok(())
            }
            Err(error) => {
                Err(TopologyError::Create { what: name, detail: create_detail(&error.kind(), &error) })
            }
        }
    }

    async fn create_consumer(
        &self,
        stream: &str,
        wanted: consumer::pull::Config,
        made: &mut Vec<String>,
    ) -> Result<(), TopologyError> {
        let name = wanted.durable_name.clone().unwrap_or_default();
        let what = format!("{stream}/{name}");
        if let Some(found) = self.consumer_config(stream, &name).await? {
            let differences = compare_consumers(&what, &found, &wanted);
            return if differences.is_empty() { Ok(()) } else { Err(differs(what, &differences)) };
        }
        self.jetstream()
            .create_consumer_strict_on_stream(wanted, stream)
            .await
            .map_err(|error| TopologyError::Create { what: what.clone(), detail: error.to_string() })?;
        made.push(what);
        Ok(())
    }

    /// Adds a queue, or gives an existing one these settings: its subjects, its consumer, its entry in the catalog.
    ///
    /// Safe to repeat; a half-done declaration is completed by the next.
    pub async fn declare_queue(
        &self,
        queue: &QueueName,
        settings: &QueueSettings,
    ) -> Result<QueueChange, TopologyError> {
        let tasks = self.names().tasks_stream();
        let create = |detail: String| TopologyError::Create { what: format!("queue {queue}"), detail };
        let Some(mut config) = self.stream_config(&tasks).await? else {
            return Err(ReadError::Missing { what: format!("stream {tasks}") }.into());
        };
        let mut change = QueueChange::Unchanged;
        let filters = self.names().queue_filters(queue);
        if !filters.iter().all(|filter| config.subjects.contains(filter)) {
            config.subjects.extend(filters);
            let unique: BTreeSet<String> = config.subjects.drain(..).collect();
            config.subjects.extend(unique);
            self.jetstream().update_stream(&config).await.map_err(|error| create(error.to_string()))?;
            change = QueueChange::Created;
        }
        let wanted = queue_consumer(self.names(), queue, settings);
        match self.consumer_config(&tasks, queue.as_str()).await? {
            Some(found) if compare_consumers("", &found, &wanted).is_empty() => {}
            found => {
                let jetstream = self.jetstream();
                let made = if found.is_some() {
                    jetstream
                        .update_consumer_on_stream(wanted, &tasks)
                        .await
                        .map(|_| ())
                        .map_err(|e| e.to_string())
                } else {
                    jetstream
                        .create_consumer_strict_on_stream(wanted, &tasks)
                        .await
                        .map(|_| ())
                        .map_err(|e| e.to_string())
                };
                made.map_err(create)?;
                change = if found.is_some() { QueueChange::Changed } else { QueueChange::Created };
            }
        }
        let stored =
            self.catalog().put_queue(queue, settings).await.map_err(|error| create(error.to_string()))?;
        Ok(if stored && change == QueueChange::Unchanged { QueueChange::Changed } else { change })
    }

    /// Compares what is there with what should be. `replicas` none: all must have as many as the task stream.
    pub async fn examine(&self, replicas: Option<Replicas>) -> Result<Vec<Difference>, TopologyError> {
        let names = self.names().clone();
        let tasks_name = names.tasks_stream();
        let found_tasks = self.stream_config(&tasks_name).await?;
        let replicas = replicas.unwrap_or(match &found_tasks {
            Some(config) if config.num_replicas >= 3 => Replicas::Three,
            _ => Replicas::One,
        });
        let mut differences = Vec::new();
        for wanted in fixed_streams(&names, replicas) {
            match self.stream_config(&wanted.name).await? {
                Some(found) => differences.extend(compare_streams(&found, &wanted)),
                None => differences.push(missing(wanted.name)),
            }
        }
        if differences.iter().any(|difference| difference.setting == "missing") && found_tasks.is_none() {
            differences.push(missing(tasks_name));
            return Ok(differences);
        }
        let control = names.control_stream();
        for wanted in [control_consumer(&names), backfill_consumer(&names)] {
            let consumer = wanted.durable_name.clone().unwrap_or_default();
            let what = format!("{control}/{consumer}");
            match self.consumer_config(&control, &consumer).await? {
                Some(found) => differences.extend(compare_consumers(&what, &found, &wanted)),
                None => differences.push(missing(what)),
            }
        }
        let queues = self.catalog().queues().await?;
        let Some(found_tasks) = found_tasks else {
            differences.push(missing(tasks_name));
            return Ok(differences);
        };
        let declared: Vec<QueueName> = queues.keys().cloned().collect();
        differences.extend(compare_streams(&found_tasks, &tasks(&names, &declared, replicas)));
        for (queue, settings) in &queues {
            let what = format!("{tasks_name}/{queue}");
            match self.consumer_config(&tasks_name, queue.as_str()).await? {
                Some(found) => {
                    let wanted = queue_consumer(&names, queue, settings);
                    differences.extend(compare_consumers(&what, &found, &wanted));
                }
                None => differences.push(missing(what)),
            }
        }
        Ok(differences)
    }

    /// How full the streams are that refuse when they are: the name, bytes held, bytes at most.
    pub async fn fullness(&self) -> Result<Vec<(String, u64, u64)>, ReadError> {
        let names = self.names();
        let mut found = Vec::new();
        let streams = fixed_streams(names, Replicas::One)
            .into_iter()
            .filter(|wanted| wanted.discard == DiscardPolicy::New);
        for name in streams.map(|wanted| wanted.name).chain([names.tasks_stream()]) {
            let stream = self
                .jetstream()
                .get_stream(&name)
                .await
                .map_err(|error| ReadError::unavailable(&name, error))?;
            let info = stream.cached_info();
            if let Ok(max) = u64::try_from(info.config.max_bytes) {
                found.push((name, info.state.bytes, max));
            }
        }
        Ok(found)
    }

    async fn stream_config(&self, name: &str) -> Result<Option<Config>, ReadError> {
        match self.jetstream().get_stream(name).await {
            Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(inner)
                    if inner.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(ReadError::unavailable(format!("stream {name}"), error)),
            },
        }
    }

    async fn consumer_config(&self, stream: &str, name: &str) -> Result<Option<consumer::Config>, ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            ReadError::unavailable(format!("consumer {stream}/{name}"), error)
        };
        let handle =
            self.jetstream().get_stream_no_info(stream).await.map_err(|error| unavailable(&error))?;
        match handle.consumer_info(name).await {
            Ok(info) => Ok(Some(info.config)),
            Err(error) => match error.kind() {
                ConsumerInfoErrorKind::NotFound => Ok(None),
                _ => Err(unavailable(&error)),
            },
        }
    }
}

/// What declaring a queue did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueChange {
    /// It was there with these settings.
    Unchanged,
    /// It was there with other settings.
    Changed,
    /// It was not there.
    Created,
}

fn create_detail(kind: &CreateStreamErrorKind, error: &dyn std::fmt::Display) -> String {
    match kind {
        CreateStreamErrorKind::JetStream(inner) => inner.to_string(),
        _ => error.to_string(),
    }
}

/// The setting that `init --replicas` names.
const REPLICAS: &str = "replicas";

fn copies(number: usize) -> String {
    if number == 1 { "1 replica".to_owned() } else { format!("{number} replicas") }
}

fn differs(what: String, differences: &[Difference]) -> TopologyError {
    let list: Vec<String> =
        differences.iter().map(|d| format!("{}: {} instead of {}", d.setting, d.found, d.wanted)).collect();
    TopologyError::Differs { what, differences: list.join("; ") }
}
