//! The `SQLite` files and how they are opened.
//!
//! `hot.sqlite3` holds what is used every day, `cold.sqlite3` what was archived, `collector.sqlite3` the collector's
//! own quotes. Several services open the same files, each with one connection: WAL lets them read while one writes,
//! and a writer waits for another one up to [`BUSY_TIMEOUT`] before it answers 503.
//!
//! Every commit reaches the disk (`synchronous = FULL`): archiving deletes from one file what it has just written to
//! another, so that the first may not be forgotten by a power cut.

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use anyhow::Context;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::ServiceError;

/// How long a writer waits for another service's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Both files of the market have these; their keys say what a repeat is. `ts` is in milliseconds since 1970.
const MARKET_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS {db}.market_data (
        exchange TEXT NOT NULL, symbol TEXT NOT NULL, ts INTEGER NOT NULL, price REAL NOT NULL, volume REAL NOT NULL,
        PRIMARY KEY (exchange, symbol, ts)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS {db}.market_data_by_ts ON market_data (ts);
    CREATE TABLE IF NOT EXISTS {db}.trade_history (
        exchange TEXT NOT NULL, symbol TEXT NOT NULL, trade_id INTEGER NOT NULL, ts INTEGER NOT NULL,
        side TEXT NOT NULL, price REAL NOT NULL, quantity REAL NOT NULL,
        PRIMARY KEY (exchange, symbol, trade_id)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS {db}.trade_history_by_ts ON trade_history (ts);";

/// Only the hot file has these: they expire, nobody archives them.
const TEMPORARY_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS main.temp_calculations (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, value REAL NOT NULL, created_at INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS main.temp_calculations_by_age ON temp_calculations (created_at);
    CREATE TABLE IF NOT EXISTS main.cache_data (
        key TEXT PRIMARY KEY, value TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS main.cache_data_by_age ON cache_data (created_at);
    CREATE TABLE IF NOT EXISTS main.seeded (seed INTEGER NOT NULL, at INTEGER NOT NULL);";

const COLLECTOR_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS main.quotes (
        exchange TEXT NOT NULL, symbol TEXT NOT NULL, ts INTEGER NOT NULL, price REAL NOT NULL,
        PRIMARY KEY (exchange, symbol, ts)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS main.collected (exchange TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;";

/// One service's connection.
pub(crate) struct Database(Mutex<Connection>);

impl Database {
    /// `hot.sqlite3` as `main`, `cold.sqlite3` attached as `cold`.
    pub(crate) fn open_market(data_dir: &Path) -> anyhow::Result<Self> {
        let mut connection = open(data_dir, "hot.sqlite3")?;
        let cold = data_dir.join("cold.sqlite3");
        let cold = cold.to_str().context("the data directory's path must be UTF-8")?;
        connection.execute("ATTACH DATABASE ?1 AS cold", [cold])?;
        prepare(&connection, "cold")?;
        // One file per transaction: over two files in WAL mode a commit is atomic in each, not in both.
        for db in ["main", "cold"] {
            create(&mut connection, &MARKET_TABLES.replace("{db}", db))?;
        }
        create(&mut connection, TEMPORARY_TABLES)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// The same, and nothing can be written through it.
    pub(crate) fn open_market_to_read(data_dir: &Path) -> anyhow::Result<Self> {
        let database = Self::open_market(data_dir)?;
        database.lock().pragma_update(None, "query_only", true)?;
        Ok(database)
    }

    /// `collector.sqlite3`.
    pub(crate) fn open_collector(data_dir: &Path) -> anyhow::Result<Self> {
        let mut connection = open(data_dir, "collector.sqlite3")?;
        create(&mut connection, COLLECTOR_TABLES)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// The connection, once nobody else in this service uses it. A panic elsewhere has rolled its transaction back.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Can the tables be read? A connection at work answers by being at work: a health check that waited for a long
    /// action would call a busy service sick.
    pub(crate) fn check(&self, query: &str) -> Result<(), ServiceError> {
        match self.0.try_lock() {
            Ok(connection) => Ok(count(&connection, query, []).map(drop)?),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => Ok(count(&poisoned.into_inner(), query, []).map(drop)?),
        }
    }
}

/// A transaction that will write. It takes the write lock at once: one that first reads and then finds the file
/// changed could only fail. The lock is on every attached file, in the same order everywhere.
pub(crate) fn writing(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// How many rows a query counts.
pub(crate) fn count(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<i64> {
    connection.prepare_cached(query)?.query_row(parameters, |row| row.get(0))
}

fn open(data_dir: &Path, file: &str) -> anyhow::Result<Connection> {
    fs::create_dir_all(data_dir).with_context(|| format!("{} cannot be created", data_dir.display()))?;
    let path = data_dir.join(file);
    let connection =
        Connection::open(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    prepare(&connection, "main")?;
    Ok(connection)
}

fn prepare(connection: &Connection, db: &str) -> rusqlite::Result<()> {
    connection.pragma_update(Some(db), "journal_mode", "WAL")?;
    connection.pragma_update(Some(db), "synchronous", "FULL")
}

fn create(connection: &mut Connection, tables: &str) -> rusqlite::Result<()> {
    let transaction = writing(connection)?;
    transaction.execute_batch(tables)?;
    transaction.commit()
}
