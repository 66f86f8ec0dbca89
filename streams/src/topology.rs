//! The streams, buckets and consumers a fleet needs, as code.
//!
//! [`Streams::init`] creates what is missing; [`Streams::examine`] compares what is there with what should be. Nothing
//! else creates, and nothing here changes or recreates what exists: a difference is for an operator to judge. The one
//! exception is asked for by name: [`Streams::declare_queue`], with which `apply` adds or changes a queue.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{self, AckPolicy, DeliverPolicy},
    context::{ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use shared::{limits, names::QueueName, queue::QueueSettings};

use crate::{
    Names, ReadError, Streams,
    names::{CONTROL_CONSUMER, bucket_prefix, bucket_stream},
};

const MIB: i64 = 1024 * 1024;
const TASKS_BYTES_MAX: i64 = 512 * MIB;
const DEAD_BYTES_MAX: i64 = 256 * MIB;
const CONTROL_BYTES_MAX: i64 = 64 * MIB;
const RUNS_BYTES_MAX: i64 = 2048 * MIB;
const DEFINITIONS_BYTES_MAX: i64 = 512 * MIB;
const PLANNER_BYTES_MAX: i64 = 64 * MIB;
const MEMBERS_BYTES_MAX: i64 = 64 * MIB;
/// Watches and consumers on one stream; nats-server 2.15 has the same limit by default.
const CONSUMERS_MAX: i32 = 1_000;
/// Pull requests waiting at one queue's consumer, over all workers.
const PULLS_WAITING_MAX: i64 = 8_192;
const AUDIT_RETENTION: Duration = Duration::from_hours(8760);

/// What should be there and is not, or is otherwise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The stream, or `stream/consumer`.
    pub what: String,
    /// The setting; `missing` if the whole thing is.
    pub setting: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub wanted: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.setting == "missing" {
            return write!(f, "{} is missing; run `cronfleet init`", self.what);
        }
        write!(f, "{}: {} is {}, should be {}", self.what, self.setting, self.found, self.wanted)
    }
}

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
    fn number(self) -> usize {
        match self {
            Replicas::One => 1,
            Replicas::Three => 3,
        }
    }
}

fn base(name: String, subjects: Vec<String>, max_bytes: i64, replicas: Replicas) -> Config {
    Config {
        name,
        subjects,
        max_bytes,
        num_replicas: replicas.number(),
        retention: RetentionPolicy::Limits,
        // A full stream refuses, it does not forget: late is better than lost.
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        max_consumers: CONSUMERS_MAX,
        max_message_size: bytes(limits::MESSAGE_BYTES_MAX),
        ..Config::default()
    }
}

/// A limit as the server's settings spell it.
fn bytes(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

/// A bucket: the stream `nats kv` expects, but without what would let one writer wipe it (rollup, delete, purge).
fn bucket(name: &str, history: i64, max_bytes: i64, replicas: Replicas) -> Config {
    Config {
        max_messages_per_subject: history,
        deny_delete: true,
        deny_purge: true,
        allow_rollup: false,
        allow_direct: true,
        ..base(bucket_stream(name), vec![format!("{}>", bucket_prefix(name))], max_bytes, replicas)
    }
}

fn tasks(names: &Names, queues: &[QueueName], replicas: Replicas) -> Config {
    let subjects = queues.iter().flat_map(|queue| names.queue_filters(queue)).collect();
    Config {
        retention: RetentionPolicy::WorkQueue,
        // One message a subject: the server itself refuses a run that is queued or running.
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        deny_purge: false,
        max_message_size: bytes(2 * limits::TASK_BYTES_MAX),
        ..base(names.tasks_stream(), subjects, TASKS_BYTES_MAX, replicas)
    }
}

fn fixed_streams(names: &Names, replicas: Replicas) -> Vec<Config> {
    let runs = names.runs_bucket();
    vec![
        Config {
            max_messages_per_subject: 1,
            discard: DiscardPolicy::Old,
            max_age: limits::RUN_RETENTION,
            ..base(names.dead_stream(), vec![names.dead_all()], DEAD_BYTES_MAX, replicas)
        },
        Config {
            max_age: AUDIT_RETENTION,
            deny_delete: true,
            deny_purge: true,
            ..base(names.control_stream(), vec![names.control_all()], CONTROL_BYTES_MAX, replicas)
        },
        Config {
            max_age: limits::RUN_RETENTION,
            republish: Some(Republish {
                source: format!("{}>", bucket_prefix(&runs)),
                destination: names.results(None),
                headers_only: false,
            }),
            ..bucket(&runs, limits::RUN_HISTORY, RUNS_BYTES_MAX, replicas)
        },
        bucket(&names.schedules_bucket(), limits::DEFINITION_HISTORY, DEFINITIONS_BYTES_MAX, replicas),
        bucket(&names.catalog_bucket(), limits::DEFINITION_HISTORY, DEFINITIONS_BYTES_MAX, replicas),
        bucket(&names.planner_bucket(), 1, PLANNER_BYTES_MAX, replicas),
        Config {
            max_age: limits::MEMBER_GONE,
            ..bucket(&names.members_bucket(), 1, MEMBERS_BYTES_MAX, replicas)
        },
    ]
}

fn queue_consumer(names: &Names, queue: &QueueName, settings: &QueueSettings) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(queue.to_string()),
        filter_subjects: names.queue_filters(queue).to_vec(),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait.0,
        max_ack_pending: i64::from(settings.max_in_flight),
        // The ledger counts attempts; the server must never give a run up on its own.
        max_deliver: -1,
        max_waiting: PULLS_WAITING_MAX,
        ..Default::default()
    }
}

