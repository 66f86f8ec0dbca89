//! The way of one delivery: identify, claim, execute, record, answer.
//!
//! Record first, answer second. A crash between the two delivers the run again, which finds it ended and is
//! acknowledged; the other order would lose the result for good.

mod intake;
mod settle;

use std::{sync::Arc, task::Poll, time::Duration};

use shared::{
    limits,
    names::QueueName,
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState,
};
use streams::{
    Streams, bucket::Stored, delivery::Delivery, lookups::Lookups, shared_writes::SharedWrites, witness,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    cancel,
    claim::{Claim, Claimer},
    elsewhere::Elsewhere,
    executors::{Attempt, Done, Executors, Failure},
    hold,
    identify::{Identified, Unreadable},
    late::Basis,
    limits::{Admission, Limits, Passed},
    member::Status,
    park::Parker,
    run_log::RunLog,
    running::{Place, Running},
    spans::{AttemptSpan, Spans},
    targets::Targets,
    time_limits, upstream,
    verdict::Ending,
};

/// A delivery that could not be worked on just now is handed back for this long.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How long a worker goes on trying to record what an attempt gave, while the server cannot be reached.
const RECORD_FOR: Duration = Duration::from_mins(10);
/// An executor that was told to stop must have ended after this; commands get their grace within it.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Ends that are recorded and answered at once. More would be no faster: the server takes them one after another, and runs
/// that wait to begin would stand behind them.
const SETTLED_AT_ONCE_MAX: usize = 64;
/// The same of attempts that were begun without a claim: those that wait to begin need no write, so nothing stands behind these.
const UNCLAIMED_SETTLED_AT_ONCE_MAX: usize = 256;

/// Serves deliveries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    streams: Streams,
    executors: Executors,
    targets: Targets,
    running: Running,
    status: Arc<Status>,
    /// If the ledger lies on one server: reads of it that share their requests.
    lookups: Option<Lookups>,
    /// Writes that share their answers: of what is over.
    shared_writes: SharedWrites,
    parker: Parker,
    spans: Spans,
    elsewhere: Elsewhere,
    limits: Limits,
    /// Places for those that record their end.
    settling: Semaphore,
    /// Places for those that were begun without a claim.
    settling_unclaimed: Semaphore,
}

impl Server {
    pub(crate) fn new(
        streams: Streams,
        executors: Executors,
        targets: Targets,
        running: Running,
        status: Arc<Status>,
        lookups: Option<Lookups>,
        limits: Limits,
    ) -> Self {
        let settling = Semaphore::new(SETTLED_AT_ONCE_MAX);
        let settling_unclaimed = Semaphore::new(UNCLAIMED_SETTLED_AT_ONCE_MAX);
        let parker = Parker::new(streams.clone());
        let shared_writes = streams.shared_writes();
        let inner = Inner {
            streams,
            executors,
            targets,
            running,
            status,
            lookups,
            shared_writes,
            parker,
            spans: Spans::default(),
            elsewhere: Elsewhere::default(),
            limits,
            settling,
            settling_unclaimed,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes one delivery all its way.
    pub(crate) async fn serve(
        self,
        delivery: Arc<Delivery>,
        queue: QueueName,
        ack_wait: Duration,
        abort: CancellationToken,
    ) {
        let inner = &self.inner;
        let result = match intake::identified(&delivery, &queue) {
            Ok(run) => inner.work(&run, &delivery, ack_wait, &abort).await,
            Err(unreadable) => Box::pin(inner.reject(unreadable, &delivery, &queue)).await,
        };
        if let Err(error) = result {
            tracing::warn!(subject = delivery.subject, %error, "`{}` goes back to its queue: {error}", delivery.subject);
            Box::pin(self.give_back(&delivery, &queue, TRY_AGAIN)).await;
        }
    }
}

/// An attempt that is under way: whose it is, and what it answers to.
struct UnderWay<'a> {
    run: &'a Identified,
    /// The record as it was claimed, or would have been; its revision is the fence.
    claimed: &'a Stored<RunRecord>,
    /// What its end is written over.
    basis: Basis,
    place: &'a Place,
    delivery: &'a Arc<Delivery>,
    ack_wait: Duration,
    abort: &'a CancellationToken,
    passed: &'a Passed,
    span: AttemptSpan,
}

fn ended(result: Result<Done, Ending>) -> Ending {
    match result {
        Ok(Done::Output(output)) => Ending::Output(output),
        Ok(Done::TakenOn(awaited)) => Ending::TakenOn(awaited),
        Err(ending) => ending,
    }
}

impl Inner {
    async fn work(
        &self,
        run: &Identified,
        delivery: &Arc<Delivery>,
        ack_wait: Duration,
        abort: &CancellationToken,
    ) -> Served {
        let may_expire = run.task.has_time_limits();
        if may_expire && Box::pin(time_limits::end_if_expired(&self.streams, run)).await?.is_some() {
            let _ = delivery.ack().await;
            return Ok(());
        }
        if self.executors.lacks_command(&run.task).is_some()
            && let Some(wait) = Box::pin(self.belongs_elsewhere(run, delivery)).await?
        {
            let _ = delivery.hand_back(wait).await;
            return Ok(());
        }
        let needs_target = !self.executors.is_in_process(&run.task);
        match self.limits.admit(run, delivery, ack_wait, needs_target).await? {
            Admission::Passed(passed) | Admission::Moot(passed) => {
                let served = self.claim(run, delivery, ack_wait, abort, &passed).await;
                self.limits.leave(passed).await;
                served
            }
            Admission::Waits => Ok(()),
        }
    }

