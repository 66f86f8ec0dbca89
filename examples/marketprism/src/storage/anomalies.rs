//! `detect_anomalies`: candles that do not fit the day before them.
//!
//! Each series (exchange, symbol) is read in order. A value is compared with the mean and the deviation of the values
//! accepted in the last day: the change of the price's logarithm, or the logarithm of the volume. What lies too many
//! deviations away is reported and *not* accepted, so that one anomaly neither widens the measure for the next nor
//! makes the way back to normal look like another one. The third in a row is accepted: then the level has changed.
//! Limit: the first quarter of a day of a series is only learned from.

use std::{collections::VecDeque, path::Path};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    database::Database, error::ServiceError, files::write_whole, market::AnomalyKind, parameters::Parameters,
    periods,
};

const SENSITIVITIES: [&str; 3] = ["low", "medium", "high"];
/// Anomalies in one answer, the strongest first to stay; the count is always of all.
const LISTED_MAX: i64 = 500;
const LISTED_DEFAULT: i64 = 50;
/// A day of candles.
const WINDOW: usize = 96;
/// Values needed before a first judgement.
const WINDOW_MIN: usize = 24;
/// So many strange values in a row are the new normal.
const STREAK_MAX: usize = 3;

/// How many deviations are too many.
fn threshold(sensitivity: &str) -> f64 {
    match sensitivity {
        "low" => 9.0,
        "high" => 4.5,
        _ => 6.0,
    }
}

pub(super) fn detect_anomalies(
    database: &Database,
    data_dir: &Path,
    mut parameters: Parameters,
    now: DateTime<Utc>,
) -> Result<Value, ServiceError> {
    let known = [AnomalyKind::PriceSpike.model(), AnomalyKind::VolumeAnomaly.model()];
    let models = parameters.choices("detection_models", &known)?;
    let sensitivity = parameters.choice("sensitivity", &SENSITIVITIES, "medium")?;
    let notification = parameters.flag("notification", false)?;
    let limit = parameters.integer("limit", &(1..=LISTED_MAX), LISTED_DEFAULT)? as usize;
    parameters.finish()?;

    let kinds = [AnomalyKind::PriceSpike, AnomalyKind::VolumeAnomaly];
    let kinds: Vec<AnomalyKind> = kinds.into_iter().filter(|kind| models.contains(&kind.model())).collect();
    let mut findings = Findings { limit, ..Findings::default() };
    let rows_examined = examine(database, &kinds, threshold(sensitivity), &mut findings)?;

    let counts: serde_json::Map<String, Value> = kinds
        .iter()
        .map(|kind| {
            let count =
                if *kind == AnomalyKind::PriceSpike { findings.price_spikes } else { findings.volumes };
            (kind.model().to_owned(), json!(count))
        })
        .collect();
    let total = findings.price_spikes + findings.volumes;
    let anomalies = findings.listed();
    let mut answer = json!({
        "anomalies_total": total,
        "anomalies_by_model": counts,
        "listed": anomalies.len(),
        "sensitivity": sensitivity,
        "threshold_deviations": threshold(sensitivity),
        "rows_examined": rows_examined,
        "anomalies": anomalies,
    });
    answer["notification"] = match (notification, total) {
        (false, _) => json!({ "written": false, "reason": "not asked for" }),
        (true, 0) => json!({ "written": false, "reason": "there is nothing to tell" }),
        (true, _) => {
            let file = format!("anomalies-{}.json", now.format("%Y%m%dT%H%M%SZ"));
            let path = data_dir.join("notifications").join(file);
            let text = serde_json::to_vec_pretty(&answer).map_err(ServiceError::internal)?;
            write_whole(&path, &text)?;
            json!({ "written": true, "path": path.display().to_string() })
        }
    };
    Ok(answer)
}

