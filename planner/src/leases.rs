//! Keeping a seat, and with it leases: what [`Table`] decides is written here, and what is heard is told to it.
//!
//! A holder trusts itself only until *the moment it asked* for its seat plus the lease minus a margin, on a clock that
//! counts suspension: a slow answer does not lengthen its term, and a machine that slept knows it. Nothing here waits
//! for an answer before it looks on: a lost one must not let the seat run out. The guarantee that nothing is dispatched
//! twice is not this, but the ledger.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use shared::{
    clock_check::{Reading, Sample},
    limits::{CLOCK_CHECK, LEASE_RENEW},
};
use streams::{
    Streams, WriteError,
    leases::{Seat, Seen},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    clock_guard::ClockGuard,
    holdings::Holdings,
    news::{Item, News},
    status::Status,
    table::{Answer, Table, Write},
};

/// How often the keeper looks at everything, if nothing wakes it before.
const LOOK: Duration = Duration::from_millis(100);
/// An answer that has not come by then is not waited for: the leader is asked what it has.
const ANSWER_WAIT: Duration = Duration::from_millis(800);
/// Leaving may not keep a planner from ending.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(3);
/// Attempts to empty our own seat over a revision that turns out to be another.
const LEAVE_TRIES_MAX: usize = 3;

// The keeper looks several times between two renewals.
const _: () = assert!(2 * LOOK.as_millis() < LEASE_RENEW.as_millis());

/// What was on its way and is done.
enum Done {
    Written { write: Write, answer: Answer, asked: Reading, answered: Reading },
    Compared(Option<Sample>),
}

/// Keeps the seat and the leases of one planner.
pub(crate) struct Keeper {
    streams: Streams,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    guard: Arc<ClockGuard>,
    table: Table,
    on_its_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// When our clock was last compared with the server's.
    compared_at: Option<Duration>,
}

impl Keeper {
    pub(crate) fn new(
        streams: Streams,
        holdings: Arc<Holdings>,
        status: Arc<Status>,
        guard: Arc<ClockGuard>,
    ) -> Self {
        let table = Table::new(status.id().clone());
        Self {
            streams,
            holdings,
            status,
            guard,
            table,
            on_its_way: FuturesUnordered::new(),
            compared_at: None,
        }
    }

