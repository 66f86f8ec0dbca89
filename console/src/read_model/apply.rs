//! Changes of the ledger, applied to the tables: the newest version of each run counts, in whatever order they come.

use std::{collections::HashSet, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Transaction};
use shared::{Timestamp, run::RunId, run_record::RunRecord, shard::Shard};
use streams::ledger_changes::LedgerChange;

use super::{
    answers::Listed,
    feed::FeedEvent,
    schema::{hash_of, place_of, reason_number, state_number},
    words::{Kind, Words},
};

/// What came of a batch of changes.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// What a subscriber is told, in the order of the ledger.
    pub(super) events: Vec<FeedEvent>,
    /// How many runs there are more, or fewer.
    pub(super) runs: i64,
    /// Records that could not be understood.
    pub(super) unreadable: u64,
}

/// The columns of a run that stay as a rule: if they do, fewer indexes are touched.
#[derive(Debug, PartialEq)]
struct Lasting {
    name: i64,
    planned: bool,
    queue: i64,
    target: Option<i64>,
    action: Option<i64>,
    slot: Option<i64>,
    due: i64,
    late: bool,
    upstream: Option<i64>,
    whole: Option<i64>,
}

/// Applies changes in the order of the ledger. With `all` every version is told of, otherwise only the newest, and only if it
/// is heard.
pub(super) fn apply(
    transaction: &Transaction,
    words: &mut Words,
    changes: &[LedgerChange],
    all: bool,
    is_heard: bool,
) -> rusqlite::Result<Applied> {
    let mut applied = Applied::default();
    let mut done: HashSet<&str> = HashSet::with_capacity(changes.len());
    let mut newest: Vec<(&LedgerChange, Arc<Listed>, bool)> = Vec::with_capacity(changes.len());
    // From the newest on: older versions of the same run need not even be read.
    for change in changes.iter().rev() {
        let is_newest = !done.contains(change.key.as_str());
        if !is_newest && !all {
            continue;
        }
        let Ok(id) = change.key.parse::<RunId>() else {
            applied.unreadable += 1;
            continue;
        };
        if change.value.is_none() {
            if is_newest {
                applied.runs -= i64::from(remove_older(transaction, words, &change.key, change.revision)?);
                done.insert(&change.key);
            }
            if is_heard {
                applied.events.push(FeedEvent::Removed { id, revision: change.revision });
            }
            continue;
        }
        let Ok(mut record) = change.record() else {
            applied.unreadable += 1;
            continue;
        };
        let had_output = record.output.take().is_some();
        let listed = Arc::new(Listed { record, revision: change.revision });
        if is_heard {
            applied.events.push(FeedEvent::Changed(Arc::clone(&listed)));
        }
        if is_newest {
            newest.push((change, listed, had_output));
            done.insert(&change.key);
        }
    }
    applied.events.reverse();
    // In the order of places, in which tables and indexes only grow at their ends.
    newest.sort_by_key(|(_, listed, _)| listed.record.created_at);
    for (change, listed, had_output) in newest {
        applied.runs += i64::from(store(transaction, words, change, &listed.record, had_output)?);
    }
    Ok(applied)
}

