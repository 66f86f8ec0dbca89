//! How many schedules are known, and which of them cannot be understood: counted as they come, never all over again.

use std::collections::BTreeMap;

use shared::names::Name;

/// Those that cannot be understood are shown up to this many.
const SHOWN_MAX: usize = 16;

/// What is counted of the schedules.
#[derive(Debug, Default)]
pub(super) struct Census {
    understood: usize,
    /// Why the newest definition of each of the others cannot be understood.
    invalid: BTreeMap<Name, String>,
}

impl Census {
    /// Notes what became of a schedule: whether its definition before, and its new one, can be planned, and if the new one
    /// cannot be understood, why.
    pub(super) fn note(
        &mut self,
        name: &Name,
        was_understood: bool,
        is_understood: bool,
        why: Option<String>,
    ) {
        self.understood = self.understood + usize::from(is_understood) - usize::from(was_understood);
        match why {
            Some(why) => self.invalid.insert(name.clone(), why),
            None => self.invalid.remove(name),
        };
    }

    /// How many schedules there are, and what is wrong with the first of those that cannot be understood.
    pub(super) fn shown(&self) -> (usize, Vec<String>) {
        let invalid = self.invalid.iter().take(SHOWN_MAX).map(|(name, why)| format!("{name}: {why}"));
        (self.understood + self.invalid.len(), invalid.collect())
    }
}
