//! The task queue: one message a subject, so that a subject is a lock.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    Timestamp,
    limits::TASK_BYTES_MAX,
    names::{Name, QueueName},
    run::RunId,
    schedule::Overlap,
};
use streams::tasks::{DueTask, Holder};

use crate::machine::ask::{Answer, Publishing};

/// Bytes of a message in the stream of tasks, at most.
const MESSAGE_BYTES_MAX: usize = 2 * TASK_BYTES_MAX;

/// A task in the queue.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) run: RunId,
    pub(crate) queue: QueueName,
    /// Whether its subject is its schedule's lock.
    pub(crate) is_lock: bool,
    pub(crate) since: Timestamp,
}

/// The stream of tasks.
#[derive(Debug, Default)]
pub(crate) struct TaskQueue {
    last_sequence: u64,
    messages: BTreeMap<u64, Message>,
    declared: BTreeSet<QueueName>,
    /// Whether the stream is at its limit.
    pub(crate) is_full: bool,
}

impl TaskQueue {
    /// Declares a queue: from now on it has its subjects.
    pub(crate) fn declare(&mut self, queue: QueueName) {
        self.declared.insert(queue);
    }

    pub(crate) fn is_declared(&self, queue: &QueueName) -> bool {
        self.declared.contains(queue)
    }

    pub(crate) fn publish(&mut self, due: &DueTask, overlap: Overlap, now: Timestamp) -> Answer {
        let (run, queue, is_lock) = (&due.run.id, &due.run.queue, overlap.is_exclusive());
        let bytes = serde_json::to_vec(due).map_or(usize::MAX, |bytes| bytes.len());
        let is_taken = |message: &Message| {
            message.queue == *queue
                && message.is_lock == is_lock
                && message.run.name == run.name
                && (is_lock || message.run.key == run.key)
        };
        if !self.is_declared(queue) {
            return Answer::Failed("no stream takes this subject".to_owned());
        }
        if bytes > MESSAGE_BYTES_MAX {
            return Answer::Published(Publishing::Never(format!("{bytes} bytes are too many")));
        }
        if self.messages.values().any(is_taken) {
            return Answer::Published(Publishing::Occupied);
        }
        if self.is_full {
            return Answer::Failed("the stream is full".to_owned());
        }
        self.last_sequence += 1;
        let message = Message { run: run.clone(), queue: queue.clone(), is_lock, since: now };
        self.messages.insert(self.last_sequence, message);
        Answer::Published(Publishing::Stored)
    }

    /// The newest message of a schedule, on whatever subject.
    pub(crate) fn newest_of(&self, schedule: &Name) -> Option<Holder> {
        let (sequence, message) =
            self.messages.iter().rev().find(|(_, message)| message.run.name == *schedule)?;
        Some(Holder {
            run: Some(message.run.clone()),
            queue: Some(message.queue.clone()),
            sequence: *sequence,
            since: message.since,
            revision: None,
            came_by: None,
        })
    }

    /// The schedules with messages.
    pub(crate) fn live_schedules(&self) -> BTreeSet<Name> {
        self.messages.values().map(|message| message.run.name.clone()).collect()
    }

    /// Takes a run's newest message out: that under its schedule's lock, if it holds that, or its own.
    pub(crate) fn remove_run(&mut self, run: &RunId) {
        let newest = |is_wanted: &dyn Fn(&Message) -> bool| {
            let found = self.messages.iter().rev().find(|(_, message)| is_wanted(message));
            found.map(|(sequence, message)| (*sequence, message.run == *run))
        };
        let lock = newest(&|message| message.is_lock && message.run.name == run.name);
        let own = newest(&|message| !message.is_lock && message.run == *run);
        let found = lock.filter(|(_, is_its)| *is_its).or(own);
        if let Some((sequence, _)) = found {
            self.messages.remove(&sequence);
        }
    }

    /// The sequence of the message that was stored last.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    #[cfg(test)]
    pub(crate) fn message(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(&sequence)
    }

    /// Removes a message: acknowledged, or known to have ended.
    pub(crate) fn remove(&mut self, sequence: u64) -> Option<Message> {
        self.messages.remove(&sequence)
    }
}
