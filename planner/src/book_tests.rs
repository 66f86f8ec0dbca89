//! The compact book answers exactly as one that is simple: a list that is looked through from end to end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shared::{
    known_timings::KnownTimings,
    limits::SLOTS_PER_ROUND_MAX,
    pause::{Pause, PauseEpoch},
    schedule::Schedule,
};
use streams::pauses::PauseVersion;

use super::*;
use crate::pauses::Pauses;

/// A version of a definition as the simple book keeps it: all that it says.
type Known = (Timestamp, u64, Option<Schedule>);

#[derive(Default)]
struct Simple {
    schedules: BTreeMap<Name, SimpleEntry>,
    open: BTreeSet<u16>,
    pauses: BTreeMap<Name, Vec<PauseEpoch>>,
}

struct SimpleEntry {
    versions: Vec<Known>,
    accounted_to: Timestamp,
    invalid: Option<String>,
}

impl SimpleEntry {
    fn slots(&self, upto: Timestamp, max: usize) -> Vec<(Slot, u64, Schedule)> {
        let mut found = Vec::new();
        for (index, (since, revision, schedule)) in self.versions.iter().enumerate() {
            let end = self.versions.get(index + 1).map_or(upto, |next| next.0.min(upto));
            let from = self.accounted_to.max(*since);
            if let Some(schedule) = schedule {
                let slots = schedule.candidates_after(from).take_while(|slot| slot.instant() <= end);
                found.extend(slots.take(max - found.len()).map(|slot| (slot, *revision, schedule.clone())));
            }
        }
        found
    }

    fn next(&self) -> Option<Slot> {
        self.slots(Timestamp::MAX_UTC, 1).first().map(|(slot, ..)| *slot)
    }
}

impl Simple {
    fn is_open(&self, name: &Name) -> bool {
        self.open.contains(&partition_of(name.as_str()))
    }

    fn learn(&mut self, version: Version) {
        let is_held = self.is_open(&version.name);
        let known = self.schedules.get(&version.name);
        if known.is_some_and(|known| known.versions.last().expect("one").1 >= version.revision) {
            return;
        }
        let since = version.since;
        let mut entry = self.schedules.remove(&version.name).filter(|_| is_held).unwrap_or(SimpleEntry {
            versions: Vec::new(),
            accounted_to: since,
            invalid: None,
        });
        entry.accounted_to = entry.accounted_to.min(since);
        entry.invalid = version.definition.as_ref().err().cloned();
        entry.versions.push((since, version.revision, version.definition.ok().flatten()));
        self.schedules.insert(version.name, entry);
    }

    fn learn_history(&mut self, name: &Name, versions: Vec<Version>) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        let newest = entry.versions.last().expect("one").clone();
        let mut known: Vec<Known> = Vec::new();
        for version in versions.into_iter().filter(|version| version.revision < newest.1) {
            known.push((version.since, version.revision, version.definition.ok().flatten()));
        }
        known.push(newest);
        entry.versions = known;
    }

    fn open(&mut self, partition: u16, cursor: Timestamp, lag: TimeDelta, heard: u64) {
        self.open.insert(partition);
        for (name, entry) in &mut self.schedules {
            if partition_of(name.as_str()) == partition {
                let first = entry.versions.first().expect("one").0;
                let unheard = entry.versions.iter().filter(|(_, revision, _)| *revision > heard);
                let fresh = unheard.map(|(since, ..)| *since).find(|since| *since > cursor - lag);
                entry.accounted_to = cursor.min(fresh.unwrap_or(cursor)).max(first);
            }
        }
    }

    fn close(&mut self, partition: u16) {
        self.open.remove(&partition);
        for (name, entry) in &mut self.schedules {
            if partition_of(name.as_str()) == partition {
                entry.versions.drain(..entry.versions.len() - 1);
            }
        }
    }

    fn account(&mut self, name: &Name, upto: Timestamp) -> Option<Slot> {
        let is_open = self.is_open(name);
        let entry = self.schedules.get_mut(name)?;
        entry.accounted_to = entry.accounted_to.max(upto);
        while entry.versions.get(1).is_some_and(|next| next.0 <= entry.accounted_to) {
            entry.versions.remove(0);
        }
        entry.next().filter(|_| is_open)
    }

    fn in_partition(&self, partition: u16) -> impl Iterator<Item = (&Name, &SimpleEntry)> {
        self.schedules.iter().filter(move |(name, _)| partition_of(name.as_str()) == partition)
    }

    fn waiting(&self, partition: u16, now: Timestamp) -> impl Iterator<Item = (&Name, &SimpleEntry)> {
        let of_it = self.in_partition(partition).filter(move |_| self.open.contains(&partition));
        of_it.filter(move |(_, entry)| entry.next().is_some_and(|slot| slot.instant() <= now))
    }
}

