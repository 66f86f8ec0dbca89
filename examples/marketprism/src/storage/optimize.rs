//! `optimize_tables`: statistics for the query planner, pages given back, indexes rebuilt.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{database::Database, error::ServiceError, parameters::Parameters, service::elapsed};

const TABLES: [&str; 4] = ["market_data", "trade_history", "temp_calculations", "cache_data"];
const OPERATIONS: [&str; 3] = ["analyze", "optimize", "rebuild_index"];

/// Works on the hot file. `optimize` is a `VACUUM`, and `SQLite` vacuums a file, not a table: it is done once per call
/// and says so.
pub(super) fn optimize_tables(
    database: &Database,
    mut parameters: Parameters,
) -> Result<Value, ServiceError> {
    let tables = parameters.choices("tables", &TABLES)?;
    let operations = parameters.choices("operations", &OPERATIONS)?;
    parameters.finish()?;

    let connection = database.lock();
    let (pages_before, free_pages_before) = pages(&connection)?;
    let mut done = Vec::new();
    for operation in &operations {
        if *operation == "optimize" {
            let ms = timed(&connection, "VACUUM main; PRAGMA main.optimize;")?;
            done.push(json!({ "operation": operation, "scope": "whole file", "ms": ms }));
            continue;
        }
        for table in &tables {
            let statement = if *operation == "analyze" { "ANALYZE" } else { "REINDEX" };
            let ms = timed(&connection, &format!("{statement} main.{table};"))?;
            done.push(json!({ "operation": operation, "scope": table, "ms": ms }));
        }
    }
    let (pages_after, free_pages_after) = pages(&connection)?;
    let page_bytes: i64 = connection.pragma_query_value(Some("main"), "page_size", |row| row.get(0))?;
    Ok(json!({
        "tables": tables,
        "operations": done,
        "pages_before": pages_before,
        "pages_after": pages_after,
        "free_pages_before": free_pages_before,
        "free_pages_after": free_pages_after,
        "bytes_reclaimed": (pages_before - pages_after).max(0) * page_bytes,
    }))
}

fn timed(connection: &Connection, statements: &str) -> rusqlite::Result<u64> {
    let started = elapsed();
    connection.execute_batch(statements)?;
    Ok(elapsed().saturating_sub(started).as_millis() as u64)
}

fn pages(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let pragma = |name| connection.pragma_query_value(Some("main"), name, |row| row.get(0));
    Ok((pragma("page_count")?, pragma("freelist_count")?))
}
