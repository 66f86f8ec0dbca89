//! A key-value bucket: a stream with one subject a key.

use std::collections::{BTreeMap, VecDeque};

use shared::Timestamp;
use streams::ledger::Update;

/// A value as it is stored; none if its key was deleted.
#[derive(Debug, Clone)]
pub(crate) struct Entry<V> {
    pub(crate) value: Option<V>,
    pub(crate) revision: u64,
    pub(crate) stored_at: Timestamp,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket<K, V> {
    last_revision: u64,
    history_max: usize,
    keys: BTreeMap<K, VecDeque<Entry<V>>>,
}

impl<K: Ord, V> Bucket<K, V> {
    /// An empty bucket that keeps so many versions of each key.
    pub(crate) fn new(history_max: usize) -> Self {
        Self { last_revision: 0, history_max, keys: BTreeMap::new() }
    }

    /// Writes a key over exactly this revision; 0: there must never have been one. No value is a deletion.
    pub(crate) fn write(&mut self, key: K, value: Option<V>, over: u64, now: Timestamp) -> Update {
        if self.revision(&key) != over {
            return Update::Stale;
        }
        self.last_revision += 1;
        let versions = self.keys.entry(key).or_default();
        versions.push_back(Entry { value, revision: self.last_revision, stored_at: now });
        if versions.len() > self.history_max {
            versions.pop_front();
        }
        Update::Stored(self.last_revision)
    }

    /// The newest version of a key, be it a deletion.
    pub(crate) fn get(&self, key: &K) -> Option<&Entry<V>> {
        self.keys.get(key)?.back()
    }

    /// The newest revision of a key; 0 if there never was one.
    pub(crate) fn revision(&self, key: &K) -> u64 {
        self.get(key).map_or(0, |entry| entry.revision)
    }

    /// All versions of a key, oldest first.
    pub(crate) fn history(&self, key: &K) -> impl Iterator<Item = &Entry<V>> {
        self.keys.get(key).into_iter().flatten()
    }

    /// All keys with their versions.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&K, &VecDeque<Entry<V>>)> {
        self.keys.iter()
    }
}
