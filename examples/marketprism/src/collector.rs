//! `market-data-collector`: collects one quote per symbol and minute, and tells where some are missing.
//!
//! It knows no transport: whoever receives a request calls [`Collector::handle`]. Its own database holds the quotes.
//! The lines to the exchanges are invented ([`crate::market::quote`]); before it looks, the collector takes in what
//! they would have sent since the last time, as one that runs all day long has done already.
//! Limit: it keeps three hours.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::{
    NowFn, Settings,
    database::{Database, count, writing},
    error::ServiceError,
    http::BODY_BYTES_MAX,
    market::{self, EXCHANGES, MINUTE_MS, SYMBOLS},
    parameters::Parameters,
    periods,
    service::{self, Service},
};

pub(crate) const NAME: &str = "market-data-collector";
const ACTIONS: [&str; 1] = ["check_data_gaps"];

/// How far back a collector that was off asks the exchanges.
const BACKLOG_MINUTES: i64 = 120;
/// What is older goes.
const KEPT_MINUTES: i64 = 180;
/// Gaps in one answer, per exchange; the count is of all.
const GAPS_LISTED_MAX: usize = 50;

/// `market-data-collector`. Cheap to clone.
#[derive(Clone)]
pub struct Collector(Arc<Gaps>);

struct Gaps {
    database: Database,
    seed: u64,
    now: NowFn,
}

impl Collector {
    /// Opens its database, creating it if it is absent.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let database = Database::open_collector(&settings.data_dir)?;
        Ok(Self(Arc::new(Gaps { database, seed: settings.seed, now: settings.now.clone() })))
    }

    /// Does an action; `body` is what the HTTP services take too.
    pub async fn handle(&self, action: &str, body: &[u8]) -> Result<Value, ServiceError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(ServiceError::too_large(BODY_BYTES_MAX));
        }
        let parameters = Parameters::of_request(body)?;
        service::answer(Arc::clone(&self.0), action.to_owned(), parameters).await
    }
}

impl Service for Gaps {
    fn name(&self) -> &'static str {
        NAME
    }

    fn act(&self, action: &str, parameters: Parameters) -> Result<Value, ServiceError> {
        match action {
            "check_data_gaps" => self.check_data_gaps(parameters),
            _ => Err(ServiceError::unknown_action(NAME, action, &ACTIONS)),
        }
    }

    fn check(&self) -> Result<(), ServiceError> {
        self.database.check("SELECT count(*) FROM main.collected")
    }
}

impl Gaps {
    fn check_data_gaps(&self, mut parameters: Parameters) -> Result<Value, ServiceError> {
        let exchanges = parameters.choices("exchanges", &EXCHANGES)?;
        let rule = format!("last_<number>_minutes or last_<number>_hours, up to {BACKLOG_MINUTES} minutes");
        let kept = |length: &TimeDelta| *length <= TimeDelta::minutes(BACKLOG_MINUTES);
        let length = parameters
            .parsed("time_window", &rule, Some("last_30_minutes"), |text| periods::last(text).filter(kept))?;
        let threshold = parameters.fraction("alert_threshold", 0.95)?;
        parameters.finish()?;

        let now = (self.now)();
        catch_up(&self.database, self.seed, now)?;
        // Whole minutes only: the current one is not over, so nothing is missing from it yet.
        let to = minute_of(now);
        let from = to - length.num_minutes();
        let mut alerts = Vec::new();
        let mut checked = Vec::new();
        for exchange in exchanges {
            let (answer, alert) = self.check_exchange(exchange, from, to, threshold)?;
            checked.push(answer);
            if alert {
                alerts.push(exchange);
            }
        }
        Ok(json!({
            "window": { "from": written(from), "to": written(to), "minutes": to - from },
            "alert_threshold": threshold,
            "alert": !alerts.is_empty(),
            "alerts": alerts,
            "exchanges": checked,
        }))
    }

    fn check_exchange(
        &self,
        exchange: &str,
        from: i64,
        to: i64,
        threshold: f64,
    ) -> Result<(Value, bool), ServiceError> {
        let present = self.present(exchange, from, to)?;
        let expected = SYMBOLS.len() as i64 * (to - from);
        let completeness = present.len() as f64 / expected as f64;
        let mut gaps = Vec::new();
        for (symbol, _) in SYMBOLS {
            let is_present = |minute: i64| present.contains(&(symbol.to_owned(), minute));
            for (start, end) in missing(from, to, is_present) {
                let (first, after) = (written(start), written(end));
                gaps.push(json!({ "symbol": symbol, "from": first, "to": after, "minutes": end - start }));
            }
        }
        let alert = completeness < threshold;
        let gaps_total = gaps.len();
        gaps.truncate(GAPS_LISTED_MAX);
        let answer = json!({
            "exchange": exchange,
            "expected": expected,
            "present": present.len(),
            "completeness": (completeness * 1e4).round() / 1e4,
            "alert": alert,
            "gaps_total": gaps_total,
            "gaps": gaps,
        });
        Ok((answer, alert))
    }

