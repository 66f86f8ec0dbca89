//! Writes to the ledger that share their answer: what is written while an answer is awaited goes together with the next.
//!
//! A worker under load writes thousands of ends a second, and an answer to each costs the server and us about as much as the
//! write. A batch (nats-server 2.14, "fast ingest", ADR-50) has one answer for all of them, and a word for each that was
//! refused; it promises nothing more, so one of them may be stored and the next refused. Failure: whatever is not confirmed is
//! unknown, and its writer finds out by itself.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Streams, WriteError,
    headers::{self, Headers},
    witness,
    write::{ApiError, classify},
};

/// Writes that share one answer, at most.
const WRITES_AT_ONCE_MAX: usize = 256;
/// Writes that wait for the next batch; more wait to be taken in.
const WAITING_MAX: usize = 1_024;
/// So few at once are quicker with an answer each: a batch is begun and ended by messages of its own.
const ALONE_MAX: usize = 8;
/// Between two words of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What is to be written: over exactly this revision, 0 for nothing.
pub(crate) struct Write {
    pub(crate) subject: String,
    pub(crate) value: Bytes,
    pub(crate) over: u64,
}

/// What came of a write.
pub(crate) enum Shared {
    /// It is stored; under which revision is not told.
    Stored,
    /// It was refused, or nobody knows.
    Failed(WriteError),
    /// It was not sent: few are written just now, or the server takes no batches.
    Alone(Alone),
}

/// One of few writes that have answers of their own; while it lives it counts as one of them.
pub(crate) struct Alone(Arc<Load>);

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.alone.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Load {
    /// Writes with an answer of their own that are under way.
    alone: AtomicUsize,
    /// Whether the stream takes no batches.
    takes_none: AtomicBool,
}

struct Ask {
    write: Write,
    answer: oneshot::Sender<Result<(), WriteError>>,
}

/// Writes to the ledger that share their answers. Cheap to clone; ends with its last clone.
#[derive(Clone)]
pub struct SharedWrites {
    asks: mpsc::Sender<Ask>,
    load: Arc<Load>,
}

impl Streams {
    /// Writes to the ledger that share their answers.
    pub fn shared_writes(&self) -> SharedWrites {
        let (asks, taken) = mpsc::channel(WAITING_MAX);
        let load = Arc::new(Load::default());
        let writer = Writer { streams: self.clone(), load: Arc::clone(&load), answers: None, batches: 0 };
        // If it came to an end, each write would have an answer of its own again.
        tokio::spawn(writer.run(taken));
        SharedWrites { asks, load }
    }
}

impl SharedWrites {
    pub(crate) async fn write(&self, write: Write) -> Shared {
        let before = self.load.alone.fetch_add(1, Ordering::Relaxed);
        let alone = Alone(Arc::clone(&self.load));
        if before < ALONE_MAX || self.load.takes_none.load(Ordering::Relaxed) {
            return Shared::Alone(alone);
        }
        let (answer, answered) = oneshot::channel();
        let what = write.subject.clone();
        if self.asks.send(Ask { write, answer }).await.is_err() {
            return Shared::Alone(alone);
        }
        drop(alone);
        match answered.await {
            Ok(Ok(())) => Shared::Stored,
            Ok(Err(error)) => Shared::Failed(error),
            Err(_) => Shared::Failed(WriteError::Unknown { what }),
        }
    }
}

struct Writer {
    streams: Streams,
    load: Arc<Load>,
    /// An inbox of our own, under which each batch has a number.
    answers: Option<(String, Subscriber)>,
    batches: u64,
}

/// What the server says while a batch is under way, and at its end.
#[derive(Deserialize)]
struct Word {
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Which write it is about, from 1.
    seq: Option<usize>,
    error: Option<ApiError>,
    /// In the last word: the batch.
    batch: Option<String>,
}

/// Why a batch is not confirmed.
enum Broken {
    /// The stream takes none: nothing of it is stored.
    NotTaken,
    /// Some of it may be stored.
    Unknown,
}

/// `JetStream`'s code for a stream without `allow_batched` (ADR-50).
const NO_BATCHES: u64 = 10_205;

/// The operations of a batch's messages, as their reply subjects spell them (ADR-50).
mod operation {
    pub(super) const BEGIN: u8 = 0;
    pub(super) const ADD: u8 = 1;
    /// Ends it; the message itself is not stored. One that is stored might be refused, and the end with it.
    pub(super) const END: u8 = 3;
}

