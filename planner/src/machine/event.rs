//! What goes into planning, and what comes out of it.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    names::{MemberId, Name},
};

use super::ask::{Answer, Ask};
use crate::definitions::Change;

/// The time, as the outside reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// By the wall clock.
    pub(crate) wall: Timestamp,
    /// Whether the wall clock is believed: if not, nothing is due and no cursor moves.
    pub(crate) is_believed: bool,
    /// By the clock that only goes forward, and counts suspension.
    pub(crate) elapsed: Duration,
}

/// The number of an ask.
pub(crate) type AskId = u64;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Time has passed.
    Woke,
    /// A definition was heard of.
    Heard(Change),
    /// These partitions are held from now on, and that may be trusted until this elapsed time.
    Holds(BTreeSet<u16>, Duration),
    /// An ask was answered.
    Answered(AskId, Answer),
    /// Nothing new is to be begun.
    Stops,
    /// The last cursors are to be written, whatever is still on its way.
    LastWords,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Ask this, and bring the answer back under this number.
    Ask(AskId, Ask),
    /// The answer to this ask is not wanted any more. It may have happened, or happen yet.
    Forget(AskId),
    /// Tell people.
    Note(Note),
}

/// What people may want to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    /// A run was dispatched, so long after its slot.
    Dispatched {
        /// How long.
        late_by: TimeDelta,
    },
    /// Slots of a schedule have to wait.
    Waits {
        /// Whose.
        schedule: Name,
        /// How many.
        slots: usize,
        /// The first of them.
        oldest: Timestamp,
        /// What for.
        why: String,
    },
    /// All that waits has been said since the last time this was said.
    AllWaitsSaid,
    /// A partition cannot be opened yet.
    NotOpened {
        /// Which.
        partition: u16,
        /// Why.
        why: String,
    },
    /// A partition's cursor cannot be right: one from the future, or one nobody understands. A day is looked back.
    CursorWrong(u16),
    /// A partition's cursor was moved by somebody else.
    CursorMoved(u16, MemberId),
    /// A partition's cursor stays where it is.
    CursorStays {
        /// Which.
        partition: u16,
        /// Why.
        why: String,
    },
    /// Slots were computed with other zone data than ours.
    OtherZoneData {
        /// Its version.
        theirs: String,
        /// Who computed them.
        by: MemberId,
    },
}
