//! Which targets could not be reached lately: what `doctor` reads from the ledger's newest records.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    Timestamp,
    definitions::Definitions,
    names::TargetName,
    run::RunId,
    run_record::{ErrorKind, RunRecord},
    run_state::RunState,
};
use streams::bucket::Stored;

use super::when::utc;

/// How far back is looked. What failed before and was not tried since is history.
pub const LOOK_BACK: Duration = Duration::from_mins(15);
/// Records that are read, at most: a large ledger must not make `doctor` slow.
pub const RECORDS_MAX: u64 = 20_000;

/// Characters of an error that are shown; `describe run` shows it whole.
const ERROR_CHARS_MAX: usize = 160;

/// A target whose newest outcome is that it could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The newest run that could not reach it.
    pub run: RunId,
    /// From when on no run could.
    pub since: Timestamp,
    /// What went wrong, in one line.
    pub error: String,
    kind: ErrorKind,
}

/// The targets that could not be reached, by these records, oldest first.
///
/// Any other outcome shows that a target was reached, be it an error of its own.
pub fn unreached(records: &[Stored<RunRecord>]) -> BTreeMap<TargetName, Unreached> {
    let mut found: BTreeMap<TargetName, Unreached> = BTreeMap::new();
    for stored in records {
        let record = &stored.value;
        let Some(target) = &record.target_service else { continue };
        match (record.status, &record.error) {
            (RunState::Retry | RunState::Failed, Some(error)) if is_out_of_reach(error.kind) => {
                let since = found.get(target).map_or(stored.stored_at, |known| known.since);
                let line = error.message.lines().next().unwrap_or_default();
                let error_line = line.chars().take(ERROR_CHARS_MAX).collect();
                found.insert(
                    target.clone(),
                    Unreached { run: record.id.clone(), since, error: error_line, kind: error.kind },
                );
            }
            (RunState::Success, _) => {
                found.remove(target);
            }
            (RunState::Retry | RunState::Failed, Some(error)) if error.kind == ErrorKind::Target => {
                found.remove(target);
            }
            _ => {}
        }
    }
    found
}

fn is_out_of_reach(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::Precheck | ErrorKind::UnknownTarget)
}

impl Unreached {
    /// Whether it still matters: a target that was declared meanwhile is no longer unknown, one that only a submission
    /// named was mistyped by whoever submitted it, who is told by the run's end, and one that is disabled is meant to be.
    pub fn still_matters(&self, target: &TargetName, fleet: &Definitions) -> bool {
        if fleet.targets.get(target).is_some_and(|target| !target.enabled) {
            return false;
        }
        let is_named = || fleet.schedules.values().any(|schedule| schedule.task.target() == Some(target));
        self.kind != ErrorKind::UnknownTarget || (!fleet.targets.contains_key(target) && is_named())
    }

    /// What was found.
    pub fn found(&self) -> String {
        format!("not reached since {}, last by {}: {}", utc(self.since), self.run, self.error)
    }

    /// What to do about it.
    pub fn repair(&self, target: &TargetName) -> String {
        let repair = match self.kind {
            ErrorKind::UnknownTarget => return "declare it under `targets:` and apply".to_owned(),
            ErrorKind::Precheck => "its health check fails: look at the service, or correct its `health:`",
            _ => "start it, or correct its address",
        };
        format!(
            "{repair} (`cronfleet get targets {target}`) and apply; it counts as mended with the next run that reaches it"
        )
    }
}

#[cfg(test)]
mod tests {
    use shared::run_record::RunError;

    use super::*;

    /// A record of a run at `storage`, stored at this second.
    fn record(second: u32, key: &str, status: RunState, kind: Option<ErrorKind>) -> Stored<RunRecord> {
        let stored_at = format!("2026-11-24T02:00:{second:02}Z").parse().expect("instant");
        let id = format!("archive.{key}").parse().expect("id");
        let mut value = RunRecord::pending(id, "default".parse().expect("queue"), stored_at);
        value.target_service = Some("storage".parse().expect("target"));
        value.status = status;
        value.error = kind.map(|kind| RunError::new(kind, "connection refused\nby 127.0.0.1"));
        Stored { value, revision: u64::from(second), stored_at }
    }

    #[test]
    fn a_target_is_unreached_from_the_first_failure_after_its_last_answer() {
        let storage: TargetName = "storage".parse().expect("target");
        let down = Some(ErrorKind::Unreachable);
        let mut records = vec![
            record(1, "1", RunState::Failed, down),
            record(2, "2", RunState::Success, None),
            record(3, "3", RunState::Retry, down),
            record(4, "4", RunState::Running, None),
            record(5, "4", RunState::Failed, Some(ErrorKind::Precheck)),
            record(6, "5", RunState::Failed, Some(ErrorKind::Timeout)),
        ];
        let found = unreached(&records);
        let said = found[&storage].found();
        assert_eq!(said, "not reached since 2026-11-24T02:00:03Z, last by archive.4: connection refused");
        assert!(found[&storage].repair(&storage).contains("health check"), "the newest kind counts");
        for answer in [(RunState::Success, None), (RunState::Failed, Some(ErrorKind::Target))] {
            records.push(record(7, "6", answer.0, answer.1));
            assert!(unreached(&records).is_empty(), "it answered: {answer:?}");
            records.pop();
        }
    }

    #[test]
    fn an_unknown_target_that_was_declared_meanwhile_is_no_longer_spoken_of() {
        let storage: TargetName = "storage".parse().expect("target");
        let found = unreached(&[record(1, "1", RunState::Failed, Some(ErrorKind::UnknownTarget))]);
        let declared = Definitions::parse("targets: {storage: {http: 'http://a'}}").expect("definitions");
        let named = "schedules: {a: {every: 1m, task: {target_service: storage, action: b}}}";
        let named = Definitions::parse(named).expect("definitions");
        assert!(found[&storage].still_matters(&storage, &named));
        assert!(
            !found[&storage].still_matters(&storage, &Definitions::default()),
            "only a submission named it"
        );
        assert!(found[&storage].repair(&storage).contains("targets:"));
        assert!(!found[&storage].still_matters(&storage, &declared));
    }
}
