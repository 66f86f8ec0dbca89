//! The life of a run: six states, and one function that says which may follow which.
//!
//! `docs/run-states.md` is generated from this table by a test.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a run, exactly as the origin names them; anything finer is the record's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunState {
    /// Waits for a worker.
    Pending,
    /// A worker has claimed it.
    Running,
    /// Done, and it went well. Final.
    Success,
    /// Done, and it did not go well. Final, but that somebody retries it by hand; the task is among the dead letters.
    Failed,
    /// An attempt did not go well; another will be made.
    Retry,
    /// It will not be run, or was stopped; the reason says why. Final, but that a backfill runs a skipped slot after all.
    Cancelled,
}

/// What can happen to a run. Events and states are two types even where the word agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunEvent {
    /// It waits until its schedule's previous run has ended.
    Buffered,
    /// A worker claimed it: a new attempt begins.
    Started,
    /// The target has taken it on and will say later how it ended; until then no worker is at it.
    Accepted,
    /// The attempt went well.
    Succeeded,
    /// The attempt went wrong, and there will be another.
    FailedWithRetry,
    /// The attempt went wrong, and there will be no other.
    FailedForGood,
    /// The attempt's worker is gone; the attempt is spent, and there will be another.
    Lost,
    /// The attempt's worker is gone, and there will be no other attempt.
    LostForGood,
    /// The attempt's worker is stopping: the run is handed back, the attempt is not spent.
    Interrupted,
    /// It will not be run: overlap, missed, paused, calendar; or its target was found wanting before the attempt.
    Skipped,
    /// Its task cannot be understood.
    Rejected,
    /// It waited longer than it may.
    Expired,
    /// Somebody stopped it.
    Cancelled,
    /// It was skipped, and a backfill runs it after all.
    Backfilled,
    /// It failed, and somebody runs it again by hand.
    Retried,
    /// It was to run again by hand, and found its schedule occupied: it is as it was before.
    RetryWithdrawn,
    /// A limit lets no more attempts begin just now: it waits for its turn.
    Limited,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {from} cannot be {event:?}")]
pub struct IllegalTransition {
    /// The state the run is in.
    pub from: RunState,
    /// What was to happen to it.
    pub event: RunEvent,
}

impl RunState {
    /// All states, in the order of a run's life.
    pub const ALL: [RunState; 6] = [
        RunState::Pending,
        RunState::Running,
        RunState::Retry,
        RunState::Success,
        RunState::Failed,
        RunState::Cancelled,
    ];

    /// The whole life of a run: the state after this event, or that it cannot happen.
    pub fn next(self, event: RunEvent) -> Result<RunState, IllegalTransition> {
        use RunEvent as On;
        use RunState::{Cancelled, Failed, Pending, Retry, Running, Success};
        match (self, event) {
            (Pending | Retry, On::Started) | (Running, On::Accepted) => Ok(Running),
            (Running, On::Succeeded) => Ok(Success),
            (Running, On::FailedWithRetry | On::Lost) | (Retry, On::Limited) => Ok(Retry),
            (Running, On::FailedForGood | On::LostForGood) | (Pending, On::Rejected | On::RetryWithdrawn) => {
                Ok(Failed)
            }
            // Stopped by us: the attempt is given back. Lost with its worker: the attempt is spent.
            // A slot that was skipped has one record, also when it is run after all; which it was, the record decides.
            // So has a run that failed and is retried by hand.
            (Running, On::Interrupted)
            | (Pending, On::Buffered | On::Limited)
            | (Cancelled, On::Backfilled)
            | (Failed, On::Retried) => Ok(Pending),
            (Pending | Running, On::Skipped)
            | (Pending | Retry, On::Expired)
            | (Pending | Retry | Running, On::Cancelled) => Ok(Cancelled),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }

    /// The state after an attempt that begins and comes to this end, as it is written in one where nobody else can have the
    /// run: the record goes from this state to that one, and was never RUNNING.
    pub fn next_at_once(self, end: RunEvent) -> Result<RunState, IllegalTransition> {
        self.next(RunEvent::Started)?.next(end)
    }

    /// Whether nothing can happen to the run any more, unless somebody asks for a backfill or retries it by hand.
    pub fn is_final(self) -> bool {
        matches!(self, RunState::Success | RunState::Failed | RunState::Cancelled)
    }

    /// The state as the origin writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Pending => "PENDING",
            RunState::Running => "RUNNING",
            RunState::Success => "SUCCESS",
            RunState::Failed => "FAILED",
            RunState::Retry => "RETRY",
            RunState::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl RunEvent {
    /// All events, in the order of a run's life.
    pub const ALL: [RunEvent; 17] = [
        RunEvent::Buffered,
        RunEvent::Started,
        RunEvent::Accepted,
        RunEvent::Succeeded,
        RunEvent::FailedWithRetry,
        RunEvent::FailedForGood,
        RunEvent::Lost,
        RunEvent::LostForGood,
        RunEvent::Interrupted,
        RunEvent::Skipped,
        RunEvent::Rejected,
        RunEvent::Expired,
        RunEvent::Cancelled,
        RunEvent::Backfilled,
        RunEvent::Retried,
        RunEvent::RetryWithdrawn,
        RunEvent::Limited,
    ];

    /// What the event means, for `docs/run-states.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            RunEvent::Buffered => "the run waits until its schedule's previous one has ended",
            RunEvent::Started => "a worker claimed the run; a new attempt begins",
            RunEvent::Accepted => "the target has taken the run on and will say later how it ended",
            RunEvent::Succeeded => "the attempt went well",
            RunEvent::FailedWithRetry => "the attempt went wrong; another follows after the backoff",
            RunEvent::FailedForGood => "the attempt went wrong and no other follows",
            RunEvent::Lost => "the attempt's worker is gone; the attempt is spent, another follows",
            RunEvent::LostForGood => "the attempt's worker is gone and no other attempt follows",
            RunEvent::Interrupted => "the attempt's worker is stopping; the attempt is not spent",
            RunEvent::Skipped => {
                "the slot is not run: overlap, missed, calendar, paused; or, before an attempt, the target was found wanting"
            }
            RunEvent::Rejected => "the task cannot be understood",
            RunEvent::Expired => "the run waited longer than it may",
            RunEvent::Cancelled => "somebody stopped the run",
            RunEvent::Backfilled => "the slot was skipped, and a backfill runs it after all",
            RunEvent::Retried => "the run failed, and somebody runs it again by hand",
            RunEvent::RetryWithdrawn => "the run was to run again by hand, and found its schedule occupied",
            RunEvent::Limited => "a limit lets no more attempts begin just now; the run waits for its turn",
        }
    }
}

