//! Questions to the tables: a few at once, each off the runtime and for a bounded time.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, ErrorCode, Transaction};
use shared::{
    clock::SharedClock,
    limits::{READ_TIME_MAX, READ_WAIT_MAX, READS_AT_ONCE_MAX},
};
use tokio::sync::{Notify, Semaphore};

use super::{file, schema};

/// Steps of `SQLite`'s machine between two looks at the clock: well below a millisecond.
const STEPS_PER_LOOK: i32 = 2_000;

/// A question that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Too many others are being answered.
    #[error("the read model is busy with other questions; ask again in a moment")]
    Busy,
    /// It was given up.
    #[error(
        "the read model looked for {} ms and was not done; narrow the question: name a schedule, or a shorter time",
        READ_TIME_MAX.as_millis()
    )]
    TooSlow,
    /// It is asked for what can only be told when all is there.
    #[error(
        "the read model is being built; lists are there as far as it is, sums when it is done: its status says how far"
    )]
    Rebuilding,
    /// The tables cannot be read just now; they are looked after.
    #[error("the read model cannot be read just now ({0}); it mends itself: ask again in a moment")]
    Unreadable(String),
    /// The question cannot be asked.
    #[error("{0}")]
    Query(#[from] super::QueryError),
}

/// Whether anybody still waits for an answer.
#[derive(Default)]
struct Limit {
    is_given_up: AtomicBool,
}

struct Reader {
    conn: Connection,
    generation: u64,
}

/// The connections that read.
pub(super) struct Readers {
    path: PathBuf,
    clock: SharedClock,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Reader>>,
    /// Grows when the file is another: connections to the old one are let go.
    generation: AtomicU64,
    damage: Mutex<Option<String>>,
    damaged: Notify,
}

/// Tells a question that nobody waits for it any more.
struct GiveUp(Arc<Limit>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.is_given_up.store(true, Ordering::Relaxed);
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf, clock: SharedClock) -> Self {
        Self {
            path,
            clock,
            places: Arc::new(Semaphore::new(READS_AT_ONCE_MAX)),
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
            damage: Mutex::default(),
            damaged: Notify::new(),
        }
    }

    /// Makes the file another one. Meanwhile nobody opens it.
    pub(super) fn renew<T>(&self, make: impl FnOnce() -> T) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clear();
        self.generation.fetch_add(1, Ordering::SeqCst);
        make()
    }

    /// Waits until a question has found damage; what it said.
    pub(super) async fn damage(&self) -> String {
        loop {
            let noted = self.damaged.notified();
            if let Some(said) = self.damage.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return said;
            }
            noted.await;
        }
    }

    /// Answers a question, of one moment.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ModelError> {
        let permit = tokio::select! {
            permit = Arc::clone(&self.places).acquire_owned() => permit.map_err(|_| ModelError::Busy)?,
            () = self.clock.sleep(READ_WAIT_MAX) => return Err(ModelError::Busy),
        };
        let limit = Arc::new(Limit::default());
        let (readers, give_up) = (Arc::clone(self), GiveUp(Arc::clone(&limit)));
        let answer = tokio::task::spawn_blocking(move || {
            // Held until the answer is there, also if nobody waits for it any more.
            let _permit = permit;
            readers.answer(limit, question)
        });
        let answer = answer.await.map_err(|error| ModelError::Unreadable(error.to_string()))?;
        drop(give_up);
        answer.map_err(|error| self.error(&error))
    }

    /// Answers a question that needs all indexes, and all runs.
    pub(super) async fn ask_whole<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ModelError> {
        let answer =
            self.ask(move |conn| if schema::is_whole(conn)? { question(conn).map(Some) } else { Ok(None) });
        answer.await?.ok_or(ModelError::Rebuilding)
    }

    fn answer<T>(
        &self,
        limit: Arc<Limit>,
        question: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut reader = self.reader()?;
        let clock = Arc::clone(&self.clock);
        let until = clock.elapsed() + READ_TIME_MAX;
        let is_over = move || limit.is_given_up.load(Ordering::Relaxed) || clock.elapsed() > until;
        reader.conn.progress_handler(STEPS_PER_LOOK, Some(is_over))?;
        let answer = {
            let transaction = reader.conn.unchecked_transaction()?;
            question(&transaction)
        };
        if self.generation.load(Ordering::SeqCst) == reader.generation {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
        answer
    }

    fn reader(&self) -> rusqlite::Result<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::SeqCst);
        while let Some(reader) = idle.pop() {
            if reader.generation == generation {
                return Ok(reader);
            }
        }
        Ok(Reader { conn: file::reader(&self.path)?, generation })
    }

    fn error(&self, error: &rusqlite::Error) -> ModelError {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            return ModelError::TooSlow;
        }
        if file::is_damage(error) {
            *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            self.damaged.notify_one();
        }
        ModelError::Unreadable(error.to_string())
    }
}
