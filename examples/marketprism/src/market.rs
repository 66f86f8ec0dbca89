//! The invented market: which exchanges and symbols there are and what they would have traded.
//!
//! One price walk per symbol, followed by every exchange with a little noise of its own; a daily wave of volume; and
//! a few anomalies at known places, for `detect_anomalies` to find.

use std::f64::consts::TAU;

use crate::random::Random;

/// The exchanges of the origin.
pub(crate) const EXCHANGES: [&str; 3] = ["binance", "okx", "huobi"];
/// The symbols, and around which price each one moves.
pub(crate) const SYMBOLS: [(&str, f64); 4] =
    [("BTC-USDT", 64_000.0), ("ETH-USDT", 3_200.0), ("SOL-USDT", 150.0), ("XRP-USDT", 0.6)];

/// The distance of two candles.
pub(crate) const CANDLE_MS: i64 = 15 * 60 * 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * 1_000;
pub(crate) const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// How far one candle's price moves from the last one, relatively (one deviation).
const PRICE_STEP: f64 = 0.0015;
/// How much one candle's volume varies (one deviation of its logarithm).
const VOLUME_SPREAD: f64 = 0.25;

/// What is wrong with a candle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnomalyKind {
    /// The price left its course for one candle.
    PriceSpike,
    /// Far more was traded than before and after.
    VolumeAnomaly,
}

impl AnomalyKind {
    /// The name of the model that finds it, as in the origin's parameters.
    pub fn model(self) -> &'static str {
        match self {
            AnomalyKind::PriceSpike => "price_spike",
            AnomalyKind::VolumeAnomaly => "volume_anomaly",
        }
    }
}

/// One anomaly to plant: series, how many candles before the last one, and the factor.
pub(crate) struct Planted {
    pub(crate) exchange: &'static str,
    pub(crate) symbol: &'static str,
    pub(crate) candles_ago: usize,
    pub(crate) kind: AnomalyKind,
    pub(crate) factor: f64,
}

/// Two of the six are older than a week: they are archived with their day.
pub(crate) const PLANTED: [Planted; 6] = [
    plant("binance", "BTC-USDT", 37, AnomalyKind::PriceSpike, 1.12),
    plant("okx", "ETH-USDT", 61, AnomalyKind::PriceSpike, 0.91),
    plant("huobi", "SOL-USDT", 20, AnomalyKind::VolumeAnomaly, 25.0),
    plant("binance", "XRP-USDT", 150, AnomalyKind::VolumeAnomaly, 40.0),
    plant("okx", "BTC-USDT", 1_100, AnomalyKind::PriceSpike, 1.08),
    plant("huobi", "ETH-USDT", 1_500, AnomalyKind::VolumeAnomaly, 30.0),
];

const fn plant(
    exchange: &'static str,
    symbol: &'static str,
    candles_ago: usize,
    kind: AnomalyKind,
    factor: f64,
) -> Planted {
    Planted { exchange, symbol, candles_ago, kind, factor }
}

/// Price and volume at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candle {
    pub(crate) ts: i64,
    pub(crate) price: f64,
    pub(crate) volume: f64,
}

/// The prices that all exchanges follow, one per candle.
pub(crate) fn walk(seed: u64, symbol: &str, base: f64, candles: usize) -> Vec<f64> {
    let mut random = Random::of(seed, &["walk", symbol]);
    let mut offset = 0.0_f64;
    let step = |_| {
        // Drawn back a little, so that sixty days do not carry a price to nowhere.
        offset = offset * 0.999 + PRICE_STEP * random.noise();
        base * offset.exp()
    };
    (0..candles).map(step).collect()
}

/// One exchange's candles of a symbol, anomalies included; the first one is at `from`.
pub(crate) fn candles(seed: u64, exchange: &str, symbol: &str, walk: &[f64], from: i64) -> Vec<Candle> {
    let mut random = Random::of(seed, &["candles", exchange, symbol]);
    let liquid = 20_000_000.0 / walk.first().copied().unwrap_or(1.0) / 96.0;
    let mut series: Vec<Candle> = Vec::with_capacity(walk.len());
    for (index, common) in walk.iter().enumerate() {
        let ts = from + index as i64 * CANDLE_MS;
        let price = rounded(common * (1.0 + 0.0002 * random.noise()));
        let wave = 1.0 + 0.3 * (TAU * ts.rem_euclid(DAY_MS) as f64 / DAY_MS as f64).sin();
        let volume = rounded(liquid * wave * (VOLUME_SPREAD * random.noise()).exp());
        series.push(Candle { ts, price, volume });
    }
    for planted in PLANTED.iter().filter(|planted| planted.exchange == exchange && planted.symbol == symbol) {
        let Some(index) = series.len().checked_sub(planted.candles_ago + 1) else { continue };
        let candle = &mut series[index];
        match planted.kind {
            AnomalyKind::PriceSpike => candle.price = rounded(candle.price * planted.factor),
            AnomalyKind::VolumeAnomaly => candle.volume = rounded(candle.volume * planted.factor),
        }
    }
    series
}

/// Six digits after the point are more than any exchange quotes.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// What an exchange sends in one minute: nothing when its line is down.
///
/// Huobi's line is down for four minutes of every thirty, so any window of thirty minutes is 86.7 % complete. OKX
/// loses one quote of one symbol in thirty minutes, which is 99.2 %; Binance loses none.
pub(crate) fn quote(seed: u64, exchange: &str, symbol: usize, minute: i64) -> Option<f64> {
    let of_30 = minute.rem_euclid(30);
    let down = match exchange {
        "huobi" => (10..14).contains(&of_30),
        "okx" => of_30 == 20 && minute.div_euclid(30).rem_euclid(SYMBOLS.len() as i64) == symbol as i64,
        _ => false,
    };
    let (name, base) = SYMBOLS.get(symbol)?;
    let noise = Random::of(seed, &["quote", exchange, name, &minute.to_string()]).noise();
    let wave = 0.01 * (TAU * minute.rem_euclid(1_440) as f64 / 1_440.0).sin();
    (!down).then(|| rounded(base * (1.0 + wave + 0.0005 * noise)))
}
