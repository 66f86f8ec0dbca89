//! Which schedule follows which. What is heard of the definitions is noted here; what is followed is computed from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{
    Timestamp,
    after::{After, cycles},
    definition::Definition,
    hash::partition_of,
    names::Name,
};
use streams::schedules::Version;
use tokio::sync::Notify;

/// That a schedule follows another, by its newest definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// What it follows.
    pub(crate) after: After,
    /// The revision of its definition.
    pub(crate) revision: u64,
    /// From when on that is in force.
    pub(crate) since: Timestamp,
    /// With which version it took this link up, if no version can have been missed; otherwise its history says.
    pub(crate) taken_up: Option<TakenUp>,
}

/// The first version of a definition with its present link, from which on it had that in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenUp {
    /// Its revision.
    pub(crate) revision: u64,
    /// From when on it is in force.
    pub(crate) since: Timestamp,
}

/// The links of all schedules, as the watch of definitions tells them.
#[derive(Default)]
pub(crate) struct Links {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Clone, Default)]
struct Table {
    links: BTreeMap<Name, Link>,
    heard: u64,
    is_current: bool,
    /// A watch tells every change, but of what was there when it began only the newest version.
    misses_none: bool,
    changes: u64,
}

/// What a planner follows for the partitions it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// The partitions that have schedules which follow others, with those schedules.
    pub(crate) partitions: BTreeMap<u16, Vec<(Name, Link)>>,
    /// Who follows whom: the followers of each schedule.
    pub(crate) followers: BTreeMap<Name, Vec<Name>>,
    /// The newest revision of a definition that was heard of; all up to there are in it.
    pub(crate) heard: u64,
}

