//! Ways of runs whose worker died, and the next one dies while it finishes what that left.

use shared::run_state::RunState::{Cancelled, Failed};

use super::way::{PLAIN, Plot, Way, kill};

/// Its worker died with its claim when the fleet had heard that it is at it; another takes it over, and dies, too.
pub(super) const TAKEN_OVER: Way = Way {
    name: "takenover",
    task: ("slow", r#""parameters": {"ms": 3000}"#),
    queue: "claim: each",
    predecessor: Some("members.worker:2"),
    kills: &[
        kill("back.task", 1, 2, 2),
        kill("runs.update", 1, 2, 2),
        kill("runs.update", 2, 3, 2),
        kill("attempt.ended", 1, 3, 3),
        kill("runs.update", 3, 2, 2),
    ],
    ..PLAIN
};

/// The same of a run that was begun without a claim.
pub(super) const TAKEN_OVER_UNCLAIMED: Way = Way {
    name: "unclaimed",
    predecessor: Some("attempt.begins:1"),
    kills: &[kill("runs.create", 1, 2, 1), kill("runs.update", 1, 3, 1), kill("runs.update", 2, 2, 1)],
    ..PLAIN
};

/// The same of a run that must not be begun again.
pub(super) const TAKEN_OVER_ONCE: Way = Way {
    name: "takenonce",
    task: ("ok", r#""delivery": "at_most_once""#),
    predecessor: Some("attempt.begins:1"),
    kills: &[
        kill("runs.update", 1, 1, 0).ends(Failed),
        kill("dead", 1, 1, 0).ends(Failed),
        kill("ack.task", 1, 1, 0).ends(Failed),
    ],
    ..PLAIN
};

/// Its worker recorded that it failed, and another buries it.
pub(super) const BURIED_BY_NEXT: Way = Way {
    name: "buriedbynext",
    task: ("refuse", ""),
    queue: "claim: each",
    predecessor: Some("runs.update:1"),
    kills: &[
        kill("fetched", 1, 1, 1).ends(Failed),
        kill("dead", 1, 1, 1).ends(Failed),
        kill("ack.task", 1, 1, 1).ends(Failed),
    ],
    ..PLAIN
};

/// Its worker recorded that it waits long, and another puts it where it waits.
pub(super) const PARKED_BY_NEXT: Way = Way {
    name: "parkedbynext",
    task: ("flaky", r#""retry": {"attempts": 4, "backoff": "16s", "max_backoff": "16s"}"#),
    queue: "claim: each",
    predecessor: Some("runs.update:1"),
    kills: &[kill("parked", 1, 2, 2), kill("ack.task", 1, 2, 2)],
    ..PLAIN
};

/// Its worker had claimed it, and its end is asked for when that one is dead.
pub(super) const CANCELLED_BY_NEXT: Way = Way {
    name: "cancelledbynext",
    queue: "claim: each",
    predecessor: Some("attempt.begins:1"),
    plot: Plot::IsCancelled,
    kills: &[kill("runs.update", 1, 1, 0).ends(Cancelled), kill("ack.task", 1, 1, 0).ends(Cancelled)],
    ..PLAIN
};

/// Its target answered when nobody was there, and another finds that.
pub(super) const ANSWERED_UNHEARD: Way = Way {
    name: "unheard",
    target: "actions: {later: {async: {deadline: 1h}}}",
    task: ("later", ""),
    queue: "claim: each",
    predecessor: Some("runs.update:1"),
    plot: Plot::IsAnsweredUnheard("{}"),
    kills: &[kill("fetched", 1, 1, 1), kill("runs.update", 1, 1, 1), kill("ack.task", 1, 1, 1)],
    ..PLAIN
};