/// Where a run lies, and its revision.
fn find(conn: &Connection, id: &str) -> rusqlite::Result<Option<(i64, i64)>> {
    conn.prepare_cached("SELECT place, revision FROM runs WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Stores a record, unless there is a newer one; whether its run is new here.
fn store(
    conn: &Connection,
    words: &mut Words,
    change: &LedgerChange,
    record: &RunRecord,
    had_output: bool,
) -> rusqlite::Result<bool> {
    let revision = change.revision.cast_signed();
    let wanted = place_of(record.created_at, &change.key);
    let lasting = lasting(conn, words, record)?;
    let worker = match &record.worker {
        Some(worker) => Some(words.number(conn, Kind::Worker, worker.as_str())?),
        None => None,
    };
    let found = find(conn, &change.key)?;
    if found.is_some_and(|(_, stored)| stored >= revision) {
        return Ok(false);
    }
    let mut place = found.map(|(place, _)| place);
    if let Some(there) = place
        // Its creation stays, as a rule; one that is made anew (a skipped slot that a backfill runs) moves.
        && (super::schema::millisecond_of(there) != super::schema::millisecond_of(wanted)
            || lasting_at(conn, there)? != lasting)
    {
        remove_at(conn, there)?;
        place = None;
    }
    let place = match place {
        Some(place) => {
            update(conn, place, revision, worker, record)?;
            place
        }
        None => insert(conn, wanted, &change.key, revision, worker, record, &lasting)?,
    };
    store_record(conn, place, change, record, had_output)?;
    store_error(conn, place, record, found.is_some())?;
    Ok(found.is_none())
}

/// The columns that stay as a rule.
fn lasting(conn: &Connection, words: &mut Words, record: &RunRecord) -> rusqlite::Result<Lasting> {
    let hash = |id: &RunId| hash_of(&id.to_string());
    let target = match &record.target_service {
        Some(target) => Some(words.number(conn, Kind::Target, target.as_str())?),
        None => None,
    };
    let action = match &record.action {
        Some(action) => Some(words.number(conn, Kind::Action, action.as_str())?),
        None => None,
    };
    Ok(Lasting {
        name: words.number(conn, Kind::Name, record.id.name.as_str())?,
        // A stranger's record may name another schedule than its id does: then it is none of that schedule.
        planned: record.schedule.as_ref() == Some(&record.id.name),
        queue: words.number(conn, Kind::Queue, record.queue.as_str())?,
        target,
        action,
        slot: record.slot.map(|slot| slot.timestamp_millis()),
        due: due(record).timestamp_millis(),
        late: record.late,
        upstream: record.upstream.as_ref().map(|upstream| hash(&upstream.run)),
        whole: record.shard.as_ref().map(|Shard { parent, .. }| hash(parent)),
    })
}

fn lasting_at(conn: &Connection, place: i64) -> rusqlite::Result<Lasting> {
    let sql = "SELECT name, planned, queue, target, action, slot, due, late, upstream, whole FROM runs WHERE place = ?1";
    conn.prepare_cached(sql)?.query_row([place], |row| {
        Ok(Lasting {
            name: row.get(0)?,
            planned: row.get(1)?,
            queue: row.get(2)?,
            target: row.get(3)?,
            action: row.get(4)?,
            slot: row.get(5)?,
            due: row.get(6)?,
            late: row.get(7)?,
            upstream: row.get(8)?,
            whole: row.get(9)?,
        })
    })
}

/// When a run was due.
pub(super) fn due(record: &RunRecord) -> Timestamp {
    let ended = record.upstream.as_ref().map(|upstream| upstream.ended_at);
    record.slot.or(record.not_before).or(ended).unwrap_or(record.created_at)
}

fn update(
    conn: &Connection,
    place: i64,
    revision: i64,
    worker: Option<i64>,
    record: &RunRecord,
) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET revision = ?2, status = ?3, reason = ?4, worker = ?5, finished = ?6, duration = ?7, \
               delay = ?8, attempt = ?9 WHERE place = ?1";
    conn.prepare_cached(sql)?.execute((
        place,
        revision,
        state_number(record.status),
        record.reason.map(reason_number),
        worker,
        record.finished_at.map(|at| at.timestamp_millis()),
        record.duration_ms.map(bounded),
        delay(record),
        record.attempt,
    ))?;
    Ok(())
}

fn insert(
    conn: &Connection,
    wanted: i64,
    id: &str,
    revision: i64,
    worker: Option<i64>,
    record: &RunRecord,
    lasting: &Lasting,
) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, \
               ?19, ?20)";
    let place = free_place(conn, wanted)?;
    conn.prepare_cached(sql)?.execute(rusqlite::params![
        place,
        id,
        revision,
        lasting.name,
        lasting.planned,
        lasting.queue,
        state_number(record.status),
        record.reason.map(reason_number),
        worker,
        lasting.target,
        lasting.action,
        lasting.slot,
        lasting.due,
        record.finished_at.map(|at| at.timestamp_millis()),
        record.duration_ms.map(bounded),
        delay(record),
        lasting.late,
        record.attempt,
        lasting.upstream,
        lasting.whole,
    ])?;
    Ok(place)
}

