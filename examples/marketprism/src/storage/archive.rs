//! `archive_hot_data`: moves old rows from the hot file to the cold one, batch by batch.
//!
//! Promise: a row is always in at least one file, and read from both files by its key it is there once. Killed
//! anywhere, the next call carries on.
//! How: a transaction over two attached files in WAL mode is atomic in each, *not* across both, and commits the main
//! file, the one that loses the rows, first. So a batch is two transactions with one file each: copy into cold,
//! commit; only then delete from hot. In between the rows are in both, and copying them again changes nothing.
//! Two archivers at once (a run can have two attempts alive) exclude each other for each of these steps.
//! Limit: whoever reads both files must begin with the hot one (see `volume_report`), or a batch that moves
//! in between is missed.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::{
    database::{Database, count, writing},
    error::ServiceError,
    parameters::Parameters,
    periods,
};

/// Rows a batch may have: it is kept in memory, and other writers wait for it.
const BATCH_SIZE: RangeInclusive<i64> = 1..=100_000;
const BATCH_SIZE_DEFAULT: i64 = 10_000;

/// Batches in a row of which nothing could be deleted, because another archiver was quicker each time.
const FRUITLESS_MAX: u32 = 1_000;

/// A table that exists in both files.
struct Archived {
    name: &'static str,
    key: &'static str,
    columns: &'static str,
}

const ARCHIVED: [Archived; 2] = [
    Archived {
        name: "market_data",
        key: "exchange, symbol, ts",
        columns: "exchange, symbol, ts, price, volume",
    },
    Archived {
        name: "trade_history",
        key: "exchange, symbol, trade_id",
        columns: "exchange, symbol, trade_id, ts, side, price, quantity",
    },
];

pub(super) fn archive_hot_data(
    database: &Database,
    mut parameters: Parameters,
    now: DateTime<Utc>,
) -> Result<Value, ServiceError> {
    let rule = "a past moment: 7_days_ago, an RFC 3339 instant or a date such as 2026-01-31";
    let past = |text: &str| periods::instant(text, now).filter(|cutoff| *cutoff < now);
    let cutoff = parameters.parsed("cutoff_date", rule, None, past)?;
    let batch_size = parameters.integer("batch_size", &BATCH_SIZE, BATCH_SIZE_DEFAULT)?;
    parameters.finish()?;

    let (mut rows_archived, mut rows_already_cold, mut batches) = (0, 0, 0);
    let (mut remaining_hot_rows, mut cold_rows) = (0, 0);
    let mut tables = Map::new();
    for table in &ARCHIVED {
        let (mut archived, mut fruitless) = (0, 0);
        loop {
            // Locked per batch: health checks and other actions get their turn in between.
            let batch = move_batch(&mut database.lock(), table, cutoff.timestamp_millis(), batch_size)?;
            batches += i64::from(batch.rows > 0);
            archived += batch.deleted;
            rows_already_cold += batch.already_cold;
            if batch.rows < batch_size {
                break;
            }
            fruitless = if batch.deleted > 0 { 0 } else { fruitless + 1 };
            if fruitless > FRUITLESS_MAX {
                let message = format!("the {batch_size} oldest rows of {} keep changing", table.name);
                return Err(ServiceError::busy(message));
            }
        }
        let connection = database.lock();
        let hot = count(&connection, &format!("SELECT count(*) FROM main.{}", table.name), [])?;
        let cold = count(&connection, &format!("SELECT count(*) FROM cold.{}", table.name), [])?;
        rows_archived += archived;
        remaining_hot_rows += hot;
        cold_rows += cold;
        tables.insert(
            table.name.to_owned(),
            json!({ "rows_archived": archived, "remaining_hot_rows": hot, "cold_rows": cold }),
        );
    }
    Ok(json!({
        "rows_archived": rows_archived,
        // Copied by an earlier call that was stopped before it could delete them.
        "rows_already_cold": rows_already_cold,
        "batches": batches,
        "batch_size": batch_size,
        "cutoff": periods::written(cutoff),
        "remaining_hot_rows": remaining_hot_rows,
        "cold_rows": cold_rows,
        "tables": tables,
    }))
}

#[derive(Debug)]
struct Batch {
    rows: i64,
    already_cold: i64,
    deleted: i64,
}

fn move_batch(
    connection: &mut Connection,
    table: &Archived,
    cutoff: i64,
    batch_size: i64,
) -> rusqlite::Result<Batch> {
    let (rows, already_cold) = copy_batch(connection, table, cutoff, batch_size)?;
    let deleted = if rows > 0 { delete_batch(connection, table)? } else { 0 };
    Ok(Batch { rows, already_cold, deleted })
}

