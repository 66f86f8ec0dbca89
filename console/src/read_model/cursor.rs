//! Where a page ends: opaque to whoever carries it, and refused where it does not belong.

use std::{fmt, str::FromStr};

use shared::hash::mixed_64;

use super::{Order, RunFilter};

/// Version of the text. What it says may change; then old ones are refused, and the reader begins anew.
const VERSION: &str = "r1";

/// Where a page ends, and the next begins. It stays good while rows come and go, after a rebuild, and at another console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which part of the list: 0, but for lists in several parts.
    pub(crate) part: u8,
    /// The place of the last row.
    pub(crate) place: i64,
    /// Of which list.
    list: u64,
}

/// A cursor that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not one of ours.
    #[error(
        "{0:?} is no cursor; use `next` of the page before as it was given, or leave it out to begin anew"
    )]
    NoCursor(String),
    /// Of a list that was asked for otherwise.
    #[error(
        "the cursor {0:?} belongs to a list with other filters or another order; ask as for the page it came from, or leave \
         it out to begin anew"
    )]
    OfAnotherList(String),
}

impl Cursor {
    pub(crate) fn new(part: u8, place: i64, filter: &RunFilter, order: Order) -> Self {
        Self { part, place, list: list_of(filter, order) }
    }

    /// Checks that it belongs to this list.
    pub(crate) fn check(&self, filter: &RunFilter, order: Order) -> Result<(), CursorError> {
        if self.list == list_of(filter, order) && self.part < order.parts() {
            return Ok(());
        }
        Err(CursorError::OfAnotherList(self.to_string()))
    }
}

/// Which list it is: the same for the same filters and order.
fn list_of(filter: &RunFilter, order: Order) -> u64 {
    // The order in which states and reasons are named does not matter.
    let mut filter = filter.clone();
    filter.statuses.sort_unstable();
    filter.statuses.dedup();
    filter.reasons.sort_unstable_by_key(|reason| *reason as u8);
    filter.reasons.dedup();
    mixed_64(&[&format!("{filter:?}"), &format!("{order:?}")])
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{:x}-{:x}-{:016x}", self.part, self.place, self.list)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let read = || {
            let mut parts = text.strip_prefix(VERSION)?.strip_prefix('-')?.split('-');
            let part = u8::from_str_radix(parts.next()?, 16).ok()?;
            let place = i64::from_str_radix(parts.next()?, 16).ok()?;
            let list = u64::from_str_radix(parts.next()?, 16).ok()?;
            parts.next().is_none().then_some(Self { part, place, list })
        };
        // Only as we write it: no two texts for one cursor.
        read()
            .filter(|cursor| cursor.to_string() == text)
            .ok_or_else(|| CursorError::NoCursor(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::run_state::RunState;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_for_its_own_list() {
        let failed = RunFilter {
            statuses: vec![RunState::Failed, RunState::Retry, RunState::Failed],
            ..RunFilter::default()
        };
        let cursor = Cursor::new(0, i64::MAX, &failed, Order::NewestFirst);
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        let same = RunFilter { statuses: vec![RunState::Retry, RunState::Failed], ..RunFilter::default() };
        assert_eq!(cursor.check(&same, Order::NewestFirst), Ok(()));
        for (filter, order) in [(&failed, Order::OldestFirst), (&RunFilter::default(), Order::NewestFirst)] {
            let error = cursor.check(filter, order).expect_err("another list");
            assert!(error.to_string().contains("other filters or another order"), "{error}");
        }
        let beyond = Cursor { part: 9, ..cursor };
        assert!(beyond.check(&same, Order::NewestFirst).is_err());
    }

    #[test]
    fn what_we_did_not_write_is_no_cursor() {
        for text in
            ["", "r1", "r1-0-1", "r1-0-1-2", "r2-0-1-0000000000000002", "r1-0-+1-0000000000000002", "ä"]
        {
            assert!(matches!(text.parse::<Cursor>(), Err(CursorError::NoCursor(_))), "{text}");
        }
    }
}