    async fn claim(
        &self,
        run: &Identified,
        delivery: &Arc<Delivery>,
        ack_wait: Duration,
        abort: &CancellationToken,
        passed: &Passed,
    ) -> Served {
        let is_limited = passed.is_limited();
        let ledger = Claimer { is_limited, ..self.claimer(&run.record.queue, ack_wait) };
        let (claimed, basis, place) = match ledger.claim(run, delivery).await? {
            Claim::Ours(claimed) => {
                let (record, fence) = (&claimed.value, claimed.revision);
                let Some(place) = self.running.enter(&record.id, record.attempt, fence, delivery) else {
                    // Another delivery of it found the same claim and has begun it.
                    self.running.adopt(&record.id, delivery);
                    return Ok(());
                };
                (claimed, Basis::claimed(fence), place)
            }
            Claim::Unclaimed(begun) => {
                let (record, basis) = (&begun.value, Basis::unclaimed(begun.revision));
                let Some(place) = self.running.enter_unclaimed(&record.id, record.attempt, delivery) else {
                    // It is under way here, and has taken this delivery over.
                    return Ok(());
                };
                (begun, basis, place)
            }
            // Somebody's garbage under the same key has ended this run before it began. This task can be understood and
            // was acknowledged: it is not dropped without a word, it goes among the dead letters with a record of its own.
            Claim::Ended(record)
                if record.reason == Some(Reason::Malformed) && record.queue != run.record.queue =>
            {
                let id = &record.id;
                let why = format!(
                    "run {id} has ended already: a task nobody could understand came under its key in queue {}; submit \
                     this one again under another key",
                    record.queue
                );
                return Box::pin(self.reject(Unreadable { run: None, why }, delivery, &run.record.queue))
                    .await;
            }
            Claim::Ended(record) => {
                Limits::has_ended(passed);
                // Only what is not buried yet: this may be a new submission under the key of a run that failed.
                if record.status == RunState::Failed && !Box::pin(self.streams.is_buried(&record)).await? {
                    Box::pin(self.bury(&record, Some(&run.task), delivery)).await?;
                }
                let _ = delivery.ack().await;
                return Ok(());
            }
            Claim::NotNow(wait) => {
                let _ = Box::pin(self.parker.hand_back_found(delivery, &run.record, wait)).await;
                return Ok(());
            }
            Claim::Superfluous => {
                tracing::info!(run.id = %run.record.id, "`{}` travels in another queue too; this copy is dropped", run.record.id);
                let _ = delivery.ack().await;
                return Ok(());
            }
            Claim::UnderWayHere => return Ok(()),
        };
        let span = self.spans.begin(run.trace, &claimed.value);
        let (claimed, place) = (&claimed, &place);
        self.attempt(UnderWay { run, claimed, basis, place, delivery, ack_wait, abort, passed, span }).await;
        Ok(())
    }

    /// Executes a claimed run and settles it.
    async fn attempt(&self, under_way: UnderWay<'_>) {
        let record = &under_way.claimed.value;
        tracing::info!(run.id = %record.id, attempt = record.attempt, "Attempt {} of `{}` begins", record.attempt, record.id);
        if let Some(ending) = self.ending_of(&under_way).await {
            return self.settle(&under_way, ending).await;
        }
        under_way.span.end(Some("the run was lost"));
        tracing::warn!(
            run.id = %record.id, attempt = record.attempt,
            "Attempt {} of `{}` was stopped: its hold could not be renewed, or it was taken over",
            record.attempt, record.id
        );
    }

