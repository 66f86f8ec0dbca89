//! Ways of runs that wait for a limit.

use super::way::{PLAIN, Plot, Way, kill};

/// One at a time at its target, and a second comes, which waits outside its queue. Between its record, its place in LIMITED, the
/// word that somebody waits, and its ack.
pub(super) const LIMITED: Way = Way {
    name: "limited",
    target: "max_concurrent: 1",
    task: ("slow", r#""parameters": {"ms": 2500}"#),
    plot: Plot::IsJoined,
    runs: 2,
    kills: &[
        kill("fetched", 1, 2, 2),
        kill("limits.gate", 1, 2, 2),
        kill("runs.create", 1, 3, 2),
        kill("attempt.begins", 1, 3, 2),
        kill("runs.create", 2, 3, 3),
        kill("limited", 1, 3, 3),
        kill("limits.waiting", 1, 3, 3),
        kill("ack.task", 1, 3, 3),
    ],
    ..PLAIN
};

/// The same, until nothing is left. When the second is let go: between its being published again and its being removed where it
/// waited.
pub(super) const LET_GO: Way = Way {
    name: "letgo",
    kills: &[
        kill("runs.update", 1, 2, 2),
        kill("ack.said", 1, 2, 2),
        kill("limits.gate", 2, 2, 2),
        // On a busy machine it is fetched and claimed before that is known here.
        kill("tasks", 1, 2, 2).or_more(1, 1),
        kill("remove.LIMITED", 1, 2, 2).or_more(1, 1),
        kill("fetched", 3, 2, 2),
        kill("limits.gate", 3, 2, 2),
        kill("runs.update", 2, 3, 2),
        kill("attempt.ended", 2, 3, 3),
        kill("runs.update", 3, 2, 2),
        kill("ack.said", 2, 2, 2),
        kill("limits.gate", 4, 2, 2),
        kill("limits.waiting", 2, 2, 2),
    ],
    ..LIMITED
};

/// Nobody waits for its permit, so nobody misses it.
pub(super) const ALONE: Way = Way {
    name: "alone",
    task: ("ok", ""),
    plot: Plot::Runs,
    runs: 1,
    kills: &[
        kill("limits.gate", 1, 1, 1),
        kill("runs.create", 1, 2, 1),
        kill("runs.update", 1, 1, 1),
        kill("ack.said", 1, 1, 1),
        kill("limits.gate", 2, 1, 1),
    ],
    ..LIMITED
};

/// The second is its schedule's, and waits in its queue: its message is the lock.
pub(super) const LOCK_LIMITED: Way = Way {
    name: "locklimited",
    schedule: Some("overlap: skip"),
    plot: Plot::IsJoinedByPlanned,
    kills: &[
        kill("back.task", 1, 3, 3),
        kill("back.task", 3, 3, 3),
        kill("limits.gate", 2, 2, 2),
        kill("limits.gate", 3, 2, 2),
        kill("runs.update", 2, 3, 2),
        kill("runs.update", 3, 2, 2),
    ],
    ..LIMITED
};

/// One at a time of its kind, and two at its target: two gates to pass, and to leave.
pub(super) const KEYED: Way = Way {
    name: "keyed",
    target: "max_concurrent: 2",
    task: (
        "slow",
        r#""parameters": {"ms": 2500, "symbol": "IBM"}, "limit": {"key": "parameters.symbol", "max": 1}"#,
    ),
    kills: &[
        kill("limits.gate", 1, 2, 2),
        kill("limits.gate", 2, 2, 2),
        kill("limited", 1, 3, 3),
        kill("limits.waiting", 1, 3, 3),
        kill("ack.task", 1, 3, 3),
        kill("limits.gate", 3, 2, 2),
        kill("tasks", 1, 2, 2).or_more(1, 1),
        kill("limits.gate", 4, 2, 2),
    ],
    ..LIMITED
};

/// One every three seconds, so that the second waits for its turn.
pub(super) const RATED: Way = Way {
    name: "rated",
    target: "rate: 20/m",
    task: ("ok", ""),
    kills: &[
        kill("limits.gate", 1, 2, 2),
        // The first one may be at its end still.
        kill("limited", 1, 2, 2).or_more(1, 1),
        kill("ack.task", 1, 2, 2).or_more(1, 1),
        kill("tasks", 1, 2, 2).or_more(1, 1),
        kill("remove.LIMITED", 1, 2, 2).or_more(1, 1),
        // The first one's, if it came too late for its turn and took another.
        kill("limits.gate", 2, 2, 2).or_more(1, 0),
        kill("attempt.begins", 2, 3, 2),
    ],
    ..LIMITED
};
