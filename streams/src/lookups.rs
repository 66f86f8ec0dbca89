//! Reads of many records at once: whoever asks while a read is under way shares the next one.
//!
//! A worker asks of every submission it gets whether the ledger knows it, and as a rule it does not. One request a run costs the
//! server as much as handing the run out; asked for together they cost next to nothing.

use std::{collections::HashMap, time::Duration};

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use shared::{run::RunId, run_record::RunRecord};
use tokio::sync::{mpsc, oneshot};

use crate::{
    ReadError, Streams,
    bucket::{Stored, timestamp},
    headers,
    ledger::read_record,
    names::{bucket_prefix, bucket_stream, direct_get},
};

/// Records read by one request, at most: their outputs come with them.
const RECORDS_AT_ONCE_MAX: usize = 256;
/// Asks that wait for the next read; more wait to be taken in.
const ASKS_MAX: usize = 1_024;
/// Between two messages of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

type Found = Result<Option<Stored<RunRecord>>, ReadError>;

struct Ask {
    run: RunId,
    answer: oneshot::Sender<Found>,
}

/// Reads records as some server has them, many at once. Cheap to clone; ends with its last clone.
#[derive(Clone)]
pub struct Lookups {
    streams: Streams,
    asks: mpsc::Sender<Ask>,
}

impl Streams {
    /// Reads of records that share their requests.
    pub fn lookups(&self) -> Lookups {
        let (asks, taken) = mpsc::channel(ASKS_MAX);
        tokio::spawn(Reader { streams: self.clone(), answers: None, asked: 0 }.read(taken));
        Lookups { streams: self.clone(), asks }
    }
}

impl Lookups {
    /// Returns when nobody reads any more, which is a fault: whoever asks from then on asks the leader alone.
    pub async fn ended(&self) {
        self.asks.closed().await;
    }

    /// As [`crate::ledger::Ledger::get_nearby`].
    pub async fn get(&self, run: &RunId) -> Found {
        let (answer, answered) = oneshot::channel();
        if self.asks.send(Ask { run: run.clone(), answer }).await.is_ok()
            && let Ok(found) = answered.await
        {
            return found;
        }
        // Its reader has come to an end, which must not be the end of all runs.
        Box::pin(self.streams.ledger().get(run)).await
    }
}

struct Reader {
    streams: Streams,
    /// An inbox of our own, under which each request has a number.
    answers: Option<(String, Subscriber)>,
    asked: u64,
}

impl Reader {
    async fn read(mut self, mut taken: mpsc::Receiver<Ask>) {
        let mut asks = Vec::with_capacity(RECORDS_AT_ONCE_MAX);
        while taken.recv_many(&mut asks, RECORDS_AT_ONCE_MAX).await > 0 {
            let keys: Vec<String> = asks.iter().map(|ask| ask.run.to_string()).collect();
            let mut found = self.find(&keys).await;
            if found.is_err() {
                // What comes late belongs to nobody.
                self.answers = None;
            }
            for (ask, key) in asks.drain(..).zip(&keys) {
                let answer = match &mut found {
                    Ok(found) => found.remove(key).map(|message| record_of(key, &message)).transpose(),
                    Err(detail) => Err(ReadError::unavailable(format!("run {key}"), detail)),
                };
                let _ = ask.answer.send(answer);
            }
        }
    }

    /// The last message of each of these keys that has one.
    async fn find(&mut self, keys: &[String]) -> Result<HashMap<String, Message>, String> {
        let bucket = self.streams.names().runs_bucket();
        let prefix = bucket_prefix(&bucket);
        self.asked += 1;
        let number = self.asked;
        let (inbox, mut answers) = if let Some(answers) = self.answers.take() {
            answers
        } else {
            let inbox = self.streams.client().new_inbox();
            let answers = self.streams.client().subscribe(format!("{inbox}.*")).await;
            (inbox, answers.map_err(|error| error.to_string())?)
        };
        let subjects: Vec<String> = keys.iter().map(|key| format!("{prefix}{key}")).collect();
        let request = Bytes::from(json!({ "multi_last": subjects }).to_string());
        let reply = format!("{inbox}.{number}");
        let sent = self.streams.client().publish_with_reply(
            direct_get(&bucket_stream(&bucket)),
            reply.clone(),
            request,
        );
        sent.await.map_err(|error| error.to_string())?;
        let mut found = HashMap::new();
        loop {
            let message = tokio::select! {
                biased;
                message = answers.next() => message.ok_or("the connection is closed")?,
                () = self.streams.clock().sleep(ANSWER_WAIT) => return Err("no answer in time".to_owned()),
            };
            if message.subject.as_str() != reply {
                continue;
            }
            match message.status {
                None | Some(StatusCode::OK) => {
                    let subject = headers::value(message.headers.as_ref(), headers::STORED_SUBJECT);
                    let key = subject.and_then(|subject| subject.strip_prefix(&prefix)).map(str::to_owned);
                    found.extend(key.map(|key| (key, message)));
                }
                // The end of the answer, or nothing of all that is there.
                Some(StatusCode::NOT_FOUND) => break,
                Some(status) if status.as_u16() == END_OF_BATCH => break,
                Some(status) => {
                    return Err(format!("{status} {}", message.description.unwrap_or_default()));
                }
            }
        }
        self.answers = Some((inbox, answers));
        Ok(found)
    }
}

/// 204: all that was asked for has come.
const END_OF_BATCH: u16 = 204;

fn record_of(key: &str, message: &Message) -> Result<Stored<RunRecord>, ReadError> {
    let header = |name| headers::value(message.headers.as_ref(), name);
    let revision = header(headers::STORED_SEQUENCE).and_then(|text| text.parse().ok());
    let revision: u64 = revision
        .ok_or_else(|| ReadError::unavailable(format!("run {key}"), "an answer without a sequence"))?;
    let stored_at = header(headers::TIME).and_then(|text| text.parse().ok());
    let value = read_record(key, &message.payload, revision)?;
    Ok(Stored { value, revision, stored_at: stored_at.unwrap_or_else(|| timestamp(0)) })
}