fn control_consumer(names: &Names) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(CONTROL_CONSUMER.to_owned()),
        filter_subjects: vec![names.triggers()],
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: limits::ACK_WAIT_DEFAULT,
        max_deliver: -1,
        ..Default::default()
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
        self.create_consumer(&names.control_stream(), control_consumer(&names), &mut made).await?;
        if self.catalog().queue(&QueueName::default_queue()).await?.is_none() {
            let change = self.declare_queue(&QueueName::default_queue(), &QueueSettings::default()).await?;
            if change != QueueChange::Unchanged {
                made.push(format!("{}/{}", names.tasks_stream(), QueueName::default_queue()));
            }
        }
        Ok(made)
    }

    async fn create_stream(&self, wanted: Config, made: &mut Vec<String>) -> Result<(), TopologyError> {
        let name = wanted.name.clone();
        if let Some(found) = self.stream_config(&name).await? {
            let differences = compare_streams(&found, &wanted);
            return if differences.is_empty() { Ok(()) } else { Err(differs(name, &differences)) };
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
        let wanted = control_consumer(&names);
        match self.consumer_config(&control, CONTROL_CONSUMER).await? {
            Some(found) => {
                differences.extend(compare_consumers(
                    &format!("{control}/{CONTROL_CONSUMER}"),
                    &found,
                    &wanted,
                ));
            }
            None => differences.push(missing(format!("{control}/{CONTROL_CONSUMER}"))),
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

fn differs(what: String, differences: &[Difference]) -> TopologyError {
    let list: Vec<String> =
        differences.iter().map(|d| format!("{}: {} instead of {}", d.setting, d.found, d.wanted)).collect();
    TopologyError::Differs { what, differences: list.join("; ") }
}

fn missing(what: String) -> Difference {
    Difference { what, setting: "missing".into(), found: "nothing".into(), wanted: "there".into() }
}

struct Comparison<'a> {
    what: &'a str,
    differences: Vec<Difference>,
}

impl Comparison<'_> {
    fn of<T: PartialEq + std::fmt::Debug>(&mut self, setting: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.differences.push(Difference {
                what: self.what.to_owned(),
                setting: setting.to_owned(),
                found: format!("{found:?}"),
                wanted: format!("{wanted:?}"),
            });
        }
    }
}

/// Only what the promises rest on: an operator may add a placement, metadata or compression of their own.
fn compare_streams(found: &Config, wanted: &Config) -> Vec<Difference> {
    let mut c = Comparison { what: &found.name, differences: Vec::new() };
    let set = |subjects: &[String]| subjects.iter().cloned().collect::<BTreeSet<String>>();
    c.of("subjects", &set(&found.subjects), &set(&wanted.subjects));
    c.of("retention", &found.retention, &wanted.retention);
    c.of("storage", &found.storage, &wanted.storage);
    c.of("replicas", &found.num_replicas, &wanted.num_replicas);
    c.of("discard", &found.discard, &wanted.discard);
    c.of("discard_new_per_subject", &found.discard_new_per_subject, &wanted.discard_new_per_subject);
    // The server says -1 where nothing was set.
    let per_subject = |config: &Config| config.max_messages_per_subject.max(0);
    c.of("max_msgs_per_subject", &per_subject(found), &per_subject(wanted));
    c.of("max_age", &found.max_age, &wanted.max_age);
    c.of("deny_delete", &found.deny_delete, &wanted.deny_delete);
    c.of("deny_purge", &found.deny_purge, &wanted.deny_purge);
    c.of("allow_rollup", &found.allow_rollup, &wanted.allow_rollup);
    c.of("allow_msg_ttl", &found.allow_message_ttl, &wanted.allow_message_ttl);
    c.of("allow_atomic", &found.allow_atomic_publish, &wanted.allow_atomic_publish);
    c.of("allow_msg_schedules", &found.allow_message_schedules, &wanted.allow_message_schedules);
    let republish =
        |config: &Config| config.republish.as_ref().map(|r| (r.source.clone(), r.destination.clone()));
    c.of("republish", &republish(found), &republish(wanted));
    c.of("sealed", &found.sealed, &false);
    if found.max_bytes <= 0 {
        c.of("max_bytes", &found.max_bytes, &wanted.max_bytes);
    }
    c.differences
}

fn compare_consumers(
    what: &str,
    found: &consumer::Config,
    wanted: &consumer::pull::Config,
) -> Vec<Difference> {
    let mut c = Comparison { what, differences: Vec::new() };
    let mut filters: BTreeSet<String> = found.filter_subjects.iter().cloned().collect();
    if !found.filter_subject.is_empty() {
        filters.insert(found.filter_subject.clone());
    }
    c.of("filter_subjects", &filters, &wanted.filter_subjects.iter().cloned().collect());
    c.of("ack_policy", &found.ack_policy, &wanted.ack_policy);
    c.of("deliver_policy", &found.deliver_policy, &wanted.deliver_policy);
    c.of("ack_wait", &found.ack_wait, &wanted.ack_wait);
    c.of("max_deliver", &found.max_deliver, &wanted.max_deliver);
    if wanted.max_ack_pending > 0 {
        c.of("max_ack_pending", &found.max_ack_pending, &wanted.max_ack_pending);
    }
    c.of("backoff", &found.backoff, &Vec::new());
    c.differences
}