impl Writer {
    async fn run(mut self, mut taken: mpsc::Receiver<Ask>) {
        let mut asks = Vec::with_capacity(WRITES_AT_ONCE_MAX);
        while taken.recv_many(&mut asks, WRITES_AT_ONCE_MAX).await > 0 {
            let mut outcome = self.write(&asks).await;
            if outcome.is_err() {
                // What comes late belongs to nobody.
                self.answers = None;
            }
            if matches!(outcome, Err(Broken::NotTaken)) {
                tracing::warn!(
                    "The stream of the ledger takes no batches (`allow_batched`): each end is written with an answer of its own"
                );
                self.load.takes_none.store(true, Ordering::Relaxed);
            }
            for (number, Ask { write, answer }) in (1..).zip(asks.drain(..)) {
                let written = match &mut outcome {
                    Ok(refused) => match refused.remove(&number) {
                        None => {
                            let names = self.streams.names();
                            witness::saw(|| witness::point_of(names, &write.subject, write.over == 0));
                            Ok(())
                        }
                        Some(error) => Err(classify(write.subject, write.value.len(), error)),
                    },
                    Err(_) => Err(WriteError::Unknown { what: write.subject }),
                };
                let _ = answer.send(written);
            }
        }
    }

    /// Writes all of them. Those that were refused, by their number from 1.
    async fn write(&mut self, asks: &[Ask]) -> Result<HashMap<usize, ApiError>, Broken> {
        let (inbox, mut answers) = match self.answers.take() {
            Some(answers) => answers,
            None => self.listen().await?,
        };
        self.batches += 1;
        // Known to the whole stream, so it must be nobody else's.
        let batch = format!("{}-{}", inbox.rsplit('.').next().unwrap_or_default(), self.batches);
        self.send(asks, &format!("{inbox}.{batch}")).await?;
        let prefix = format!("{inbox}.{batch}.");
        let mut refused = HashMap::new();
        loop {
            let message = tokio::select! {
                biased;
                message = answers.next() => message.ok_or(Broken::Unknown)?,
                () = self.streams.clock().sleep(ANSWER_WAIT) => return Err(Broken::Unknown),
            };
            if !message.subject.starts_with(&prefix) {
                continue;
            }
            let word: Word = serde_json::from_slice(&message.payload).map_err(|_| Broken::Unknown)?;
            match word {
                Word { kind: Some(kind), .. } if kind == "ack" => {}
                Word { kind: Some(kind), seq: Some(number), error: Some(error), .. } if kind == "err" => {
                    refused.insert(number, error);
                }
                Word { kind: None, error: None, batch: Some(_), .. } => break,
                Word { error: Some(error), .. } if error.code() == NO_BATCHES => {
                    return Err(Broken::NotTaken);
                }
                // Something is missing in between, or the batch was given up.
                _ => return Err(Broken::Unknown),
            }
        }
        self.answers = Some((inbox, answers));
        Ok(refused)
    }

    async fn listen(&self) -> Result<(String, Subscriber), Broken> {
        let client = self.streams.client();
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.>")).await.map_err(|_| Broken::Unknown)?;
        Ok((inbox, answers))
    }

    async fn send(&self, asks: &[Ask], replies: &str) -> Result<(), Broken> {
        let client = self.streams.client();
        let Some(Ask { write: last, .. }) = asks.last() else { return Ok(()) };
        // One word when all have come; `ok`: one that is refused does not end it.
        let reply =
            |number: usize, operation: u8| format!("{replies}.{}.ok.{number}.{operation}.$FI", asks.len());
        for (number, Ask { write, .. }) in (1..).zip(asks) {
            let headers = Headers::new().with_number(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, write.over);
            let operation = if number == 1 { operation::BEGIN } else { operation::ADD };
            let sent = client.publish_with_reply_and_headers(
                write.subject.clone(),
                reply(number, operation),
                headers.into_map(),
                write.value.clone(),
            );
            sent.await.map_err(|_| Broken::Unknown)?;
        }
        let end = reply(asks.len() + 1, operation::END);
        let sent = client.publish_with_reply(last.subject.clone(), end, Bytes::new());
        sent.await.map_err(|_| Broken::Unknown)
    }
}
