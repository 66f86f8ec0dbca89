//! The file format: targets, schedules, queues and calendars, in YAML or JSON.
//!
//! A file is read as a whole or not at all. Unknown fields are refused with the nearest one that exists; what a
//! schedule refers to must be in the file or already in the fleet. The JSON Schema for editors is
//! `docs/definitions.schema.json`, generated from these types and checked by a test.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    after::{cycle_through, cycle_words},
    calendar::{Calendar, CalendarError, ReadFile},
    distinct_keys::DistinctKeys,
    limits::{DEFINITIONS_BYTES_MAX, QUEUES_MAX},
    mistake,
    names::{CalendarName, Name, QueueName, TargetName},
    queue::{QueueError, QueueSettings},
    schedule::Schedule,
    suggest::nearest,
    target::Target,
    task::TaskError,
};

/// What a definitions file says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definitions {
    /// The services that tasks act on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub targets: BTreeMap<TargetName, Target>,
    /// The schedules.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub schedules: BTreeMap<Name, Schedule>,
    /// The queues that runs travel on. `default` exists without being named.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub queues: BTreeMap<QueueName, QueueSettings>,
    /// The calendars that schedules refer to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub calendars: BTreeMap<CalendarName, Calendar>,
}

/// A file that cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DefinitionsError {
    /// More than anybody wrote by hand.
    #[error("the file has {0} bytes; at most {DEFINITIONS_BYTES_MAX} are read: split it")]
    TooLarge(usize),
    /// Not YAML or JSON, or not of the right shape.
    #[error("{0}")]
    Shape(String),
    /// A queue that cannot be kept.
    #[error("queue {name:?}: {source}")]
    Queue {
        /// The queue.
        name: String,
        /// What is wrong with it.
        source: QueueError,
    },
    /// A calendar whose files cannot be read.
    #[error("calendar {name:?}: {source}")]
    Calendar {
        /// The calendar.
        name: String,
        /// What is wrong with it.
        source: CalendarError,
    },
    /// More queues than a fleet should have.
    #[error("{0} queues are declared; at most {QUEUES_MAX} are allowed")]
    Queues(usize),
    /// A schedule refers to something that is neither in the file nor in the fleet.
    #[error("schedule {schedule:?}: {kind} {name:?} is not declared{hint}; add it under `{kind}s:`")]
    Unknown {
        /// The schedule.
        schedule: String,
        /// `target`, `queue` or `calendar`.
        kind: &'static str,
        /// What it refers to.
        name: String,
        /// " (did you mean …?)", or nothing.
        hint: String,
    },
    /// A schedule follows, in the end, itself.
    #[error(
        "schedule {schedule:?}: its `after` leads back to itself: {way}; a chain has a beginning: give one of them cron, every or at"
    )]
    Cycle {
        /// The schedule.
        schedule: String,
        /// The way back: `a after b after a`.
        way: String,
    },
    /// A schedule's task does not go with its target.
    #[error("schedule {schedule:?}: {source}")]
    Task {
        /// The schedule.
        schedule: String,
        /// What is wrong with it.
        source: TaskError,
    },
}

impl DefinitionsError {
    /// The schedule that is at fault, if one is.
    pub fn schedule(&self) -> Option<&str> {
        match self {
            DefinitionsError::Unknown { schedule, .. }
            | DefinitionsError::Cycle { schedule, .. }
            | DefinitionsError::Task { schedule, .. } => Some(schedule),
            _ => None,
        }
    }
}

impl Definitions {
    /// Reads a file: YAML, and therefore JSON. Calendars that name further files are refused.
    pub fn parse(text: &str) -> Result<Self, DefinitionsError> {
        Self::parse_with_files(text, &mut |_| {
            Err("files are read only where a definitions file is: by `apply`, `diff` and `next -f`".into())
        })
    }

    /// Reads a file: YAML, and therefore JSON; the iCalendar files that its calendars name are read by `read`.
    pub fn parse_with_files(text: &str, read: &mut ReadFile<'_>) -> Result<Self, DefinitionsError> {
        if text.len() > DEFINITIONS_BYTES_MAX {
            return Err(DefinitionsError::TooLarge(text.len()));
        }
        if text.trim().is_empty() {
            return Err(DefinitionsError::Shape(
                "the file is empty; it has targets:, schedules:, queues: or calendars:".into(),
            ));
        }
        let definitions: Self =
            if text.trim_start().starts_with('{') { from_json(text) } else { from_yaml(text) }?;
        for (name, queue) in &definitions.queues {
            queue.check().map_err(|source| DefinitionsError::Queue { name: name.to_string(), source })?;
        }
        if definitions.queues.len() > QUEUES_MAX {
            return Err(DefinitionsError::Queues(definitions.queues.len()));
        }
        let schedules = definitions.schedules.into_iter();
        let named = schedules.map(|(name, schedule)| (name.clone(), schedule.named(&name))).collect();
        let mut calendars = BTreeMap::new();
        for (name, calendar) in definitions.calendars {
            let read = calendar.with_files_read(read);
            let calendar =
                read.map_err(|source| DefinitionsError::Calendar { name: name.to_string(), source })?;
            calendars.insert(name, calendar);
        }
        Ok(Self { schedules: named, calendars, ..definitions })
    }

