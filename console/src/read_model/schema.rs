//! The tables.
//!
//! | table | holds |
//! |---|---|
//! | `model` | one row: of which ledger it is, up to which place, since when and why |
//! | `words` | names, queues, workers, targets and actions, each once; other tables have their numbers |
//! | `runs` | what is searched, one narrow row for each run, under its place |
//! | `records` | the record as it was written, without its output, under the same place |
//! | `errors` | what the latest error says, in lower case, of runs that have one, under the same place |
//!
//! A *place* is the millisecond in which a run was created, times 2^20, plus bits of its id's hash: as the row's key it makes
//! the table lie in the order of lists, and every index end in it. So a list is read from any index without sorting, and a
//! cursor means the same in every console's model.

use rusqlite::Connection;
use shared::{Timestamp, hash::mixed_64, run_record::Reason, run_state::RunState};

/// Version of how rows are filled. One that is of another version in any way is not migrated: it is built anew.
const VERSION: &str = "1";
/// What says that a database is a read model and nobody's data: "CFRM".
pub(super) const APPLICATION: i32 = 0x4346_524d;

/// The tables, and the indexes that filling them needs.
pub(super) const TABLES: &str = "
CREATE TABLE model (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    stream TEXT NOT NULL,       -- the ledger's stream; empty until it is known
    made INTEGER NOT NULL,      -- when that was made, in nanoseconds: two may be made in one millisecond
    place INTEGER NOT NULL,     -- the sequence up to which all is in here
    runs INTEGER NOT NULL,
    is_whole INTEGER NOT NULL,  -- whether it had come to the ledger's end once; then all indexes are there
    since INTEGER NOT NULL,     -- when it was begun, in milliseconds
    because TEXT NOT NULL       -- why, as JSON
);
CREATE TABLE words (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (kind, text)
);
CREATE TABLE runs (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    name INTEGER NOT NULL,
    planned INTEGER NOT NULL,   -- whether it is a schedule's
    queue INTEGER NOT NULL,
    status INTEGER NOT NULL,
    reason INTEGER,
    worker INTEGER,
    target INTEGER,
    action INTEGER,
    slot INTEGER,               -- instants are milliseconds
    due INTEGER NOT NULL,
    finished INTEGER,
    duration INTEGER,
    delay INTEGER,              -- from due to the beginning of the first attempt, if it ended in that
    late INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    upstream INTEGER,           -- a hash of that run's id
    whole INTEGER               -- the same, of the run it is a part of
);
CREATE TABLE records (place INTEGER PRIMARY KEY, json BLOB NOT NULL);
CREATE TABLE errors (place INTEGER PRIMARY KEY, text BLOB NOT NULL);
CREATE UNIQUE INDEX runs_id ON runs (id);
CREATE INDEX runs_revision ON runs (revision);
";

/// The indexes that questions need. Made when all is there: then their entries are sorted once, not put in one by one, which
/// takes longer than all else.
const INDEXES: &str = "
-- Covers what is asked of one schedule: its runs lie side by side in here.
CREATE INDEX runs_name ON runs (name, place, planned, status, reason, slot, due, duration, late);
CREATE INDEX runs_status ON runs (status);
CREATE INDEX runs_queue ON runs (queue);
CREATE INDEX runs_worker ON runs (worker) WHERE worker IS NOT NULL;
CREATE INDEX runs_target ON runs (target) WHERE target IS NOT NULL;
CREATE INDEX runs_action ON runs (action) WHERE action IS NOT NULL;
CREATE INDEX runs_reason ON runs (reason) WHERE reason IS NOT NULL;
CREATE INDEX runs_late ON runs (late) WHERE late = 1;
CREATE INDEX runs_repeated ON runs (place) WHERE attempt > 1;
CREATE INDEX runs_slot ON runs (slot) WHERE slot IS NOT NULL;
CREATE INDEX runs_finished ON runs (finished, status, delay) WHERE finished IS NOT NULL;
CREATE INDEX runs_upstream ON runs (upstream) WHERE upstream IS NOT NULL;
CREATE INDEX runs_whole ON runs (whole) WHERE whole IS NOT NULL;
";

/// How a connection that writes is set. Disposable as it is, it outlives a kill, and a power cut, too.
pub(super) const WRITER: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 16000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -65536;
";

/// How a connection that reads is set.
pub(super) const READER: &str = "
PRAGMA query_only = ON;
PRAGMA cache_size = -8192;
PRAGMA temp_store = MEMORY;
";

/// What the bits of a place that tell runs of one millisecond apart are.
const TIE_BITS: u32 = 20;
/// The last millisecond that has a place of its own: in the year 2248.
const MILLISECOND_MAX: i64 = (1 << (63 - TIE_BITS)) - 1;

/// A millisecond's first place.
pub(super) fn first_place(millisecond: i64) -> i64 {
    millisecond.clamp(0, MILLISECOND_MAX) << TIE_BITS
}

/// The first place that belongs to an instant or a later one.
pub(super) fn first_place_from(at: Timestamp) -> i64 {
    first_place(first_millisecond_from(at))
}

