//! Fills empty databases with the invented market.
//!
//! Each file is filled in one transaction that also leaves a mark: killed in between, the next call starts over.

use anyhow::Context;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, Transaction, params};

use crate::{
    Settings, collector,
    database::{Database, count, writing},
    market::{
        self, AnomalyKind, CANDLE_MS, Candle, DAY_MS, EXCHANGES, MINUTE_MS, PLANTED, SYMBOLS, candles,
        rounded,
    },
    periods,
    random::Random,
};

/// At least so much history. The whole of last month is always included, for the volume report.
const HISTORY_DAYS: i64 = 40;
/// Rows of the tables that expire: so many long ago, so many of the last month.
const TEMPORARY_EXPIRED: usize = 400;
const TEMPORARY_FRESH: usize = 200;

/// What is in the databases now.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedReport {
    /// Whether this call wrote the market; false if it was there.
    pub seeded: bool,
    /// Rows, hot and cold together.
    pub market_data: u64,
    /// Rows, hot and cold together.
    pub trade_history: u64,
    /// Rows.
    pub temp_calculations: u64,
    /// Rows.
    pub cache_data: u64,
    /// Rows at the collector.
    pub quotes: u64,
    /// What `detect_anomalies` should find; told only by the call that planted them.
    pub anomalies: Vec<SeededAnomaly>,
}

/// Where an anomaly was planted.
#[derive(Debug, Clone, PartialEq)]
pub struct SeededAnomaly {
    /// On which exchange.
    pub exchange: &'static str,
    /// In which symbol.
    pub symbol: &'static str,
    /// At which candle.
    pub at: DateTime<Utc>,
    /// What is wrong with it.
    pub kind: AnomalyKind,
}

/// Creates the databases and fills them if they are empty; relative to the time in the settings.
pub fn seed_if_empty(settings: &Settings) -> anyhow::Result<SeedReport> {
    let now = (settings.now)();
    let market = Database::open_market(&settings.data_dir)?;
    let mut connection = market.lock();
    let transaction = writing(&mut connection)?;
    // Asked inside the write lock: of two processes that start together, one seeds.
    let seeded = count(&transaction, "SELECT count(*) FROM main.seeded", [])? == 0;
    let mut anomalies = Vec::new();
    if seeded {
        anomalies = write_market(&transaction, settings.seed, now).context("the market cannot be seeded")?;
        write_temporary(&transaction, settings.seed, now.timestamp_millis())?;
        transaction.execute(
            "INSERT INTO main.seeded VALUES (?1, ?2)",
            params![settings.seed.cast_signed(), now.timestamp_millis()],
        )?;
    }
    transaction.commit()?;

    let quotes = collector::catch_up(&Database::open_collector(&settings.data_dir)?, settings.seed, now)?;
    let rows = |query: &str| -> anyhow::Result<u64> { Ok(count(&connection, query, [])?.unsigned_abs()) };
    Ok(SeedReport {
        seeded,
        market_data: rows(
            "SELECT (SELECT count(*) FROM main.market_data) + (SELECT count(*) FROM cold.market_data)",
        )?,
        trade_history: rows(
            "SELECT (SELECT count(*) FROM main.trade_history) + (SELECT count(*) FROM cold.trade_history)",
        )?,
        temp_calculations: rows("SELECT count(*) FROM main.temp_calculations")?,
        cache_data: rows("SELECT count(*) FROM main.cache_data")?,
        quotes,
        anomalies,
    })
}

fn write_market(hot: &Transaction, seed: u64, now: DateTime<Utc>) -> anyhow::Result<Vec<SeededAnomaly>> {
    let last_month = periods::month("last_month", now).context("this time has no last month")?;
    let now = now.timestamp_millis();
    let from = last_month.from.timestamp_millis().min(now - HISTORY_DAYS * DAY_MS);
    let from = from.div_euclid(CANDLE_MS) * CANDLE_MS;
    let length = usize::try_from((now - from) / CANDLE_MS + 1)?;

    for (symbol, base) in SYMBOLS {
        let walk = market::walk(seed, symbol, base, length);
        for exchange in EXCHANGES {
            let series = candles(seed, exchange, symbol, &walk, from);
            write_candles(hot, exchange, symbol, &series)?;
            write_trades(hot, seed, exchange, symbol, &series, now)?;
        }
    }
    let planted = PLANTED.iter().filter_map(|planted| {
        let index = length.checked_sub(planted.candles_ago + 1)?;
        let at = DateTime::from_timestamp_millis(from + index as i64 * CANDLE_MS)?;
        Some(SeededAnomaly { exchange: planted.exchange, symbol: planted.symbol, at, kind: planted.kind })
    });
    Ok(planted.collect())
}

fn write_candles(hot: &Connection, exchange: &str, symbol: &str, series: &[Candle]) -> rusqlite::Result<()> {
    let mut insert = hot.prepare_cached("INSERT INTO main.market_data VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for candle in series {
        insert.execute(params![exchange, symbol, candle.ts, candle.price, candle.volume])?;
    }
    Ok(())
}

/// About one trade an hour, at the candle's price.
fn write_trades(
    hot: &Connection,
    seed: u64,
    exchange: &str,
    symbol: &str,
    series: &[Candle],
    now: i64,
) -> rusqlite::Result<()> {
    let mut insert =
        hot.prepare_cached("INSERT INTO main.trade_history VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut random = Random::of(seed, &["trades", exchange, symbol]);
    for (id, candle) in (1_i64..).zip(series.iter().step_by(4)) {
        let ts = candle.ts + random.below(60 * MINUTE_MS as u64).cast_signed();
        let side = if random.unit() < 0.5 { "buy" } else { "sell" };
        let quantity = rounded(candle.volume * 0.05 * (0.5 * random.noise()).exp());
        if ts <= now {
            insert.execute(params![exchange, symbol, id, ts, side, candle.price, quantity])?;
        }
    }
    Ok(())
}

fn write_temporary(hot: &Connection, seed: u64, now: i64) -> rusqlite::Result<()> {
    let mut calculation = hot.prepare("INSERT INTO main.temp_calculations VALUES (?1, ?2, ?3, ?4)")?;
    let mut cached = hot.prepare("INSERT INTO main.cache_data VALUES (?1, ?2, ?3)")?;
    let mut random = Random::of(seed, &["temporary"]);
    for index in 0..TEMPORARY_EXPIRED + TEMPORARY_FRESH {
        let (newest, days) = if index < TEMPORARY_EXPIRED { (91, 90) } else { (0, 30) };
        let mut created = || now - newest * DAY_MS - random.below((days * DAY_MS) as u64).cast_signed();
        let (first, second) = (created(), created());
        let (symbol, _) = SYMBOLS[index % SYMBOLS.len()];
        calculation.execute(params![
            index as i64 + 1,
            format!("moving_average/{symbol}"),
            random.unit(),
            first
        ])?;
        cached.execute(params![format!("book/{symbol}/{index}"), "{\"bids\":[],\"asks\":[]}", second])?;
    }
    Ok(())
}