    /// Checks that everything a schedule refers to is here or in the fleet.
    pub fn check_references(&self, fleet: &Definitions) -> Result<(), DefinitionsError> {
        for (name, schedule) in &self.schedules {
            let unknown = |kind, wanted: &str, known: Vec<&str>| DefinitionsError::Unknown {
                schedule: name.to_string(),
                kind,
                name: wanted.to_owned(),
                hint: nearest(wanted, known)
                    .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)")),
            };
            if let Some(wanted) = schedule.task.target() {
                let Some(target) = self.targets.get(wanted).or_else(|| fleet.targets.get(wanted)) else {
                    let known =
                        self.targets.keys().chain(fleet.targets.keys()).map(TargetName::as_str).collect();
                    return Err(unknown("target", wanted.as_str(), known));
                };
                schedule
                    .task
                    .check_target(target)
                    .map_err(|source| DefinitionsError::Task { schedule: name.to_string(), source })?;
            }
            let queue = &schedule.queue;
            let declared = self.queues.contains_key(queue) || fleet.queues.contains_key(queue);
            if !declared && *queue != QueueName::default_queue() {
                let known = self.queues.keys().chain(fleet.queues.keys()).map(QueueName::as_str).collect();
                return Err(unknown("queue", queue.as_str(), known));
            }
            if let Some(wanted) = &schedule.calendar
                && !self.calendars.contains_key(wanted)
                && !fleet.calendars.contains_key(wanted)
            {
                let known =
                    self.calendars.keys().chain(fleet.calendars.keys()).map(CalendarName::as_str).collect();
                return Err(unknown("calendar", wanted.as_str(), known));
            }
            if let Some(wanted) = self.upstream_of(fleet, name)
                && self.schedule_of(fleet, wanted).is_none()
            {
                let known = self.schedules.keys().chain(fleet.schedules.keys()).map(Name::as_str).collect();
                return Err(unknown("schedule", wanted.as_str(), known));
            }
            if let Some(way) = cycle_through(name, |at| self.upstream_of(fleet, at)) {
                let way = cycle_words(&way);
                return Err(DefinitionsError::Cycle { schedule: name.to_string(), way });
            }
        }
        Ok(())
    }

    /// A schedule as it will be: as it is here, or else as the fleet has it.
    fn schedule_of<'a>(&'a self, fleet: &'a Definitions, name: &Name) -> Option<&'a Schedule> {
        self.schedules.get(name).or_else(|| fleet.schedules.get(name))
    }

    fn upstream_of<'a>(&'a self, fleet: &'a Definitions, name: &Name) -> Option<&'a Name> {
        Some(&self.schedule_of(fleet, name)?.after()?.schedule)
    }
}

impl Schedule {
    /// Reads the definition of one schedule, as it stands in a file below its name: YAML, and therefore JSON.
    pub fn parse(name: &Name, text: &str) -> Result<Self, DefinitionsError> {
        if text.len() > DEFINITIONS_BYTES_MAX {
            return Err(DefinitionsError::TooLarge(text.len()));
        }
        if text.trim().is_empty() {
            return Err(DefinitionsError::Shape(
                "the definition is empty; it has one of cron, every, at and after, and a task".into(),
            ));
        }
        let schedule: Self =
            if text.trim_start().starts_with('{') { from_json(text) } else { from_yaml(text) }?;
        Ok(schedule.named(name))
    }
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, DefinitionsError> {
    let mut path = None;
    let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = Some(error.path().to_string());
            error.into_inner()
        })
    });
    read.map_err(|error| DefinitionsError::Shape(mistake::of_yaml(text, path.as_deref(), &error)))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, DefinitionsError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut deserializer);
    let definitions = read.map_err(|error| {
        DefinitionsError::Shape(mistake::of_json(&error.path().to_string(), &error.inner().to_string()))
    })?;
    deserializer.end().map_err(|error| DefinitionsError::Shape(error.to_string()))?;
    // It is not for us to choose which of two values was meant.
    serde_json::from_str::<DistinctKeys>(text)
        .map_err(|error| DefinitionsError::Shape(mistake::of_json("", &error.to_string())))?;
    Ok(definitions)
}

/// The JSON Schema of the file format, as it is checked in.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Definitions);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const FILE: &str = r#"
targets:
  data-storage-service:
    http: http://127.0.0.1:9101
    health: /healthz
    max_concurrent: 4
  market-data-collector:
    message: svc.market-data-collector
schedules:
  daily_data_archive:
    cron: "0 2 * * *"
    timezone: Asia/Shanghai
    overlap: skip
    missed: latest
    catch_up: 1h
    queue: default
    task:
      target_service: data-storage-service
      action: archive_hot_data
      parameters: {cutoff_date: 7_days_ago, batch_size: 10000}
      timeout: 30m
      retry: {attempts: 5, backoff: 10s, max_backoff: 10m}
  nightly_vacuum:
    every: 12h
    task: {execution: local, command: [vacuum-tool, --analyze]}
