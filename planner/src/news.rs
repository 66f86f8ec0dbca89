//! What is heard of seats and leases, from a task of its own: nothing that interrupts the keeper interrupts a watch that
//! is just being opened.

use std::time::Duration;

use futures::StreamExt;
use streams::{ReadError, Streams, leases::Seen};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Between two watches.
const REWATCH_WAIT: Duration = Duration::from_millis(500);
/// A watch that shows nothing for so long is dead, whatever the client thinks: it would show our own renewals at least.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(3);
/// What was heard and not looked at; the watch waits when it is full.
const ITEMS_WAITING_MAX: usize = 1_024;

/// What the keeper hears.
pub(crate) enum Item {
    /// A watch begins: what is there comes first.
    Begins,
    /// A seat or a lease.
    Seen(Seen),
    /// The watch is lost.
    Ends,
}

pub(crate) struct News {
    pub(crate) items: mpsc::Receiver<Item>,
    _task: AbortOnDropHandle<()>,
}

impl News {
    pub(crate) fn follow(streams: Streams) -> Self {
        let (sender, items) = mpsc::channel(ITEMS_WAITING_MAX);
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = watch(&streams, &sender).await {
                    tracing::debug!(%error, "Seats and leases cannot be watched just now: {error}");
                }
                if sender.send(Item::Ends).await.is_err() {
                    return;
                }
                streams.clock().sleep(REWATCH_WAIT).await;
            }
        });
        Self { items, _task: AbortOnDropHandle::new(task) }
    }
}

async fn watch(streams: &Streams, sender: &mpsc::Sender<Item>) -> Result<(), ReadError> {
    let mut seen = streams.partitions().watch().await?;
    let _ = sender.send(Item::Begins).await;
    loop {
        let next = tokio::select! {
            next = seen.next() => next,
            () = streams.clock().sleep(WATCH_SILENCE_MAX) => None,
        };
        let Some(next) = next else { return Ok(()) };
        if sender.send(Item::Seen(next?)).await.is_err() {
            return Ok(());
        }
    }
}
