//! Keeping the tables up to date: who reads the ledger, who writes, and who looks after both.
//!
//! A *session* is a reader of the ledger (a task), a writer (a thread) and the channel between them. Whatever goes wrong in
//! one ends it; the next begins at the place that is stored, or anew if the file is no good.

use std::{sync::Arc, time::Duration};

use streams::{
    ReadError, Streams,
    ledger_changes::{LedgerExtent, LedgerHeard},
};
use tokio::sync::{
    mpsc::{self, Sender},
    oneshot,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    model::Inner,
    status::BuiltBecause,
    writer::{Ended, Work, Writer},
};

/// Pieces of work that wait for the writer; the reader waits when they are so many.
const WORK_WAITING_MAX: usize = 4;
/// How often it is looked whether all is well, and what the ledger has forgotten.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row at which the ledger has more and nothing comes, before it is read by a new consumer.
const SILENT_LOOKS_MAX: u32 = 10;
/// Before it is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(500);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// What keeps a read model up to date. It must be run.
pub struct Projection {
    inner: Arc<Inner>,
    streams: Streams,
}

/// How a session ended.
enum SessionEnd {
    Stopped,
    Writer(Ended),
    /// The ledger is another one.
    Anew,
    Trouble(String),
}

impl Projection {
    pub(super) fn new(inner: Arc<Inner>, streams: Streams) -> Self {
        Self { inner, streams }
    }

    /// Follows the ledger until it is told to stop. It does not give up: what stands in its way is in the model's status.
    pub async fn run(self, stop: CancellationToken) {
        let (mut spoiled, mut wait) = (None, RETRY_WAIT);
        loop {
            let began_at = self.inner.note(|state| state.head.place);
            let ended = match self.session(&mut spoiled, &stop).await {
                Ok(ended) => ended,
                Err(error) => SessionEnd::Trouble(format!("the ledger cannot be read: {error}")),
            };
            match ended {
                SessionEnd::Stopped => return,
                SessionEnd::Anew => spoiled = Some(BuiltBecause::OtherLedger),
                SessionEnd::Writer(Ended::Spoiled(because)) => spoiled = Some(because),
                SessionEnd::Writer(Ended::Trouble(trouble)) | SessionEnd::Trouble(trouble) => {
                    self.inner.note_trouble(trouble);
                }
                SessionEnd::Writer(Ended::Done) => {}
            }
            let has_moved = self.inner.note(|state| state.head.place) != began_at;
            wait = if has_moved { RETRY_WAIT } else { (wait * 2).min(RETRY_WAIT_MAX) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.streams.clock().sleep(wait / 2) => {}
            }
        }
    }

    async fn session(
        &self,
        spoiled: &mut Option<BuiltBecause>,
        stop: &CancellationToken,
    ) -> Result<SessionEnd, ReadError> {
        let extent = tokio::select! {
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
            extent = self.streams.ledger_extent_now() => extent?,
        };
        let made = extent.made;
        let (sender, receiver) = mpsc::channel(WORK_WAITING_MAX);
        let mut writer = match self.start_writer(extent, spoiled.clone(), receiver) {
            Ok(writer) => writer,
            Err(error) => return Ok(SessionEnd::Trouble(format!("no thread can be started: {error}"))),
        };
        let Ok(place) = writer.ready.await else {
            return Ok(writer_end(writer.ended.await));
        };
        *spoiled = None;
        let mut reader = self.read(place, made, sender.clone());
        let mut silent_looks = 0;
        let end = loop {
            tokio::select! {
                () = stop.cancelled() => break SessionEnd::Stopped,
                ended = &mut writer.ended => return Ok(writer_end(ended)),
                damage = self.inner.readers.damage() => {
                    *spoiled = Some(BuiltBecause::Damaged(damage));
                    break SessionEnd::Writer(Ended::Done);
                }
                // It ends by itself only when the ledger is another one, or by a panic.
                ended = &mut reader => break match ended {
                    Ok(()) => SessionEnd::Anew,
                    Err(panic) => SessionEnd::Trouble(format!("reading the ledger ended in a panic: {panic}")),
                },
                () = self.streams.clock().sleep(LOOK) => {
                    let looked = tokio::select! {
                        () = stop.cancelled() => Some(SessionEnd::Stopped),
                        end = self.look(made, &sender, &mut silent_looks) => end,
                    };
                    if let Some(end) = looked {
                        break end;
                    }
                }
            }
        };
        // The writer ends what it is at, and then itself: two must never write.
        drop((reader, sender));
        let ended = writer.ended.await;
        Ok(match end {
            SessionEnd::Writer(Ended::Done) => writer_end(ended),
            end => end,
        })
    }

