//! The raw rate of the server, which a fleet's own rates are measured by.

use std::time::Duration;

use async_nats::jetstream::context::PublishAckFuture;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use shared::Timestamp;

use crate::{ReadError, Streams, bucket::timestamp};

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
        let payload = Bytes::from(vec![b'x'; bytes]);
        let began = self.clock().elapsed();
        let published = stream::iter(0..messages)
            .map(|n| self.jetstream().publish(self.names().raw(n), payload.clone()))
            // In order, as one client publishes; the acknowledgements are waited for behind it.
            .buffered(1)
            .map_err(|error| failed(&error))
            .map_ok(|ack: PublishAckFuture| async move { ack.await.map_err(|error| failed(&error)) })
            .try_buffer_unordered(IN_FLIGHT)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await;
        let took = self.clock().elapsed().saturating_sub(began);
        let _ = self.jetstream().delete_stream(&name).await;
        published.map(|()| took)
    }
}