    fn present(&self, exchange: &str, from: i64, to: i64) -> rusqlite::Result<HashSet<(String, i64)>> {
        let connection = self.database.lock();
        let mut statement = connection.prepare_cached(
            "SELECT DISTINCT symbol, ts / 60000 FROM main.quotes WHERE exchange = ?1 AND ts >= ?2 AND ts < ?3",
        )?;
        let window = params![exchange, from * MINUTE_MS, to * MINUTE_MS];
        let found = statement.query_map(window, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let known = |(symbol, _): &(String, i64)| SYMBOLS.iter().any(|(name, _)| name == symbol);
        found.filter(|row| row.as_ref().map_or(true, known)).collect()
    }
}

/// Runs of minutes in `from..to` that are not present.
fn missing(from: i64, to: i64, is_present: impl Fn(i64) -> bool) -> Vec<(i64, i64)> {
    let mut gaps: Vec<(i64, i64)> = Vec::new();
    for minute in (from..to).filter(|minute| !is_present(*minute)) {
        match gaps.last_mut() {
            Some((_, end)) if *end == minute => *end = minute + 1,
            _ => gaps.push((minute, minute + 1)),
        }
    }
    gaps
}

/// Takes in what the exchanges sent since the last call, two hours at most. Answers how many quotes there are.
pub(crate) fn catch_up(database: &Database, seed: u64, now: DateTime<Utc>) -> Result<u64, ServiceError> {
    let to = minute_of(now);
    let mut connection = database.lock();
    let transaction = writing(&mut connection)?;
    for exchange in EXCHANGES {
        let asked = "SELECT until FROM main.collected WHERE exchange = ?1";
        let until: Option<i64> = transaction.query_row(asked, [exchange], |row| row.get(0)).optional()?;
        let from = until.unwrap_or(i64::MIN).max(to - BACKLOG_MINUTES);
        // Nothing new, or the clock went back: what is here stays.
        if from >= to {
            continue;
        }
        let mut insert =
            transaction.prepare_cached("INSERT OR IGNORE INTO main.quotes VALUES (?1, ?2, ?3, ?4)")?;
        for minute in from..to {
            for (index, (symbol, _)) in SYMBOLS.iter().enumerate() {
                if let Some(price) = market::quote(seed, exchange, index, minute) {
                    insert.execute(params![exchange, symbol, minute * MINUTE_MS, price])?;
                }
            }
        }
        transaction
            .execute("INSERT OR REPLACE INTO main.collected VALUES (?1, ?2)", params![exchange, to])?;
    }
    transaction.execute("DELETE FROM main.quotes WHERE ts < ?1", [(to - KEPT_MINUTES) * MINUTE_MS])?;
    let quotes = count(&transaction, "SELECT count(*) FROM main.quotes", [])?;
    transaction.commit()?;
    Ok(quotes.unsigned_abs())
}

fn minute_of(instant: DateTime<Utc>) -> i64 {
    instant.timestamp_millis().div_euclid(MINUTE_MS)
}

fn written(minute: i64) -> String {
    periods::written_ms(minute * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_runs_of_missing_minutes_also_at_the_edges() {
        let present = [2, 3, 6];
        assert_eq!(missing(0, 9, |minute| present.contains(&minute)), [(0, 2), (4, 6), (7, 9)]);
        assert_eq!(missing(2, 4, |minute| present.contains(&minute)), []);
    }

    #[test]
    fn any_thirty_minutes_of_huobi_are_below_the_threshold_and_of_the_others_above() {
        for from in 29_000_000..29_000_060 {
            let share = |exchange| {
                let minutes = (from..from + 30).flat_map(|minute| (0..4).map(move |symbol| (minute, symbol)));
                let sent =
                    minutes.filter(|(minute, symbol)| market::quote(1, exchange, *symbol, *minute).is_some());
                sent.count() as f64 / 120.0
            };
            assert!(share("huobi") < 0.95 && share("okx") >= 0.95 && share("binance") >= 1.0, "{from}");
        }
    }
}