impl Links {
    /// Notes a version of a definition.
    pub(crate) fn note(&self, version: &Version<Definition>) {
        let after =
            version.definition.as_ref().ok().and_then(|definition| definition.as_ref()?.timing().after());
        let mut table = self.lock();
        table.heard = table.heard.max(version.revision);
        let is_known = table.links.get(&version.name).is_some_and(|known| known.revision >= version.revision);
        let is_news = match after {
            _ if is_known => false,
            Some(after) => {
                table.insert(version, after);
                true
            }
            None => table.links.remove(&version.name).is_some(),
        };
        table.changes += u64::from(is_news);
        drop(table);
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Notes that a watch begins, perhaps after one that was lost.
    pub(crate) fn note_watch_begins(&self) {
        self.lock().misses_none = false;
    }

    /// Notes that all definitions that were there when the watch began have been heard.
    pub(crate) fn note_current(&self) {
        let mut table = self.lock();
        table.changes += u64::from(!table.is_current);
        (table.is_current, table.misses_none) = (true, true);
        drop(table);
        self.changed.notify_one();
    }

    /// Returns when a link came, changed or went.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How often something changed: what was computed at another count is to be computed anew.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// What is to be followed for these partitions; none before all definitions are known, because a cursor that moved
    /// on would leave the ends behind that a schedule follows which is not known yet.
    pub(crate) fn plan(&self, held: &BTreeSet<u16>) -> Option<Plan> {
        let table = self.lock().clone();
        table.is_current.then(|| table.plan(held))
    }

    /// The schedules that follow, in the end, themselves, and in words how: nothing is run after them.
    pub(crate) fn cycles(&self) -> BTreeMap<Name, String> {
        self.lock().cycles()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, version: &Version<Definition>, after: &After) {
        let before = self.links.get(&version.name).filter(|before| before.after.schedule == after.schedule);
        let first = TakenUp { revision: version.revision, since: version.since };
        let taken_up = match before {
            Some(before) => before.taken_up,
            None => Some(first),
        };
        let link = Link {
            after: after.clone(),
            revision: version.revision,
            since: version.since,
            taken_up: taken_up.filter(|_| self.misses_none),
        };
        self.links.insert(version.name.clone(), link);
    }

    fn plan(&self, held: &BTreeSet<u16>) -> Plan {
        let mut plan = Plan { heard: self.heard, ..Plan::default() };
        let cycles = self.cycles();
        for (name, link) in &self.links {
            let partition = partition_of(name.as_str());
            // Only a foreign writer can make a cycle. Its schedules would run each other for ever.
            if held.contains(&partition) && !cycles.contains_key(name) {
                plan.partitions.entry(partition).or_default().push((name.clone(), link.clone()));
                plan.followers.entry(link.after.schedule.clone()).or_default().push(name.clone());
            }
        }
        plan
    }

    fn cycles(&self) -> BTreeMap<Name, String> {
        let cycles = cycles(self.links.keys(), |at| Some(&self.links.get(at)?.after.schedule));
        cycles.into_iter().map(|(name, way)| (name.clone(), way)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("name")
    }

    fn version(downstream: &str, revision: u64, upstream: Option<&str>) -> Version<Definition> {
        let when = upstream.map_or(r#""every":"1h""#.to_owned(), |upstream| {
            format!(r#""after":{{"schedule":"{upstream}"}}"#)
        });
        let json = format!(r#"{{{when},"task":{{"command":["a"]}}}}"#);
        let schedule: shared::schedule::Schedule = serde_json::from_str(&json).expect("schedule");
        Version {
            name: name(downstream),
            definition: Ok(Some(schedule.into())),
            revision,
            since: "2026-11-24T02:00:00Z".parse().expect("instant"),
        }
    }

    fn all() -> BTreeSet<u16> {
        (0..64).collect()
    }

    #[test]
    fn nothing_is_followed_before_all_definitions_are_known_and_then_the_newest_counts() {
        let links = Links::default();
        links.note(&version("b", 7, Some("a")));
        assert_eq!(links.plan(&all()), None);
        links.note_current();
        let followers = || links.plan(&all()).expect("current").followers;
        assert_eq!(followers(), [(name("a"), vec![name("b")])].into());
        let changes = links.changes();
        links.note(&version("b", 7, Some("a")));
        links.note(&version("x", 8, None));
        assert_eq!(links.changes(), changes, "what is known, and what follows nobody, is no news");
        assert_eq!(links.plan(&all()).expect("current").heard, 8);
        links.note(&version("b", 9, Some("x")));
        assert_eq!(followers(), [(name("x"), vec![name("b")])].into());
        assert!(links.plan(&BTreeSet::new()).expect("current").followers.is_empty(), "not of our partitions");
        links.note(&Version { definition: Ok(None), ..version("b", 10, None) });
        assert!(followers().is_empty());
    }

    #[test]
    fn when_a_link_was_taken_up_is_known_while_no_version_can_have_been_missed() {
        let links = Links::default();
        let taken_up = || {
            let plan = links.plan(&all()).expect("current");
            let link = plan.partitions.values().next().expect("a partition")[0].1.clone();
            link.taken_up.map(|first| first.revision)
        };
        links.note(&version("b", 7, Some("a")));
        links.note_current();
        assert_eq!(taken_up(), None, "there may be older versions");
        links.note(&version("b", 8, Some("x")));
        assert_eq!(taken_up(), Some(8));
        links.note(&version("b", 9, Some("x")));
        assert_eq!(taken_up(), Some(8), "it follows the same one as before");
        links.note_watch_begins();
        links.note(&version("b", 9, Some("x")));
        assert_eq!(taken_up(), Some(8), "nothing was missed");
        links.note(&version("b", 12, Some("x")));
        links.note_current();
        assert_eq!(taken_up(), None, "it may have followed another one in between");
    }

    #[test]
    fn schedules_of_a_cycle_are_not_followed_and_those_that_hang_on_it_are() {
        let links = Links::default();
        for (downstream, revision, upstream) in [("a", 1, "b"), ("b", 2, "a"), ("c", 3, "a")] {
            links.note(&version(downstream, revision, Some(upstream)));
        }
        links.note_current();
        assert_eq!(links.plan(&all()).expect("current").followers, [(name("a"), vec![name("c")])].into());
        let cycles = links.cycles();
        assert_eq!(cycles.len(), 2);
        assert_eq!(cycles[&name("a")], "a after b after a");
        links.note(&version("b", 4, None));
        assert!(links.cycles().is_empty(), "mended");
        assert_eq!(links.plan(&all()).expect("current").followers.len(), 2);
    }
}
