//! What should be there: the settings of every stream, bucket and consumer.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{self, AckPolicy, DeliverPolicy},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType, SubjectTransform},
};
use shared::{limits, names::QueueName, queue::QueueSettings};

use super::Replicas;
use crate::{
    Names,
    names::{BACKFILL_CONSUMER, CONTROL_CONSUMER, bucket_prefix, bucket_stream},
};

const MIB: i64 = 1024 * 1024;
const TASKS_BYTES_MAX: i64 = 512 * MIB;
/// Four million submissions of 300 bytes.
const DELAYED_BYTES_MAX: i64 = 2048 * MIB;
const DEAD_BYTES_MAX: i64 = 256 * MIB;
/// A thousand attempts that say as much as they may; mostly logs go by age.
const LOG_BYTES_MAX: i64 = 1024 * MIB;
/// What targets leave that answer later: half a million small answers.
const CALLBACKS_BYTES_MAX: i64 = 256 * MIB;
const CONTROL_BYTES_MAX: i64 = 64 * MIB;
/// About seven million runs; `doctor` warns long before it is full.
const RUNS_BYTES_MAX: i64 = 8192 * MIB;
/// Three million definitions of 600 bytes, versions counted.
const SCHEDULES_BYTES_MAX: i64 = 2048 * MIB;
const CATALOG_BYTES_MAX: i64 = 512 * MIB;
const BACKFILLS_BYTES_MAX: i64 = 64 * MIB;
const PLANNER_BYTES_MAX: i64 = 64 * MIB;
const MEMBERS_BYTES_MAX: i64 = 64 * MIB;
/// A million lanes that somebody has passed within a minute.
const LIMITS_BYTES_MAX: i64 = 256 * MIB;
/// A million runs of 300 bytes that wait for a limit.
const LIMITED_BYTES_MAX: i64 = 512 * MIB;
/// Watches and consumers on one stream; nats-server 2.15 has the same limit by default.
const CONSUMERS_MAX: i32 = 1_000;
/// Pull requests waiting at one queue's consumer, over all workers.
const PULLS_WAITING_MAX: i64 = 8_192;
const DUPLICATE_WINDOW_MIN: Duration = Duration::from_millis(100);
const AUDIT_RETENTION: Duration = Duration::from_hours(8760);