/// Something that happens to a planner. Times are minutes, schedules numbers.
#[derive(Debug, Clone, Copy)]
enum Step {
    Learn { schedule: usize, since: i64, says: usize, again: bool },
    Open { schedule: usize, cursor: i64, lag: i64, heard: u64, with_history: bool },
    Close { schedule: usize },
    Account { schedule: usize, upto: i64 },
    Pause { schedule: usize, is_paused: bool, since: i64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let schedule = || 0..NAMES;
    let step = prop_oneof![
        6 => (schedule(), 0..600_i64, 0..SAYS.len() + 2, prop::bool::weighted(0.1))
            .prop_map(|(schedule, since, says, again)| Step::Learn { schedule, since, says, again }),
        3 => (schedule(), 0..600_i64, 0..60_i64, 0..40_u64, any::<bool>()).prop_map(
            |(schedule, cursor, lag, heard, with_history)| {
                Step::Open { schedule, cursor, lag, heard, with_history }
            }
        ),
        1 => schedule().prop_map(|schedule| Step::Close { schedule }),
        6 => (schedule(), 0..700_i64).prop_map(|(schedule, upto)| Step::Account { schedule, upto }),
        1 => (schedule(), any::<bool>(), 0..600_i64)
            .prop_map(|(schedule, is_paused, since)| Step::Pause { schedule, is_paused, since }),
    ];
    prop::collection::vec(step, 1..50)
}

const NAMES: usize = 8;
/// What definitions say; two more are a deletion and something nobody understands.
const SAYS: [&str; 8] = [
    r#""every":"7m""#,
    r#""cron":"*/5 * * * *""#,
    r#""cron":"*/5 * * * *","queue":"reports""#,
    r#""cron":"H * * * *""#,
    r#""cron":["0 * * * *","30 1 * * *"],"timezone":"Asia/Kathmandu""#,
    r#""every":"1h","jitter":"40m""#,
    r#""cron":"0 3 * * *","start":"2026-11-24T02:00:00Z","max_runs":2,"calendar":"c","on_closed_day":"next_open_day""#,
    r#""at":"2026-11-24T04:00:00Z""#,
];

/// Names in three partitions, so that each has several.
fn names() -> Vec<Name> {
    let all = (0..).map(|n| format!("s{n}")).filter(|name| partition_of(name) < 3);
    all.take(NAMES).map(|name| name.parse().expect("name")).collect()
}

fn at(minute: i64) -> Timestamp {
    let midnight: Timestamp = "2026-11-24T00:00:00Z".parse().expect("instant");
    midnight + TimeDelta::minutes(minute)
}

/// A planner's two books, and the bucket both learn from.
struct Both {
    names: Vec<Name>,
    compact: Book,
    simple: Simple,
    pauses: Pauses,
    timings: KnownTimings,
    bucket: Vec<Version>,
    revision: u64,
}

impl Both {
    fn new() -> Self {
        Self {
            names: names(),
            compact: Book::default(),
            simple: Simple::default(),
            pauses: Pauses::default(),
            timings: KnownTimings::default(),
            bucket: Vec::new(),
            revision: 0,
        }
    }

