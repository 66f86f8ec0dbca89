//! The file: taken by one process, checked when it is opened, and begun anew when it is not what it should be.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use shared::Timestamp;

use super::{
    schema,
    status::{Built, BuiltBecause},
};

/// How long a connection waits for another that holds the file for a moment.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Statements a connection keeps prepared.
const STATEMENTS_KEPT: usize = 64;

/// A file that cannot be the read model.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another console; give each its own --data-dir", .0.display())]
    InUse(PathBuf),
    /// It is somebody's data.
    #[error("{} is a database of something else, and is left as it is; name another file", .0.display())]
    NotOurs(PathBuf),
    /// It cannot be made or opened.
    #[error("{}: {detail}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's words, or `SQLite`'s.
        detail: String,
    },
}

/// What the file says of itself.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) stream: String,
    pub(super) made: i64,
    pub(super) place: u64,
    pub(super) runs: u64,
    pub(super) is_whole: bool,
    pub(super) built: Built,
}

/// The files of a database: itself, its log, and what readers and writers share.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// Bytes of all its files.
pub(super) fn bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| std::fs::metadata(file).ok()).map(|found| found.len()).sum()
}

/// Which file lies under the path, if one does.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Takes the file for this process, until what is returned is dropped.
pub(super) fn take(path: &Path) -> Result<File, OpenError> {
    let unusable =
        |error: io::Error| OpenError::Unusable { path: path.to_owned(), detail: error.to_string() };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(unusable)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    // A file beside it: the database itself may be removed and begun anew.
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(name).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Opens the file to write; one that is absent, damaged or of another version is begun anew.
pub(super) fn open(path: &Path, now: Timestamp) -> Result<(Connection, Head), OpenError> {
    let unusable =
        |error: &rusqlite::Error| OpenError::Unusable { path: path.to_owned(), detail: error.to_string() };
    if identity(path).is_none() {
        return begin(path, now, &BuiltBecause::New);
    }
    match connect(path).and_then(|conn| Ok((application(&conn)?, conn))) {
        Ok(((schema::APPLICATION, version), conn)) if version == schema::version() => match head(&conn) {
            Ok(head) => Ok((conn, head)),
            Err(error) if is_busy(&error) => Err(unusable(&error)),
            Err(error) => begin(path, now, &BuiltBecause::Damaged(error.to_string())),
        },
        // A file of no bytes is what a kill between its making and its filling leaves.
        Ok(((0, 0), conn)) if is_empty(&conn) => begin(path, now, &BuiltBecause::New),
        Ok(((schema::APPLICATION, _), _)) => begin(path, now, &BuiltBecause::OtherVersion),
        Ok(_) => Err(OpenError::NotOurs(path.to_owned())),
        Err(error) if is_damage(&error) => begin(path, now, &BuiltBecause::Damaged(error.to_string())),
        Err(error) => Err(unusable(&error)),
    }
}

/// Removes what is there, and begins a model in which nothing is yet.
pub(super) fn begin(
    path: &Path,
    now: Timestamp,
    because: &BuiltBecause,
) -> Result<(Connection, Head), OpenError> {
    for file in files(path) {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Unusable { path: file, detail: error.to_string() });
            }
            _ => {}
        }
    }
    let words = serde_json::to_string(because).unwrap_or_default();
    let begun = || {
        let conn = connect(path)?;
        schema::begun(&conn, now, &words)?;
        let head = head(&conn)?;
        Ok((conn, head))
    };
    if *because != BuiltBecause::New {
        tracing::warn!(path = %path.display(), "The read model is built anew: {because}");
    }
    begun().map_err(|error: rusqlite::Error| OpenError::Unusable {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.execute_batch(schema::WRITER)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(conn)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.execute_batch(schema::READER)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(conn)
}

fn application(conn: &Connection) -> rusqlite::Result<(i32, i32)> {
    let number = |name| conn.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

fn is_empty(conn: &Connection) -> bool {
    let tables: rusqlite::Result<i64> =
        conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0));
    tables.is_ok_and(|tables| tables == 0)
}

fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let sql = "SELECT stream, made, place, runs, is_whole, since, because FROM model WHERE only_one = 1";
    conn.query_row(sql, [], |row| {
        let because: String = row.get(6)?;
        Ok(Head {
            stream: row.get(0)?,
            made: row.get(1)?,
            place: row.get::<_, i64>(2)?.cast_unsigned(),
            runs: row.get::<_, i64>(3)?.cast_unsigned(),
            is_whole: row.get(4)?,
            built: Built {
                since: Timestamp::from_timestamp_millis(row.get(5)?).unwrap_or_default(),
                because: serde_json::from_str(&because).unwrap_or(BuiltBecause::New),
            },
        })
    })
}

/// Whether an error says that what lies in the file cannot be right.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || message.as_deref().is_some_and(|message| message.starts_with("no such "))
        }
        // A value of another type than it was written with, or a row that must be there.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::QueryReturnedNoRows => true,
        _ => false,
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T02:00:00Z".parse().expect("instant")
    }

    fn because(path: &Path) -> BuiltBecause {
        open(path, now()).expect("opened").1.built.because
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_begun_anew_and_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.sqlite");
        assert_eq!(because(&path), BuiltBecause::New);
        assert_eq!(because(&path), BuiltBecause::New, "it is still the first");
        let (conn, _) = open(&path, now()).expect("opened");
        conn.pragma_update(None, "user_version", 99).expect("set");
        drop(conn);
        assert_eq!(because(&path), BuiltBecause::OtherVersion);
        std::fs::write(&path, vec![7_u8; 100_000]).expect("written");
        assert!(matches!(because(&path), BuiltBecause::Damaged(_)));
        let (conn, _) = open(&path, now()).expect("opened");
        conn.execute_batch("DROP TABLE model").expect("dropped");
        drop(conn);
        assert!(matches!(because(&path), BuiltBecause::Damaged(_)));
        std::fs::write(&path, b"").expect("written");
        assert_eq!(because(&path), BuiltBecause::New, "as a kill leaves it");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        file.set_len(8_000).expect("cut");
        assert!(matches!(because(&path), BuiltBecause::Damaged(_)));
    }

    #[test]
    fn somebodys_database_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("books.sqlite");
        let conn = Connection::open(&path).expect("opened");
        conn.execute_batch("CREATE TABLE books (title TEXT); INSERT INTO books VALUES ('Emma')")
            .expect("filled");
        drop(conn);
        assert!(matches!(open(&path, now()), Err(OpenError::NotOurs(_))));
        let conn = Connection::open(&path).expect("opened");
        let title: String = conn.query_row("SELECT title FROM books", [], |row| row.get(0)).expect("there");
        assert_eq!(title, "Emma");
    }

    #[test]
    fn a_file_is_taken_by_one_and_free_again_when_it_is_let_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/model.sqlite");
        let taken = take(&path).expect("taken");
        let error = take(&path).expect_err("in use").to_string();
        assert!(error.contains("give each its own --data-dir"), "{error}");
        drop(taken);
        assert!(take(&path).is_ok());
    }
}
