//! How full a queue is.

use async_nats::jetstream::consumer::{Consumer, pull};
use schemars::JsonSchema;
use serde::Serialize;
use shared::names::QueueName;

use crate::{ReadError, Streams};

/// How full a queue is, by the server's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct QueueDepth {
    /// Runs no worker has yet.
    pub waiting: u64,
    /// Runs that workers have, or that wait for their next attempt.
    pub in_flight: u64,
    /// Runs in flight that were handed out more than once.
    pub redelivered: u64,
    /// Pulls of workers that wait for a run.
    pub pulls: u64,
}

impl Streams {
    /// How full a queue is.
    pub async fn queue_depth(&self, queue: &QueueName) -> Result<QueueDepth, ReadError> {
        let what = || format!("queue {queue}");
        let name = self.names().tasks_stream();
        let stream = self
            .jetstream()
            .get_stream_no_info(&name)
            .await
            .map_err(|error| ReadError::unavailable(what(), error))?;
        let consumer: Consumer<pull::Config> = stream
            .get_consumer(queue.as_str())
            .await
            .map_err(|error| ReadError::unavailable(what(), error))?;
        let info = consumer.cached_info();
        Ok(QueueDepth {
            waiting: info.num_pending,
            in_flight: info.num_ack_pending as u64,
            redelivered: info.num_redelivered as u64,
            pulls: info.num_waiting as u64,
        })
    }
}
