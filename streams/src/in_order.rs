//! Reading a stream in order, by pulls of our own over a consumer without acknowledgements.
//!
//! Not async-nats' ordered consumer: that loses a wakeup after its first missed heartbeat. Whoever reads remembers only its
//! place in the stream; whatever goes wrong is mended by a new consumer that starts behind it.

use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{Consumer, pull},
};
use futures::{StreamExt, stream::ReadyChunks};

use crate::ReadError;

/// A pull that was not filled ends after this, and is asked anew. That long a lost one is not missed.
const PULL_EXPIRES: Duration = Duration::from_secs(2);

/// How much is asked for, and handed on, at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Messages of one pull. Fewer than async-nats holds for a subscriber, so none is dropped.
    pub(crate) pull: usize,
    /// Messages that are handed on at once.
    pub(crate) chunk: usize,
}

/// A consumer that is read in order.
pub(crate) struct InOrder {
    consumer: Consumer<pull::Config>,
    sizes: Sizes,
    batch: Option<ReadyChunks<pull::Batch>>,
    delivered: u64,
    is_broken: bool,
}

impl InOrder {
    pub(crate) fn new(consumer: Consumer<pull::Config>, sizes: Sizes) -> Self {
        Self { consumer, sizes, batch: None, delivered: 0, is_broken: false }
    }

    /// Whether something was missed: a new consumer must go on behind what was read.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The next messages, at least one. After an error, too, it is broken.
    pub(crate) async fn next(&mut self, what: &str) -> Result<Vec<Message>, ReadError> {
        let was_broken = std::mem::replace(&mut self.is_broken, true);
        if was_broken {
            return Err(ReadError::unavailable(what, "something was missed"));
        }
        loop {
            let mut batch = if let Some(batch) = self.batch.take() {
                batch
            } else {
                let pull = self.consumer.batch().max_messages(self.sizes.pull).expires(PULL_EXPIRES);
                let batch = pull.messages().await.map_err(|error| ReadError::unavailable(what, error))?;
                batch.ready_chunks(self.sizes.chunk)
            };
            // Filled or expired: ask anew.
            let Some(chunk) = batch.next().await else { continue };
            let mut messages = Vec::with_capacity(chunk.len());
            for message in chunk {
                let checked = message.map_err(|error| error.to_string());
                match checked.and_then(|message| self.in_order(message)) {
                    Ok(message) => messages.push(message),
                    Err(error) if messages.is_empty() => return Err(ReadError::unavailable(what, error)),
                    // What came before it counts.
                    Err(_) => return Ok(messages),
                }
            }
            self.batch = Some(batch);
            self.is_broken = false;
            return Ok(messages);
        }
    }

    fn in_order(&mut self, message: Message) -> Result<Message, String> {
        let number = message.info().map_err(|error| error.to_string())?.consumer_sequence;
        if number != self.delivered + 1 {
            return Err(format!("delivery {number} came after {}", self.delivered));
        }
        self.delivered = number;
        Ok(message)
    }
}