    /// Holds this planner's share until it is told to stop; then it leaves its seat, and with it everything.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), PlannerError> {
        let clock = self.streams.clock().clone();
        let mut news = News::follow(self.streams.clone());
        while !stop.is_cancelled() {
            self.look();
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(LOOK) => {}
                Some(done) = self.on_its_way.next(), if !self.on_its_way.is_empty() => {
                    self.done(done);
                    // What comes together is told together: the planning loop opens all new partitions in one round.
                    while let Some(Some(done)) = self.on_its_way.next().now_or_never() {
                        self.done(done);
                    }
                }
                Some(item) = news.items.recv() => {
                    self.hear(item);
                    while let Ok(item) = news.items.try_recv() {
                        self.hear(item);
                    }
                }
            }
        }
        self.status.note_stopping();
        self.holdings.set(BTreeSet::new(), Duration::ZERO, clock.elapsed());
        tokio::select! {
            () = self.leave() => {}
            () = clock.sleep(LEAVE_WAIT_MAX) => tracing::warn!("The seat could not be left in time; it runs out"),
        }
        Ok(())
    }

    fn hear(&mut self, item: Item) {
        let now = self.streams.clock().elapsed();
        match item {
            Item::Begins => self.table.watch_begins(now),
            Item::Ends => self.table.watch_ends(),
            Item::Seen(seen) => self.table.seen(seen, now),
        }
    }

    /// One look at everything: what is to be done is decided, and sent on its way.
    fn look(&mut self) {
        let clock = self.streams.clock();
        let (now, wall) = (clock.elapsed(), clock.now());
        self.guard.look();
        let writes = self.table.writes(now, wall, self.guard.is_off());
        for why in self.table.take_lost() {
            tracing::warn!("Partitions are lost: {why}");
        }
        // First we stop working on what we give up, then we say so.
        self.publish(now);
        for write in writes {
            if let Write::Seat { number, seat: Seat { planner: None, .. }, .. } = &write
                && let Some(planner) = self.table.planner_in(*number)
            {
                tracing::info!(planner.silent = %planner, "Planner `{planner}` is silent: its seat is emptied");
            }
            let on_its_way = self.write(write);
            self.on_its_way.push(on_its_way);
        }
    }

    fn publish(&self, now: Duration) {
        let held = self.table.held();
        if self.holdings.set(held.clone(), self.table.trusted_until(), now) {
            self.status.note_partitions(held.iter().copied().collect());
        }
    }

    fn write(&self, write: Write) -> BoxFuture<'static, Done> {
        let streams = self.streams.clone();
        Box::pin(async move {
            let clock = streams.clock().clone();
            let asked = Reading::of(&*clock);
            let written = tokio::select! {
                written = send(&streams, &write) => written,
                () = clock.sleep(ANSWER_WAIT) => Err(WriteError::Unknown { what: format!("{write:?}") }),
            };
            let answered = Reading::of(&*clock);
            let answer = match written {
                Ok(revision) => Answer::Stored(revision),
                Err(error) => {
                    if !matches!(error, WriteError::Conflict { .. }) {
                        tracing::debug!(%error, "A seat or lease was not written: {error}");
                        clock.sleep(LOOK).await;
                    }
                    let found = tokio::select! {
                        found = look_up(&streams, &write) => found,
                        () = clock.sleep(ANSWER_WAIT) => None,
                    };
                    if found.is_none() {
                        clock.sleep(LOOK).await;
                    }
                    Answer::Otherwise(found)
                }
            };
            Done::Written { write, answer, asked, answered }
        })
    }

    fn done(&mut self, done: Done) {
        let now = self.streams.clock().elapsed();
        match done {
            Done::Written { write, answer, asked, answered } => {
                if let (Write::Seat { number, seat, .. }, Answer::Stored(revision)) = (&write, &answer)
                    && seat.planner.as_ref() == Some(self.status.id())
                {
                    self.compare(*number, *revision, asked, answered, now);
                }
                self.table.answered(write, answer, asked.before, now);
            }
            Done::Compared(Some(sample)) => self.guard.compare(sample),
            Done::Compared(None) => {}
        }
    }

    /// Asks the leader under which time of its own clock it stored our renewal.
    fn compare(&mut self, number: u16, revision: u64, asked: Reading, answered: Reading, now: Duration) {
        let is_due = self.compared_at.is_none_or(|at| now.saturating_sub(at) >= CLOCK_CHECK);
        if !is_due && !self.guard.is_suspect() {
            return;
        }
        self.compared_at = Some(now);
        let streams = self.streams.clone();
        self.on_its_way.push(Box::pin(async move {
            let found = tokio::select! {
                found = async { streams.partitions().seat(number).await } => found.ok(),
                () = streams.clock().sleep(ANSWER_WAIT) => None,
            };
            let server = found.filter(|found| found.revision == revision).and_then(|found| found.stored_at);
            Done::Compared(server.map(|server| Sample { asked, server, answered }))
        }));
    }

    /// One write, and the others take all we had.
    async fn leave(&mut self) {
        while self.table.asks_for_a_seat() {
            let Some(done) = self.on_its_way.next().await else { break };
            self.done(done);
        }
        self.holdings.set(BTreeSet::new(), Duration::ZERO, Duration::ZERO);
        let Some((number, mut revision)) = self.table.my_seat() else { return };
        let partitions = self.streams.partitions();
        let empty = Seat { planner: None, aside: false };
        for _ in 0..LEAVE_TRIES_MAX {
            match partitions.write_seat(number, &empty, revision).await {
                Err(WriteError::Conflict { .. }) => {}
                _ => return,
            }
            let Ok(found) = partitions.seat(number).await else { return };
            let is_mine = found.value.is_some_and(|seat| seat.planner.as_ref() == Some(self.status.id()));
            if !is_mine {
                return;
            }
            revision = found.revision;
        }
    }
}

async fn send(streams: &Streams, write: &Write) -> Result<u64, WriteError> {
    let partitions = streams.partitions();
    match write {
        Write::Seat { number, seat, revision } => partitions.write_seat(*number, seat, *revision).await,
        Write::Lease { partition, lease, revision } => {
            partitions.write_lease(*partition, lease, *revision).await
        }
    }
}

/// What the leader has under the key of a write.
async fn look_up(streams: &Streams, write: &Write) -> Option<Seen> {
    let partitions = streams.partitions();
    match write {
        Write::Seat { number, .. } => {
            let found = partitions.seat(*number).await.ok()?;
            Some(Seen::Seat(*number, found.value, found.revision))
        }
        Write::Lease { partition, .. } => {
            let found = partitions.lease(*partition).await.ok()?;
            Some(Seen::Lease(*partition, found.value, found.revision))
        }
    }
}
