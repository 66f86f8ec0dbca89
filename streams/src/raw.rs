//! What the server can do at all, which a fleet's own rates and latencies are measured by.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    context::PublishAckFuture,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use shared::Timestamp;

use crate::{ReadError, Streams, bucket::timestamp};

/// The consumer of raw messages.
const CONSUMER: &str = "raw";
/// Raw messages that were taken in are handed out within this.
const HANDED_OUT_WAIT: Duration = Duration::from_secs(30);

/// Raw messages that are handed out and not acknowledged, at most.
const RAW_ACK_PENDING_MAX: i64 = 10_000;
/// Between two looks at a stream that is being emptied.
const DRAINED_LOOK: Duration = Duration::from_millis(5);

/// Publishes whose acknowledgement has not come yet.
const IN_FLIGHT: usize = 1_000;

impl Streams {
    /// How many tasks are in the work queue, and when the last was stored.
    pub async fn tasks_stored(&self) -> Result<(u64, Timestamp), ReadError> {
        let name = self.names().tasks_stream();
        let stream = self
            .jetstream()
            .get_stream(&name)
            .await
            .map_err(|error| ReadError::unavailable(name.clone(), error))?;
        let state = &stream.cached_info().state;
        Ok((state.messages, timestamp(state.last_timestamp.unix_timestamp_nanos())))
    }

    /// Publishes so many messages of so many bytes, each on a subject of its own, to a stream with the settings of the
    /// work queue, as fast as the client can; how long it took. The stream is made for it and deleted.
    pub async fn raw_publish(&self, messages: usize, bytes: usize) -> Result<Duration, ReadError> {
        let name = self.names().raw_stream();
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let config = crate::topology::raw(self.names());
        self.jetstream().create_stream(config).await.map_err(|error| failed(&error))?;
        let began = self.clock().elapsed();
        let published = self.raw_fill(messages, bytes).await;
        let took = self.clock().elapsed().saturating_sub(began);
        let _ = self.jetstream().delete_stream(&name).await;
        published.map(|()| took)
    }

    async fn raw_fill(&self, messages: usize, bytes: usize) -> Result<(), ReadError> {
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(self.names().raw_stream(), error);
        let payload = Bytes::from(vec![b'x'; bytes]);
        stream::iter(0..messages)
            .map(|n| self.jetstream().publish(self.names().raw(n), payload.clone()))
            // In order, as one client publishes; the acknowledgements are waited for behind it.
            .buffered(1)
            .map_err(|error| failed(&error))
            .map_ok(|ack: PublishAckFuture| async move { ack.await.map_err(|error| failed(&error)) })
            .try_buffer_unordered(IN_FLIGHT)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Fills a stream with the settings of the work queue with so many messages of so many bytes, for [`Streams::raw_drain`].
    pub async fn raw_queue(&self, messages: usize, bytes: usize) -> Result<(), ReadError> {
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(self.names().raw_stream(), error);
        let config = crate::topology::raw(self.names());
        self.jetstream().create_stream(config).await.map_err(|error| failed(&error))?;
        self.raw_fill(messages, bytes).await
    }

    /// Has all of them handed out and acknowledged, as fast as one client can; how long that took. The stream is deleted.
    pub async fn raw_drain(&self) -> Result<Duration, ReadError> {
        let name = self.names().raw_stream();
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let mut stream = self.jetstream().get_stream(&name).await.map_err(|error| failed(&error))?;
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some(CONSUMER.to_owned()),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: RAW_ACK_PENDING_MAX,
                ..Default::default()
            })
            .await
            .map_err(|error| failed(&error))?;
        let messages = usize::try_from(stream.cached_info().state.messages).unwrap_or(usize::MAX);
        let began = self.clock().elapsed();
        let handed_out = consumer.stream().max_messages_per_batch(IN_FLIGHT).messages().await;
        let mut handed_out = handed_out.map_err(|error| failed(&error))?.take(messages);
        while let Some(message) = handed_out.next().await {
            message.map_err(|error| failed(&error))?.ack().await.map_err(|error| failed(&error))?;
        }
        // An acknowledgement says nothing; the stream is empty when the last was taken.
        while stream.info().await.map_err(|error| failed(&error))?.state.messages > 0 {
            self.clock().sleep(DRAINED_LOOK).await;
        }
        let took = self.clock().elapsed().saturating_sub(began);
        let _ = self.jetstream().delete_stream(&name).await;
        Ok(took)
    }

    /// Publishes so many messages of so many bytes at once, again and again, to a stream with the settings of the work queue,
    /// while somebody waits for them there; how long after the beginning of its round each was in that one's hands, and
    /// acknowledged. The stream is made for it and deleted.
    pub async fn raw_bursts(
        &self,
        rounds: usize,
        messages: usize,
        bytes: usize,
    ) -> Result<Vec<Duration>, ReadError> {
        let name = self.names().raw_stream();
        let failed = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().create_stream(crate::topology::raw(self.names())).await;
        let consumer = stream
            .map_err(|error| failed(&error))?
            .create_consumer(pull::Config {
                durable_name: Some(CONSUMER.to_owned()),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: i64::try_from(messages).unwrap_or(i64::MAX),
                ..Default::default()
            })
            .await
            .map_err(|error| failed(&error))?;
        let payload = Bytes::from(vec![b'x'; bytes]);
        let mut came_after = Vec::with_capacity(rounds * messages);
        for round in 0..rounds {
            let asked = consumer.batch().max_messages(messages).expires(HANDED_OUT_WAIT).messages().await;
            let mut handed_out = asked.map_err(|error| failed(&error))?;
            let began = self.clock().elapsed();
            let publishing = async {
                let first = round * messages;
                let published = stream::iter(first..first + messages)
                    .map(|n| self.jetstream().publish(self.names().raw(n), payload.clone()))
                    .buffered(1)
                    .map_err(|error| failed(&error))
                    .map_ok(|ack: PublishAckFuture| async move { ack.await.map_err(|error| failed(&error)) })
                    .try_buffer_unordered(messages);
                published.try_for_each(|_| std::future::ready(Ok(()))).await
            };
            let taking = async {
                while let Some(message) = handed_out.next().await {
                    let message = message.map_err(|error| failed(&error))?;
                    came_after.push(self.clock().elapsed().saturating_sub(began));
                    message.ack().await.map_err(|error| failed(&error))?;
                }
                Ok::<(), ReadError>(())
            };
            futures::try_join!(publishing, taking)?;
        }
        let _ = self.jetstream().delete_stream(&name).await;
        Ok(came_after)
    }
}
