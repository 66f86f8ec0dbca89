//! Planted bugs: each is found within the seeds that every run of the tests has, and by what it breaks.

use super::{SEEDS, checks::Invariant, simulate};
use crate::planted::{Bug, plant};

/// Plants a bug and runs seed after seed until something does not hold: one of these must not.
fn is_found(bug: Bug, by: &[Invariant]) {
    plant(Some(bug));
    let found = (0..SEEDS).find_map(|seed| Some((seed, simulate(seed, false).err()?.0)));
    plant(None);
    let Some((seed, violation)) = found else { panic!("{bug:?} is not found in {SEEDS} seeds") };
    println!("{bug:?} is found in seed {seed}: {violation}");
    assert!(by.contains(&violation.invariant), "{bug:?} was to be found by {by:?}, and is by {violation}");
}

#[test]
fn a_task_before_its_record_is_found() {
    is_found(Bug::TaskBeforeRecord, &[Invariant::RecordBeforeTask]);
}

#[test]
fn a_cursor_before_its_slots_are_dispatched_is_found() {
    is_found(Bug::CursorBeforeDispatch, &[Invariant::CursorBehindRecords]);
}

#[test]
fn a_lease_that_is_trusted_too_long_is_found() {
    is_found(Bug::LeaseTrustedTooLong, &[Invariant::NothingUnderALostLease]);
}

#[test]
fn a_window_with_both_its_ends_is_found() {
    is_found(Bug::WindowClosedAtBothEnds, &[Invariant::NoRecordWithoutASlot]);
}

#[test]
fn a_window_with_neither_of_its_ends_is_found() {
    is_found(Bug::WindowOpenAtBothEnds, &[Invariant::CursorBehindRecords, Invariant::EverySlotHasItsRecord]);
}

#[test]
fn an_answer_that_is_taken_for_another_is_found() {
    is_found(Bug::LateAnswerTakenForAnother, &[Invariant::RecordBeforeTask, Invariant::CursorBehindRecords]);
}

#[test]
fn a_cursor_that_goes_back_is_found() {
    is_found(Bug::CursorGoesBack, &[Invariant::CursorOnlyForward]);
}

#[test]
fn a_record_that_is_made_anew_is_found() {
    is_found(Bug::RecordMadeAnew, &[Invariant::LegalLife]);
}

#[test]
fn a_clock_that_is_believed_always_is_found() {
    is_found(Bug::ClockBelievedAlways, &[Invariant::NothingEarly, Invariant::SkipsAreJustified]);
}

#[test]
fn a_pause_by_hearsay_is_found() {
    is_found(Bug::PauseByHearsay, &[Invariant::SkipsAreJustified]);
}

#[test]
fn a_lock_that_is_looked_for_in_one_queue_only_is_found() {
    is_found(Bug::LockOfOtherQueueForgotten, &[Invariant::NeverTwoAtOnce]);
}
