//! Shards: a slot that is run in several parts at once.
//!
//! # The model
//!
//! A schedule with `shards: n` has one *parent* record for each slot (or wish by hand, or end that it follows), under the id
//! that an ordinary run would have, and *n* children, ordinary runs, each of which is handed its index and the total. No
//! worker ever has the parent: it is RUNNING while its children are, and ends when all of them have. Policies, chains and
//! backfills are about the parent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    hash::mixed_64,
    limits::{NAME_CHARS_MAX, SHARDS_MAX},
    names::RunKey,
    run::RunId,
    schedule::Overlap,
    slot::Slot,
};

/// Which part of a sharded run a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// The run it is a part of.
    pub parent: RunId,
    /// Which part, from 0.
    pub index: u16,
    /// How many there are.
    pub total: u16,
}

/// How far the parts of a sharded run are, in the record of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Shards {
    /// How many there are.
    pub total: u16,
    /// Those that ended SUCCESS.
    #[serde(default)]
    pub succeeded: u16,
    /// Those that ended FAILED.
    #[serde(default)]
    pub failed: u16,
    /// Those that ended CANCELLED.
    #[serde(default)]
    pub cancelled: u16,
}

impl Shards {
    /// The parts of a run of which nothing is known yet.
    pub fn new(total: u16) -> Self {
        Self { total, ..Self::default() }
    }

    /// How many there are, at most as many as may be, whoever wrote the record.
    pub fn parts(&self) -> u16 {
        self.total.min(SHARDS_MAX)
    }

    /// How many have ended.
    pub fn ended(&self) -> u16 {
        self.succeeded.saturating_add(self.failed).saturating_add(self.cancelled)
    }
}

/// Shards that a schedule cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardsError {
    /// None, or more than should be run at once.
    #[error("shards is {0}; 1 to {SHARDS_MAX} are allowed: for one run a slot leave it out")]
    Number(u16),
    /// What waits for a lock is one run, not several.
    #[error("overlap is {}; a schedule with `shards` skips a slot while the one before has not ended, or allows both: write skip or allow", .0.as_str())]
    Overlap(Overlap),
}

/// Checks how many shards a schedule has, with its overlap policy.
pub(crate) fn check(shards: Option<u16>, overlap: Overlap) -> Result<(), ShardsError> {
    match shards {
        Some(number) if !(1..=SHARDS_MAX).contains(&number) => Err(ShardsError::Number(number)),
        Some(_) if !matches!(overlap, Overlap::Skip | Overlap::Allow) => Err(ShardsError::Overlap(overlap)),
        _ => Ok(()),
    }
}

/// Characters of a shard's index, with the `-` before it.
const INDEX_CHARS: usize = 4;
/// Characters that are kept of a key which is too long.
const KEY_KEPT_CHARS: usize = 36;

const _: () = assert!(SHARDS_MAX <= 1_000);
const _: () = assert!(1 + KEY_KEPT_CHARS + 1 + 16 + INDEX_CHARS <= NAME_CHARS_MAX);

/// The id of a part of a run: the same whoever computes it.
///
/// `<slot>-<index>` for a slot, otherwise `_<key>-<index>`; both are refused from callers. What is too long is cut, and told
/// apart by a hash.
pub fn shard_of(parent: &RunId, index: u16) -> RunId {
    let key = parent.key.as_str();
    let key = if Slot::is_slot_key(&parent.key) {
        format!("{key}-{index}")
    } else {
        let rest = key.strip_prefix('_').unwrap_or(key);
        if 1 + rest.len() + INDEX_CHARS <= NAME_CHARS_MAX {
            format!("_{rest}-{index}")
        } else {
            let kept: String = rest.chars().take(KEY_KEPT_CHARS).collect();
            format!("_{kept}-{:016x}-{index}", mixed_64(&["shard", key]))
        }
    };
    // Of characters of a key, digits and `_ -` only, and short enough: always a valid key.
    RunId { name: parent.name.clone(), key: key.parse().unwrap_or_else(|_| RunKey::unique()) }
}

/// Whether a key is that of a slot's shard; such keys are reserved for planners.
pub fn is_shard_key(key: &RunKey) -> bool {
    let parts = key.as_str().rsplit_once('-');
    parts.is_some_and(|(slot, index)| {
        slot.parse::<Slot>().is_ok() && !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_shard_has_an_id_that_no_caller_may_use_and_no_other_run_has() {
        let long = format!("up.{}", "x".repeat(64));
        let mut ids = BTreeSet::new();
        let parents = [
            "up.20261124T020000Z",
            "up.manual-20261124T020000Z-1a2b3c4d",
            "up._20261124T020000Z-0123456789abcdef",
            &long,
        ];
        for parent in parents {
            let parent: RunId = parent.parse().expect("run");
            for index in [0, 1, 99, SHARDS_MAX - 1] {
                let id = shard_of(&parent, index);
                assert_eq!(id, shard_of(&parent, index));
                assert_eq!(id.to_string().parse(), Ok(id.clone()), "{id}");
                assert!(id.key.as_str().starts_with('_') || is_shard_key(&id.key), "{id}");
                assert!(ids.insert(id));
            }
        }
        assert_eq!(ids.len(), 16);
        let first: RunId = "up.20261124T020000Z".parse().expect("run");
        assert_eq!(shard_of(&first, 3).to_string(), "up.20261124T020000Z-3");
        for (key, is_shard) in [
            ("20261124T020000Z-12", true),
            ("20261124T020000Z", false),
            ("20261124T020000Z-", false),
            ("x-1", false),
        ] {
            assert_eq!(is_shard_key(&key.parse().expect("key")), is_shard, "{key}");
        }
    }

    #[test]
    fn shards_have_their_number_and_one_of_two_policies() {
        for (shards, overlap, expected) in [
            (None, Overlap::Replace, Ok(())),
            (Some(1), Overlap::Skip, Ok(())),
            (Some(SHARDS_MAX), Overlap::Allow, Ok(())),
            (Some(0), Overlap::Skip, Err(ShardsError::Number(0))),
            (Some(SHARDS_MAX + 1), Overlap::Skip, Err(ShardsError::Number(SHARDS_MAX + 1))),
            (Some(2), Overlap::BufferAll, Err(ShardsError::Overlap(Overlap::BufferAll))),
            (Some(2), Overlap::Replace, Err(ShardsError::Overlap(Overlap::Replace))),
        ] {
            assert_eq!(check(shards, overlap), expected);
        }
    }
}
