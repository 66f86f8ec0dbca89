//! Where targets leave their answers over HTTP, for those that do not speak NATS. Whichever worker takes one in only keeps it: the
//! stream has it then, and the run ends as if it had come over NATS.
//!
//! Only who knows an attempt's token is answered with more than 404. There is no other lock on this door, so it is closed unless a
//! worker is told to open it. A 404 takes its time, whatever the run is at, and tells nothing of it: until the target's 202 is
//! recorded, its own early answer looks like a guess. What waits so has a bound of its own, so that whoever guesses shuts the door to
//! nobody whose token is awaited.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    routing::post,
};
use serde_json::{Value, json};
use shared::{
    callback::{Callback, CallbackToken},
    limits::{
        CALLBACK_BYTES_MAX, CALLBACK_EARLY_WAIT, CALLBACKS_AT_ONCE_MAX, CALLBACKS_EARLY_MAX,
        CALLBACKS_EARLY_PER_RUN_MAX,
    },
    run::RunId,
    run_record::RunRecord,
};
use streams::Streams;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit},
};
use tokio_util::sync::CancellationToken;

use crate::{WorkerError, connections};

/// Before the first look at a record that did not await the answer; twice as long before each further one, up to the second.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(800);
/// How long an answer waits for its first look.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Looks of those that wait, at once.
const EARLY_LOOKS_AT_ONCE_MAX: usize = 4;

#[derive(Clone)]
struct Door {
    streams: Streams,
    places: Arc<Semaphore>,
    early: Early,
    early_looks: Arc<Semaphore>,
}

type Answer = (StatusCode, Json<Value>);

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address).await.map_err(|source| WorkerError::Listen { address, source })
}

/// Takes answers in until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, streams: Streams, stop: CancellationToken) {
    let clock = streams.clock().clone();
    let door = Door {
        streams,
        places: Arc::new(Semaphore::new(CALLBACKS_AT_ONCE_MAX)),
        early: Early::default(),
        early_looks: Arc::new(Semaphore::new(EARLY_LOOKS_AT_ONCE_MAX)),
    };
    let app = Router::new()
        .route("/callbacks/{name}/{key}/{token}", post(take_in))
        .layer(DefaultBodyLimit::max(CALLBACK_BYTES_MAX))
        .with_state(door);
    tokio::select! {
        () = stop.cancelled() => {}
        () = connections::serve(listener, app, clock) => {}
    }
}

