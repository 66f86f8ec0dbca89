//! The ways of runs through a worker, with the points at which it is killed on each of them, and what must come of that.
//!
//! Numbers are totals over the runs of the way: attempts as the records count them, calls as the target does. What a lost worker
//! had claimed, or may have begun, is one attempt more; what the target had answered before, one call more.

use shared::run_state::RunState::{Cancelled, Failed};

use super::way::{PLAIN, Plot, Way, kill};

/// Begun without a claim, and its end is the first word of it.
pub(super) const SHORT: Way = Way {
    name: "short",
    kills: &[
        kill("fetched", 1, 2, 1),
        kill("attempt.begins", 1, 2, 1),
        kill("attempt.acted", 1, 2, 2),
        kill("attempt.ended", 1, 2, 2),
        // On a busy machine it may be claimed late: then it dies with that.
        kill("runs.create", 1, 1, 1).or_more(1, 1),
        kill("ack.said", 1, 1, 1),
    ],
    ..PLAIN
};

/// The same for longer: claimed late, its hold renewed.
pub(super) const LATE: Way = Way {
    name: "late",
    task: ("slow", r#""parameters": {"ms": 4000}"#),
    kills: &[
        kill("runs.create", 1, 2, 2),
        kill("hold.task", 1, 2, 2),
        kill("members.worker", 2, 2, 2),
        kill("attempt.ended", 1, 2, 2),
        kill("runs.update", 1, 1, 1),
    ],
    ..PLAIN
};

/// In a queue that keeps no record of what goes well: after a lost worker there is one.
pub(super) const UNRECORDED: Way = Way {
    name: "unrecorded",
    queue: "record: failures",
    kills: &[
        kill("fetched", 1, 2, 1),
        kill("attempt.begins", 1, 2, 1),
        kill("attempt.ended", 1, 2, 2),
        // Whether the word got through nobody knows.
        kill("ack.said", 1, 1, 1).or_more(1, 1),
    ],
    ..PLAIN
};

/// Claimed before it begins; it fails once, waits in its queue, and goes well.
pub(super) const CLAIMED: Way = Way {
    name: "claimed",
    queue: "claim: each",
    task: ("flaky", ""),
    kills: &[
        kill("fetched", 1, 2, 2),
        kill("runs.create", 1, 3, 2),
        kill("attempt.begins", 1, 3, 2),
        kill("attempt.acted", 1, 2, 2),
        kill("attempt.ended", 1, 2, 2),
        kill("runs.update", 1, 2, 2),
        kill("back.task", 1, 2, 2),
        kill("fetched", 2, 2, 2),
        kill("runs.update", 2, 3, 2),
        kill("attempt.begins", 2, 3, 2),
        kill("attempt.ended", 2, 3, 3),
        kill("runs.update", 3, 2, 2),
        kill("ack.said", 1, 2, 2),
    ],
    ..PLAIN
};

/// A planned run that may overlap with others: begun over its planner's record.
pub(super) const PLANNED: Way = Way {
    name: "planned",
    schedule: Some("overlap: allow"),
    kills: &[
        kill("fetched", 1, 2, 1),
        kill("attempt.ended", 1, 2, 2),
        // On a busy machine it may be claimed late: then it dies with that.
        kill("runs.update", 1, 1, 1).or_more(1, 1),
        kill("ack.said", 1, 1, 1),
    ],
    ..PLAIN
};

/// Under its schedule's lock: claimed over its planner's record.
pub(super) const LOCKED: Way = Way {
    name: "locked",
    schedule: Some("overlap: skip"),
    kills: &[
        kill("fetched", 1, 1, 1),
        kill("runs.update", 1, 2, 1),
        kill("attempt.begins", 1, 2, 1),
        kill("attempt.ended", 1, 2, 2),
        kill("runs.update", 2, 1, 1),
        kill("ack.said", 1, 1, 1),
    ],
    ..PLAIN
};

/// Two parts of a run, one after another.
pub(super) const PARTS: Way = Way {
    name: "parts",
    schedule: Some("overlap: skip, shards: 2"),
    worker: &["--places", "1"],
    runs: 3,
    kills: &[
        kill("fetched", 1, 2, 2),
        kill("runs.update", 1, 3, 2),
        kill("attempt.ended", 1, 3, 3),
        kill("runs.update", 2, 2, 2),
        kill("ack.said", 1, 2, 2),
        kill("runs.update", 3, 3, 2),
    ],
    ..PLAIN
};

/// Never begun twice, whatever that costs.
pub(super) const AT_MOST_ONCE: Way = Way {
    name: "once",
    task: ("ok", r#""delivery": "at_most_once""#),
    kills: &[
        kill("fetched", 1, 1, 1),
        kill("runs.create", 1, 1, 0).ends(Failed),
        kill("attempt.begins", 1, 1, 0).ends(Failed),
        kill("attempt.acted", 1, 1, 1).ends(Failed),
        kill("attempt.ended", 1, 1, 1).ends(Failed),
        kill("runs.update", 1, 1, 1),
        kill("ack.said", 1, 1, 1),
    ],
    ..PLAIN
};

/// The same, and it fails.
pub(super) const AT_MOST_ONCE_FAILS: Way = Way {
    name: "oncefails",
    task: ("fail", r#""delivery": "at_most_once""#),
    kills: &[
        kill("attempt.ended", 1, 1, 1).ends(Failed),
        kill("runs.update", 1, 1, 1).ends(Failed),
        kill("dead", 1, 1, 1).ends(Failed),
        kill("term.task", 1, 1, 1).ends(Failed),
    ],
    ..PLAIN
};

/// It fails for good, and goes among the dead letters.
pub(super) const REFUSED: Way = Way {
    name: "refused",
    task: ("refuse", ""),
    kills: &[
        kill("attempt.ended", 1, 2, 2).ends(Failed),
        // On a busy machine it may be claimed late: then it dies with that.
        kill("runs.create", 1, 1, 1).or_more(1, 1).ends(Failed),
        kill("dead", 1, 1, 1).ends(Failed),
        kill("term.task", 1, 1, 1).ends(Failed),
    ],
    ..PLAIN
};

/// No task at all.
pub(super) const GARBAGE: Way = Way {
    name: "garbage",
    plot: Plot::Garbage,
    kills: &[
        kill("fetched", 1, 0, 0).ends(Failed),
        kill("runs.create", 1, 0, 0).ends(Failed),
        kill("dead", 1, 0, 0).ends(Failed),
        kill("term.task", 1, 0, 0).ends(Failed),
    ],
    ..PLAIN
};

/// It failed before, was retried by hand, and fails once more.
pub(super) const RETRIED: Way = Way {
    name: "retried",
    task: ("refuse", ""),
    plot: Plot::IsRetried,
    kills: &[
        kill("fetched", 1, 2, 2).ends(Failed),
        kill("runs.update", 1, 3, 2).ends(Failed),
        kill("attempt.ended", 1, 3, 3).ends(Failed),
        kill("runs.update", 2, 2, 2).ends(Failed),
        kill("dead", 1, 2, 2).ends(Failed),
        kill("term.task", 1, 2, 2).ends(Failed),
    ],
    ..PLAIN
};

/// The same, and the letter of its first life is there still when it fails.
pub(super) const HALF_RETRIED: Way = Way {
    name: "halfretried",
    plot: Plot::IsHalfRetried,
    kills: &[
        kill("attempt.ended", 1, 3, 3).ends(Failed),
        kill("runs.update", 2, 2, 2).ends(Failed),
        kill("dead", 1, 2, 2).ends(Failed),
        kill("term.task", 1, 2, 2).ends(Failed),
    ],
    ..RETRIED
};

/// It waits long for its second attempt: outside its queue.
pub(super) const PARKED: Way = Way {
    name: "parked",
    queue: "claim: each",
    task: ("flaky", r#""retry": {"attempts": 4, "backoff": "8s", "max_backoff": "8s"}"#),
    kills: &[
        kill("runs.update", 1, 2, 2),
        kill("parked", 1, 2, 2),
        kill("ack.task", 1, 2, 2),
        kill("fetched", 2, 2, 2),
        kill("runs.update", 2, 3, 2),
        kill("attempt.ended", 2, 3, 3),
        kill("runs.update", 3, 2, 2),
    ],
    ..PLAIN
};

/// Nobody began it in time.
pub(super) const EXPIRED: Way = Way {
    name: "expired",
    task: ("ok", r#""start_deadline": "1s""#),
    plot: Plot::Expires,
    kills: &[
        kill("fetched", 1, 0, 0).ends(Cancelled),
        kill("runs.create", 1, 0, 0).ends(Cancelled),
        kill("ack.task", 1, 0, 0).ends(Cancelled),
    ],
    ..PLAIN
};

/// It takes longer than it may, and has no attempt left.
pub(super) const OUT_OF_TIME: Way = Way {
    name: "outoftime",
    task: ("hang", r#""timeout": "1s", "retry": {"attempts": 1}"#),
    kills: &[
        kill("attempt.ended", 1, 1, 1).ends(Failed),
        kill("runs.update", 1, 1, 1).ends(Failed),
        kill("dead", 1, 1, 1).ends(Failed),
        kill("term.task", 1, 1, 1).ends(Failed),
    ],
    ..PLAIN
};

/// Somebody cancels it while it runs, or when its worker is dead.
pub(super) const CANCELLED: Way = Way {
    name: "cancelled",
    task: ("hang", ""),
    plot: Plot::IsCancelled,
    kills: &[
        kill("attempt.begins", 1, 0, 0).ends(Cancelled),
        kill("runs.create", 1, 1, 1).ends(Cancelled),
        kill("cancel.heard", 1, 1, 1).ends(Cancelled),
        kill("runs.update", 1, 1, 1).ends(Cancelled),
        kill("ack.said", 1, 1, 1).ends(Cancelled),
    ],
    ..PLAIN
};

/// Its worker is told to stop, and hands it back: no attempt is spent, unless the worker dies before that is written.
pub(super) const DRAINED: Way = Way {
    name: "drained",
    queue: "claim: each",
    task: ("slow", r#""parameters": {"ms": 3000}"#),
    worker: &["--drain", "0s"],
    plot: Plot::IsDrained,
    kills: &[
        kill("attempt.acted", 1, 2, 2),
        kill("attempt.ended", 1, 2, 2),
        kill("runs.update", 1, 1, 2),
        kill("back.task", 1, 1, 2),
        kill("member.left", 1, 1, 2),
    ],
    ..PLAIN
};

/// A command, which is ended with its worker, and what it says.
pub(super) const COMMAND: Way = Way {
    name: "command",
    task: ("command", ""),
    kills: &[
        kill("runs.create", 1, 2, 1),
        // Whether it came to saying what it was asked.
        kill("command.begun", 1, 2, 1).or_more(0, 1),
        kill("log", 1, 2, 2),
        kill("attempt.acted", 1, 2, 2),
        kill("attempt.ended", 1, 2, 2),
        kill("runs.update", 1, 1, 1),
        kill("ack.said", 1, 1, 1),
    ],
    ..PLAIN
};

/// Its target takes it on and answers later.
pub(super) const ANSWERED: Way = Way {
    name: "answered",
    target: "actions: {later: {async: {deadline: 1h}}}",
    task: ("later", ""),
    plot: Plot::IsAnswered("{}"),
    kills: &[
        kill("attempt.acted", 1, 2, 2),
        // On a busy machine it may be claimed late: then it dies with that.
        kill("runs.create", 1, 1, 1).or_more(1, 1),
        kill("back.task", 1, 1, 1),
        kill("fetched", 2, 1, 1),
        kill("back.task", 2, 1, 1),
        kill("callback", 1, 1, 1),
        kill("callback.heard", 1, 1, 1),
        kill("runs.update", 1, 1, 1),
        kill("remove.TASKS", 1, 1, 1),
    ],
    ..PLAIN
};

/// The same, one at a time: while it waits for its answer it holds no permit.
pub(super) const ANSWERED_LIMITED: Way = Way {
    name: "answeredlimited",
    target: "max_concurrent: 1, actions: {later: {async: {deadline: 1h}}}",
    kills: &[
        kill("runs.update", 1, 1, 1),
        kill("back.task", 1, 1, 1),
        kill("limits.gate", 2, 1, 1),
        kill("runs.update", 2, 1, 1),
    ],
    ..ANSWERED
};

/// The same, and it went wrong there.
pub(super) const ANSWERED_BADLY: Way = Way {
    name: "answeredbadly",
    plot: Plot::IsAnswered(r#"{"error": {"message": "no", "retryable": false}}"#),
    kills: &[
        kill("callback.heard", 1, 1, 1).ends(Failed),
        kill("runs.update", 1, 1, 1).ends(Failed),
        kill("dead", 1, 1, 1).ends(Failed),
        kill("remove.TASKS", 1, 1, 1).ends(Failed),
    ],
    ..ANSWERED
};
