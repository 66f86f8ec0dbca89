//! The one writer: a thread of its own, because `SQLite` blocks. It ends when nobody sends it work any more.

use std::sync::Arc;

use rusqlite::Connection;
use shared::limits::MODEL_RUNS_MAX;
use streams::ledger_changes::{LedgerChange, LedgerExtent};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

use super::{
    FeedEvent,
    apply::{self, Applied},
    file::{self, Head},
    model::Inner,
    schema,
    status::BuiltBecause,
    words::Words,
};

/// Changes that are stored in one transaction, at most, but for the last that came with others: many, because of a run that
/// changed several times among them only the newest version is written.
const BATCH_CHANGES_MAX: usize = 16_000;
/// Bytes of records, the same.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// While this many changes wait behind a batch it is made as large as it may be, and only the newest version of each run in it
/// is told of.
const CATCHING_UP: u64 = 2_000;
/// Runs that are forgotten in one transaction: few, so that changes hardly wait for it.
const FORGOTTEN_AT_ONCE: usize = 500;

/// What the writer is to do.
pub(super) enum Work {
    /// Store these, behind which so many more come.
    Changes(Vec<LedgerChange>, u64),
    /// Look whether the file is there, and what the ledger remembers no more.
    Look(LedgerExtent),
}

/// Why the writer ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody sends it work any more.
    Done,
    /// The file is no good: it must be begun anew.
    Spoiled(BuiltBecause),
    /// Something stood in the way; it may be tried again.
    Trouble(String),
}

impl From<rusqlite::Error> for Ended {
    fn from(error: rusqlite::Error) -> Self {
        if file::is_damage(&error) {
            return Self::Spoiled(BuiltBecause::Damaged(error.to_string()));
        }
        Self::Trouble(format!("the read model cannot be written: {error}"))
    }
}

/// Who writes.
pub(super) struct Writer {
    inner: Arc<Inner>,
    conn: Connection,
    head: Head,
    words: Words,
    identity: Option<(u64, u64)>,
    /// What lies before this place the ledger has forgotten.
    first: u64,
    is_forgetting: bool,
}

impl Writer {
    /// Opens the file for a ledger; what is of another ledger, or is to be, is begun anew.
    pub(super) fn open(
        inner: Arc<Inner>,
        extent: &LedgerExtent,
        spoiled: Option<BuiltBecause>,
    ) -> Result<Self, Ended> {
        let now = inner.clock.now();
        let trouble = |error: file::OpenError| Ended::Trouble(error.to_string());
        let made = extent.made.timestamp_nanos_opt().unwrap_or_default();
        let old = match spoiled {
            Some(because) => Err(because),
            None if file::identity(&inner.path).is_none() => Err(BuiltBecause::Removed),
            None => Ok(file::open(&inner.path, now).map_err(trouble)?),
        };
        let (conn, mut head) = match old {
            Ok((conn, head)) if head.stream.is_empty() => (conn, head),
            Ok((conn, head))
                if head.stream == extent.stream && head.made == made && head.place <= extent.last =>
            {
                (conn, head)
            }
            other => {
                let because = other.err().unwrap_or(BuiltBecause::OtherLedger);
                inner.readers.renew(|| file::begin(&inner.path, now, &because)).map_err(trouble)?
            }
        };
        if head.stream.is_empty() {
            (head.stream, head.made) = (extent.stream.clone(), made);
            conn.execute("UPDATE model SET stream = ?1, made = ?2", (&head.stream, head.made))?;
        }
        let identity = file::identity(&inner.path);
        inner.note(|state| {
            state.head = head.clone();
            state.last = extent.last.max(head.place);
            state.pending = 0;
            state.stored_at = None;
            state.bytes = file::bytes(&inner.path);
        });
        let mut words = Words::default();
        words.are_forgotten = head.is_whole;
        Ok(Self { inner, conn, head, words, identity, first: extent.first, is_forgetting: false })
    }

    /// The place up to which everything is stored.
    pub(super) fn place(&self) -> u64 {
        self.head.place
    }

    /// Works until nobody sends anything any more, or something stands in the way.
    pub(super) fn run(mut self, work: &mut Receiver<Work>) -> Ended {
        match self.work(work) {
            Ok(()) => Ended::Done,
            Err(ended) => ended,
        }
    }