async fn take_in(
    State(door): State<Door>,
    Path((name, key, token)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    let (Ok(run), Ok(_)) = (format!("{name}.{key}").parse::<RunId>(), token.parse::<CallbackToken>()) else {
        return unknown();
    };
    door.take_in(&run, &token, body).await.unwrap_or_else(|refusal| refusal)
}

impl Door {
    /// Takes an answer in, or says why not.
    async fn take_in(&self, run: &RunId, token: &str, body: Bytes) -> Result<Answer, Answer> {
        let at_once = {
            let _place = self.place().await?;
            self.awaiting(run, token).await?
        };
        let record = match at_once {
            Some(record) => record,
            None => self.awaiting_soon(run, token).await?.ok_or_else(unknown)?,
        };
        if record.awaits().is_none() {
            let words = format!("the attempt is over and the run is {}; nothing was changed", record.status);
            return Err(refused(StatusCode::CONFLICT, &words));
        }
        let status = match Callback::read(&body) {
            Ok(callback) => callback.status(),
            Err(words) => return Err(refused(StatusCode::BAD_REQUEST, &words)),
        };
        let _place = self.place().await?;
        match self.streams.leave(run, token, status, body).await {
            Ok(_) => Ok((StatusCode::ACCEPTED, Json(json!({ "run": run, "status": status })))),
            Err(error) => {
                tracing::warn!(run.id = %run, %error, "An answer for `{run}` could not be kept: {error}");
                Err(not_now("it could not be kept just now; leave it again in a moment"))
            }
        }
    }

    /// A place to look or to write: each is held for a moment only, so in a crowd it is worth to wait for one.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Answer> {
        tokio::select! {
            place = self.places.acquire() => place.map_err(|_| busy()),
            () = self.streams.clock().sleep(PLACE_WAIT_MAX) => Err(busy()),
        }
    }

    /// The record of a run of which this is a token; nothing if it is not, or not any more, or not yet.
    async fn awaiting(&self, run: &RunId, token: &str) -> Result<Option<RunRecord>, Answer> {
        let found = self.streams.ledger().get(run).await.map_err(|error| {
            tracing::warn!(run.id = %run, %error, "The record of `{run}` cannot be read: {error}");
            not_now("the run cannot be looked up just now; leave it again in a moment")
        })?;
        let is_awaited = |record: &RunRecord| {
            record.callback.as_ref().is_some_and(|awaited| awaited.is_answered_under(token))
        };
        Ok(found.map(|found| found.value).filter(is_awaited))
    }

    /// The same of an answer that is faster than the word that it is awaited: an attempt that was begun without a claim has no
    /// record before that, and another's says no more than RUNNING.
    async fn awaiting_soon(&self, run: &RunId, token: &str) -> Result<Option<RunRecord>, Answer> {
        let _early = self.early.enter(run).ok_or_else(busy)?;
        let clock = self.streams.clock();
        let give_up_at = clock.elapsed() + CALLBACK_EARLY_WAIT;
        let mut wait = LOOK_AGAIN;
        while clock.elapsed() < give_up_at {
            clock.sleep(wait).await;
            wait = (2 * wait).min(LOOK_AGAIN_MAX);
            let _look = self.early_looks.acquire().await;
            if let Some(record) = self.awaiting(run, token).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

/// Answers that wait because no record awaits them, by their runs. Cheap to clone.
#[derive(Clone, Default)]
struct Early {
    waiting: Arc<Mutex<HashMap<RunId, usize>>>,
}

/// One of them; it is over when this is dropped, also when its caller goes away.
struct EarlyPlace {
    early: Early,
    run: RunId,
}

impl Early {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to wait; none if too many wait already.
    fn enter(&self, run: &RunId) -> Option<EarlyPlace> {
        let mut waiting = self.lock();
        let of_it = waiting.get(run).copied().unwrap_or_default();
        if of_it >= CALLBACKS_EARLY_PER_RUN_MAX || waiting.values().sum::<usize>() >= CALLBACKS_EARLY_MAX {
            return None;
        }
        waiting.insert(run.clone(), of_it + 1);
        Some(EarlyPlace { early: self.clone(), run: run.clone() })
    }
}

impl Drop for EarlyPlace {
    fn drop(&mut self) {
        let mut waiting = self.early.lock();
        match waiting.get_mut(&self.run) {
            Some(of_it) if *of_it > 1 => *of_it -= 1,
            _ => {
                waiting.remove(&self.run);
            }
        }
    }
}

fn refused(status: StatusCode, words: &str) -> Answer {
    (status, Json(json!({ "error": words })))
}

fn unknown() -> Answer {
    refused(StatusCode::NOT_FOUND, "no attempt waits for an answer here")
}

fn not_now(words: &str) -> Answer {
    refused(StatusCode::SERVICE_UNAVAILABLE, words)
}

fn busy() -> Answer {
    not_now("too many answers at once; leave it again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: usize) -> RunId {
        format!("guessed.{number}").parse().expect("a run")
    }

    #[test]
    fn whoever_guesses_at_one_run_keeps_nobody_from_waiting_for_another_and_all_of_it_is_bounded() {
        let early = Early::default();
        let mut waiting: Vec<EarlyPlace> = (0..100).filter_map(|_| early.enter(&run(0))).collect();
        assert_eq!(waiting.len(), CALLBACKS_EARLY_PER_RUN_MAX);
        waiting.extend((1..1_000).filter_map(|number| early.enter(&run(number))));
        assert_eq!(waiting.len(), CALLBACKS_EARLY_MAX);
        waiting.remove(0);
        assert!(early.enter(&run(0)).is_some(), "a place that was given up is free");
        drop(waiting);
        assert!(early.lock().is_empty(), "nothing is kept of those that are gone");
    }
}
