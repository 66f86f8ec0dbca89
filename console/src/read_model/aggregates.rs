//! Sums over runs, read from the tables.

use std::{collections::BTreeMap, time::Duration};

use chrono::{NaiveDate, NaiveTime};
use chrono_tz::Tz;
use rusqlite::Connection;
use shared::{
    Timestamp,
    limits::{BUCKETS_MAX, STRIP_RUNS_MAX, STRIPS_MAX},
    names::Name,
    run_state::RunState,
};

use super::{
    DayCounts, DurationBucket, MinuteCounts, ModelError, ReadModel, RunFilter, StatusCounts, Strip, StripRun,
    TimeRange,
    schema::{first_place, millisecond_of, reason_of, state_number, state_of},
    select::Places,
    words::{self, Kind},
};

/// The minutes of what is shown of the last hour.
const MINUTES: i64 = 60;
const MINUTE_MS: i64 = 60_000;
/// The first day that is told of, and the last: as far as calendars go.
const DAY_MIN: NaiveDate = day(1971);
const DAY_MAX: NaiveDate = day(2101);
/// Around a day, what its zone may be away from UTC.
const ZONE_MAX: chrono::Duration = chrono::Duration::hours(26);
/// What a run may be recorded before or after it is due, and is still found on its day: runs that are recorded later, after an
/// outage or by a backfill, are found as far as the ledger remembers them.
const RECORDED_BEFORE_MAX: chrono::Duration = chrono::Duration::hours(1);

/// The first of a year.
const fn day(year: i32) -> NaiveDate {
    match NaiveDate::from_ymd_opt(year, 1, 1) {
        Some(day) => day,
        None => NaiveDate::MIN,
    }
}

impl ReadModel {
    /// The last runs of schedules, each the newest first; at most `limits::STRIPS_MAX` schedules and `STRIP_RUNS_MAX` runs,
    /// more are left out.
    pub async fn strips(&self, schedules: &[Name], runs: usize) -> Result<Vec<Strip>, ModelError> {
        let names: Vec<Name> = schedules.iter().take(STRIPS_MAX).cloned().collect();
        let runs = runs.min(STRIP_RUNS_MAX);
        self.readers().ask_whole(move |conn| names.iter().map(|name| strip(conn, name, runs)).collect()).await
    }

    /// How many runs that were created within a time are in each state: of all, or of one schedule.
    pub async fn statuses(
        &self,
        schedule: Option<&Name>,
        created: TimeRange,
    ) -> Result<StatusCounts, ModelError> {
        let schedule = schedule.cloned();
        self.readers().ask_whole(move |conn| statuses(conn, schedule.as_ref(), created)).await
    }

    /// What ended in each of the last 60 minutes, the oldest first; the last is the one that has begun.
    pub async fn minutes(&self) -> Result<Vec<MinuteCounts>, ModelError> {
        let now = self.clock().now();
        self.readers().ask_whole(move |conn| minutes(conn, now)).await
    }

    /// How long a schedule's runs took, by when they were created; times without runs are left out. At most
    /// `limits::BUCKETS_MAX` times, the newest.
    pub async fn durations(
        &self,
        schedule: &Name,
        created: TimeRange,
        bucket: Duration,
    ) -> Result<Vec<DurationBucket>, ModelError> {
        let schedule = schedule.clone();
        self.readers().ask_whole(move |conn| durations(conn, &schedule, created, bucket)).await
    }

    /// How a schedule's runs ended on each day from the first to the last, both included, in a zone; days without runs are
    /// left out. At most `limits::BUCKETS_MAX` days, the newest.
    pub async fn days(
        &self,
        schedule: &Name,
        zone: Tz,
        first: NaiveDate,
        last: NaiveDate,
    ) -> Result<Vec<DayCounts>, ModelError> {
        let schedule = schedule.clone();
        self.readers().ask_whole(move |conn| days(conn, &schedule, zone, first, last)).await
    }
}

fn number_of(conn: &Connection, name: &Name) -> rusqlite::Result<Option<i64>> {
    words::find(conn, Kind::Name, name.as_str())
}

pub(super) const STRIP: &str = "SELECT id, status, reason, due, duration, late FROM runs INDEXED BY runs_name \
     WHERE name = ?1 AND planned = 1 ORDER BY place DESC LIMIT ?2";

