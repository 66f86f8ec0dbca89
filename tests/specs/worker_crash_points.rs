//! A worker dies after each of its effects in turn, as by kill -9, and another goes on: every run ended once, as it should,
//! with the attempts it should have, and nothing is left behind.
//!
//! The points are not chosen by hand: every write to the server is one ([`streams::witness`]), every answer to it, and each
//! step that cannot be undone; and a spec checks that the lists here hold all that a worker passes.
//!
//! | file | what |
//! |---|---|
//! | `way.rs` | a way of runs through a worker, and where it is killed: as values |
//! | `ways.rs`, `limited.rs`, `second.rs` | all of them |
//! | `stage.rs` | sets them up, has workers die, and lets another finish |
//! | `plot.rs` | what happens to the runs meanwhile |
//! | `check.rs` | what must hold in the end |

use std::collections::BTreeSet;

mod check;
mod limited;
mod plot;
mod second;
mod stage;
mod way;
mod ways;

use limited::{ALONE, KEYED, LET_GO, LIMITED, LOCK_LIMITED, RATED};
use second::{
    ANSWERED_UNHEARD, BURIED_BY_NEXT, CANCELLED_BY_NEXT, PARKED_BY_NEXT, TAKEN_OVER, TAKEN_OVER_ONCE,
    TAKEN_OVER_UNCLAIMED,
};
use stage::{points_of, survives, survives_apart};
use way::Way;
use ways::{
    ANSWERED, ANSWERED_BADLY, ANSWERED_LIMITED, AT_MOST_ONCE, AT_MOST_ONCE_FAILS, CANCELLED, CLAIMED,
    COMMAND, DRAINED, EXPIRED, GARBAGE, HALF_RETRIED, LATE, LOCKED, OUT_OF_TIME, PARKED, PARTS, PLANNED,
    REFUSED, RETRIED, SHORT, UNRECORDED,
};

const WAYS: [&Way; 35] = [
    &SHORT,
    &LATE,
    &UNRECORDED,
    &CLAIMED,
    &PLANNED,
    &LOCKED,
    &PARTS,
    &AT_MOST_ONCE,
    &AT_MOST_ONCE_FAILS,
    &REFUSED,
    &GARBAGE,
    &RETRIED,
    &HALF_RETRIED,
    &PARKED,
    &EXPIRED,
    &OUT_OF_TIME,
    &CANCELLED,
    &DRAINED,
    &COMMAND,
    &ANSWERED,
    &ANSWERED_LIMITED,
    &ANSWERED_BADLY,
    &LIMITED,
    &LET_GO,
    &LOCK_LIMITED,
    &ALONE,
    &KEYED,
    &RATED,
    &TAKEN_OVER,
    &BURIED_BY_NEXT,
    &PARKED_BY_NEXT,
    &CANCELLED_BY_NEXT,
    &ANSWERED_UNHEARD,
    &TAKEN_OVER_ONCE,
    &TAKEN_OVER_UNCLAIMED,
];

#[tokio::test]
async fn every_effect_of_a_worker_is_a_point_at_which_it_is_killed_here() {
    let seen = points_of(&WAYS).await;
    let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    let listed: BTreeSet<&str> =
        WAYS.iter().flat_map(|way| way.kills.iter().map(|kill| kill.point)).collect();
    assert_eq!(seen, listed);
}

#[tokio::test]
async fn killed_with_short_runs_a_worker_loses_none_and_each_lost_attempt_is_counted() {
    survives(&[&SHORT, &LATE, &UNRECORDED]).await;
}

#[tokio::test]
async fn killed_with_runs_it_claimed_a_worker_loses_none_and_each_lost_attempt_is_counted() {
    survives(&[&CLAIMED, &COMMAND]).await;
}

#[tokio::test]
async fn killed_with_planned_runs_a_worker_leaves_neither_a_lock_nor_a_part_behind() {
    survives(&[&PLANNED, &LOCKED, &PARTS]).await;
}

#[tokio::test]
async fn killed_with_runs_that_may_not_be_repeated_a_worker_has_asked_for_none_of_them_twice() {
    survives(&[&AT_MOST_ONCE, &AT_MOST_ONCE_FAILS]).await;
}

#[tokio::test]
async fn killed_with_runs_that_fail_a_worker_leaves_each_its_one_dead_letter() {
    survives(&[&REFUSED, &GARBAGE, &RETRIED, &HALF_RETRIED, &OUT_OF_TIME]).await;
}

#[tokio::test]
async fn killed_with_runs_that_wait_long_a_worker_leaves_them_their_next_attempt_or_their_end() {
    survives(&[&PARKED, &EXPIRED]).await;
}

#[tokio::test]
async fn killed_with_runs_that_are_stopped_a_worker_leaves_them_stopped_or_handed_back() {
    survives(&[&CANCELLED, &DRAINED]).await;
}

#[tokio::test]
async fn killed_with_runs_whose_target_answers_later_a_worker_leaves_them_their_answer() {
    survives_apart(&[&ANSWERED, &ANSWERED_BADLY, &ANSWERED_LIMITED]).await;
}

#[tokio::test]
async fn killed_with_runs_that_come_to_wait_for_a_limit_a_worker_leaves_no_permit_and_nobody_waiting() {
    survives_apart(&[&LIMITED, &ALONE]).await;
}

#[tokio::test]
async fn killed_with_runs_that_are_let_go_a_worker_leaves_no_permit_and_nobody_waiting() {
    survives_apart(&[&LET_GO, &LOCK_LIMITED]).await;
}

#[tokio::test]
async fn killed_with_runs_that_wait_for_a_limit_of_their_key_or_for_their_turn_a_worker_leaves_nobody_waiting()
 {
    survives_apart(&[&KEYED, &RATED]).await;
}

#[tokio::test]
async fn killed_while_it_finishes_what_another_left_a_worker_leaves_it_to_the_next() {
    survives(&[&BURIED_BY_NEXT, &PARKED_BY_NEXT, &CANCELLED_BY_NEXT, &ANSWERED_UNHEARD]).await;
}

#[tokio::test]
async fn killed_while_it_takes_runs_over_a_worker_leaves_them_to_the_next() {
    survives(&[&TAKEN_OVER, &TAKEN_OVER_ONCE, &TAKEN_OVER_UNCLAIMED]).await;
}
