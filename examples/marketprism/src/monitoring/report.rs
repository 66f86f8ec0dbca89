//! What a report says about some readings.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::{
    monitoring::proc::{Counters, Reading},
    periods,
};

/// The readings of the range, oldest first, and the one just taken.
pub(super) struct Report<'a> {
    pub(super) readings: &'a [Reading],
    pub(super) last: &'a Reading,
    pub(super) range_s: f64,
    pub(super) metrics: &'a [&'static str],
}

impl Report<'_> {
    /// What was really measured, beside what was asked for.
    pub(super) fn window(&self) -> Value {
        let mut window = json!({
            "asked_seconds": self.range_s,
            "measured_seconds": rounded(self.measured_s()),
            // The one of now is kept only if the one before it is old enough.
            "readings": self.readings.len() + usize::from(self.readings.last() != Some(self.last)),
        });
        if self.measured_s() < 0.95 * self.range_s {
            window["note"] = json!("shorter than asked for: this service has not been reading for so long");
        }
        window
    }

    /// The numbers, per metric.
    pub(super) fn headlines(&self) -> Map<String, Value> {
        let numbers = |metric: &&'static str| {
            let numbers = match *metric {
                "cpu" => self.cpu(),
                "memory" => self.memory(),
                "disk" => self.disk(),
                _ => self.network(),
            };
            ((*metric).to_owned(), numbers)
        };
        self.metrics.iter().map(numbers).collect()
    }

    /// The report as people read it.
    pub(super) fn markdown(&self, headlines: &Map<String, Value>, now: DateTime<Utc>) -> String {
        let mut text = format!("# Performance report, {}\n\n", periods::written(now));
        let measured = rounded(self.measured_s());
        // Writing to a String cannot fail.
        _ = writeln!(text, "Measured: {measured} s of the {} s asked for.\n", self.range_s);
        for (metric, numbers) in headlines {
            _ = writeln!(text, "## {metric}\n\n| what | value |\n|---|---:|");
            for (name, value) in numbers.as_object().into_iter().flatten() {
                _ = writeln!(text, "| {} | {value} |", name.replace('_', " "));
            }
            text.push('\n');
        }
        text
    }

    fn first(&self) -> &Reading {
        self.readings.first().unwrap_or(self.last)
    }

    fn measured_s(&self) -> f64 {
        self.last.up_s - self.first().up_s
    }

    fn cpu(&self) -> Value {
        let [load, of_five, of_fifteen] = self.last.load;
        let highest = self.readings.iter().map(|reading| reading.load[0]).fold(load, f64::max);
        json!({
            // Absent when the window is shorter than the kernel's unit of counting.
            "busy_percent": percent(since(self.first().cpu, self.last.cpu)),
            "busy_percent_since_boot": percent(self.last.cpu),
            "cpus": self.last.cpus,
            "load_1m": load, "load_5m": of_five, "load_15m": of_fifteen, "load_1m_highest_read": highest,
        })
    }

    fn memory(&self) -> Value {
        let last = self.last.memory;
        let highest = self.readings.iter().map(|reading| reading.memory.used_percent());
        json!({
            "used_percent": rounded(last.used_percent()),
            "used_percent_highest_read": rounded(highest.fold(last.used_percent(), f64::max)),
            "total_bytes": last.total_bytes,
            "available_bytes": last.available_bytes,
            "own_resident_bytes": self.last.own_bytes,
        })
    }

    fn disk(&self) -> Value {
        let (first, last) = (self.first().disk, self.last.disk);
        json!({
            "used_percent": rounded(last.used_percent()),
            "total_bytes": last.total_bytes,
            "available_bytes": last.available_bytes,
            "available_bytes_change": last.available_bytes.cast_signed() - first.available_bytes.cast_signed(),
        })
    }

    fn network(&self) -> Value {
        let Counters(received, sent) = since(self.first().network, self.last.network);
        let per_s = |bytes: u64| (self.measured_s() > 0.0).then(|| rounded(bytes as f64 / self.measured_s()));
        json!({
            "received_bytes": received,
            "sent_bytes": sent,
            "received_bytes_per_s": per_s(received),
            "sent_bytes_per_s": per_s(sent),
            "received_bytes_since_boot": self.last.network.0,
            "sent_bytes_since_boot": self.last.network.1,
        })
    }
}

/// A counter may go back when an interface disappears; then nothing is known, and nothing is claimed.
fn since(first: Counters, last: Counters) -> Counters {
    Counters(last.0.saturating_sub(first.0), last.1.saturating_sub(first.1))
}

fn percent(Counters(part, whole): Counters) -> Option<f64> {
    (whole > 0).then(|| rounded(100.0 * part as f64 / whole as f64))
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