/// Writes to the cold file only. Answers how many rows the batch has and how many of them were cold already.
fn copy_batch(
    connection: &mut Connection,
    table: &Archived,
    cutoff: i64,
    batch_size: i64,
) -> rusqlite::Result<(i64, i64)> {
    let Archived { name, key, columns } = table;
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {name}_batch AS SELECT {columns} FROM main.{name} LIMIT 0;
         DELETE FROM temp.{name}_batch;"
    ))?;
    // Both files are locked for writing from here, so what is copied is what is in the hot file at the commit; read
    // before, it could replace another archiver's newer copy.
    let cold = writing(connection)?;
    let rows = cold.execute(
        &format!(
            "INSERT INTO temp.{name}_batch SELECT {columns} FROM main.{name} WHERE ts < ?1 ORDER BY ts LIMIT ?2"
        ),
        [cutoff, batch_size],
    )?;
    if rows == 0 {
        return Ok((0, 0));
    }
    let already_cold = count(
        &cold,
        &format!("SELECT count(*) FROM temp.{name}_batch CROSS JOIN cold.{name} USING ({key})"),
        [],
    )?;
    // Replace, not ignore: a row that came again after its first copy was archived is a correction.
    cold.execute(&format!("INSERT OR REPLACE INTO cold.{name} SELECT {columns} FROM temp.{name}_batch"), [])?;
    cold.commit()?;
    Ok((rows as i64, already_cold))
}

/// Writes to the hot file only, and deletes only rows that are still as they were copied: a correction that arrived
/// since then stays for the next batch.
fn delete_batch(connection: &mut Connection, table: &Archived) -> rusqlite::Result<i64> {
    let Archived { name, key, columns } = table;
    let hot = writing(connection)?;
    let deleted = hot.execute(
        &format!(
            "DELETE FROM main.{name} WHERE ({key}) IN (SELECT {key} FROM temp.{name}_batch)
             AND ({columns}) IN (SELECT {columns} FROM temp.{name}_batch)"
        ),
        [],
    )?;
    hot.commit()?;
    Ok(deleted as i64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sums(database: &Database, table: &str) -> (i64, i64) {
        let connection = database.lock();
        let sum =
            |db| count(&connection, &format!("SELECT coalesce(sum(ts), 0) FROM {db}.{table}"), []).unwrap();
        (sum("main"), sum("cold"))
    }

    fn with_candles(folder: &Path, ts: std::ops::Range<i64>) -> Database {
        let database = Database::open_market(folder).unwrap();
        for ts in ts {
            let insert = "INSERT INTO main.market_data VALUES ('binance', 'BTC-USDT', ?1, 1.5, 2.5)";
            database.lock().execute(insert, [ts]).unwrap();
        }
        database
    }

    #[test]
    fn a_batch_that_was_killed_between_copy_and_delete_is_finished_by_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let database = with_candles(folder.path(), 0..10);
        assert_eq!(copy_batch(&mut database.lock(), &ARCHIVED[0], 8, 5).unwrap(), (5, 0));
        assert_eq!(sums(&database, "market_data"), (45, 10), "in both files now");
        drop(database); // the process dies here

        let database = Database::open_market(folder.path()).unwrap();
        let batch = move_batch(&mut database.lock(), &ARCHIVED[0], 8, 5).unwrap();
        assert_eq!((batch.rows, batch.already_cold, batch.deleted), (5, 5, 5));
        let batch = move_batch(&mut database.lock(), &ARCHIVED[0], 8, 5).unwrap();
        assert_eq!((batch.rows, batch.already_cold, batch.deleted), (3, 0, 3));
        assert_eq!(sums(&database, "market_data"), (8 + 9, (0..8).sum()));
    }

    #[test]
    fn a_correction_that_arrives_between_copy_and_delete_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let database = with_candles(folder.path(), 0..3);
        let connection = &mut *database.lock();
        copy_batch(connection, &ARCHIVED[0], 3, 10).unwrap();
        connection.execute("UPDATE main.market_data SET price = 9 WHERE ts = 1", []).unwrap();
        assert_eq!(delete_batch(connection, &ARCHIVED[0]).unwrap(), 2);
        assert_eq!(move_batch(connection, &ARCHIVED[0], 3, 10).unwrap().deleted, 1);
        let price = "SELECT price FROM cold.market_data WHERE ts = 1";
        assert_eq!(connection.query_row(price, [], |row| row.get::<_, f64>(0)).unwrap().to_string(), "9");
    }

    #[test]
    fn deleting_a_batch_looks_rows_up_by_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let database = with_candles(folder.path(), 0..3);
        let connection = &mut *database.lock();
        for table in &ARCHIVED {
            copy_batch(connection, table, 3, 10).unwrap();
            let Archived { name, key, columns } = table;
            let plan = format!(
                "EXPLAIN QUERY PLAN DELETE FROM main.{name} WHERE ({key}) IN (SELECT {key} FROM temp.{name}_batch)
                 AND ({columns}) IN (SELECT {columns} FROM temp.{name}_batch)"
            );
            let mut plan = connection.prepare(&plan).unwrap();
            let steps: Vec<String> =
                plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
            assert!(steps[0].starts_with(&format!("SEARCH main.{name} USING PRIMARY KEY")), "{steps:?}");
        }
    }
}