    /// Executes, and says how it ended; nothing if the hold was lost, because then it is not ours to say.
    async fn ending_of(&self, under_way: &UnderWay<'_>) -> Option<Ending> {
        let (stop, begun) = (CancellationToken::new(), CancellationToken::new());
        let execution = self.execute(under_way, &stop, &begun);
        tokio::pin!(execution);
        // What is over at once needs no timers, and no room for them.
        if let Poll::Ready(result) = futures::poll!(execution.as_mut()) {
            return Some(ended(result));
        }
        let cut_short = tokio::select! {
            biased;
            result = &mut execution => return Some(ended(result)),
            cut_short = Box::pin(self.cut_short(under_way, &begun)) => cut_short,
        };
        if cut_short.is_none() {
            under_way.place.note_lost();
        }
        // It is told to stop and must have stopped before anybody else may begin.
        stop.cancel();
        let last = tokio::select! {
            result = &mut execution => result.ok(),
            () = self.streams.clock().sleep(STOP_WAIT_MAX) => None,
        };
        // It may have come to a good end just then; only if the hold is lost that no longer counts.
        Some(last.map_or(cut_short?, |done| ended(Ok(done))))
    }

    /// Returns when an execution must stop: how it ends then; nothing if the hold is lost.
    async fn cut_short(&self, under_way: &UnderWay<'_>, begun: &CancellationToken) -> Option<Ending> {
        let clock = self.streams.clock();
        let UnderWay { run, claimed, basis, place, delivery, ack_wait, abort, .. } = under_way;
        let out_of_time = async {
            // Waiting for its turn at the target is not the attempt's own time.
            begun.cancelled().await;
            clock.sleep(run.task.timeout).await;
        };
        tokio::select! {
            biased;
            () = out_of_time => Some(Ending::TimedOut),
            () = time_limits::deadline_passes(clock, &claimed.value, &run.task) => Some(Ending::TimedOut),
            () = abort.cancelled() => Some(Ending::Interrupted { begun: begun.is_cancelled() }),
            request = cancel::asked(&self.streams, place, &claimed.value, *ack_wait) => {
                witness::passed("cancel.heard");
                Some(Ending::Cancelled(request))
            }
            () = basis.claim_late(&self.streams, &claimed.value) => None,
            () = hold::keep(place, clock, delivery.received_at, *ack_wait) => None,
        }
    }

    async fn execute(
        &self,
        under_way: &UnderWay<'_>,
        stop: &CancellationToken,
        begun: &CancellationToken,
    ) -> Result<Done, Ending> {
        let task = &under_way.run.task;
        let record = &under_way.claimed.value;
        let target = match task.target() {
            _ if self.executors.is_in_process(task) => None,
            None => None,
            Some(name) => match self.targets.find(&self.streams, name).await {
                Ok(target) => target,
                Err(error) => return Err(Failure::retryable(ErrorKind::Internal, error.to_string()).into()),
            },
        };
        let upstream = upstream::end_of(&self.streams, record.upstream.as_ref()).await?;
        let attempt = Attempt {
            run: record.id.clone(),
            number: record.attempt,
            fence: under_way.claimed.revision,
            slot: record.slot,
            shard: record.shard.clone(),
            upstream,
            task: Arc::clone(task),
            target,
            traceparent: Some(under_way.span.traceparent()),
            grace: limits::kill_grace(under_way.ack_wait),
            silence: limits::worker_silence(under_way.ack_wait),
            log: RunLog::begin(
                &self.streams,
                self.status.progress(),
                &record.id,
                (record.attempt, under_way.claimed.revision),
                record.worker.clone(),
            ),
            offer: None,
        };
        self.executors.check(&attempt, stop).await?;
        let ready = self.limits.ready(under_way.passed, under_way.run, under_way.ack_wait, stop).await;
        ready.map_err(Ending::NotBegun)?;
        // From here on the target may act. Not a moment earlier: what was stopped before has done nothing. A worker that
        // is stopping sends nothing any more; whoever stops the attempt says what becomes of its run.
        if stop.is_cancelled() || under_way.abort.is_cancelled() {
            stop.cancelled().await;
            return Err(Failure::retryable(ErrorKind::Internal, "it was stopped before it began").into());
        }
        begun.cancel();
        witness::passed("attempt.begins");
        let result = self.executors.execute(&attempt, stop).await;
        witness::passed("attempt.ended");
        Ok(result?)
    }
}

/// An error means "not now": it is logged, and the delivery handed back.
type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;
