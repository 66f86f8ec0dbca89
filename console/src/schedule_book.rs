//! All schedules of the fleet in memory, so that a hundred thousand are searched in milliseconds. Followed by one watch; what decides
//! something reads the bucket's leader instead.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use shared::{
    Timestamp,
    definition::Definition,
    names::Name,
    pause::{PauseEpoch, PauseInForce},
};
use streams::{
    ReadError, Streams,
    schedules::{Seen, Version},
};
use tokio_util::sync::CancellationToken;

/// Before the bucket is watched again after a watch was lost.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// The schedules of the fleet.
#[derive(Clone, Default)]
pub struct ScheduleBook {
    inner: Arc<RwLock<Book>>,
}

#[derive(Default)]
struct Book {
    entries: BTreeMap<Name, Entry>,
    pauses: BTreeMap<Name, PauseEpoch>,
    is_current: bool,
    trouble: Option<String>,
}

/// A schedule as it is kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it says; `Err` if it cannot be understood.
    pub definition: Result<Definition, String>,
    /// Its revision.
    pub revision: u64,
    /// From when on it is in force.
    pub since: Timestamp,
}

/// A page of schedules.
#[derive(Debug, Default)]
pub struct Found {
    /// The schedules, with their pauses, by name.
    pub items: Vec<(Name, Entry, Option<PauseInForce>)>,
    /// Whether there are more behind them.
    pub has_more: bool,
}

/// Which schedules.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose name has this in it, in whatever case.
    pub search: Option<String>,
    /// Whose name begins so.
    pub prefix: Option<String>,
    /// Those that are paused, or are not.
    pub paused: Option<bool>,
    /// Those that cannot be understood, or can.
    pub invalid: Option<bool>,
    /// Those behind this name.
    pub after: Option<Name>,
}