/// Reads the hot rows in the order of their key: series after series, each by time.
fn examine(
    database: &Database,
    kinds: &[AnomalyKind],
    threshold: f64,
    findings: &mut Findings,
) -> rusqlite::Result<u64> {
    let connection = database.lock();
    let mut statement = connection.prepare_cached(
        "SELECT exchange, symbol, ts, price, volume FROM main.market_data ORDER BY exchange, symbol, ts",
    )?;
    let mut rows = statement.query([])?;
    let mut series = Series::default();
    let mut rows_examined = 0;
    while let Some(row) = rows.next()? {
        rows_examined += 1;
        let (exchange, symbol) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        if series.exchange != exchange || series.symbol != symbol {
            series = Series { exchange: exchange.to_owned(), symbol: symbol.to_owned(), ..Series::default() };
        }
        let (ts, price, volume) = (row.get(2)?, row.get(3)?, row.get(4)?);
        for kind in kinds {
            let (value, score) = match kind {
                AnomalyKind::PriceSpike => (price, series.judge_price(price, threshold)),
                AnomalyKind::VolumeAnomaly => (volume, series.judge_volume(volume, threshold)),
            };
            if let Some(score) = score {
                findings.add(Finding {
                    kind: *kind,
                    exchange: exchange.to_owned(),
                    symbol: symbol.to_owned(),
                    ts,
                    value,
                    score,
                });
            }
        }
    }
    Ok(rows_examined)
}

/// One exchange's candles of one symbol, as far as they are read.
#[derive(Default)]
struct Series {
    exchange: String,
    symbol: String,
    last_price: Option<f64>,
    changes: Normal,
    volumes: Normal,
}

impl Series {
    fn judge_price(&mut self, price: f64, threshold: f64) -> Option<f64> {
        let price = price.max(f64::MIN_POSITIVE);
        let last = *self.last_price.get_or_insert(price);
        let verdict = self.changes.judge((price / last).ln(), threshold);
        if verdict.accepted {
            self.last_price = Some(price);
        }
        verdict.score
    }

    fn judge_volume(&mut self, volume: f64, threshold: f64) -> Option<f64> {
        // Nothing traded is a volume too, and its logarithm must be a number.
        self.volumes.judge(volume.max(1e-9).ln(), threshold).score
    }
}

/// What is normal: the values accepted last, with their sums kept, so that a value costs the same however long the
/// window is.
#[derive(Default)]
struct Normal {
    values: VecDeque<f64>,
    sum: f64,
    squares: f64,
    streak: usize,
}

struct Verdict {
    accepted: bool,
    score: Option<f64>,
}

impl Normal {
    fn judge(&mut self, value: f64, threshold: f64) -> Verdict {
        let score = self.score(value).filter(|score| score.abs() > threshold);
        self.streak = if score.is_some() { self.streak + 1 } else { 0 };
        let accepted = score.is_none() || self.streak >= STREAK_MAX;
        if accepted {
            self.accept(value);
        }
        Verdict { accepted, score }
    }

    fn score(&self, value: f64) -> Option<f64> {
        let count = self.values.len() as f64;
        if self.values.len() < WINDOW_MIN {
            return None;
        }
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        Some((value - mean) / variance.sqrt().max(1e-9))
    }

    fn accept(&mut self, value: f64) {
        self.values.push_back(value);
        self.sum += value;
        self.squares += value * value;
        if self.values.len() > WINDOW
            && let Some(oldest) = self.values.pop_front()
        {
            self.sum -= oldest;
            self.squares -= oldest * oldest;
        }
    }
}

struct Finding {
    kind: AnomalyKind,
    exchange: String,
    symbol: String,
    ts: i64,
    value: f64,
    score: f64,
}

/// All are counted, the strongest are kept.
#[derive(Default)]
struct Findings {
    limit: usize,
    price_spikes: u64,
    volumes: u64,
    kept: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        match finding.kind {
            AnomalyKind::PriceSpike => self.price_spikes += 1,
            AnomalyKind::VolumeAnomaly => self.volumes += 1,
        }
        self.kept.push(finding);
        if self.kept.len() >= 2 * self.limit {
            self.keep_strongest();
        }
    }

    fn keep_strongest(&mut self) {
        self.kept.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
        self.kept.truncate(self.limit);
    }

    fn listed(mut self) -> Vec<Value> {
        self.keep_strongest();
        let shown = |finding: Finding| {
            json!({
                "model": finding.kind.model(),
                "exchange": finding.exchange,
                "symbol": finding.symbol,
                "ts": periods::written_ms(finding.ts),
                "value": finding.value,
                "score": (finding.score * 100.0).round() / 100.0,
            })
        };
        self.kept.into_iter().map(shown).collect()
    }
}
