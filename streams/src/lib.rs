//! Everything Cronfleet says to NATS. The only crate that knows a subject, a stream or a bucket.
//!
//! Three rules hold everywhere in here:
//!
//! - **A write that timed out is unknown**, never guessed: [`WriteError::Unknown`] means that it may have happened,
//!   and the caller repeats it idempotently or reads it back.
//! - **A read that decides something goes to the stream's leader** ([`bucket::Bucket::get`]), or its decision is
//!   protected by a compare-and-set.
//! - **An ack proves nothing**: a stale one succeeds too. Only the ledger decides who owns an attempt.

pub mod api_service;
pub mod backfills;
pub mod bucket;
pub mod callbacks;
pub mod cancel;
pub mod catalog;
pub mod chain;
pub mod connect;
pub mod control;
pub mod dead;
pub mod delayed;
pub mod delivery;
pub mod drain;
pub mod error;
pub mod gates;
pub mod headers;
mod in_order;
pub mod leases;
pub mod ledger;
pub mod ledger_changes;
pub mod limited;
pub mod lines;
mod link;
pub mod log;
pub mod lookups;
pub mod members;
pub mod names;
pub mod operate;
pub mod pauses;
pub mod promises;
pub mod queue_depth;
pub mod raw;
mod remove;
pub mod requests;
pub mod responder;
pub mod results;
mod said;
pub mod schedules;
pub mod services;
pub mod shared_writes;
mod silence;
pub mod tasks;
pub mod topology;
mod unbegun;
pub mod witness;
mod write;

use std::sync::Arc;

use async_nats::{Client, jetstream};
use shared::{clock::SharedClock, known_timings::KnownTimings};

pub use bytes::Bytes;
pub use connect::{ConnectError, ConnectSettings};
pub use error::{ReadError, WriteError};
pub use names::{Names, Namespace};

/// What a closing connection waits for its server.
const CLOSE_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// A connection to the fleet: cheap to clone, and the way to every store.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    names: Names,
    clock: SharedClock,
    /// When the schedules that were read over it are due.
    timings: KnownTimings,
    /// Whether and when the connection was interrupted.
    link: link::Link,
}

impl Streams {
    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.inner.jetstream
    }

    /// The names of this fleet on the wire.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// The clock this connection was given.
    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    pub(crate) fn timings(&self) -> &KnownTimings {
        &self.inner.timings
    }

    /// Whether the connection to a server stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Whether the connection to a server is interrupted, or was within this time.
    pub fn was_interrupted_within(&self, time: std::time::Duration) -> bool {
        self.inner.link.was_interrupted_within(time, self.inner.clock.elapsed())
    }

    /// The version of the server that answers at this moment.
    pub fn server_version(&self) -> String {
        self.inner.client.server_info().version
    }

    /// Sends what is buffered and closes the connection. A server that cannot be reached does not hold us up.
    pub async fn close(&self) {
        let closing = async {
            // Draining unsubscribes first; whatever cannot be sent any more is lost with the connection anyway.
            let _ = self.inner.client.flush().await;
            let _ = self.inner.client.drain().await;
        };
        tokio::select! {
            () = closing => {}
            () = self.inner.clock.sleep(CLOSE_WAIT_MAX) => {}
        }
    }
}