/// The place that is wanted, or the next one that is free.
fn free_place(conn: &Connection, wanted: i64) -> rusqlite::Result<i64> {
    let mut place = wanted;
    let mut taken = conn.prepare_cached("SELECT 1 FROM runs WHERE place = ?1")?;
    while taken.exists([place])? {
        // After the very last one, which only a stranger's writing has, it goes downwards.
        place = if place == i64::MAX { wanted & !0xfffff } else { place + 1 };
    }
    Ok(place)
}

/// How long after it was due the first attempt began, if the run is in it or ended with it.
fn delay(record: &RunRecord) -> Option<i64> {
    let started = record.started_at.filter(|_| record.attempt == 1)?;
    Some((started - due(record)).num_milliseconds().max(0))
}

/// A number of a stranger's, as the tables can hold it.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn store_record(
    conn: &Connection,
    place: i64,
    change: &LedgerChange,
    record: &RunRecord,
    had_output: bool,
) -> rusqlite::Result<()> {
    let mut store = conn.prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2)")?;
    let given = change.value.as_deref().unwrap_or_default();
    // As it was given, with what a newer version says in it, unless the output goes.
    if had_output {
        store.execute((place, serde_json::to_vec(record).unwrap_or_default()))?;
    } else {
        store.execute((place, given))?;
    }
    Ok(())
}

fn store_error(conn: &Connection, place: i64, record: &RunRecord, may_exist: bool) -> rusqlite::Result<()> {
    match &record.error {
        Some(error) => {
            let text = error.message.to_ascii_lowercase().into_bytes();
            conn.prepare_cached("INSERT OR REPLACE INTO errors VALUES (?1, ?2)")?.execute((place, text))?;
        }
        None if may_exist => {
            conn.prepare_cached("DELETE FROM errors WHERE place = ?1")?.execute([place])?;
        }
        None => {}
    }
    Ok(())
}

fn remove_at(conn: &Connection, place: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM runs WHERE place = ?1")?.execute([place])?;
    conn.prepare_cached("DELETE FROM records WHERE place = ?1")?.execute([place])?;
    conn.prepare_cached("DELETE FROM errors WHERE place = ?1")?.execute([place])?;
    Ok(())
}

/// Removes a run whose key was deleted, unless it was written since; whether it was there.
fn remove_older(conn: &Connection, words: &mut Words, id: &str, revision: u64) -> rusqlite::Result<bool> {
    match find(conn, id)? {
        Some((place, stored)) if stored < revision.cast_signed() => {
            remove(conn, words, &[place])?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Removes runs, and the words that only they had.
fn remove(conn: &Connection, words: &mut Words, places: &[i64]) -> rusqlite::Result<()> {
    let mut orphans: HashSet<(bool, i64)> = HashSet::new();
    for place in places {
        let (name, worker): (i64, Option<i64>) = conn
            .prepare_cached("SELECT name, worker FROM runs WHERE place = ?1")?
            .query_row([place], |row| Ok((row.get(0)?, row.get(1)?)))?;
        orphans.insert((true, name));
        orphans.extend(worker.map(|worker| (false, worker)));
        remove_at(conn, *place)?;
    }
    for (is_name, number) in orphans {
        words.forget(conn, if is_name { Kind::Name } else { Kind::Worker }, number)?;
    }
    Ok(())
}

/// Removes some runs of which the ledger remembers nothing any more, at most so many; how many they were.
pub(super) fn remove_forgotten(
    conn: &Connection,
    words: &mut Words,
    first: u64,
    at_most: usize,
) -> rusqlite::Result<usize> {
    let places = places(
        conn,
        "SELECT place FROM runs WHERE revision < ?1 ORDER BY revision LIMIT ?2",
        first.cast_signed(),
        at_most,
    )?;
    remove(conn, words, &places)?;
    Ok(places.len())
}

/// Removes some of the oldest runs, at most so many; how many they were.
pub(super) fn remove_oldest(conn: &Connection, words: &mut Words, at_most: usize) -> rusqlite::Result<usize> {
    let sql = "SELECT place FROM runs WHERE place >= ?1 ORDER BY place LIMIT ?2";
    let places = places(conn, sql, 0, at_most)?;
    remove(conn, words, &places)?;
    Ok(places.len())
}

fn places(conn: &Connection, sql: &str, bound: i64, at_most: usize) -> rusqlite::Result<Vec<i64>> {
    let mut find = conn.prepare_cached(sql)?;
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    find.query_map((bound, limit), |row| row.get(0))?.collect()
}
