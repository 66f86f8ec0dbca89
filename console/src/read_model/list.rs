//! Lists and single runs, read from the tables.

use rusqlite::{Connection, ErrorCode, OptionalExtension, params_from_iter};
use shared::{limits::PAGE_MAX, run::RunId, run_state::RunState};
use streams::{Bytes, ledger_changes::LedgerChange};

use super::{
    Count, Cursor, Listed, Order, Page, Relatives, RunFilter, RunQuery,
    schema::hash_of,
    select::{self, Lanes, Places},
};

/// The part of a list before which nothing is found stops a search that takes too long.
const NOTHING: Option<i64> = None;

/// A page of a list.
pub(super) fn page(conn: &Connection, query: &RunQuery) -> rusqlite::Result<Page> {
    let limit = usize::from(query.limit);
    let (mut part, mut after) = query.cursor.as_ref().map_or((0, NOTHING), |at| (at.part, Some(at.place)));
    let mut found: Vec<(u8, i64)> = Vec::new();
    let mut is_cut = false;
    while part < query.order.parts() && found.len() <= limit && !is_cut {
        let (places, cut) = places(conn, query, part, after, limit + 1 - found.len())?;
        found.extend(places.into_iter().map(|place| (part, place)));
        (part, after, is_cut) = (part + 1, NOTHING, cut);
    }
    let has_more = found.len() > limit || is_cut;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more);
    let next = next.map(|(part, place)| Cursor::new(*part, *place, &query.filter, query.order));
    let items = found.iter().map(|(_, place)| at_place(conn, *place)).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

/// The places of a part of a list behind a place, at most so many; and whether the search was given up after it had found
/// some, because it took too long.
fn places(
    conn: &Connection,
    query: &RunQuery,
    part: u8,
    after: Option<i64>,
    at_most: usize,
) -> rusqlite::Result<(Vec<i64>, bool)> {
    let Some(statuses) = statuses_of(query, part) else { return Ok((Vec::new(), false)) };
    let is_newest_first = query.order != Order::OldestFirst;
    let mut range = Places::created(query.filter.created);
    match after {
        Some(after) if is_newest_first => range.before = range.before.min(after),
        Some(after) => range.from = range.from.max(after.saturating_add(1)),
        None => {}
    }
    let Some(lanes) = select::lanes(conn, &query.filter, &statuses, range)? else {
        return Ok((Vec::new(), false));
    };
    let (mut found, is_cut) = read(conn, &lanes, is_newest_first, at_most)?;
    if is_newest_first {
        found.sort_unstable_by(|a, b| b.cmp(a));
    } else {
        found.sort_unstable();
    }
    found.truncate(at_most);
    Ok((found, is_cut))
}

/// The states of a part of a list: all that are wanted, or those of a rank. None if no state is left; any, if it is empty.
fn statuses_of(query: &RunQuery, part: u8) -> Option<Vec<RunState>> {
    let wanted = &query.filter.statuses;
    if query.order != Order::FailuresFirst {
        return Some(wanted.clone());
    }
    let of_part: &[RunState] = match part {
        0 => &[RunState::Failed],
        1 => &[RunState::Retry],
        _ => &[RunState::Pending, RunState::Running, RunState::Success, RunState::Cancelled],
    };
    let both: Vec<RunState> =
        of_part.iter().copied().filter(|state| wanted.is_empty() || wanted.contains(state)).collect();
    (!both.is_empty()).then_some(both)
}

