//! Definitions and pauses, in one stream, and the catalog.

use std::collections::BTreeMap;

use shared::{
    Timestamp,
    calendar::Calendar,
    hash::partition_of,
    limits,
    names::{CalendarName, Name},
    pause::{Pause, PauseEpoch},
    schedule::Schedule,
};
use streams::{ledger::Update, schedules::Version};

use super::bucket::{Bucket, Entry};
use crate::machine::ask::Definition;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Definition(Name),
    Pause(Name),
}

#[derive(Debug, Clone)]
enum Value {
    Definition(Box<Schedule>),
    Paused(Pause),
    Resumed,
}

/// Schedules, what was said of their pauses, and calendars.
#[derive(Debug)]
pub(crate) struct Definitions {
    bucket: Bucket<Key, Value>,
    pub(crate) calendars: BTreeMap<CalendarName, Calendar>,
}

impl Default for Definitions {
    fn default() -> Self {
        let history_max = limits::DEFINITION_HISTORY.unsigned_abs() as usize;
        Self { bucket: Bucket::new(history_max), calendars: BTreeMap::new() }
    }
}

impl Definitions {
    /// Writes a definition, or deletes it, over whatever is there. Its revision.
    pub(crate) fn define(&mut self, name: &Name, schedule: Option<Schedule>, now: Timestamp) -> u64 {
        let value = schedule.map(|schedule| Value::Definition(Box::new(schedule)));
        self.put(Key::Definition(name.clone()), value, now)
    }

    /// Pauses a schedule, or resumes it. The revision of what was said.
    pub(crate) fn say_pause(&mut self, name: &Name, pause: Option<Pause>, now: Timestamp) -> u64 {
        self.put(Key::Pause(name.clone()), Some(pause.map_or(Value::Resumed, Value::Paused)), now)
    }

    fn put(&mut self, key: Key, value: Option<Value>, now: Timestamp) -> u64 {
        let over = self.bucket.revision(&key);
        match self.bucket.write(key, value, over, now) {
            Update::Stored(revision) => revision,
            Update::Stale => 0,
        }
    }

    pub(crate) fn pause_revision(&self, name: &Name) -> u64 {
        self.bucket.revision(&Key::Pause(name.clone()))
    }

    /// What was said of a schedule's pause, oldest first.
    pub(crate) fn pauses(&self, name: &Name) -> Vec<PauseEpoch> {
        let key = Key::Pause(name.clone());
        let said = self.bucket.history(&key);
        said.map(|entry| PauseEpoch {
            since: entry.stored_at,
            revision: entry.revision,
            pause: match &entry.value {
                Some(Value::Paused(pause)) => Some(pause.clone()),
                _ => None,
            },
        })
        .collect()
    }

    /// All versions of a schedule, oldest first.
    pub(crate) fn history(&self, name: &Name) -> Vec<Version> {
        let key = Key::Definition(name.clone());
        let versions = self.bucket.history(&key);
        versions.map(|entry| version(name, entry)).collect()
    }

    /// The definition in force now.
    pub(crate) fn in_force(&self, name: &Name) -> Definition {
        let newest = self.bucket.get(&Key::Definition(name.clone()));
        match newest.map(|entry| (&entry.value, entry.revision)) {
            Some((Some(Value::Definition(schedule)), revision)) => {
                Definition::Known(schedule.clone(), revision)
            }
            _ => Definition::None,
        }
    }

    /// One version of a schedule.
    pub(crate) fn at(&self, name: &Name, revision: u64) -> Option<Schedule> {
        let version = self.history(name).into_iter().find(|version| version.revision == revision)?;
        version.definition.ok().flatten()
    }

    /// All versions of all schedules of a partition, oldest first; none if the bucket holds one version of each key.
    pub(crate) fn histories(&self, partition: u16) -> Vec<Version> {
        if self.bucket.all().all(|(_, versions)| versions.len() == 1) {
            return Vec::new();
        }
        let mut found: Vec<Version> = Vec::new();
        for (key, versions) in self.bucket.all() {
            if let Key::Definition(name) = key
                && partition_of(name.as_str()) == partition
            {
                found.extend(versions.iter().map(|entry| version(name, entry)));
            }
        }
        found.sort_by_key(|version| version.revision);
        found
    }
}

fn version(name: &Name, entry: &Entry<Value>) -> Version {
    let schedule = match &entry.value {
        Some(Value::Definition(schedule)) => Some((**schedule).clone()),
        _ => None,
    };
    let (revision, since) = (entry.revision, entry.stored_at);
    Version { name: name.clone(), definition: Ok(schedule), revision, since }
}
