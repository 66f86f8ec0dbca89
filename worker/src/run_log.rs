//! The log of an attempt: what is said while it runs, on its way to the log stream.
//!
//! Promise: whoever says something never waits. Lines are taken into a bounded queue and written in batches beside the
//! attempt; what the queue or the attempt's share has no room for is counted, and the last line says how much it was.
//! Failure: a server that does not answer is asked again with the same lines, which readers know by their numbers. A
//! stream that is not there loses the lines, and the worker's own log says so once.

mod book;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use shared::{
    Timestamp, limits,
    names::MemberId,
    run::RunId,
    run_log::{LogBatch, LogLine, LogSource, Progress},
};
use streams::{Streams, WriteError};
use tokio::{runtime::Handle, sync::Notify};

use self::book::Book;
use crate::progress::ProgressBoard;

/// Between two tries to write the same lines.
const TRY_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Tries to write what is left once the attempt has ended.
const LAST_TRIES: u32 = 5;

/// A line, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) from: LogSource,
    pub(crate) text: String,
    pub(crate) cut: Option<u64>,
    pub(crate) lossy: bool,
}

/// Where an attempt says what it is at. Cheap to clone; the log ends with `RunLog::end`, or when the last clone is dropped.
#[derive(Clone)]
pub struct RunLog {
    /// None: nobody listens.
    attempt: Option<Arc<AttemptLog>>,
}

impl std::fmt::Debug for RunLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.attempt.is_some() { "RunLog" } else { "RunLog(silent)" })
    }
}

struct AttemptLog {
    shared: Arc<Shared>,
}

struct Shared {
    streams: Streams,
    board: ProgressBoard,
    run: RunId,
    /// The batch without its lines: whose it is.
    head: LogBatch,
    book: Mutex<Book>,
    /// Something was said, or will be no more.
    news: Notify,
    written: Notify,
    is_writing: AtomicBool,
    has_ended: AtomicBool,
    /// Where it is written from: a handler may say something on a thread of its own, which has none.
    runtime: Handle,
}

/// The stream is missing: said once, not for every run.
static MISSING: std::sync::Once = std::sync::Once::new();

impl RunLog {
    /// A log that keeps nothing.
    pub fn silent() -> Self {
        Self { attempt: None }
    }

    /// The log of an attempt. Nothing is written before something is said.
    pub(crate) fn begin(
        streams: &Streams,
        board: &ProgressBoard,
        run: &RunId,
        (attempt, fence): (u32, u64),
        worker: Option<MemberId>,
    ) -> Self {
        let shared = Shared {
            streams: streams.clone(),
            board: board.clone(),
            run: run.clone(),
            head: LogBatch { attempt, fence, worker, lines: Vec::new() },
            book: Mutex::default(),
            news: Notify::new(),
            written: Notify::new(),
            is_writing: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            runtime: Handle::current(),
        };
        Self { attempt: Some(Arc::new(AttemptLog { shared: Arc::new(shared) })) }
    }

    fn shared(&self) -> Option<&Arc<Shared>> {
        self.attempt.as_ref().map(|attempt| &attempt.shared)
    }

    /// A line of the worker's own: a request that was sent, an answer that came. On one line; it must hold no secret.
    pub fn line(&self, text: impl Into<String>) {
        if let Some(shared) = self.shared() {
            let text = text.into().replace(['\n', '\r'], " ");
            let end = text.floor_char_boundary(limits::LOG_LINE_BYTES_MAX);
            let cut = (end < text.len()).then(|| (text.len() - end) as u64);
            let said = Said { from: LogSource::Worker, text: text[..end].to_owned(), cut, lossy: false };
            shared.change(|book| book.say(said, shared.streams.clock().now()));
        }
    }

    /// A line of the attempt's output.
    pub(crate) fn say(&self, said: Said, at: Timestamp) {
        if let Some(shared) = self.shared() {
            shared.change(|book| book.say(said, at));
        }
    }

    /// Whether the attempt may say more.
    pub(crate) fn has_room(&self) -> bool {
        self.shared().is_some_and(|shared| shared.lock().has_room())
    }

    /// So many lines of so many bytes together are not taken.
    pub(crate) fn leave_out(&self, lines: u64, bytes: u64) {
        if let Some(shared) = self.shared() {
            shared.lock().leave_out(lines, bytes);
        }
    }