impl ScheduleBook {
    /// Follows the schedules until it is told to stop.
    pub async fn follow(self, streams: Streams, stop: CancellationToken) {
        let clock = streams.clock().clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.watch(&streams) => if let Err(error) = ended {
                    tracing::warn!(%error, "The schedules cannot be followed, trying again: {error}");
                    self.write(|book| book.trouble = Some(error.to_string()));
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(WATCH_AGAIN) => {}
            }
        }
    }

    async fn watch(&self, streams: &Streams) -> Result<(), ReadError> {
        let mut seen = streams.schedules().watch_definitions().await?;
        // What was deleted while nobody watched is not told: all that is there is, and the rest goes then.
        let mut fresh = Some(Book::default());
        while let Some(seen) = seen.next().await {
            let seen = seen?;
            match fresh.as_mut() {
                Some(book) if seen == Seen::Current => {
                    let whole = Book { is_current: true, ..std::mem::take(book) };
                    self.write(|book| *book = whole);
                    fresh = None;
                }
                Some(book) => book.take(seen),
                None => self.write(|book| book.take(seen)),
            }
        }
        Err(ReadError::Unavailable { what: "schedules".to_owned(), detail: "the watch ended".to_owned() })
    }

    /// What it waits for, if it has not read all schedules yet.
    pub fn waits_for(&self) -> Option<String> {
        let book = self.read();
        let why = || book.trouble.clone().unwrap_or_else(|| "they are being read".to_owned());
        (!book.is_current).then(|| format!("the schedules are not known yet: {}", why()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of all.
    pub fn names(&self) -> Vec<Name> {
        self.read().entries.keys().cloned().collect()
    }

    /// A page of those that are wanted, by name.
    pub fn page(&self, wanted: &Wanted, limit: usize, now: Timestamp) -> Found {
        let search = wanted.search.as_ref().map(|text| text.to_lowercase());
        let book = self.read();
        let from = match (&wanted.after, wanted.prefix.as_ref().and_then(|text| text.parse::<Name>().ok())) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(prefix)) => Bound::Included(prefix),
            (None, None) => Bound::Unbounded,
        };
        let mut found = Found::default();
        for (name, entry) in book.entries.range((from, Bound::Unbounded)) {
            if wanted.prefix.as_ref().is_some_and(|prefix| !name.as_str().starts_with(prefix.as_str())) {
                // Sorted by name: behind the last that begins so there is none.
                if wanted.prefix.as_ref().is_some_and(|prefix| name.as_str() > prefix.as_str()) {
                    break;
                }
                continue;
            }
            let is_found = |text: &String| contains_ignoring_case(name.as_str(), text);
            let pause = || book.pauses.get(name).and_then(|epoch| epoch.standing(now));
            let is_wanted = search.as_ref().is_none_or(is_found)
                && wanted.paused.is_none_or(|paused| pause().is_some() == paused)
                && wanted.invalid.is_none_or(|invalid| entry.definition.is_err() == invalid);
            if !is_wanted {
                continue;
            }
            if found.items.len() == limit {
                found.has_more = true;
                break;
            }
            found.items.push((name.clone(), entry.clone(), pause()));
        }
        found
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Book> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Names are ASCII, so this needs no copy of each.
fn contains_ignoring_case(name: &str, lowercase: &str) -> bool {
    let (name, wanted) = (name.as_bytes(), lowercase.as_bytes());
    name.windows(wanted.len().max(1)).any(|part| part.eq_ignore_ascii_case(wanted))
}

impl Book {
    fn take(&mut self, seen: Seen<Definition>) {
        match seen {
            Seen::Version(version) => {
                let Version { name, definition, revision, since } = *version;
                match definition.transpose() {
                    None => {
                        self.entries.remove(&name);
                    }
                    Some(definition) => {
                        self.entries.insert(name, Entry { definition, revision, since });
                    }
                }
            }
            Seen::Pause(pause) => {
                self.pauses.insert(pause.name, pause.epoch);
            }
            Seen::Current => self.is_current = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(names: &[&str]) -> ScheduleBook {
        let book = ScheduleBook::default();
        let since = "2026-11-24T02:00:00Z".parse().expect("instant");
        book.write(|book| {
            for name in names {
                let entry = Entry { definition: Err("none".to_owned()), revision: 1, since };
                book.entries.insert(name.parse().expect("name"), entry);
            }
        });
        book
    }

    #[test]
    fn schedules_are_found_by_a_part_of_their_name_or_its_beginning_a_page_at_a_time() {
        let book = book(&["Alpha_daily", "beta_daily", "beta_hourly", "gamma"]);
        let now = "2026-11-24T02:00:00Z".parse().expect("instant");
        let names = |wanted: &Wanted, limit| {
            let found = book.page(wanted, limit, now);
            let names: Vec<String> = found.items.iter().map(|(name, ..)| name.to_string()).collect();
            (names.join(" "), found.has_more)
        };
        let search = |text: &str| Wanted { search: Some(text.to_owned()), ..Wanted::default() };
        assert_eq!(names(&search("DAILY"), 9), ("Alpha_daily beta_daily".to_owned(), false));
        assert_eq!(names(&search("alpha"), 9).0, "Alpha_daily");
        assert_eq!(names(&search("nothing_of_the_kind"), 9).0, "");
        let prefix = Wanted { prefix: Some("beta".to_owned()), ..Wanted::default() };
        assert_eq!(names(&prefix, 9).0, "beta_daily beta_hourly");
        let after = Wanted { after: Some("beta_daily".parse().expect("name")), ..prefix };
        assert_eq!(names(&after, 9).0, "beta_hourly");
        assert_eq!(names(&Wanted::default(), 3), ("Alpha_daily beta_daily beta_hourly".to_owned(), true));
        let valid = Wanted { invalid: Some(false), ..Wanted::default() };
        assert_eq!(names(&valid, 9).0, "");
        assert!(book.waits_for().expect("not read").contains("being read"));
    }
}