/// The page `docs/run-states.md`, from the table above.
pub fn states_page() -> String {
    use fmt::Write as _;
    let mut page = String::from(
        "# The states of a run\n\n\
         Generated from `shared/src/run_state.rs`; a test compares them. \
         Bold states are final: nothing happens to a run there, but that a backfill runs a slot which was skipped, and that somebody retries a run which failed.\n\n```mermaid\nstateDiagram-v2\n    [*] --> PENDING\n",
    );
    let moves = || {
        RunState::ALL.into_iter().flat_map(|from| {
            RunEvent::ALL.into_iter().filter_map(move |event| Some((from, event, from.next(event).ok()?)))
        })
    };
    for (from, event, to) in moves() {
        let _ = writeln!(page, "    {from} --> {to}: {event:?}");
    }
    for (event, to) in at_once() {
        let _ = writeln!(page, "    PENDING --> {to}: Started, {event:?}");
    }
    for state in RunState::ALL.into_iter().filter(|state| state.is_final()) {
        let _ = writeln!(page, "    {state} --> [*]");
    }
    page.push_str("```\n\n| from | event | to | when |\n|---|---|---|---|\n");
    for (from, event, to) in moves() {
        let to = if to.is_final() { format!("**{to}**") } else { to.to_string() };
        let _ = writeln!(page, "| {from} | {event:?} | {to} | {} |", event.meaning());
    }
    page.push_str(
        "\n## Begun and ended in one write\n\n\
         A worker that nobody else can have begun a run before writes of a short attempt only its end. Two events, one version of the \
         record: it has `attempt`, `worker` and `started_at` as if it had been RUNNING.\n\n| from | events | to |\n|---|---|---|\n",
    );
    for (event, to) in at_once() {
        let to = if to.is_final() { format!("**{to}**") } else { to.to_string() };
        let _ = writeln!(page, "| PENDING | Started, {event:?} | {to} |");
    }
    page
}

fn at_once() -> impl Iterator<Item = (RunEvent, RunState)> {
    // How an attempt may end that was begun without a claim; one that was not begun at all is none of its ends.
    let ends = RunEvent::ALL.into_iter().filter(|event| *event != RunEvent::LostForGood);
    ends.filter_map(|event| Some((event, RunState::Pending.next_at_once(event).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_to_a_run_that_is_final() {
        let reopens = [(RunState::Cancelled, RunEvent::Backfilled), (RunState::Failed, RunEvent::Retried)];
        let is_reopened = |state, event| reopens.contains(&(state, event));
        for state in RunState::ALL.into_iter().filter(|state| state.is_final()) {
            for event in RunEvent::ALL.into_iter().filter(|event| !is_reopened(state, *event)) {
                assert_eq!(state.next(event), Err(IllegalTransition { from: state, event }));
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_come_to_an_end_and_every_event_has_its_place() {
        for state in RunState::ALL.into_iter().filter(|state| !state.is_final()) {
            let ends = |state: RunState| {
                RunEvent::ALL.iter().any(|event| state.next(*event).is_ok_and(RunState::is_final))
            };
            assert!(ends(state), "{state}");
        }
        for event in RunEvent::ALL {
            assert!(RunState::ALL.iter().any(|state| state.next(event).is_ok()), "{event:?}");
        }
    }

    #[test]
    fn an_interrupted_run_waits_again_and_a_lost_one_is_retried() {
        assert_eq!(RunState::Running.next(RunEvent::Interrupted), Ok(RunState::Pending));
        assert_eq!(RunState::Running.next(RunEvent::Lost), Ok(RunState::Retry));
    }
}