    /// How far the attempt is. The fleet hears of it with the worker's next heartbeat; the log has it at most once a
    /// second, and the last in any case.
    pub(crate) fn progress(&self, progress: Progress, at: Timestamp, now: std::time::Duration) {
        if let Some(shared) = self.shared() {
            shared.board.note(&shared.run, shared.head.fence, progress.clone());
            if shared.has_ended.load(Ordering::Acquire) {
                // Said by somebody who outlived the attempt: nobody else would take it from the board.
                shared.board.forget(&shared.run, shared.head.fence);
            }
            shared.change(|book| book.progress(progress, at, now));
        }
    }

    /// How far the attempt is: from 0 to 1, and in words. For whoever executes something else than a command.
    pub fn note_progress(&self, fraction: f64, note: Option<&str>) {
        if let Some(shared) = self.shared() {
            let clock = shared.streams.clock();
            self.progress(Progress::new(fraction, note), clock.now(), clock.elapsed());
        }
    }

    /// Nothing more is said; waits for what was said to be stored, but not long.
    pub(crate) async fn end(&self) {
        let Some(shared) = self.shared() else { return };
        shared.end();
        if !shared.is_writing.load(Ordering::Acquire) {
            return;
        }
        let all_written = async {
            while shared.is_writing.load(Ordering::Acquire) {
                let written = shared.written.notified();
                tokio::pin!(written);
                written.as_mut().enable();
                if shared.is_writing.load(Ordering::Acquire) {
                    written.await;
                }
            }
        };
        tokio::select! {
            biased;
            () = all_written => {}
            () = shared.streams.clock().sleep(limits::LOG_LAST_WAIT) => {
                tracing::debug!(run.id = %shared.run, "The last of the log of `{}` is not stored yet", shared.run);
            }
        }
    }
}

impl Drop for AttemptLog {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book, and has somebody write down what it then holds.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Book)) {
        let mut book = self.lock();
        change(&mut book);
        let begins = !book.is_empty() && !self.is_writing.swap(true, Ordering::AcqRel);
        drop(book);
        if begins {
            self.runtime.spawn(Arc::clone(self).write());
        }
        self.news.notify_one();
    }

    fn end(self: &Arc<Self>) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.board.forget(&self.run, self.head.fence);
        self.change(|book| book.end(self.streams.clock().now()));
    }

    /// Writes until all is written and nothing more comes.
    async fn write(self: Arc<Self>) {
        let mut tries = 0;
        while let Some(lines) = self.next_lines().await {
            let batch = LogBatch { lines, ..self.head.clone() };
            match self.streams.append_to_log(&self.run, &batch).await {
                Ok(_) => self.pause().await,
                Err(error) if may_go_through(&error) && tries < LAST_TRIES => {
                    // While the attempt lasts as often as it takes: the queue is bounded, and nobody waits.
                    tries += u32::from(self.lock().has_ended());
                    self.lock().take_back(batch.lines);
                    self.streams.clock().sleep(TRY_AGAIN).await;
                }
                Err(error) => {
                    lost(&self.run, &error);
                    self.lock().lost(&batch.lines);
                }
            }
        }
        self.written.notify_waiters();
    }

    /// What is to be written next; nothing if that was all.
    async fn next_lines(&self) -> Option<Vec<LogLine>> {
        loop {
            {
                let mut book = self.lock();
                let lines = book.take();
                if !lines.is_empty() {
                    return Some(lines);
                }
                if book.has_ended() {
                    // Under the lock: whoever says something after it begins anew.
                    self.is_writing.store(false, Ordering::Release);
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    /// What is said within a moment is written together.
    async fn pause(&self) {
        let clock = self.streams.clock();
        let until = clock.elapsed() + limits::LOG_WRITE;
        while !self.lock().is_urgent() {
            let left = until.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = clock.sleep(left) => return,
                () = self.news.notified() => {}
            }
        }
    }
}

fn may_go_through(error: &WriteError) -> bool {
    error.is_temporary() && !matches!(error, WriteError::NoStream { .. })
}

fn lost(run: &RunId, error: &WriteError) {
    if matches!(error, WriteError::NoStream { .. }) {
        MISSING.call_once(|| {
            tracing::warn!(%error, "What runs say is lost, because the stream for it is missing; run `cronfleet init`");
        });
        return;
    }
    tracing::warn!(run.id = %run, %error, "Lines of the log of `{run}` are lost: {error}");
}
