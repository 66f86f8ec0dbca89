//! Pauses: in the bucket of the schedules, beside the definitions and not in them. Whoever applies a file does not
//! undo a pause, the planners' one watch sees both, and the key's history says who paused and resumed.

use bytes::Bytes;
use shared::{
    Timestamp,
    names::Name,
    pause::{Pause, PauseEpoch, PauseState},
};

use crate::{ReadError, WriteError, bucket::Change, names::keys, schedules::Schedules};

/// What was said of the pause of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseVersion {
    /// The schedule.
    pub name: Name,
    /// What was said, and since when it holds.
    pub epoch: PauseEpoch,
}

impl Schedules {
    /// What was last said of a schedule's pause, from the leader; under revision 0 if nothing ever was.
    pub async fn pause(&self, name: &Name) -> Result<PauseEpoch, ReadError> {
        let never = PauseEpoch { since: Timestamp::MIN_UTC, revision: 0, pause: None };
        let found = self.bucket().get_with_deleted(&keys::pause(name)).await?;
        Ok(found.map_or(never, |stored| epoch(stored.value.as_deref(), stored.revision, stored.stored_at)))
    }

    /// Says that a schedule is paused, or no longer, over exactly what was read.
    pub async fn say_pause(&self, name: &Name, state: &PauseState, over: u64) -> Result<u64, WriteError> {
        let bytes = Bytes::from(serde_json::to_vec(state).unwrap_or_default());
        self.bucket().update(&keys::pause(name), bytes, over).await
    }

    /// What was last said of every schedule that was ever paused.
    pub async fn pauses(&self) -> Result<Vec<PauseVersion>, ReadError> {
        Ok(self.bucket().list(keys::PAUSES).await?.iter().filter_map(pause_of).collect())
    }

    /// All that was said of a schedule's pause, oldest first.
    pub async fn pause_history(&self, name: &Name) -> Result<Vec<PauseEpoch>, ReadError> {
        let changes = self.bucket().history(&keys::pause(name)).await?;
        Ok(changes.iter().filter_map(pause_of).map(|version| version.epoch).collect())
    }
}

/// What a change in the bucket says of a pause; none if it is about something else.
pub(crate) fn pause_of(change: &Change) -> Option<PauseVersion> {
    let name = keys::paused_schedule(&change.key)?;
    Some(PauseVersion { name, epoch: epoch(change.value.as_deref(), change.revision, change.stored_at) })
}

/// A pause nobody can read is one without an end: not to run costs less than to run what somebody wanted to stand
/// still.
fn epoch(value: Option<&[u8]>, revision: u64, since: Timestamp) -> PauseEpoch {
    let pause = match value.map(serde_json::from_slice::<PauseState>) {
        None | Some(Ok(PauseState::Resumed { .. })) => None,
        Some(Ok(PauseState::Paused(pause))) => Some(pause),
        Some(Err(error)) => Some(Pause {
            by: "somebody".to_owned(),
            reason: Some(format!(
                "the pause (revision {revision}) cannot be understood ({error}); resume it"
            )),
            until: None,
        }),
    };
    PauseEpoch { since, revision, pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: Option<&'static str>) -> Change {
        Change {
            key: key.to_owned(),
            value: value.map(|text| Bytes::from_static(text.as_bytes())),
            revision: 7,
            stored_at: "2026-11-24T02:00:00Z".parse().expect("instant"),
            is_current: false,
        }
    }

    #[test]
    fn a_pause_is_told_from_a_definition_and_from_a_strangers_key() {
        let name: Name = "nightly".parse().expect("name");
        let key = keys::pause(&name);
        let paused = pause_of(&change(&key, Some(r#"{"state":"paused","by":"ann"}"#))).expect("a pause");
        assert_eq!((paused.name, paused.epoch.pause.map(|pause| pause.by)), (name, Some("ann".to_owned())));
        let resumed = pause_of(&change(&key, Some(r#"{"state":"resumed","by":"ann"}"#))).expect("a word");
        assert_eq!(resumed.epoch.pause, None);
        assert_eq!(pause_of(&change(&key, None)).expect("deleted by hand").epoch.pause, None);
        assert!(pause_of(&change(&key, Some("{"))).expect("garbage").epoch.pause.is_some());
        for other in ["12.nightly", "0.nightly.pause", "nightly.pause", "12.nightly.pause.x"] {
            assert_eq!(pause_of(&change(other, None)), None, "{other}");
        }
    }
}