    /// A look at the ledger; an end, if it shows one.
    async fn look(
        &self,
        made: shared::Timestamp,
        sender: &Sender<Work>,
        silent_looks: &mut u32,
    ) -> Option<SessionEnd> {
        let extent = match self.streams.ledger_extent_now().await {
            Ok(extent) if extent.made != made => return Some(SessionEnd::Anew),
            Ok(extent) => extent,
            Err(error) => {
                self.inner.note_trouble(format!("the ledger cannot be read: {error}"));
                return None;
            }
        };
        let (place, was_behind) = self.inner.note(|state| (state.head.place, state.last > state.head.place));
        let is_silent = was_behind && extent.last > place && sender.capacity() == WORK_WAITING_MAX;
        *silent_looks = if is_silent { *silent_looks + 1 } else { 0 };
        if *silent_looks > SILENT_LOOKS_MAX {
            return Some(SessionEnd::Trouble("the ledger has more, and nothing comes".to_owned()));
        }
        // A writer that is at work takes it in its turn; one that has ended is noticed by who called.
        tokio::select! {
            _ = sender.send(Work::Look(extent)) => {}
            () = self.streams.clock().sleep(LOOK) => {}
        }
        None
    }

    /// A task that reads, so that nothing interrupts it in the middle of a pull. It ends when the ledger is another one.
    fn read(&self, place: u64, made: shared::Timestamp, sender: Sender<Work>) -> AbortOnDropHandle<()> {
        let mut follower = self.streams.follow_ledger(place, made);
        let (inner, clock) = (Arc::clone(&self.inner), Arc::clone(self.streams.clock()));
        let task = tokio::spawn(async move {
            let mut wait = RETRY_WAIT;
            loop {
                match follower.next().await {
                    Ok(LedgerHeard::Anew) => return,
                    Ok(LedgerHeard::Changes(changes, pending)) => {
                        wait = RETRY_WAIT;
                        if sender.send(Work::Changes(changes, pending)).await.is_err() {
                            // The writer has ended, and says why itself.
                            return std::future::pending().await;
                        }
                    }
                    Err(error) => {
                        inner.note_trouble(format!("the ledger cannot be followed: {error}"));
                        clock.sleep(wait).await;
                        wait = (wait * 2).min(RETRY_WAIT_MAX);
                    }
                }
            }
        });
        AbortOnDropHandle::new(task)
    }

    fn start_writer(
        &self,
        extent: LedgerExtent,
        spoiled: Option<BuiltBecause>,
        mut work: mpsc::Receiver<Work>,
    ) -> std::io::Result<Running> {
        let inner = Arc::clone(&self.inner);
        let (say_ready, ready) = oneshot::channel();
        let (say_ended, ended) = oneshot::channel();
        std::thread::Builder::new().name("read-model".to_owned()).spawn(move || {
            let end = match Writer::open(inner, &extent, spoiled) {
                Ok(writer) => {
                    let _ = say_ready.send(writer.place());
                    writer.run(&mut work)
                }
                Err(end) => {
                    drop(say_ready);
                    end
                }
            };
            // A panic says nothing, and drops it: that is heard too.
            let _ = say_ended.send(end);
        })?;
        Ok(Running { ready, ended })
    }
}

/// A writer at work.
struct Running {
    /// Says the place it begins behind.
    ready: oneshot::Receiver<u64>,
    ended: oneshot::Receiver<Ended>,
}

fn writer_end(ended: Result<Ended, oneshot::error::RecvError>) -> SessionEnd {
    SessionEnd::Writer(ended.unwrap_or_else(|_| Ended::Trouble("the writer ended in a panic".to_owned())))
}
