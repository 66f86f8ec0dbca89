//! The end of an attempt: recorded, buried if it failed for good, answered. And what is no run at all.

use std::{sync::Arc, time::Duration};

use shared::{
    limits::hold_trusted_for,
    names::QueueName,
    queue::Recording,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    task::Task,
};
use streams::{
    WriteError,
    dead::DeadLetter,
    delivery::{Delivery, NotConfirmed},
    ledger::{Creation, Update},
    names::Origin,
};

use super::{Inner, RECORD_FOR, Served, TRY_AGAIN, UnderWay};
use crate::{
    identify::Unreadable,
    late::Recorded,
    verdict::{Answer, Ending, in_words, rejected, verdict},
};

impl Inner {
    /// Records what came of an attempt, over exactly its claim, and then answers the server.
    pub(super) async fn settle(&self, under_way: &UnderWay<'_>, ending: Ending) {
        let (record, claim) = (&under_way.claimed.value, under_way.claimed.revision);
        let (next, answer) = match verdict(record, &under_way.run.task, ending, self.streams.clock().now()) {
            Ok(verdict) => verdict,
            Err(illegal) => {
                tracing::error!(run.id = %record.id, %illegal, "`{}`: {illegal}", record.id);
                return;
            }
        };
        let recording = self.targets.queues.settings(&next.queue).record;
        if under_way.basis.leaves_no_record(&next, under_way.delivery.origin, recording)
            && self.is_surely_ours(under_way)
        {
            under_way.span.end(None);
            return self.answer(under_way, &next, None, answer).await;
        }
        let next = RunRecord { fence: Some(claim), ..next };
        let settling = if under_way.basis.is_claimed() { &self.settling } else { &self.settling_unclaimed };
        // A worker that is stopping without a server does not wait for others that try in vain.
        let _permit = if let Ok(permit) = settling.try_acquire() {
            Some(permit)
        } else {
            tokio::select! {
                permit = settling.acquire() => permit.ok(),
                () = under_way.abort.cancelled() => None,
            }
        };
        under_way.span.end(next.error.as_ref().map(|error| error.message.as_str()));
        let recorded = self.record(under_way, &next).await;
        if recorded.is_ok() {
            under_way.place.note_recorded();
        }
        let revision = match recorded {
            Ok(Recorded::Stored(revision)) => revision,
            Ok(Recorded::Stale) => {
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
        };
        tracing::info!(
            run.id = %next.id, attempt = next.attempt, status = %next.status, duration_ms = next.duration_ms,
            "Attempt {} of `{}` ended: the run is {}", record.attempt, next.id, in_words(&next)
        );
        self.answer(under_way, &next, revision, answer).await;
    }

    /// Whether nobody else can have the run: an end that is written is refused if somebody has, but an ack is taken from
    /// whoever sends it, and would remove their message.
    fn is_surely_ours(&self, under_way: &UnderWay<'_>) -> bool {
        let UnderWay { delivery, ack_wait, .. } = under_way;
        let held_for = self.streams.clock().elapsed().saturating_sub(delivery.received_at);
        // What is said while the connection is interrupted waits in it, and may be heard after the hold is over.
        held_for < hold_trusted_for(*ack_wait) && !self.streams.was_interrupted_within(held_for)
    }

    /// `revision`: of a record that is written over again.
    async fn answer(
        &self,
        under_way: &UnderWay<'_>,
        next: &RunRecord,
        revision: Option<u64>,
        answer: Answer,
    ) {
        let delivery = under_way.place.delivery().unwrap_or_else(|| Arc::clone(under_way.delivery));
        let answered = match answer {
            Answer::Ack => delivery.ack_unheard().await,
            Answer::HandBack(wait) => {
                Box::pin(self.hand_back(&delivery, next, revision.unwrap_or_default(), wait)).await
            }
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

    async fn hand_back(
        &self,
        delivery: &Delivery,
        next: &RunRecord,
        revision: u64,
        wait: Duration,
    ) -> Result<(), NotConfirmed> {
        // Where successes leave no record an earlier attempt may still acknowledge this message, and be heard late.
        let keeps_failures = self.targets.queues.settings(&next.queue).record == Recording::Failures;
        if keeps_failures && delivery.deliveries > 1 {
            self.parker.hand_back_elsewhere(delivery, next, revision, wait).await
        } else {
            self.parker.hand_back(delivery, next, revision, wait).await
        }
    }

    /// Writes a record over a claim, and goes on trying while the server cannot be reached: the result is kept.
    ///
    /// A worker that is stopping without a server tries once more: the run is then taken over as lost.
    async fn record(&self, under_way: &UnderWay<'_>, next: &RunRecord) -> Result<Recorded, WriteError> {
        let UnderWay { claimed, basis, abort, .. } = under_way;
        let clock = self.streams.clock();
        let give_up_at = clock.elapsed() + RECORD_FOR;
        loop {
            match basis.write(&self.streams, &self.shared_writes, claimed, next).await {
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

    pub(super) async fn bury(
        &self,
        record: &RunRecord,
        task: Option<&Task>,
        delivery: &Delivery,
    ) -> Result<(), WriteError> {
        let (run, subject) = (record.clone(), delivery.subject.clone());
        self.streams
            .bury(match task {
                Some(task) => DeadLetter::of(run, task.clone(), subject),
                None => DeadLetter::unreadable(run, &delivery.payload, subject),
            })
            .await
    }

    /// A message that is no run: a record says so, its dead letter keeps it, and the queue goes on.
    pub(super) async fn reject(
        &self,
        unreadable: Unreadable,
        delivery: &Delivery,
        queue: &QueueName,
    ) -> Served {
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
