//! What a handler is told about the attempt it makes, and how it says what it is at.

use std::{sync::Arc, time::Duration};

use shared::{
    Timestamp,
    names::{ActionName, Name, TargetName},
    run::RunId,
    shard::Shard,
    task::Task,
};
use tokio_util::sync::CancellationToken;

use crate::{
    executors::{Attempt, UpstreamEnd},
    run_log::RunLog,
};

/// The attempt that a handler makes. Cheap to clone; what outlives the attempt with it says nothing any more.
#[derive(Debug, Clone)]
pub struct RunContext {
    attempt: Arc<Attempt>,
    stop: CancellationToken,
    over: CancellationToken,
}

impl RunContext {
    pub(crate) fn new(attempt: Attempt, stop: CancellationToken, over: CancellationToken) -> Self {
        Self { attempt: Arc::new(attempt), stop, over }
    }

    /// A first attempt of a run in no fleet, so that a handler can be tried without a server. What it says is not kept;
    /// whoever has `stop` can tell it to stop.
    ///
    /// ```
    /// use worker::{CancellationToken, RunContext, Task};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let task = Task::from_json(br#"{"target_service": "storage", "action": "archive_hot_data"}"#)?;
    /// let ctx = RunContext::detached("archive.1".parse()?, task, CancellationToken::new());
    /// ctx.progress(0.5, "half of it");
    /// assert_eq!((ctx.attempt(), ctx.is_cancelled()), (1, false));
    /// # Ok(())
    /// # }
    /// ```
    pub fn detached(run: RunId, task: Task, stop: CancellationToken) -> Self {
        let attempt = Attempt {
            run,
            number: 1,
            fence: 1,
            slot: None,
            task: Arc::new(task),
            shard: None,
            upstream: None,
            target: None,
            traceparent: None,
            grace: Duration::ZERO,
            silence: Duration::ZERO,
            log: RunLog::silent(),
            offer: None,
        };
        Self::new(attempt, stop, CancellationToken::new())
    }

    /// The run: the same for each of its attempts, so it does as an idempotency key.
    pub fn run(&self) -> &RunId {
        &self.attempt.run
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// Its fencing number: greater than that of every earlier attempt of the run.
    pub fn fence(&self) -> u64 {
        self.attempt.fence
    }

    /// The instant the run was due; none for ad-hoc runs.
    pub fn slot(&self) -> Option<Timestamp> {
        self.attempt.slot
    }

    /// Which part of a sharded run this is; none if it is none.
    pub fn shard(&self) -> Option<&Shard> {
        self.attempt.shard.as_ref()
    }

    /// The end of the run that this one follows; none if it follows none.
    pub fn upstream(&self) -> Option<&UpstreamEnd> {
        self.attempt.upstream.as_ref()
    }

    /// What the task is called: its own name, or its run's.
    pub fn task_name(&self) -> &Name {
        self.attempt.task_name()
    }

    /// The action that is asked for.
    pub fn action(&self) -> &ActionName {
        self.attempt.task.action()
    }

    /// The target the task names.
    pub fn target(&self) -> Option<&TargetName> {
        self.attempt.task.target()
    }

    /// The W3C trace context of the attempt, to hand on.
    pub fn traceparent(&self) -> Option<&str> {
        self.attempt.traceparent.as_deref()
    }

    /// Writes a line into the run's log, where it is seen at once (`cronfleet logs RUN -f`). Never waits; a line keeps 8 KiB, an
    /// attempt a mebibyte. It must hold no secret: nothing is masked.
    pub fn log(&self, line: impl Into<String>) {
        if !self.over.is_cancelled() {
            self.attempt.log.line(line);
        }
    }

    /// Says how far the run is, from 0 to 1, and in words (`""`: none). Seen in `cronfleet get runs` within two seconds, and in the
    /// run's log, at most once a second. Never waits.
    pub fn progress(&self, fraction: f64, note: impl AsRef<str>) {
        if !self.over.is_cancelled() {
            let note = Some(note.as_ref()).filter(|note| !note.is_empty());
            self.attempt.log.note_progress(fraction, note);
        }
    }

    /// Waits until the attempt is to stop. It is to end then, soon, and may return whatever it likes: an output still counts.
    pub async fn cancelled(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the attempt is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The token behind [`Self::cancelled`], to hand on.
    pub fn cancellation(&self) -> CancellationToken {
        // A child: who is handed it cannot stop the attempt's other parts.
        self.stop.child_token()
    }
}
