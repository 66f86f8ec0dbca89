//! The way of one delivery: identify, claim, execute, record, answer.
//!
//! Record first, answer second. A crash between the two delivers the run again, which finds it ended and is
//! acknowledged; the other order would lose the result for good.

use std::{sync::Arc, time::Duration};

use shared::{
    names::QueueName,
    run::RunId,
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState,
    task::Task,
};
use streams::{
    Streams, WriteError,
    bucket::Stored,
    dead::DeadLetter,
    delivery::Delivery,
    ledger::{Creation, Update},
    names::Origin,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    cancel,
    claim::{Claim, Claimer},
    executors::{Attempt, Done, Executors, Failure},
    hold,
    identify::{Identified, Parts, Unreadable, identify},
    member::Status,
    running::{Place, Running},
    spans::AttemptSpan,
    targets::Targets,
    upstream,
    verdict::{Answer, Ending, rejected, verdict},
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
/// Bytes of an unreadable message kept in its dead letter.
const RAW_BYTES_MAX: usize = 64 * 1024;

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
    /// Places for those that record their end.
    settling: Semaphore,
}

impl Server {
    pub(crate) fn new(
        streams: Streams,
        executors: Executors,
        targets: Targets,
        running: Running,
        status: Arc<Status>,
    ) -> Self {
        let settling = Semaphore::new(SETTLED_AT_ONCE_MAX);
        Self { inner: Arc::new(Inner { streams, executors, targets, running, status, settling }) }
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
        let parts = Parts {
            origin: delivery.origin,
            tokens: (&delivery.tokens.0, &delivery.tokens.1),
            run_header: delivery.run_header.as_deref(),
            revision: delivery.revision,
            traceparent: delivery.traceparent.as_deref(),
            payload: &delivery.payload,
        };
        let result = match identify(&parts, &queue, inner.streams.clock().now()) {
            Ok(run) => inner.work(&run, &delivery, ack_wait, &abort).await,
            Err(unreadable) => Box::pin(inner.reject(unreadable, &delivery, &queue)).await,
        };
        if let Err(error) = result {
            tracing::warn!(subject = delivery.subject, %error, "`{}` goes back to its queue: {error}", delivery.subject);
            let _ = delivery.hand_back(TRY_AGAIN).await;
        }
    }
}

/// An attempt that is under way: whose it is, and what it answers to.
struct UnderWay<'a> {
    run: &'a Identified,
    /// The record as it was claimed; its revision is the fence.
    claimed: &'a Stored<RunRecord>,
    place: &'a Place,
    delivery: &'a Arc<Delivery>,
    ack_wait: Duration,
    abort: &'a CancellationToken,
    span: AttemptSpan,
}

