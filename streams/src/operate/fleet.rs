//! What the fleet has, what the files say, and how they differ.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use shared::{definitions::Definitions, names::Name};

use crate::{ReadError, Streams, schedules::Applied};

/// What is, or would be, done to one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is not in the fleet.
    Created,
    /// It is there, and other.
    Changed,
    /// It is there just so.
    Unchanged,
    /// It is there, and not in the files.
    Deleted,
}

impl Outcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Changed => "changed",
            Outcome::Unchanged => "unchanged",
            Outcome::Deleted => "deleted",
        }
    }
}

impl From<Applied> for Outcome {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Created => Outcome::Created,
            Applied::Changed => Outcome::Changed,
            Applied::Unchanged => Outcome::Unchanged,
        }
    }
}

/// What is, or would be, done to which definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change {
    /// `queue`, `target`, `calendar` or `schedule`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What is done to it.
    pub change: Outcome,
}

impl Change {
    /// `schedule/daily_data_archive`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// What the fleet has.
#[derive(Debug, Default)]
pub struct Fleet {
    /// All of its definitions that can be understood.
    pub definitions: Definitions,
    /// The schedules that cannot, with the reason.
    pub unreadable: BTreeMap<Name, String>,
}

impl Fleet {
    /// Reads all of it.
    pub async fn read(streams: &Streams) -> Result<Self, ReadError> {
        let mut fleet = Self { definitions: streams.catalog().all().await?, unreadable: BTreeMap::new() };
        for version in streams.schedules().list().await? {
            match version.definition {
                Ok(Some(schedule)) => {
                    fleet.definitions.schedules.insert(version.name, schedule);
                }
                Ok(None) => {}
                Err(reason) => {
                    fleet.unreadable.insert(version.name, reason);
                }
            }
        }
        Ok(fleet)
    }

    /// The names of all schedules, also of those that cannot be understood.
    pub fn schedule_names(&self) -> impl Iterator<Item = &Name> {
        self.definitions.schedules.keys().chain(self.unreadable.keys())
    }

    /// What applying the files would do, in the order in which it is done: what is referred to comes first.
    pub fn changes(&self, files: &Definitions, prune: bool) -> Vec<Change> {
        let fleet = &self.definitions;
        let mut changes = compare("queue", &fleet.queues, &files.queues);
        changes.extend(compare("target", &fleet.targets, &files.targets));
        changes.extend(compare("calendar", &fleet.calendars, &files.calendars));
        for mut change in compare("schedule", &fleet.schedules, &files.schedules) {
            if self.unreadable.keys().any(|name| name.as_str() == change.name) {
                change.change = Outcome::Changed;
            }
            changes.push(change);
        }
        if prune {
            let gone = self.schedule_names().filter(|name| !files.schedules.contains_key(*name));
            changes.extend(gone.map(|name| Change {
                kind: "schedule",
                name: name.to_string(),
                change: Outcome::Deleted,
            }));
        }
        changes
    }
}

fn compare<K: Ord + ToString, V: PartialEq>(
    kind: &'static str,
    fleet: &BTreeMap<K, V>,
    files: &BTreeMap<K, V>,
) -> Vec<Change> {
    let outcome = |name: &K, value: &V| match fleet.get(name) {
        None => Outcome::Created,
        Some(there) if there == value => Outcome::Unchanged,
        Some(_) => Outcome::Changed,
    };
    files
        .iter()
        .map(|(name, value)| Change { kind, name: name.to_string(), change: outcome(name, value) })
        .collect()
}

/// "2 created, 1 changed, 7 unchanged".
pub fn summary(changes: &[Change]) -> String {
    let all = [Outcome::Created, Outcome::Changed, Outcome::Unchanged, Outcome::Deleted];
    let counts =
        all.map(|outcome| (outcome, changes.iter().filter(|change| change.change == outcome).count()));
    let words: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| format!("{count} {}", outcome.as_str()))
        .collect();
    if words.is_empty() { "nothing to apply".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "
queues: {reports: {max_in_flight: 2}}
targets: {storage: {http: 'http://a:1'}}
schedules:
  kept: {every: 1h, task: {command: [a]}}
  old: {every: 1h, task: {command: [a]}}
";

    fn outcomes(files: &str, prune: bool) -> Vec<(String, Outcome)> {
        let mut fleet = Fleet { definitions: Definitions::parse(FLEET).expect("fleet"), ..Fleet::default() };
        fleet.unreadable.insert("broken".parse().expect("name"), "newer".into());
        let changes = fleet.changes(&Definitions::parse(files).expect("files"), prune);
        changes.into_iter().map(|change| (change.path(), change.change)).collect()
    }

    #[test]
    fn what_is_referred_to_comes_before_what_refers_to_it() {
        let files = "
schedules: {kept: {every: 1h, task: {command: [a]}}, fresh: {every: 2h, task: {command: [b]}}, broken: {every: 2h, task: {command: [b]}}}
targets: {storage: {http: 'http://b:1'}}
queues: {reports: {max_in_flight: 2}}
";
        let expected = [
            ("queue/reports", Outcome::Unchanged),
            ("target/storage", Outcome::Changed),
            ("schedule/broken", Outcome::Changed),
            ("schedule/fresh", Outcome::Created),
            ("schedule/kept", Outcome::Unchanged),
        ];
        assert_eq!(outcomes(files, false), expected.map(|(path, outcome)| (path.to_owned(), outcome)));
    }

    #[test]
    fn pruning_deletes_schedules_and_nothing_else() {
        let files = "schedules: {kept: {every: 1h, task: {command: [a]}}}";
        let deleted: Vec<_> =
            outcomes(files, true).into_iter().filter(|(_, outcome)| *outcome == Outcome::Deleted).collect();
        assert_eq!(
            deleted,
            ["schedule/old", "schedule/broken"].map(|path| (path.to_owned(), Outcome::Deleted))
        );
    }
}