pub(super) fn base(name: String, subjects: Vec<String>, max_bytes: i64, replicas: Replicas) -> Config {
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
pub(super) fn bytes(limit: usize) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

/// A bucket: the stream `nats kv` expects, but without what would let one writer wipe it (rollup, delete, purge).
pub(super) fn bucket(name: &str, history: i64, max_bytes: i64, replicas: Replicas) -> Config {
    Config {
        max_messages_per_subject: history,
        deny_delete: true,
        deny_purge: true,
        allow_rollup: false,
        allow_direct: true,
        ..base(bucket_stream(name), vec![format!("{}>", bucket_prefix(name))], max_bytes, replicas)
    }
}

pub(super) fn tasks(names: &Names, queues: &[QueueName], replicas: Replicas) -> Config {
    let subjects = queues.iter().flat_map(|queue| names.queue_filters(queue)).collect();
    Config {
        retention: RetentionPolicy::WorkQueue,
        // One message a subject: the server itself refuses a run that is queued or running.
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        // As short as the server allows: a message id a caller chose must not make the server drop a submission and
        // acknowledge it all the same.
        duplicate_window: DUPLICATE_WINDOW_MIN,
        max_message_size: bytes(2 * limits::TASK_BYTES_MAX),
        ..base(names.tasks_stream(), subjects, TASKS_BYTES_MAX, replicas)
    }
}

/// A stream like the work queue, for `bench` to measure the server with.
pub(crate) fn raw(names: &Names) -> Config {
    let like = tasks(names, &[], Replicas::One);
    Config { name: names.raw_stream(), subjects: vec![names.raw_all()], ..like }
}

/// What waits for its instant, or for its next attempt outside its queue. Deleted one by one, by sequence, once it is in the queue.
fn delayed(names: &Names, replicas: Replicas) -> Config {
    Config {
        // One message a subject: the same run is refused while it waits.
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        // As for the tasks: an id a caller chose must not make the server acknowledge what it drops.
        duplicate_window: DUPLICATE_WINDOW_MIN,
        max_message_size: bytes(2 * limits::TASK_BYTES_MAX),
        allow_direct: true,
        // The partition goes into the stored subject: each planner reads its own share, and no more.
        subject_transform: Some(SubjectTransform {
            source: names.delayed_all(),
            destination: names.delayed_stored(),
        }),
        ..base(
            names.delayed_stream(),
            vec![names.delayed_all(), names.parked_all()],
            DELAYED_BYTES_MAX,
            replicas,
        )
    }
}

/// What waits for a limit. Let go one by one, by sequence.
fn limited(names: &Names, replicas: Replicas) -> Config {
    Config {
        // One message a subject: whoever lets a run wait twice lets it wait once.
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        duplicate_window: DUPLICATE_WINDOW_MIN,
        max_message_size: bytes(2 * limits::TASK_BYTES_MAX),
        ..base(names.limited_stream(), vec![names.limited_all()], LIMITED_BYTES_MAX, replicas)
    }
}

pub(super) fn fixed_streams(names: &Names, replicas: Replicas) -> Vec<Config> {
    let runs = names.runs_bucket();
    vec![
        delayed(names, replicas),
        limited(names, replicas),
        Config {
            // Lanes come and go without end, and so must what is left of them.
            allow_message_ttl: true,
            ..bucket(&names.limits_bucket(), 1, LIMITS_BYTES_MAX, replicas)
        },
        Config {
            max_messages_per_subject: 1,
            discard: DiscardPolicy::Old,
            max_age: limits::RUN_RETENTION,
            ..base(names.dead_stream(), vec![names.dead_all()], DEAD_BYTES_MAX, replicas)
        },
        // It forgets when it is full: no run waits for its log.
        Config {
            discard: DiscardPolicy::Old,
            max_age: limits::LOG_RETENTION,
            allow_direct: true,
            ..base(names.log_stream(), vec![names.log_all()], LOG_BYTES_MAX, replicas)
        },
        Config {
            // The first answer counts, also of several that come before it is heard. A full stream refuses, and the target tries
            // again. A fleet whose stream was made to keep one has only the newest answer until one is heard.
            max_messages_per_subject: limits::CALLBACKS_KEPT_EACH,
            max_age: limits::CALLBACK_KEPT,
            ..base(
                names.callbacks_stream(),
                vec![names.callbacks(), names.callbacks_progress()],
                CALLBACKS_BYTES_MAX,
                replicas,
            )
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
            allow_batch_publish: true,
            ..bucket(&runs, limits::RUN_HISTORY, RUNS_BYTES_MAX, replicas)
        },
        bucket(&names.schedules_bucket(), limits::DEFINITION_HISTORY, SCHEDULES_BYTES_MAX, replicas),
        bucket(&names.catalog_bucket(), limits::DEFINITION_HISTORY, CATALOG_BYTES_MAX, replicas),
        Config {
            max_age: limits::RUN_RETENTION,
            ..bucket(&names.backfills_bucket(), 1, BACKFILLS_BYTES_MAX, replicas)
        },
        bucket(&names.planner_bucket(), 1, PLANNER_BYTES_MAX, replicas),
        Config {
            max_age: limits::MEMBER_GONE,
            ..bucket(&names.members_bucket(), 1, MEMBERS_BYTES_MAX, replicas)
        },
    ]
}

pub(super) fn queue_consumer(
    names: &Names,
    queue: &QueueName,
    settings: &QueueSettings,
) -> consumer::pull::Config {
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

pub(super) fn control_consumer(names: &Names) -> consumer::pull::Config {
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

pub(super) fn backfill_consumer(names: &Names) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(BACKFILL_CONSUMER.to_owned()),
        filter_subjects: vec![names.backfill_requests()],
        ack_wait: limits::BACKFILL_ACK_WAIT,
        max_ack_pending: i64::try_from(limits::BACKFILLS_AT_ONCE_MAX).unwrap_or(i64::MAX),
        ..control_consumer(names)
    }
}
