//! Going through the dead letters: one after another, so that it costs memory for those only that are wanted.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    message::StreamMessage,
};
use futures::StreamExt;
use shared::Timestamp;

use super::{DeadLetter, Wanted};
use crate::{ReadError, Streams, bucket::timestamp};

/// Letters that are asked for at once: each may have the size of a message.
const PULL_MAX: usize = 200;
const PULL_EXPIRES: Duration = Duration::from_secs(3);
/// How long the server keeps a consumer that nobody pulls from.
const INACTIVE_MAX: Duration = Duration::from_secs(30);

/// A dead letter, and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The letter.
    pub letter: DeadLetter,
    /// Its place in the stream; unique for ever.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
}

impl Found {
    pub(super) fn read(message: &StreamMessage) -> Option<Self> {
        let letter = serde_json::from_slice(&message.payload).ok()?;
        let stored_at = timestamp(message.time.unix_timestamp_nanos());
        Some(Self { letter, sequence: message.sequence, stored_at })
    }

    /// When its run failed.
    pub fn failed_at(&self) -> Timestamp {
        self.letter.run.finished_at.unwrap_or(self.stored_at)
    }
}

impl Streams {
    /// Goes through the dead letters that are meant and lie there now, the oldest first. One that nobody can read (a newer
    /// version's) is left out.
    pub async fn each_dead_letter(
        &self,
        wanted: &Wanted,
        mut each: impl FnMut(Found),
    ) -> Result<(), ReadError> {
        let name = self.names().dead_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let config = pull::Config {
            filter_subject: self.names().dead_matching(wanted.queue.as_ref(), wanted.name.as_ref()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE_MAX,
            ..Default::default()
        };
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        let consumer = stream.create_consumer(config).await.map_err(|error| unavailable(&error))?;
        let mut expected = consumer.cached_info().num_pending;
        while expected > 0 {
            let pull = consumer.batch().max_messages(PULL_MAX).expires(PULL_EXPIRES).messages().await;
            let mut batch = pull.map_err(|error| unavailable(&error))?;
            let mut heard = 0_usize;
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| unavailable(&error))?;
                let info = message.info().map_err(|error| unavailable(&error))?;
                heard += 1;
                expected = info.pending.min(expected.saturating_sub(1));
                if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&message.payload) {
                    let stored_at = timestamp(info.published.unix_timestamp_nanos());
                    let found = Found { letter, sequence: info.stream_sequence, stored_at };
                    if wanted.matches(&found) {
                        each(found);
                    }
                }
                if expected == 0 {
                    break;
                }
            }
            // What was retried meanwhile does not come any more.
            if heard == 0 {
                break;
            }
        }
        Ok(())
    }
}