queues:
  default: {max_in_flight: 1000, ack_wait: 30s}
  reports: {max_in_flight: 2, record: all}
calendars:
  cn_market: {weekdays: mon-fri, except: [2026-10-01, 2026-10-02]}
"#;

    #[test]
    fn the_example_of_the_format_is_read_and_written_again_the_same() {
        let definitions = Definitions::parse(FILE).expect("the example");
        assert_eq!(definitions.schedules.len(), 2);
        assert_eq!(definitions.check_references(&Definitions::default()), Ok(()));
        let json = serde_json::to_string(&definitions).expect("json");
        assert_eq!(Definitions::parse(&json).expect("json"), definitions);
        let yaml = serde_saphyr::to_string(&definitions).expect("yaml");
        assert_eq!(Definitions::parse(&yaml).expect(&yaml), definitions);
    }

    #[test]
    fn a_file_that_cannot_be_applied_is_refused_with_place_and_repair() {
        for (from, to, parts) in [
            (
                "timezone: Asia",
                "timezon: Asia",
                vec!["schedules.daily_data_archive", "did you mean `timezone`?"],
            ),
            ("schedules:", "schedule:", vec!["did you mean `schedules`?"]),
            ("overlap: skip", "overlap: skp", vec!["did you mean `skip`?"]),
            ("0 2 * * *", "61 2 * * *", vec!["daily_data_archive", "61"]),
            ("0 2 * * *", "0 0 31 2 *", vec!["daily_data_archive", "31"]),
            ("Asia/Shanghai", "Asia/Shangai", vec!["Asia/Shanghai"]),
            ("catch_up: 1h", "catch_up: 1 fortnight", vec!["catch_up", "number with its unit"]),
            ("every: 12h", "every: 12h\n    cron: '* * * * *'", vec!["nightly_vacuum", "more than one"]),
            ("daily_data_archive:", "daily.data:", vec!["daily_data"]),
            ("max_in_flight: 2", "max_in_flight: 0", vec!["reports", "1 to 100000"]),
            ("cron: \"0 2 * * *\"", "cron: * 2 * * *", vec!["put it in quotes"]),
            ("  nightly_vacuum:", "  daily_data_archive:", vec!["only once"]),
            ("calendars:", "\tcalendars:", vec![]),
            ("targets:", "targets: [", vec![]),
        ] {
            let text = FILE.replacen(from, to, 1);
            assert_ne!(text, FILE, "{from}");
            let message = Definitions::parse(&text).expect_err(to).to_string();
            for part in parts {
                assert!(message.contains(part), "{to}: {message}");
            }
        }
    }

    #[test]
    fn a_schedule_that_refers_to_nothing_is_refused_with_the_nearest_name() {
        for (from, to, part) in [
            (
                "target_service: data-storage-service",
                "target_service: data-storage-servce",
                "did you mean \"data-storage-service\"?",
            ),
            ("queue: default", "queue: report", "did you mean \"reports\"?"),
            ("queue: default", "calendar: cn_markt", "did you mean \"cn_market\"?"),
            ("action: archive", "execution: message\n      action: archive", "write http"),
        ] {
            let text = FILE.replacen(from, to, 1);
            let error = Definitions::parse(&text).expect(to).check_references(&Definitions::default());
            let message = error.expect_err(to).to_string();
            assert!(message.contains(part), "{to}: {message}");
        }
    }

    fn chained(links: &[(&str, &str)]) -> Definitions {
        let mut text = String::from("schedules:\n  first: {every: 1h, task: {command: [a]}}\n");
        for (name, upstream) in links {
            let after = format!("{{schedule: {upstream}, on: always}}");
            let _ = writeln!(text, "  {name}: {{after: {after}, task: {{command: [a]}}}}");
        }
        Definitions::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_chain_has_a_beginning_in_the_file_and_the_fleet_together() {
        let fleet = chained(&[("b", "a"), ("c", "b")]);
        for (links, part) in [
            (&[("x", "c"), ("y", "x")][..], None),
            (&[("a", "first")], None),
            (&[("a", "a")], Some("a after a; a chain has a beginning")),
            (&[("a", "c")], Some("a after c after b after a;")),
            (&[("b", "first"), ("a", "c")], None),
            (&[("x", "y"), ("y", "x")], Some("x after y after x;")),
            (&[("x", "frist")], Some("schedule \"frist\" is not declared (did you mean \"first\"?)")),
        ] {
            let found = chained(links).check_references(&fleet).map_err(|error| error.to_string());
            match part {
                None => assert_eq!(found, Ok(()), "{links:?}"),
                Some(part) => assert!(found.expect_err("refused").contains(part), "{links:?}"),
            }
        }
    }

    #[test]
    fn a_document_cannot_grow_in_the_reading() {
        let mut bomb = String::from("targets: &a {x: {http: 'http://a'}}\n");
        for n in 0..30 {
            let _ = writeln!(bomb, "k{n}: &k{n} [*a, *a, *a, *a]");
        }
        assert!(Definitions::parse(&bomb).is_err());
        let deep = format!("schedules: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Definitions::parse(&deep).is_err());
    }
}
