//! The numbers of the volume report.

use std::collections::BTreeMap;

use chrono::Offset;
use rusqlite::{Connection, params};

use crate::{
    database::count,
    periods::{Month, ZONE},
};

/// By what volumes are broken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Exchange,
    Symbol,
    Day,
}

impl Dimension {
    pub(super) const ALL: [Self; 3] = [Self::Exchange, Self::Symbol, Self::Day];
    /// As in the origin's parameters.
    pub(super) const NAMES: [&'static str; 3] = ["exchange", "symbol", "day"];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What was traded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Total {
    pub(super) trades: u64,
    /// In units of the symbol; only a sum within one symbol means something.
    pub(super) quantity: f64,
    /// Price times quantity, in USDT: what can be added up over symbols.
    pub(super) turnover: f64,
}

impl Total {
    fn plus(self, other: Self) -> Self {
        Self {
            trades: self.trades + other.trades,
            quantity: self.quantity + other.quantity,
            turnover: self.turnover + other.turnover,
        }
    }
}

/// The trades of a month, added up per exchange, symbol and day.
pub(super) struct Volumes {
    cells: Vec<([String; 3], Total)>,
    pub(super) first_ts: Option<i64>,
    pub(super) last_ts: Option<i64>,
}

/// A trade that is being archived is in both files for a moment: the hot one counts.
const TRADES: &str = "
    SELECT exchange, symbol, ts, price, quantity FROM main.trade_history WHERE ts >= ?1 AND ts < ?2
    UNION ALL
    SELECT exchange, symbol, ts, price, quantity FROM cold.trade_history AS cold WHERE ts >= ?1 AND ts < ?2
    AND NOT EXISTS (SELECT 1 FROM main.trade_history AS hot WHERE hot.exchange = cold.exchange
        AND hot.symbol = cold.symbol AND hot.trade_id = cold.trade_id)";

impl Volumes {
    pub(super) fn read(connection: &mut Connection, month: &Month) -> rusqlite::Result<Self> {
        let (from, to) = (month.from.timestamp_millis(), month.to.timestamp_millis());
        // One offset for the whole month: the zone has had no clock change since 1991.
        let offset_s = month.from.with_timezone(&ZONE).offset().fix().local_minus_utc();
        let reading = connection.transaction()?;
        // A transaction sees each file as it is at the first look into it. The hot one first: rows move from hot to
        // cold, so a row that leaves after this look is still seen; the other way round it would be in neither.
        count(&reading, "SELECT EXISTS (SELECT 1 FROM main.trade_history)", [])?;
        let query = format!(
            "SELECT exchange, symbol, strftime('%Y-%m-%d', ts / 1000 + ?3, 'unixepoch') AS day,
                 count(*), sum(quantity), sum(price * quantity), min(ts), max(ts)
             FROM ({TRADES}) GROUP BY exchange, symbol, day ORDER BY exchange, symbol, day"
        );
        let mut volumes = Self { cells: Vec::new(), first_ts: None, last_ts: None };
        let mut statement = reading.prepare_cached(&query)?;
        let mut rows = statement.query(params![from, to, offset_s])?;
        while let Some(row) = rows.next()? {
            let total = Total {
                trades: row.get::<_, i64>(3)?.unsigned_abs(),
                quantity: row.get(4)?,
                turnover: row.get(5)?,
            };
            volumes.cells.push(([row.get(0)?, row.get(1)?, row.get(2)?], total));
            let (first, last): (i64, i64) = (row.get(6)?, row.get(7)?);
            volumes.first_ts = Some(volumes.first_ts.map_or(first, |ts| ts.min(first)));
            volumes.last_ts = volumes.last_ts.max(Some(last));
        }
        Ok(volumes)
    }

    /// The sums for each combination of these dimensions' values, in their order.
    pub(super) fn by(&self, dimensions: &[Dimension]) -> Vec<(Vec<&str>, Total)> {
        let mut sums: BTreeMap<Vec<&str>, Total> = BTreeMap::new();
        for (values, total) in &self.cells {
            let key = dimensions.iter().map(|dimension| values[*dimension as usize].as_str()).collect();
            let sum = sums.entry(key).or_default();
            *sum = sum.plus(*total);
        }
        sums.into_iter().collect()
    }

    pub(super) fn total(&self) -> Total {
        self.cells.iter().fold(Total::default(), |sum, (_, total)| sum.plus(*total))
    }
}