    fn work(&mut self, work: &mut Receiver<Work>) -> Result<(), Ended> {
        loop {
            let next = if self.is_forgetting {
                // What comes goes first.
                match work.try_recv() {
                    Ok(next) => Some(next),
                    Err(TryRecvError::Empty) => {
                        self.forget_some()?;
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => None,
                }
            } else {
                work.blocking_recv()
            };
            match next {
                None => return Ok(()),
                Some(Work::Look(extent)) => self.look(&extent)?,
                Some(Work::Changes(changes, pending)) => {
                    if let Some(extent) = self.store_with_what_waits(changes, pending, work)? {
                        self.look(&extent)?;
                    }
                    // Also when changes come without a pause.
                    if self.is_forgetting {
                        self.forget_some()?;
                    }
                }
            }
        }
    }

    /// Stores changes, with those that wait behind them; a look that came between, if one did.
    fn store_with_what_waits(
        &mut self,
        mut changes: Vec<LedgerChange>,
        mut pending: u64,
        work: &mut Receiver<Work>,
    ) -> Result<Option<LedgerExtent>, Ended> {
        let size = |changes: &[LedgerChange]| -> usize {
            changes.iter().filter_map(|change| change.value.as_ref()).map(streams::Bytes::len).sum()
        };
        let mut look = None;
        let mut bytes = size(&changes);
        while look.is_none() && changes.len() < BATCH_CHANGES_MAX && bytes < BATCH_BYTES_MAX {
            let next = if pending >= CATCHING_UP { work.blocking_recv() } else { work.try_recv().ok() };
            match next {
                Some(Work::Changes(more, behind)) => {
                    bytes += size(&more);
                    changes.extend(more);
                    pending = behind;
                }
                Some(Work::Look(extent)) => look = Some(extent),
                // Whether nobody sends any more is seen next time.
                None => break,
            }
        }
        self.store(&changes, pending)?;
        Ok(look)
    }

    pub(super) fn store(&mut self, changes: &[LedgerChange], pending: u64) -> Result<(), Ended> {
        let Some(last) = changes.last() else { return Ok(()) };
        let is_heard = self.head.is_whole && self.inner.feed.receiver_count() > 0;
        let transaction = self.conn.transaction()?;
        let all = is_heard && pending < CATCHING_UP;
        let Applied { events, runs, unreadable } =
            apply::apply(&transaction, &mut self.words, changes, all, is_heard)?;
        let head = Head {
            place: last.revision,
            runs: self.head.runs.saturating_add_signed(runs),
            is_whole: self.head.is_whole || pending == 0,
            ..self.head.clone()
        };
        if head.is_whole && !self.head.is_whole {
            schema::complete(&transaction)?;
        }
        keep(&transaction, &head)?;
        transaction.commit()?;
        let was_whole = std::mem::replace(&mut self.head, head).is_whole;
        self.inner.note(|state| {
            state.head = self.head.clone();
            state.last = state.last.max(last.revision);
            state.pending = pending;
            state.stored_at = Some(last.stored_at);
            state.bytes = file::bytes(&self.inner.path);
            state.unreadable += unreadable;
            state.trouble = None;
        });
        // Told once it is stored and counted: whoever hears of it finds it.
        for event in events {
            self.tell(event);
        }
        if !was_whole && self.head.is_whole {
            self.note_whole();
        }
        Ok(())
    }

    /// Told to nobody in particular, and to nobody at all if nobody listens.
    fn tell(&self, event: FeedEvent) {
        let _ = self.inner.feed.send(event);
    }

    fn note_whole(&mut self) {
        self.words.are_forgotten = true;
        let Head { runs, place, built, .. } = &self.head;
        tracing::info!(
            runs,
            place,
            "The read model is whole: {runs} runs; it was built because {}",
            built.because
        );
        self.tell(FeedEvent::Anew);
    }

    pub(super) fn look(&mut self, extent: &LedgerExtent) -> Result<(), Ended> {
        if file::identity(&self.inner.path) != self.identity {
            return Err(Ended::Spoiled(BuiltBecause::Removed));
        }
        if extent.last <= self.head.place && !self.head.is_whole {
            // An empty ledger has no newest change that says so.
            let transaction = self.conn.transaction()?;
            schema::complete(&transaction)?;
            transaction.commit()?;
            self.head.is_whole = true;
            self.note_whole();
        }
        self.first = extent.first;
        // What is being built has not read what is forgotten.
        self.is_forgetting = self.head.is_whole;
        self.inner.note(|state| {
            state.head = self.head.clone();
            state.last = extent.last.max(self.head.place);
            state.bytes = file::bytes(&self.inner.path);
            if extent.last <= self.head.place {
                state.pending = 0;
                state.trouble = None;
            } else if state.pending == 0 {
                state.pending = extent.last - self.head.place;
            }
        });
        Ok(())
    }

    /// Forgets some runs that the ledger has forgotten, or that are too many.
    pub(super) fn forget_some(&mut self) -> Result<(), Ended> {
        let transaction = self.conn.transaction()?;
        let mut gone = apply::remove_forgotten(&transaction, &mut self.words, self.first, FORGOTTEN_AT_ONCE)?;
        if gone == 0 && self.head.runs > MODEL_RUNS_MAX {
            let too_many = usize::try_from(self.head.runs - MODEL_RUNS_MAX).unwrap_or(usize::MAX);
            let at_most = too_many.min(FORGOTTEN_AT_ONCE);
            gone = apply::remove_oldest(&transaction, &mut self.words, at_most)?;
        }
        self.is_forgetting = gone > 0;
        if gone > 0 {
            self.head.runs = self.head.runs.saturating_sub(gone as u64);
            keep(&transaction, &self.head)?;
        }
        transaction.commit()?;
        self.inner.note(|state| state.head = self.head.clone());
        Ok(())
    }
}

/// Writes down how far it is, in the transaction of what was changed.
fn keep(conn: &Connection, head: &Head) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE model SET place = ?1, runs = ?2")?
        .execute((head.place.cast_signed(), head.runs.cast_signed()))?;
    Ok(())
}
