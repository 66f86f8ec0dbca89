//! A definition as it is kept by the million: its text, and when it is due.

use std::sync::Arc;

use crate::{
    known_timings::KnownTimings,
    names::Name,
    schedule::{Schedule, ScheduleError, ScheduleFields},
    timing::Timing,
};

/// A definition that was read and found right, kept as it is stored. When it is due stays at hand, shared with others that say
/// it in the same words; the rest is read again when it is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    text: Box<[u8]>,
    timing: Arc<Timing>,
}

/// A definition that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Not JSON, or of the wrong shape, or with a task that cannot be executed.
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
    /// Not a schedule that can be planned.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl Schedule {
    /// Reads the definition of a schedule.
    pub fn read(name: &Name, text: &[u8], known: &KnownTimings) -> Result<Self, DefinitionError> {
        let fields: ScheduleFields = serde_json::from_slice(text)?;
        Ok(Self::read_with(fields, |timing| known.get(timing))?.named(name))
    }
}

impl Definition {
    /// Reads all of the definition of a schedule, and keeps what is stored here of it.
    pub fn read(name: &Name, text: &[u8], known: &KnownTimings) -> Result<Self, DefinitionError> {
        let Schedule { timing, .. } = Schedule::read(name, text, known)?;
        Ok(Self { text: text.into(), timing })
    }

    /// When it is due.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// All of it. What could be read once can be read again.
    pub fn schedule(&self) -> Result<Schedule, DefinitionError> {
        let fields: ScheduleFields = serde_json::from_slice(&self.text)?;
        Ok(Schedule::read_with(fields, |_| Ok(Arc::clone(&self.timing)))?)
    }
}

impl From<Schedule> for Definition {
    fn from(schedule: Schedule) -> Self {
        let timing = Arc::clone(&schedule.timing);
        // A schedule is made of texts, numbers and lists: all of it can be written.
        Self { text: serde_json::to_vec(&schedule).unwrap_or_default().into(), timing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "nightly".parse().expect("name")
    }

    #[test]
    fn a_kept_definition_is_the_whole_schedule_again_when_it_is_needed() {
        let known = KnownTimings::default();
        for when in [
            r#""cron":["0 2 * * *","H 3 * * *"],"timezone":"Europe/Paris","dst":{"gap":"skip"},"jitter":"5m""#,
            r#""every":"90s","phase":"30s","start":"2026-11-24T00:00:00Z","max_runs":7"#,
            r#""at":"2026-12-24T18:00:00+01:00""#,
            r#""cron":"@daily","calendar":"c","on_closed_day":"next_open_day","exclude":["2026-12-25"]"#,
        ] {
            let task = r#""task":{"target_service":"a","action":"b","parameters":{"day":"x","n":1.5},"timeout":"3s"}"#;
            let json = format!(r#"{{"description":"d",{when},"catch_up":"2h","missed":"all",{task}}}"#);
            let plain: Schedule = serde_json::from_str(&json).expect(when);
            let plain = plain.named(&name());
            let kept = Definition::read(&name(), json.as_bytes(), &known).expect(when);
            assert_eq!(kept.schedule().expect("again"), plain);
            assert_eq!(*kept.timing(), *plain.timing);
            assert_eq!(Definition::from(plain.clone()).schedule().expect("written"), plain);
        }
    }

    #[test]
    fn a_definition_is_checked_as_a_whole_when_it_is_read_also_what_is_not_kept_of_it() {
        let known = KnownTimings::default();
        let good = r#""cron":"0 2 * * *""#;
        let task = r#""task":{"target_service":"a","action":"b"}"#;
        assert!(Definition::read(&name(), format!("{{{good},{task}}}").as_bytes(), &known).is_ok());
        for (json, part) in [
            ("{", "EOF"),
            (&format!("{{{good}}}"), "missing field `task`"),
            (&format!(r#"{{"cron":"0 0 31 2 *",{task}}}"#), "never comes"),
            (&format!(r#"{{{good},"every":"1m",{task}}}"#), "more than one"),
            (&format!(r#"{{{good},"catch_up":"10000d",{task}}}"#), "catch_up is"),
            (&format!(r#"{{{good},"on_closed_day":"next_open_day",{task}}}"#), "on_closed_day is for"),
            (&format!(r#"{{{good},"surprise":1,{task}}}"#), "unknown field"),
            (
                &format!(r#"{{{good},"task":{{"target_service":"a","action":"b","timeout":"25h"}}}}"#),
                "at most 1day",
            ),
        ] {
            let found = Definition::read(&name(), json.as_bytes(), &known);
            let message = found.expect_err(json).to_string();
            assert!(message.contains(part), "{json}: {message}");
        }
    }
}
