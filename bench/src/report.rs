//! What a scenario found. What it did not measure is absent.

use serde::Serialize;

/// What a scenario found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The server's version.
    pub server: String,
    /// How many things it was measured with.
    pub n: usize,
    /// How long all of it took.
    pub seconds: f64,
    /// Runs a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// The raw rate of the server in the same run: messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_per_s: Option<f64>,
    /// The one divided by the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The same with two worker processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_per_s: Option<f64>,
    /// The same with a claim of its own for each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_per_s: Option<f64>,
    /// That by the raw rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_ratio: Option<f64>,
    /// The same where successes leave no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_per_s: Option<f64>,
    /// That by the raw rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_ratio: Option<f64>,
    /// CPU time of client and server for one raw message, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_us: Option<f64>,
    /// CPU time of the worker for one run where successes leave no record, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_worker_us: Option<f64>,
    /// The server's then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_server_us: Option<f64>,
    /// CPU time of the worker for one run, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_us: Option<f64>,
    /// CPU time of the server for one run, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_us: Option<f64>,
    /// The worker's with a claim of its own for each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_worker_us: Option<f64>,
    /// The server's then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_server_us: Option<f64>,
    /// Half of all runs began at most this long after their slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// All but one of a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// All of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// Half of all records were made at most this long after their instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_p50_ms: Option<f64>,
    /// All but one of a hundred records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_p99_ms: Option<f64>,
    /// All records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_max_ms: Option<f64>,
    /// What the same server needs to take in and hand out as many raw messages as runs are due at an instant, published at
    /// once and acknowledged: after this long half of them were in hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_p50_ms: Option<f64>,
    /// All but one of a hundred of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_p99_ms: Option<f64>,
    /// When the last of a burst began, after the slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<f64>,
    /// Slots without a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<usize>,
    /// Runs that began more often than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub double: Option<usize>,
    /// Runs that began before their instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early: Option<usize>,
    /// Submissions that were acknowledged and came to no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<usize>,
    /// Runs that were begun again because their worker was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<usize>,
    /// Resident memory of a worker in the second tenth of its runs, in megabytes; `rss_mb` is that of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_early_mb: Option<f64>,
    /// By how much the one is more than the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_growth_pct: Option<f64>,
    /// From the start of a planner to its first dispatch, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_s: Option<f64>,
    /// Resident memory of what is measured, a planner or a worker, in megabytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mb: Option<f64>,
    /// CPU of the planner while little is due, in per cent of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_cpu_pct: Option<f64>,
    /// How late the first slot of a definition is dispatched that was changed just before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_ms: Option<f64>,
    /// The longest wait for the next dispatch after a planner was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_max_ms: Option<f64>,
    /// The longest wait for the next dispatch after a planner was told to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term_max_ms: Option<f64>,
}

impl Report {
    /// Puts the distribution of latencies in.
    #[must_use]
    pub fn with_latencies(self, ms: Vec<f64>) -> Self {
        let Latencies { p50, p99, max } = Latencies::of(ms);
        Self { p50_ms: p50, p99_ms: p99, max_ms: max, ..self }
    }

    /// Puts a rate in, and the raw one it is measured by.
    #[must_use]
    pub fn with_rates(mut self, per_s: f64, raw_per_s: f64) -> Self {
        self.per_s = Some(per_s);
        self.raw_per_s = Some(raw_per_s);
        self.ratio = Some(per_s / raw_per_s);
        self
    }
}

/// A distribution of latencies in milliseconds; nothing, if there were none.
pub(crate) struct Latencies {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Latencies {
    pub(crate) fn of(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Self { p50: percentile(&ms, 50), p99: percentile(&ms, 99), max: ms.last().copied() }
    }
}

/// The value below or at which this share of the sorted values lies (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let report = Report::default().with_latencies((1..=200).rev().map(f64::from).collect());
        assert_eq!((report.p50_ms, report.p99_ms, report.max_ms), (Some(100.0), Some(198.0), Some(200.0)));
        let one = Report::default().with_latencies(vec![7.0]);
        assert_eq!((one.p50_ms, one.p99_ms, one.max_ms), (Some(7.0), Some(7.0), Some(7.0)));
        assert_eq!(Report::default().with_latencies(Vec::new()).p50_ms, None);
    }

    #[test]
    fn what_was_not_measured_is_absent() {
        let json = serde_json::to_value(Report::default().with_rates(30.0, 60.0)).expect("json");
        assert_eq!(json["ratio"], 0.5);
        assert!(json.get("p50_ms").is_none());
    }
}