fn strip(conn: &Connection, name: &Name, runs: usize) -> rusqlite::Result<Strip> {
    let schedule = name.to_string();
    let Some(number) = number_of(conn, name)? else { return Ok(Strip { schedule, runs: Vec::new() }) };
    let limit = i64::try_from(runs).unwrap_or(i64::MAX);
    let mut prepared = conn.prepare_cached(STRIP)?;
    let mut rows = prepared.query((number, limit))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, reason): (String, Option<i64>) = (row.get(0)?, row.get(2)?);
        let (Ok(id), Some(status)) = (id.parse(), state_of(row.get(1)?)) else { continue };
        found.push(StripRun {
            id,
            status,
            reason: reason.and_then(reason_of),
            due: instant(row.get(3)?),
            duration_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
            late: row.get(5)?,
        });
    }
    Ok(Strip { schedule, runs: found })
}

fn instant(millisecond: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(millisecond).unwrap_or_default()
}

pub(super) const STATUS: &str = "SELECT count(*) FROM runs INDEXED BY runs_status \
     WHERE status = ?1 AND place >= ?2 AND place < ?3";
pub(super) const STATUSES_OF: &str = "SELECT status, count(*) FROM runs INDEXED BY runs_name \
     WHERE name = ?1 AND place >= ?2 AND place < ?3 AND planned = 1 GROUP BY status";

fn statuses(
    conn: &Connection,
    schedule: Option<&Name>,
    created: TimeRange,
) -> rusqlite::Result<StatusCounts> {
    let Places { from, before } = Places::created(created);
    let mut counts = StatusCounts::default();
    let Some(schedule) = schedule else {
        for state in RunState::ALL {
            let values = (state_number(state), from, before);
            *of_state(&mut counts, state) =
                conn.prepare_cached(STATUS)?.query_row(values, |row| row.get::<_, i64>(0))?.cast_unsigned();
        }
        return Ok(counts);
    };
    let Some(number) = number_of(conn, schedule)? else { return Ok(counts) };
    let mut prepared = conn.prepare_cached(STATUSES_OF)?;
    let mut rows = prepared.query((number, from, before))?;
    while let Some(row) = rows.next()? {
        if let Some(state) = state_of(row.get(0)?) {
            *of_state(&mut counts, state) = row.get::<_, i64>(1)?.cast_unsigned();
        }
    }
    Ok(counts)
}

fn of_state(counts: &mut StatusCounts, state: RunState) -> &mut u64 {
    match state {
        RunState::Pending => &mut counts.pending,
        RunState::Running => &mut counts.running,
        RunState::Retry => &mut counts.retry,
        RunState::Success => &mut counts.success,
        RunState::Failed => &mut counts.failed,
        RunState::Cancelled => &mut counts.cancelled,
    }
}

pub(super) const FINISHED: &str = "SELECT finished, status, delay FROM runs INDEXED BY runs_finished \
     WHERE finished >= ?1 AND finished < ?2 ORDER BY finished";

fn minutes(conn: &Connection, now: Timestamp) -> rusqlite::Result<Vec<MinuteCounts>> {
    let last = now.timestamp_millis().div_euclid(MINUTE_MS);
    let first = last - MINUTES + 1;
    let mut minutes: Vec<(StatusCounts, Vec<u64>)> = vec![Default::default(); MINUTES as usize];
    let mut prepared = conn.prepare_cached(FINISHED)?;
    let mut rows = prepared.query((first * MINUTE_MS, (last + 1) * MINUTE_MS))?;
    while let Some(row) = rows.next()? {
        let minute = row.get::<_, i64>(0)?.div_euclid(MINUTE_MS) - first;
        let Some((counts, delays)) = usize::try_from(minute).ok().and_then(|minute| minutes.get_mut(minute))
        else {
            continue;
        };
        if let Some(state) = state_of(row.get(1)?) {
            *of_state(counts, state) += 1;
        }
        delays.extend(row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned));
    }
    let told = (first..).zip(minutes).map(|(minute, (counts, mut delays))| {
        delays.sort_unstable();
        MinuteCounts {
            minute: instant(minute * MINUTE_MS),
            success: counts.success,
            failed: counts.failed,
            cancelled: counts.cancelled,
            delay_p50_ms: percentile(&delays, 50),
            delay_p99_ms: percentile(&delays, 99),
        }
    });
    Ok(told.collect())
}