fn ended(result: Result<Done, Failure>) -> Ending {
    match result {
        Ok(Done::Output(output)) => Ending::Output(output),
        Ok(Done::TakenOn(awaited)) => Ending::TakenOn(awaited),
        Err(failure) => Ending::Failed(failure),
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
        let ledger =
            Claimer { streams: &self.streams, running: &self.running, status: &self.status, ack_wait };
        match ledger.claim(run, delivery).await? {
            Claim::Ours(claimed) => {
                let (record, fence) = (&claimed.value, claimed.revision);
                let now = self.streams.clock().elapsed();
                let Some(place) = self.running.enter(&record.id, record.attempt, fence, delivery, now) else {
                    // Another delivery of it found the same claim and has begun it.
                    self.running.adopt(&record.id, delivery);
                    return Ok(());
                };
                let span = AttemptSpan::begin(run.trace, &claimed.value);
                let claimed = &claimed;
                self.attempt(UnderWay { run, claimed, place: &place, delivery, ack_wait, abort, span }).await;
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
                Box::pin(self.reject(Unreadable { run: None, why }, delivery, &run.record.queue)).await?;
            }
            Claim::Ended(record) => {
                // Only what is not buried yet: this may be a new submission under the key of a run that failed.
                if record.status == RunState::Failed && !Box::pin(self.streams.is_buried(&record)).await? {
                    Box::pin(self.bury(&record, Some(&run.task), delivery)).await?;
                }
                let _ = delivery.ack().await;
            }
            Claim::NotNow(wait) => {
                let _ = delivery.hand_back(wait).await;
            }
            Claim::Superfluous => {
                tracing::info!(run.id = %run.record.id, "`{}` travels in another queue too; this copy is dropped", run.record.id);
                let _ = delivery.ack().await;
            }
            Claim::UnderWayHere => {}
        }
        Ok(())
    }

    /// Executes a claimed run and settles it.
    async fn attempt(&self, under_way: UnderWay<'_>) {
        let record = &under_way.claimed.value;
        tracing::info!(run.id = %record.id, attempt = record.attempt, "Attempt {} of `{}` begins", record.attempt, record.id);
        if let Some(ending) = self.ending_of(&under_way).await {
            return self.settle(&under_way, ending).await;
        }
        under_way.place.over(false, self.streams.clock().elapsed());
        under_way.span.end(Some("the hold was lost"));
        tracing::warn!(
            run.id = %record.id, attempt = record.attempt,
            "Attempt {} of `{}` was stopped: its hold could not be renewed; another worker takes it over",
            record.attempt, record.id
        );
    }

    /// Executes, and says how it ended; nothing if the hold was lost, because then it is not ours to say.
    async fn ending_of(&self, under_way: &UnderWay<'_>) -> Option<Ending> {
        let clock = self.streams.clock();
        let (stop, begun) = (CancellationToken::new(), CancellationToken::new());
        let execution = self.execute(under_way, &stop, &begun);
        tokio::pin!(execution);
        let out_of_time = async {
            // Waiting for a place at the target is not the attempt's own time.
            begun.cancelled().await;
            clock.sleep(under_way.run.task.timeout).await;
        };
        let cut_short = tokio::select! {
            result = &mut execution => return Some(ended(result)),
            () = out_of_time => Some(Ending::TimedOut),
            () = under_way.abort.cancelled() => Some(Ending::Interrupted { begun: begun.is_cancelled() }),
            request = cancel::asked(&self.streams, under_way.place, &under_way.claimed.value, under_way.ack_wait) => {
                Some(Ending::Cancelled(request))
            }
            () = hold::keep(under_way.place, clock, under_way.delivery.received_at, under_way.ack_wait) => None,
        };
        // It is told to stop and must have stopped before anybody else may begin.
        stop.cancel();
        let last = tokio::select! {
            result = &mut execution => result.ok(),
            () = clock.sleep(STOP_WAIT_MAX) => None,
        };
        // It may have come to a good end just then; only if the hold is lost that no longer counts.
        Some(last.map_or(cut_short?, |done| ended(Ok(done))))
    }

    async fn execute(
        &self,
        under_way: &UnderWay<'_>,
        stop: &CancellationToken,
        begun: &CancellationToken,
    ) -> Result<Done, Failure> {
        let task = &under_way.run.task;
        let record = &under_way.claimed.value;
        let (target, places) = match task.target() {
            None => (None, None),
            Some(name) => match self.targets.find(&self.streams, name).await {
                Ok(Some((target, places))) => (Some(target), places),
                Ok(None) => (None, None),
                Err(error) => return Err(Failure::retryable(ErrorKind::Internal, error.to_string())),
            },
        };
        let _at_target = match &places {
            Some(places) => tokio::select! {
                permit = places.acquire() => permit.ok(),
                () = stop.cancelled() => return Err(Failure::retryable(ErrorKind::Timeout, "the target's places were taken")),
            },
            None => None,
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
            offer: None,
        };
        self.executors.check(&attempt, stop).await?;
        // From here on the target may act. Not a moment earlier: what was stopped before has done nothing. A worker that
        // is stopping sends nothing any more; whoever stops the attempt says what becomes of its run.
        if stop.is_cancelled() || under_way.abort.is_cancelled() {
            stop.cancelled().await;
            return Err(Failure::retryable(ErrorKind::Internal, "it was stopped before it began"));
        }
        begun.cancel();
        self.executors.execute(&attempt, stop).await
    }

    /// Records what came of an attempt, over exactly its claim, and then answers the server.
    async fn settle(&self, under_way: &UnderWay<'_>, ending: Ending) {
        let (record, claim) = (&under_way.claimed.value, under_way.claimed.revision);
        let (next, answer) = match verdict(record, &under_way.run.task, ending, self.streams.clock().now()) {
            Ok(verdict) => verdict,
            Err(illegal) => {
                tracing::error!(run.id = %record.id, %illegal, "`{}`: {illegal}", record.id);
                return;
            }
        };
        let next = RunRecord { fence: Some(claim), ..next };
        // A worker that is stopping without a server does not wait for others that try in vain.
        let _permit = tokio::select! {
            permit = self.settling.acquire() => permit.ok(),
            () = under_way.abort.cancelled() => None,
        };
        under_way.span.end(next.error.as_ref().map(|error| error.message.as_str()));
        let recorded = self.record(&next, claim, under_way.abort).await;
        under_way.place.over(recorded.is_ok(), self.streams.clock().elapsed());
        match recorded {
            Ok(Update::Stored(_)) => {}
            Ok(Update::Stale) => {
                // Somebody took the run over: ours is an orphan. No ack either: it would remove their message.
                tracing::warn!(
                    run.id = %record.id, attempt = record.attempt, status = %next.status,
                    "Attempt {} of `{}` ended {} but the run was taken over: its result is refused",
                    record.attempt, record.id, next.status
                );
                return;
            }
            Err(error) => {
                tracing::error!(run.id = %record.id, %error, "The end of `{}` could not be recorded: {error}", record.id);
                return;
            }
        }
        tracing::info!(
            run.id = %next.id, attempt = next.attempt, status = %next.status, duration_ms = next.duration_ms,
            "Attempt {} of `{}` ended: the run is {}", record.attempt, next.id, next.status
        );
        self.answer(under_way, &next, answer).await;
    }

    async fn answer(&self, under_way: &UnderWay<'_>, next: &RunRecord, answer: Answer) {
        let delivery = under_way.place.delivery().unwrap_or_else(|| Arc::clone(under_way.delivery));
        let answered = match answer {
            Answer::Ack => delivery.ack().await,
            Answer::HandBack(wait) => delivery.hand_back(wait).await,
            Answer::Bury => match Box::pin(self.bury(next, Some(&under_way.run.task), &delivery)).await {
                Ok(()) => delivery.terminate(next.status.as_str()).await,
                // Left unanswered, it is delivered again, found failed, and buried then.
                Err(error) => {
                    tracing::warn!(run.id = %next.id, %error, "`{}` could not be buried yet: {error}", next.id);
                    return;
                }
            },
        };
        if answered.is_err() {
            tracing::debug!(run.id = %next.id, "The answer for `{}` was not confirmed; if lost, it is found ended", next.id);
        }
    }

    /// Writes a record over a claim, and goes on trying while the server cannot be reached: the result is kept.
    ///
    /// A worker that is stopping without a server tries once more: the run is then taken over as lost.
    async fn record(
        &self,
        next: &RunRecord,
        claim: u64,
        abort: &CancellationToken,
    ) -> Result<Update, WriteError> {
        let clock = self.streams.clock();
        let give_up_at = clock.elapsed() + RECORD_FOR;
        loop {
            match self.streams.ledger().update(next, claim).await {
                Err(error)
                    if error.is_temporary() && clock.elapsed() < give_up_at && !abort.is_cancelled() =>
                {
                    tracing::warn!(run.id = %next.id, %error, "The end of `{}` is not recorded yet: {error}", next.id);
                    clock.sleep(TRY_AGAIN).await;
                }
                result => return result,
            }
        }
    }

    async fn bury(
        &self,
        record: &RunRecord,
        task: Option<&Task>,
        delivery: &Delivery,
    ) -> Result<(), WriteError> {
        let raw = task.is_none().then(|| {
            let kept = &delivery.payload[..delivery.payload.len().min(RAW_BYTES_MAX)];
            String::from_utf8_lossy(kept).into_owned()
        });
        let letter =
            DeadLetter { run: record.clone(), task: task.cloned(), raw, subject: delivery.subject.clone() };
        self.streams.bury(&letter).await
    }

    /// A message that is no run: a record says so, its dead letter keeps it, and the queue goes on.
    async fn reject(&self, unreadable: Unreadable, delivery: &Delivery, queue: &QueueName) -> Served {
        tracing::warn!(subject = delivery.subject, "`{}` is no task: {}", delivery.subject, unreadable.why);
        let fallback: RunId = format!("rejected.seq-{}", delivery.sequence).parse()?;
        let mut id = unreadable.run.unwrap_or_else(|| fallback.clone());
        loop {
            let record = RunRecord::pending(id.clone(), queue.clone(), self.streams.clock().now());
            let record = rejected(&record, &unreadable.why)?;
            let buried = match self.streams.ledger().create(&record).await? {
                Creation::Created(_) => record,
                // Ours, from a delivery whose answer was lost.
                Creation::Exists(found) if found.value.reason == Some(Reason::Malformed) => found.value,
                // A planner's own record, whose task cannot be read: it must not wait for ever.
                Creation::Exists(found)
                    if delivery.origin == Origin::Due && found.value.status == RunState::Pending =>
                {
                    let failed = rejected(&found.value, &unreadable.why)?;
                    match self.streams.ledger().update(&failed, found.revision).await? {
                        Update::Stored(_) => failed,
                        Update::Stale => continue,
                    }
                }
                // A run of that name was there: its record stays, and this message gets a name of its own.
                Creation::Exists(_) if id != fallback => {
                    id = fallback.clone();
                    continue;
                }
                Creation::Exists(found) => found.value,
            };
            self.bury(&buried, None, delivery).await?;
            let _ = delivery.terminate("malformed").await;
            return Ok(());
        }
    }
}

/// An error means "not now": it is logged, and the delivery handed back.
type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;
