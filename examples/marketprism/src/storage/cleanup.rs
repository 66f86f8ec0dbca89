//! `cleanup_expired_data`: deletes what nobody needs after a while.

use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::{
    database::{Database, count},
    error::ServiceError,
    parameters::Parameters,
    periods,
};

/// What may be deleted for its age. Market data and trades are not here: they are archived.
const DATA_TYPES: [&str; 2] = ["temp_calculations", "cache_data"];
const RETENTION_DAYS: RangeInclusive<i64> = 1..=3_650;
const RETENTION_DAYS_DEFAULT: i64 = 90;
/// Rows deleted by one statement, so that other writers wait for a moment only.
const DELETED_AT_ONCE: i64 = 5_000;

pub(super) fn cleanup_expired_data(
    database: &Database,
    mut parameters: Parameters,
    now: DateTime<Utc>,
) -> Result<Value, ServiceError> {
    let retention_days = parameters.integer("retention_days", &RETENTION_DAYS, RETENTION_DAYS_DEFAULT)?;
    let data_types = parameters.choices("data_types", &DATA_TYPES)?;
    parameters.finish()?;

    let cutoff = now - TimeDelta::days(retention_days);
    let mut rows_deleted = 0;
    let mut per_type = Map::new();
    for table in data_types {
        let key = if table == "cache_data" { "key" } else { "id" };
        let delete = format!(
            "DELETE FROM main.{table} WHERE {key} IN
             (SELECT {key} FROM main.{table} WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)"
        );
        let mut deleted = 0;
        loop {
            let at_once =
                database.lock().execute(&delete, [cutoff.timestamp_millis(), DELETED_AT_ONCE])? as i64;
            deleted += at_once;
            if at_once < DELETED_AT_ONCE {
                break;
            }
        }
        let remaining = count(&database.lock(), &format!("SELECT count(*) FROM main.{table}"), [])?;
        rows_deleted += deleted;
        per_type.insert(table.to_owned(), json!({ "rows_deleted": deleted, "remaining_rows": remaining }));
    }
    Ok(json!({
        "rows_deleted": rows_deleted,
        "data_types": per_type,
        "retention_days": retention_days,
        "cutoff": periods::written(cutoff),
    }))
}