/// The smallest of sorted numbers that so many of a hundred do not exceed.
fn percentile(sorted: &[u64], of_100: usize) -> Option<u64> {
    let rank = (sorted.len() * of_100).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub(super) const DURATIONS: &str = "SELECT place, duration FROM runs INDEXED BY runs_name \
     WHERE name = ?1 AND place >= ?2 AND place < ?3 AND planned = 1 AND duration IS NOT NULL ORDER BY place DESC";

fn durations(
    conn: &Connection,
    schedule: &Name,
    created: TimeRange,
    bucket: Duration,
) -> rusqlite::Result<Vec<DurationBucket>> {
    let Some(number) = number_of(conn, schedule)? else { return Ok(Vec::new()) };
    let Places { from, before } = Places::created(created);
    let width = i64::try_from(bucket.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut prepared = conn.prepare_cached(DURATIONS)?;
    let mut rows = prepared.query((number, from, before))?;
    // From the newest on, so that the oldest are left out if there are too many.
    let mut buckets: Vec<(i64, Vec<u64>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let at = millisecond_of(row.get(0)?).div_euclid(width);
        if buckets.last().is_none_or(|(last, _)| *last != at) {
            if buckets.len() == BUCKETS_MAX {
                break;
            }
            buckets.push((at, Vec::new()));
        }
        if let Some((_, taken)) = buckets.last_mut() {
            taken.push(row.get::<_, i64>(1)?.cast_unsigned());
        }
    }
    let told = buckets.into_iter().rev().map(|(at, mut taken)| {
        taken.sort_unstable();
        let of = |of_100| percentile(&taken, of_100).unwrap_or_default();
        let from = instant(at.saturating_mul(width));
        DurationBucket { from, runs: taken.len() as u64, p50_ms: of(50), p90_ms: of(90), p99_ms: of(99) }
    });
    Ok(told.collect())
}

pub(super) const DAYS: &str = "SELECT due, status, reason FROM runs INDEXED BY runs_name \
     WHERE name = ?1 AND place >= ?2 AND planned = 1 AND due >= ?3 AND due < ?4";

fn days(
    conn: &Connection,
    schedule: &Name,
    zone: Tz,
    first: NaiveDate,
    last: NaiveDate,
) -> rusqlite::Result<Vec<DayCounts>> {
    let Some(number) = number_of(conn, schedule)? else { return Ok(Vec::new()) };
    // Days of another age there are none, and calendars end.
    let (last, span) = (last.clamp(DAY_MIN, DAY_MAX), chrono::Days::new(BUCKETS_MAX as u64 - 1));
    let first = first.max(last.checked_sub_days(span).unwrap_or(DAY_MIN));
    let begin = first.and_time(NaiveTime::MIN).and_utc();
    let end = last.and_time(NaiveTime::MIN).and_utc() + chrono::Duration::days(1);
    // A record is made when its run is due or later, whenever that was found out.
    let created = first_place((begin - ZONE_MAX - RECORDED_BEFORE_MAX).timestamp_millis());
    let mut days: BTreeMap<NaiveDate, DayCounts> = BTreeMap::new();
    let mut prepared = conn.prepare_cached(DAYS)?;
    let bounds = ((begin - ZONE_MAX).timestamp_millis(), (end + ZONE_MAX).timestamp_millis());
    let mut rows = prepared.query((number, created, bounds.0, bounds.1))?;
    while let Some(row) = rows.next()? {
        let day = instant(row.get(0)?).with_timezone(&zone).date_naive();
        if day < first || day > last {
            continue;
        }
        let reason = row.get::<_, Option<i64>>(2)?.and_then(reason_of);
        let counts = days.entry(day).or_insert_with(|| DayCounts::of(day));
        match state_of(row.get(1)?) {
            Some(RunState::Success) => counts.success += 1,
            Some(RunState::Failed) => counts.failed += 1,
            Some(RunState::Cancelled) if reason.is_some_and(|one| RunFilter::SKIPS.contains(&one)) => {
                counts.skipped += 1;
            }
            Some(RunState::Cancelled) => counts.cancelled += 1,
            _ => counts.open += 1,
        }
    }
    Ok(days.into_values().collect())
}