fn read(
    conn: &Connection,
    lanes: &Lanes,
    is_newest_first: bool,
    at_most: usize,
) -> rusqlite::Result<(Vec<i64>, bool)> {
    let statements = lanes.in_order(is_newest_first, at_most);
    let is_alone = statements.len() == 1;
    let mut found = Vec::new();
    for statement in statements {
        let mut prepared = conn.prepare_cached(&statement.sql)?;
        let mut rows = prepared.query(params_from_iter(statement.values))?;
        loop {
            match rows.next() {
                Ok(Some(row)) => found.push(row.get(0)?),
                Ok(None) => break,
                // With several lanes something of another might belong before what was found.
                Err(error) if is_interrupted(&error) && is_alone && !found.is_empty() => {
                    return Ok((found, true));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((found, false))
}

fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// How many runs a filter finds, counted up to a number.
pub(super) fn count(conn: &Connection, filter: &RunFilter, at_most: u64) -> rusqlite::Result<Count> {
    let mut number = 0;
    let range = Places::created(filter.created);
    let Some(lanes) = select::lanes(conn, filter, &filter.statuses, range)? else {
        return Ok(Count { number, is_exact: true });
    };
    for statement in lanes.unordered() {
        let mut prepared = conn.prepare_cached(&statement.sql)?;
        let mut rows = prepared.query(params_from_iter(statement.values))?;
        loop {
            match rows.next() {
                Ok(Some(_)) if number == at_most => return Ok(Count { number, is_exact: false }),
                Ok(Some(_)) => number += 1,
                Ok(None) => break,
                Err(error) if is_interrupted(&error) => return Ok(Count { number, is_exact: false }),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Count { number, is_exact: true })
}

/// A run by its id.
pub(super) fn run(conn: &Connection, id: &str) -> rusqlite::Result<Option<Listed>> {
    let place: Option<i64> = conn
        .prepare_cached("SELECT place FROM runs WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    place.map(|place| at_place(conn, place)).transpose()
}

/// The run at a place, where there must be one.
fn at_place(conn: &Connection, place: i64) -> rusqlite::Result<Listed> {
    let sql = "SELECT r.id, r.revision, j.json FROM runs r CROSS JOIN records j ON j.place = r.place WHERE r.place = ?1";
    conn.prepare_cached(sql)?.query_row([place], listed)
}

fn listed(row: &rusqlite::Row) -> rusqlite::Result<Listed> {
    let revision = row.get::<_, i64>(1)?.cast_unsigned();
    let value = Some(Bytes::from(row.get::<_, Vec<u8>>(2)?));
    // Read as the ledger's own is, of whatever version its writer was.
    let change = LedgerChange { key: row.get(0)?, value, revision, stored_at: shared::Timestamp::UNIX_EPOCH };
    let mut record = change.record().map_err(|error| {
        let detail = Box::new(std::io::Error::other(error.to_string()));
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Blob, detail)
    })?;
    record.output = None;
    Ok(Listed { record, revision })
}

pub(super) const CHANGED_SINCE: &str =
    "SELECT place FROM runs WHERE revision > ?1 ORDER BY revision LIMIT ?2";
pub(super) const DOWNSTREAM: &str = "SELECT place FROM runs WHERE upstream = ?1 ORDER BY place DESC LIMIT ?2";
pub(super) const SHARDS: &str = "SELECT place FROM runs WHERE whole = ?1 ORDER BY place DESC LIMIT ?2";

/// What changed behind a place in the ledger, in its order, at most so many.
pub(super) fn changed_since(conn: &Connection, after: u64, at_most: usize) -> rusqlite::Result<Vec<Listed>> {
    let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
    let places: Vec<i64> = conn
        .prepare_cached(CHANGED_SINCE)?
        .query_map((after.min(i64::MAX.cast_unsigned()).cast_signed(), limit), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    places.into_iter().map(|place| at_place(conn, place)).collect()
}

/// The runs around a run.
pub(super) fn relatives(conn: &Connection, id: &RunId) -> rusqlite::Result<Relatives> {
    let Some(this) = run(conn, &id.to_string())? else { return Ok(Relatives::default()) };
    let this = this.record;
    let upstream = match &this.upstream {
        Some(upstream) => run(conn, &upstream.run.to_string())?,
        None => None,
    };
    let whole = match &this.shard {
        Some(shard) => run(conn, &shard.parent.to_string())?,
        None => None,
    };
    let mut downstream = hashed(conn, DOWNSTREAM, id)?;
    // A hash may be that of another id, too.
    downstream.retain(|one| one.record.upstream.as_ref().is_some_and(|upstream| upstream.run == *id));
    let mut shards = hashed(conn, SHARDS, id)?;
    shards.retain(|one| one.record.shard.as_ref().is_some_and(|shard| shard.parent == *id));
    shards.sort_by_key(|one| one.record.shard.as_ref().map_or(0, |shard| shard.index));
    Ok(Relatives { upstream, downstream, whole, shards })
}

fn hashed(conn: &Connection, sql: &str, id: &RunId) -> rusqlite::Result<Vec<Listed>> {
    let places: Vec<i64> = conn
        .prepare_cached(sql)?
        .query_map((hash_of(&id.to_string()), i64::from(PAGE_MAX)), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    places.into_iter().map(|place| at_place(conn, place)).collect()
}
