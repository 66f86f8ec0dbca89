//! Runs whose target has taken them on and answers later. They belong to no worker: their task goes back to its queue, comes
//! out every [`shared::limits::ASYNC_LOOK`], and whoever gets it looks whether an answer was left, or its time is over.
//!
//! Promise: an answer that the stream has counts, whatever workers have died, been drained or begun since. A run that waits holds
//! its subject in the queue (so overlap holds) and one of the queue's `max_in_flight`, and no place of a worker.
//! Failure: a hint gets lost, or its worker dies: the next look finds the answer. An answer that comes before the record
//! says that it is awaited is found by the look that follows at once.

use chrono::TimeDelta;
use futures::StreamExt;
use serde_json::Value;
use shared::{
    Timestamp,
    callback::{Awaited, Callback, CallbackStatus},
    human_duration::HumanDuration,
    limits::CALLBACKS_AT_ONCE_MAX,
    run_record::{ErrorKind, RunRecord},
    task::Task,
};
use streams::{
    ReadError, Streams,
    bucket::Stored,
    callbacks::{Hint, Left},
    dead::DeadLetter,
    ledger::Update,
    witness,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    claim::{Claim, ClaimError},
    executors::{Failure, callback_failure},
    verdict::{Answer, Ending, in_words, verdict},
};

/// How often it is looked for an answer that was heard, and how long after the first look; twice as long after each further one.
const KEPT_LOOKS: u32 = 8;
const KEPT_WAIT: std::time::Duration = std::time::Duration::from_millis(5);
/// Before a subscription that ended is made anew.
const LISTEN_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Looks what was left for a run that waits, and ends it if that, or the time, says so. Nothing if it has changed meanwhile.
pub(crate) async fn look(
    streams: &Streams,
    found: &Stored<RunRecord>,
    task: &Task,
    now: Timestamp,
) -> Result<Option<Claim>, ClaimError> {
    let Some(awaited) = found.value.awaits() else { return Ok(None) };
    let ending = match streams.left_for(&found.value.id, awaited).await? {
        Left::Answer(answer) => ending_of(answer, now),
        Left::Nothing(heard_at) => match awaited.look_again_in(heard_at, now) {
            Some(wait) => return Ok(Some(Claim::NotNow(wait))),
            None => Ending::Failed(overdue(awaited, now)),
        },
    };
    let settled = settle(streams, found, task, ending, now).await?;
    Ok(settled.map(|(record, answer)| match answer {
        Answer::HandBack(wait) => Claim::NotNow(wait),
        Answer::Ack | Answer::Bury => Claim::Ended(Box::new(record)),
    }))
}

/// Records how a run that waited ended, over exactly what was found; nothing if somebody else was faster.
async fn settle(
    streams: &Streams,
    found: &Stored<RunRecord>,
    task: &Task,
    ending: Ending,
    now: Timestamp,
) -> Result<Option<(RunRecord, Answer)>, ClaimError> {
    let Ok((next, answer)) = verdict(&found.value, task, ending, now) else { return Ok(None) };
    match streams.ledger().update(&next, found.revision).await? {
        Update::Stored(_) => {
            let is_over = next.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Timeout);
            let what = if is_over { "is out of time" } else { "has answered" };
            tracing::info!(
                run.id = %next.id, attempt = next.attempt, status = %next.status,
                "The target of `{}` {what}: the run is {}", next.id, in_words(&next)
            );
            Ok(Some((next, answer)))
        }
        Update::Stale => Ok(None),
    }
}

/// What an answer means. Pure.
fn ending_of(answer: Result<Callback, String>, now: Timestamp) -> Ending {
    match answer {
        Ok(callback) => match callback.status() {
            CallbackStatus::Failed => {
                Ending::Failed(callback_failure(callback.error.unwrap_or_default(), now))
            }
            CallbackStatus::Success | CallbackStatus::Progress => {
                Ending::Output(callback.output.unwrap_or(Value::Null))
            }
        },
        Err(words) => {
            let words = format!("the target left an answer that cannot be understood: {words}");
            Ending::Failed(Failure::retryable(ErrorKind::Target, words))
        }
    }
}

fn overdue(awaited: &Awaited, now: Timestamp) -> Failure {
    let words = match awaited.heartbeat {
        Some(silence) if now < awaited.deadline => format!(
            "the target took the run on and was then silent for more than {silence}, its `async.heartbeat`"
        ),
        _ => {
            let waited = (awaited.deadline - awaited.accepted_at).max(TimeDelta::zero());
            // To the nearest second: the target took it on a moment after its deadline was set.
            let seconds = (waited.num_milliseconds().unsigned_abs() + 500) / 1_000;
            let waited = HumanDuration(std::time::Duration::from_secs(seconds));
            format!(
                "the target took the run on and did not say within about {waited} how it ended (`async.deadline`)"
            )
        }
    };
    Failure::retryable(ErrorKind::Timeout, words)
}