    fn text(says: usize) -> String {
        format!(r#"{{{},"task":{{"target_service":"a","action":"b"}}}}"#, SAYS[says])
    }

    fn version(&self, name: &Name, since: i64, says: usize) -> Version {
        let schedule = |says| Schedule::read(name, Self::text(says).as_bytes(), &self.timings).expect("good");
        let definition = match says {
            says if says < SAYS.len() => Ok(Some(schedule(says))),
            says if says == SAYS.len() => Ok(None),
            _ => Err("not understood".to_owned()),
        };
        Version { name: name.clone(), definition, revision: self.revision, since: at(since) }
    }

    fn happen(&mut self, step: Step) {
        match step {
            Step::Learn { schedule, since, says, again } => {
                self.revision += u64::from(!again);
                let version = self.version(&self.names[schedule], since, says);
                self.bucket.push(version.clone());
                self.compact.learn(version.clone());
                self.simple.learn(version);
            }
            Step::Open { schedule, cursor, lag, heard, with_history } => {
                let partition = partition_of(self.names[schedule].as_str());
                let (cursor, lag) = (at(cursor), TimeDelta::minutes(lag));
                for name in self.compact.changed_since(partition, cursor, lag, heard) {
                    if with_history && !self.simple.is_open(&name) {
                        let of_it = self.bucket.iter().filter(|version| version.name == name);
                        let versions: Vec<Version> = of_it.cloned().collect();
                        self.compact.learn_history(&name, versions.clone());
                        self.simple.learn_history(&name, versions);
                    }
                }
                self.compact.open(partition, cursor, lag, heard);
                self.simple.open(partition, cursor, lag, heard);
            }
            Step::Close { schedule } => {
                let partition = partition_of(self.names[schedule].as_str());
                self.compact.close(partition);
                self.simple.close(partition);
            }
            Step::Account { schedule, upto } => {
                let next = self.compact.account(&self.names[schedule], at(upto));
                assert_eq!(next, self.simple.account(&self.names[schedule], at(upto)));
            }
            Step::Pause { schedule, is_paused, since } => {
                self.revision += 1;
                let name = self.names[schedule].clone();
                let pause = is_paused.then(|| Pause { by: "ann".to_owned(), reason: None, until: None });
                let epoch = PauseEpoch { since: at(since), revision: self.revision, pause };
                self.pauses.learn(PauseVersion { name: name.clone(), epoch: epoch.clone() });
                self.simple.pauses.entry(name).or_default().push(epoch);
            }
        }
    }

    /// Asks both everything there is to ask.
    fn agree(&self, now: Timestamp) -> Result<(), TestCaseError> {
        let (compact, simple) = (&self.compact, &self.simple);
        let is_known = |entry: &&SimpleEntry| {
            entry.invalid.is_some() || entry.versions.last().is_some_and(|version| version.2.is_some())
        };
        let invalid =
            simple.schedules.iter().filter_map(|(name, entry)| Some((name, entry.invalid.as_ref()?)));
        let invalid = invalid.map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>();
        prop_assert_eq!(compact.census(), (simple.schedules.values().filter(is_known).count(), invalid));
        let next = |is_held_back: &dyn Fn(&Name) -> bool| {
            let free =
                simple.schedules.iter().filter(|(name, _)| simple.is_open(name) && !is_held_back(name));
            free.filter_map(|(_, entry)| entry.next()).min()
        };
        prop_assert_eq!(compact.next_slot(|_| false), next(&|_| false));
        let is_first = |name: &Name| *name == self.names[0];
        prop_assert_eq!(compact.next_slot(is_first), next(&is_first));
        for partition in 0..3 {
            self.agree_on(partition, now)?;
        }
        Ok(())
    }

    fn agree_on(&self, partition: u16, now: Timestamp) -> Result<(), TestCaseError> {
        let (compact, simple) = (&self.compact, &self.simple);
        let mut firsts = Vec::new();
        let mut due = BTreeMap::new();
        for DueSlots { name, slots, upto } in compact.due(partition, now, |_| false) {
            firsts.push(slots[0].slot);
            let slots = slots.into_iter().map(|due| (due.slot, due.revision, (*due.schedule).clone()));
            due.insert(name, (slots.collect::<Vec<_>>(), upto));
        }
        prop_assert!(firsts.is_sorted(), "the earliest first: {:?}", firsts);
        let expected = simple.waiting(partition, now).map(|(name, entry)| {
            let slots = entry.slots(now, SLOTS_PER_ROUND_MAX);
            (name.clone(), (slots, now))
        });
        prop_assert_eq!(due, expected.collect::<BTreeMap<_, _>>());
        let waiting = simple.waiting(partition, now).map(|(_, entry)| entry.accounted_to);
        prop_assert_eq!(compact.accounted_to(partition, now), waiting.fold(now, Timestamp::min));
        let begins = simple.in_partition(partition).map(|(_, entry)| entry.versions[0].0).min();
        prop_assert_eq!(compact.beginning_of(partition), begins);
        let (lag, heard) = (TimeDelta::minutes(20), self.revision / 2);
        let changed = simple.in_partition(partition).filter(|(_, entry)| {
            let (since, revision, _) = entry.versions.last().expect("one");
            *since > now || (*since > now - lag && *revision > heard)
        });
        let found: BTreeSet<Name> = compact.changed_since(partition, now, lag, heard).into_iter().collect();
        prop_assert_eq!(found, changed.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>());
        let said = simple.pauses.iter().filter(|(name, said)| {
            partition_of(name.as_str()) == partition && said.last().expect("one").since > now
        });
        let found: BTreeSet<Name> = self.pauses.changed_since(partition, now).into_iter().collect();
        prop_assert_eq!(found, said.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_compact_book_answers_as_one_that_looks_through_all_it_has(steps in steps(), now in 0..700_i64) {
        let mut both = Both::new();
        for step in steps {
            both.happen(step);
            both.agree(at(now))?;
        }
        for name in &both.names {
            let said = both.simple.pauses.get(name).map_or(&[][..], Vec::as_slice);
            prop_assert_eq!(both.pauses.of(name), said);
        }
    }
}
