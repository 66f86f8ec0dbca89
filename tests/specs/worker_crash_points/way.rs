//! A way of runs through a worker, as values: what is set up, what happens, and where the worker is killed.

use std::ops::RangeInclusive;

use serde_json::{Value, json};
use shared::run_state::RunState;

/// A way of runs through a worker.
pub(super) struct Way {
    /// Its queues, targets and runs are called after it.
    pub(super) name: &'static str,
    /// More fields of its target.
    pub(super) target: &'static str,
    /// More fields of its queue.
    pub(super) queue: &'static str,
    /// Fields of its schedule; none: what runs is submitted.
    pub(super) schedule: Option<&'static str>,
    /// The action, and more fields of the task.
    pub(super) task: (&'static str, &'static str),
    /// More arguments of its worker.
    pub(super) worker: &'static [&'static str],
    /// Where a worker before it is killed, so that it takes over.
    pub(super) predecessor: Option<&'static str>,
    /// What happens besides.
    pub(super) plot: Plot,
    /// How many runs there are, a whole and its parts counted.
    pub(super) runs: usize,
    /// Where the worker is killed, each time in a queue of its own.
    pub(super) kills: &'static [Kill],
}

/// What happens while the runs go their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plot {
    /// Nothing but that they run.
    Runs,
    /// What is submitted is no task.
    Garbage,
    /// It waits until its time is over before anybody is there.
    Expires,
    /// It has failed before, and is retried by hand.
    IsRetried,
    /// The same, and who retried it died before the letter of its first life was deleted.
    IsHalfRetried,
    /// A second run comes when the first is at the target.
    IsJoined,
    /// The same, and the second is its schedule's, under the lock.
    IsJoinedByPlanned,
    /// Somebody cancels it when it runs.
    IsCancelled,
    /// The worker is told to stop when it runs.
    IsDrained,
    /// The target takes it on, and leaves this answer later.
    IsAnswered(&'static str),
    /// The same, and it is answered while nobody is there to hear it.
    IsAnsweredUnheard(&'static str),
}

/// A place where a worker is killed, and what must come of its runs then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) point: &'static str,
    /// At the how-manieth pass.
    pub(super) nth: u32,
    /// How its runs end.
    pub(super) end: RunState,
    /// Attempts of all its runs together: at least, at most.
    attempts: (u32, u32),
    /// What the target was asked for all of them: at least, at most.
    calls: (u32, u32),
}

impl Kill {
    /// How it ends.
    pub(super) const fn ends(self, end: RunState) -> Self {
        Self { end, ..self }
    }

    /// As many attempts more, and as many calls more, if it comes so.
    pub(super) const fn or_more(self, attempts: u32, calls: u32) -> Self {
        let (attempts, calls) = (self.attempts.0 + attempts, self.calls.0 + calls);
        Self { attempts: (self.attempts.0, attempts), calls: (self.calls.0, calls), ..self }
    }

    pub(super) fn attempts(&self) -> RangeInclusive<u32> {
        self.attempts.0..=self.attempts.1
    }

    pub(super) fn calls(&self) -> RangeInclusive<usize> {
        self.calls.0 as usize..=self.calls.1 as usize
    }
}

/// Killed there, its runs end well after so many attempts, and so many calls of the target.
pub(super) const fn kill(point: &'static str, nth: u32, attempts: u32, calls: u32) -> Kill {
    Kill { point, nth, end: RunState::Success, attempts: (attempts, attempts), calls: (calls, calls) }
}

/// What most ways have in common.
pub(super) const PLAIN: Way = Way {
    name: "plain",
    target: "",
    queue: "",
    schedule: None,
    task: ("ok", ""),
    worker: &[],
    predecessor: None,
    plot: Plot::Runs,
    runs: 1,
    kills: &[],
};

/// A way in a queue of its own, with what is set up for it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) way: &'static Way,
    pub(super) number: usize,
    /// None: its worker writes down its points and lives.
    pub(super) kill: Option<Kill>,
}

impl Place {
    /// What its queue, its target and its runs are called.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.way.name, self.number)
    }

    /// As people read it.
    pub(super) fn title(&self) -> String {
        let Some(kill) = self.kill else { return self.name() };
        format!("{}, killed after {}:{}", self.name(), kill.point, kill.nth)
    }

    /// Its task.
    pub(super) fn task(&self) -> Value {
        let (action, more) = self.way.task;
        let mut task = json!({
            "target_service": self.name(), "action": action,
            "retry": {"attempts": 4, "backoff": "100ms", "max_backoff": "200ms"},
        });
        if action == "command" {
            task = json!({"command": ["notes"], "retry": {"attempts": 4, "backoff": "100ms"}});
        }
        let more: Value = serde_json::from_str(&format!("{{{more}}}")).expect("JSON");
        for (field, value) in more.as_object().into_iter().flatten() {
            task[field] = value.clone();
        }
        task
    }

    /// A run of it.
    pub(super) fn run(&self, key: u32) -> String {
        format!("{}.{key}", self.name())
    }

    /// The lines that declare it: of its target, its queue and its schedule.
    pub(super) fn declared(&self) -> [String; 3] {
        let (name, way) = (self.name(), self.way);
        let more = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
        let schedule = way.schedule.map(|fields| {
            let task = self.task();
            format!("  {name}: {{cron: '0 0 1 1 *', queue: {name}, {fields}, task: {task}}}\n")
        });
        [
            format!("  {name}: {{http: TARGET{}}}\n", more(way.target)),
            format!("  {name}: {{ack_wait: 4s{}}}\n", more(way.queue)),
            schedule.unwrap_or_default(),
        ]
    }

    /// Whether a word of the target's is to be left only when its worker is dead: it is killed before that could matter.
    pub(super) fn is_answered_late(&self) -> bool {
        let answers = ["callback.heard", "runs.update", "dead", "remove.TASKS", "callback"];
        self.kill.is_some_and(|kill| !answers.contains(&kill.point))
    }

    /// Whether its runs leave no record if all goes well.
    pub(super) fn may_leave_no_record(&self) -> bool {
        self.way.queue.contains("record: failures")
    }
}

impl Way {
    /// Whether no two of its runs may be at the target at once.
    pub(super) fn is_one_at_a_time(&self) -> bool {
        self.runs == 2
            || self.schedule.is_some_and(|fields| fields.contains("overlap: skip") && self.runs == 1)
    }

    /// Whether somebody has to dispatch it, or to put it back.
    pub(super) fn needs_planner(&self) -> bool {
        self.schedule.is_some() || self.task.1.contains("max_backoff")
    }
}