/// The first whole millisecond that is not before an instant.
pub(super) fn first_millisecond_from(at: Timestamp) -> i64 {
    let is_whole = at.timestamp_subsec_nanos().is_multiple_of(1_000_000);
    at.timestamp_millis().saturating_add(i64::from(!is_whole))
}

/// The place of a run, if it is free.
pub(super) fn place_of(created: Timestamp, id: &str) -> i64 {
    let tie = mixed_64(&["place", id]) >> (64 - TIE_BITS);
    first_place(created.timestamp_millis()) | tie.cast_signed()
}

/// The instant of a place.
pub(super) fn millisecond_of(place: i64) -> i64 {
    place >> TIE_BITS
}

/// How a run's id is kept where it is only looked up: what is found is compared.
pub(super) fn hash_of(id: &str) -> i64 {
    mixed_64(&["run", id]).cast_signed()
}

/// The number of a state.
pub(super) fn state_number(state: RunState) -> i64 {
    match state {
        RunState::Pending => 0,
        RunState::Running => 1,
        RunState::Success => 2,
        RunState::Failed => 3,
        RunState::Retry => 4,
        RunState::Cancelled => 5,
    }
}

/// The state with a number.
pub(super) fn state_of(number: i64) -> Option<RunState> {
    RunState::ALL.into_iter().find(|state| state_number(*state) == number)
}

/// All reasons, in the order of the enum.
const REASONS: [Reason; 23] = [
    Reason::SkippedOverlap,
    Reason::Buffered,
    Reason::Replaced,
    Reason::ScheduleDeleted,
    Reason::SkippedMissed,
    Reason::SkippedCalendar,
    Reason::Paused,
    Reason::Malformed,
    Reason::Unknown,
    Reason::Precheck,
    Reason::AttemptsExhausted,
    Reason::Permanent,
    Reason::Timeout,
    Reason::Lost,
    Reason::Drained,
    Reason::Limited,
    Reason::Expired,
    Reason::Deadline,
    Reason::MaxAge,
    Reason::ByOperator,
    Reason::Shards,
    Reason::AwaitsCallback,
    Reason::Other,
];

// A reason that is added to the enum gets its place here.
const _: () = assert!(Reason::Other as usize + 1 == REASONS.len());

/// The number of a reason: its place in the enum, by which the tables' version tells them apart.
pub(super) fn reason_number(reason: Reason) -> i64 {
    reason as i64
}

/// The reason with a number.
pub(super) fn reason_of(number: i64) -> Option<Reason> {
    REASONS.into_iter().find(|reason| reason_number(*reason) == number)
}

/// What tells one version of the tables from another: their text, and what the numbers in them mean.
pub(super) fn version() -> i32 {
    let hash =
        mixed_64(&[VERSION, TABLES, INDEXES, &format!("{REASONS:?}"), &format!("{:?}", RunState::ALL)]);
    // Never 0, which is that of a file in which nothing is.
    (hash as u32 | 1).cast_signed()
}

/// Makes the indexes that questions need, and says that all is there.
pub(super) fn complete(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(INDEXES)?;
    conn.execute("UPDATE model SET is_whole = 1", [])?;
    Ok(())
}

/// Whether all is there, and with it the indexes.
pub(super) fn is_whole(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT is_whole FROM model")?.query_row([], |row| row.get(0))
}

/// The state of a database in which nothing is yet.
pub(super) fn begun(conn: &Connection, since: Timestamp, because: &str) -> rusqlite::Result<()> {
    conn.execute_batch(TABLES)?;
    conn.execute(
        "INSERT INTO model VALUES (1, '', 0, 0, 0, 0, ?1, ?2)",
        (since.timestamp_millis(), because),
    )?;
    conn.pragma_update(None, "application_id", APPLICATION)?;
    conn.pragma_update(None, "user_version", version())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("instant")
    }

    #[test]
    fn places_lie_in_the_order_of_creation_whoever_wrote_the_instant() {
        let instants = [
            "-2000-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "2026-11-24T02:00:00Z",
            "2026-11-24T02:00:00.001Z",
            "9999-12-31T23:59:59Z",
        ];
        let places = instants.map(|text| place_of(at(text), "a.b"));
        assert!(places.is_sorted() && places[0] >= 0, "{places:?}");
        let created = at("2026-11-24T02:00:00.001Z");
        let place = place_of(created, "a.b");
        assert_eq!(millisecond_of(place), created.timestamp_millis());
        assert!(
            first_place_from(created) <= place && place < first_place_from(at("2026-11-24T02:00:00.0011Z"))
        );
    }

    #[test]
    fn every_state_and_every_reason_has_its_number() {
        for (place, reason) in (0..).zip(REASONS) {
            assert_eq!((reason_number(reason), reason_of(place)), (place, Some(reason)));
        }
        for state in RunState::ALL {
            assert_eq!(state_of(state_number(state)), Some(state));
        }
        assert_eq!(state_of(6), None);
    }
}
