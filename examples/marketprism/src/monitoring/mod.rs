//! `monitoring-service`: how the machine does, from its own counters.
//!
//! The kernel counts since boot; a rate needs two readings. One is taken when the service opens, one with each
//! health check (at most once a minute) and one with each report, and they outlive a restart in a file. A report
//! measures from the oldest reading within the range asked for, and says how long that really was.
//! Limit: readings from before a reboot are dropped, since the counters started again.

mod proc;
mod report;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::{
    NowFn, Settings,
    error::ServiceError,
    files::write_whole,
    mail::{Mail, not_delivered},
    monitoring::{proc::Reading, report::Report},
    parameters::Parameters,
    periods,
    service::Service,
};

pub(crate) const NAME: &str = "monitoring-service";
const ACTIONS: [&str; 1] = ["generate_performance_report"];
const METRICS: [&str; 4] = ["cpu", "memory", "disk", "network"];
const RECIPIENTS_DEFAULT: [&str; 1] = ["admin@company.com"];

/// Two days at one a minute; the oldest goes first.
const READINGS_MAX: usize = 2_880;
const READING_DISTANCE_S: f64 = 60.0;
/// A month: readings older than this are not kept anyway.
const RANGE_MAX: TimeDelta = TimeDelta::days(31);

/// The service with its readings, oldest first.
pub(crate) struct Monitoring {
    data_dir: PathBuf,
    now: NowFn,
    readings: Mutex<VecDeque<Reading>>,
}

impl Monitoring {
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let data_dir = settings.data_dir.clone();
        fs::create_dir_all(&data_dir).with_context(|| format!("{} cannot be created", data_dir.display()))?;
        let first = Reading::take(&data_dir)?;
        let mut readings = read_kept(&data_dir);
        readings.retain(|reading| reading.comes_before(&first));
        readings.push_back(first);
        Ok(Self { data_dir, now: settings.now.clone(), readings: Mutex::new(readings) })
    }

    fn readings(&self) -> MutexGuard<'_, VecDeque<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the counters and keeps the reading if the last one is old enough.
    fn read(&self) -> Result<Reading, ServiceError> {
        let reading = Reading::take(&self.data_dir)?;
        let mut readings = self.readings();
        if readings.back().is_none_or(|last| reading.up_s - last.up_s >= READING_DISTANCE_S) {
            readings.push_back(reading.clone());
            let surplus = readings.len().saturating_sub(READINGS_MAX);
            readings.drain(..surplus);
            let lines: Vec<String> = readings.iter().map(|reading| reading.to_json().to_string()).collect();
            write_whole(&kept_in(&self.data_dir), lines.join("\n").as_bytes())?;
        }
        Ok(reading)
    }

    fn generate_performance_report(&self, mut parameters: Parameters) -> Result<Value, ServiceError> {
        let rule = "last_<number>_minutes, _hours or _days, up to 31 days";
        let short = |length: &TimeDelta| *length <= RANGE_MAX;
        let range = parameters
            .parsed("time_range", rule, Some("last_24_hours"), |text| periods::last(text).filter(short))?;
        let metrics = parameters.choices("metrics", &METRICS)?;
        let recipients = parameters.addresses("recipients", &RECIPIENTS_DEFAULT)?;
        parameters.finish()?;

        let last = self.read()?;
        let range_s = range.num_seconds() as f64;
        let within = |reading: &&Reading| last.up_s - reading.up_s <= range_s && reading.up_s <= last.up_s;
        let readings: Vec<Reading> = self.readings().iter().filter(within).cloned().collect();
        let now = (self.now)();
        let report = Report { readings: &readings, last: &last, range_s, metrics: &metrics };
        let headlines = report.headlines();

        let name = format!("performance-{}", now.format("%Y%m%dT%H%M%SZ"));
        let path = self.data_dir.join("reports").join(format!("{name}.md"));
        let text = report.markdown(&headlines, now);
        write_whole(&path, text.as_bytes())?;
        let mail = Mail {
            from: "monitoring-service@marketprism.example",
            recipients: &recipients,
            subject: &format!("Performance report {}", periods::written(now)),
            text: &text,
            report: (&path, "text/markdown"),
        };
        let mail = mail.put(&self.data_dir, &name, now)?;
        Ok(json!({
            "report": path.display().to_string(),
            "bytes": text.len(),
            "window": report.window(),
            "metrics": headlines,
            "delivery": not_delivered(&mail, &recipients),
        }))
    }
}

impl Service for Monitoring {
    fn name(&self) -> &'static str {
        NAME
    }

    fn act(&self, action: &str, parameters: Parameters) -> Result<Value, ServiceError> {
        match action {
            "generate_performance_report" => self.generate_performance_report(parameters),
            _ => Err(ServiceError::unknown_action(NAME, action, &ACTIONS)),
        }
    }

    fn check(&self) -> Result<(), ServiceError> {
        self.read().map(drop)
    }
}

fn kept_in(data_dir: &Path) -> PathBuf {
    data_dir.join("monitoring").join("readings.jsonl")
}

/// What an earlier process kept. A line that cannot be read is a reading less, nothing worse.
fn read_kept(data_dir: &Path) -> VecDeque<Reading> {
    let text = fs::read_to_string(kept_in(data_dir)).unwrap_or_default();
    let values = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter_map(|value| Reading::from_json(&value)).take(READINGS_MAX).collect()
}