/// Takes in what is heard of answers, until it is told to stop.
pub(crate) async fn follow(streams: Streams, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = listen(&streams) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = streams.clock().sleep(LISTEN_AGAIN) => {}
        }
    }
}

async fn listen(streams: &Streams) {
    let mut hints = match streams.hints().await {
        Ok(hints) => hints,
        Err(error) => {
            tracing::warn!(%error, "Answers of targets are not heard just now, only looked for: {error}");
            return;
        }
    };
    let mut working = JoinSet::new();
    while let Some(hint) = hints.next().await {
        if working.len() >= CALLBACKS_AT_ONCE_MAX {
            working.join_next().await;
        }
        let streams = streams.clone();
        working.spawn(async move {
            if let Err(error) = take_in(&streams, &hint).await {
                tracing::warn!(run.id = %hint.run, %error, "An answer for `{}` is left to the next look: {error}", hint.run);
            }
        });
        while working.try_join_next().is_some() {}
    }
}

/// Ends a run whose answer was heard, if it waits for this one, and takes its task out of the queue.
async fn take_in(streams: &Streams, hint: &Hint) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(found) = streams.ledger().get(&hint.run).await? else { return Ok(()) };
    if !found.value.awaits().is_some_and(|awaited| awaited.is_answered_under(&hint.token)) {
        // Too early, too late, or for an attempt that is over. What is too early is found in the stream.
        return Ok(());
    }
    if Callback::read(&hint.payload).is_ok_and(|callback| callback.status() == CallbackStatus::Progress) {
        return Ok(());
    }
    witness::passed("callback.heard");
    let Some(kept) = kept_answer(streams, &found.value).await? else { return Ok(()) };
    let Some(queued) = streams.queued_task(&hint.run).await? else { return Ok(()) };
    let now = streams.clock().now();
    let Some((record, answer)) = settle(streams, &found, &queued.task, ending_of(kept, now), now).await?
    else {
        return Ok(());
    };
    match answer {
        // It comes out of the queue at its next look, and waits for its time then.
        Answer::HandBack(_) => return Ok(()),
        Answer::Bury => {
            streams.bury(DeadLetter::of(record, queued.task, queued.subject)).await?;
        }
        Answer::Ack => {}
    }
    Ok(streams.remove_finished(queued.sequence).await?)
}

/// The answer that counts: the first that the stream has. What was heard may be a second one, or be refused by the stream. It is
/// heard when it is about to be stored; nothing if that takes long, and then the next look finds it.
async fn kept_answer(
    streams: &Streams,
    record: &RunRecord,
) -> Result<Option<Result<Callback, String>>, ReadError> {
    let Some(awaited) = record.awaits() else { return Ok(None) };
    let mut wait = KEPT_WAIT;
    for _ in 0..KEPT_LOOKS {
        if let Left::Answer(answer) = streams.left_for(&record.id, awaited).await? {
            return Ok(Some(answer));
        }
        streams.clock().sleep(wait).await;
        wait *= 2;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ending(text: &str) -> Ending {
        ending_of(Callback::read(text.as_bytes()), "2026-11-24T02:00:00Z".parse().expect("an instant"))
    }

    #[test]
    fn an_answer_is_an_output_or_an_error_that_says_what_another_attempt_would_do() {
        assert_eq!(ending(""), Ending::Output(Value::Null));
        assert_eq!(ending(r#"{"output":{"rows":3}}"#), Ending::Output(json!({"rows": 3})));
        for (text, permanent, wait, words) in [
            (r#"{"error":{"message":"no\u001b[31m"}}"#, false, None, "no[31m"),
            (r#"{"error":{"message":"no","retryable":false,"retry_after":7}}"#, true, None, "no"),
            (r#"{"error":{"message":"no","retry_after":7}}"#, false, Some(7), "no"),
            (
                r#"{"error":{"retry_after":"Tue, 24 Nov 2026 02:01:00 GMT"}}"#,
                false,
                Some(60),
                "without words",
            ),
            (r#"{"status":"failed"}"#, false, None, "without words"),
            ("garbage", false, None, "cannot be understood"),
        ] {
            let Ending::Failed(failure) = ending(text) else { panic!("{text}") };
            assert_eq!(failure.permanent, permanent, "{text}");
            assert_eq!(failure.retry_after.map(|wait| wait.as_secs()), wait, "{text}");
            assert!(failure.error.message.contains(words), "{text}: {}", failure.error.message);
        }
    }
}
