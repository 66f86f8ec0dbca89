//! What waits, for people. All of it is looked through, by its headers; what is kept of it is bounded.

use std::{collections::BinaryHeap, time::Duration};

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    Timestamp,
    names::{Name, QueueName},
    run::RunId,
};

use super::{Delayed, by_headers, door};
use crate::{ReadError, bucket::timestamp, headers};

const PULL_MAX: usize = 10_000;
const PULL_EXPIRES: Duration = Duration::from_secs(3);

/// Which of those that wait.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those of this queue.
    pub queue: Option<QueueName>,
    /// Only those under this name.
    pub name: Option<Name>,
    /// At most so many: those that are due first.
    pub limit: usize,
}

/// One that waits. Ordered by when it is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Listed {
    /// When it may run.
    pub not_before: Timestamp,
    /// The run it will be.
    pub id: RunId,
    /// The queue it goes to.
    pub queue: QueueName,
    /// When it was submitted.
    pub submitted_at: Timestamp,
}

impl Delayed {
    /// Those that wait and will be runs, the first due first.
    pub async fn list(&self, wanted: &Wanted) -> Result<Vec<Listed>, ReadError> {
        let names = self.streams.names();
        let config = pull::Config {
            filter_subject: names.delayed_matching(wanted.queue.as_ref(), wanted.name.as_ref()),
            ..by_headers(DeliverPolicy::All)
        };
        let stream = self.stream().await?;
        let consumer = stream.create_consumer(config).await.map_err(|error| self.unavailable(&error))?;
        let mut expected = consumer.cached_info().num_pending;
        // The one that is due last is on top, and goes when there are too many.
        let mut earliest: BinaryHeap<Listed> = BinaryHeap::new();
        while expected > 0 {
            let pull = consumer.batch().max_messages(PULL_MAX).expires(PULL_EXPIRES).messages().await;
            let mut batch = pull.map_err(|error| self.unavailable(&error))?;
            let mut heard = 0_usize;
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| self.unavailable(&error))?;
                let info = message.info().map_err(|error| self.unavailable(&error))?;
                heard += 1;
                expected = info.pending.min(expected.saturating_sub(1));
                let Some((_, queue, name, key)) = names.parse_delayed(&message.subject) else { continue };
                let written = headers::value(message.headers.as_ref(), headers::NOT_BEFORE);
                let submitted_at = timestamp(info.published.unix_timestamp_nanos());
                if let Ok(read) = door::read((queue, name, key), written, submitted_at) {
                    let (id, queue, not_before) = (read.run, read.queue, read.not_before);
                    earliest.push(Listed { not_before, id, queue, submitted_at });
                    if earliest.len() > wanted.limit {
                        earliest.pop();
                    }
                }
                if expected == 0 {
                    break;
                }
            }
            // What was deleted meanwhile does not come any more.
            if heard == 0 {
                break;
            }
        }
        Ok(earliest.into_sorted_vec())
    }
}
