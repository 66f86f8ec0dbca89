//! A task as the server hands it to a worker, and the four answers a worker has for it.

use std::time::Duration;

use async_nats::{Request, Subject, jetstream};
use bytes::Bytes;

use crate::{
    Streams, headers,
    names::{LOCK_KEY, Origin},
};

/// How long an answer waits for the server's word before it is repeated or given up.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// The server did not confirm an answer: it may or may not have taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server did not confirm")]
pub struct NotConfirmed;

/// A task as the server hands it out.
#[derive(Clone)]
pub struct Delivery {
    streams: Streams,
    reply: Subject,
    /// Where it comes from, which decides how far its headers are trusted.
    pub origin: Origin,
    /// The subject it came on.
    pub subject: String,
    /// The run's name and key, as they stand in the subject.
    pub tokens: (String, String),
    /// The run a planner names in a header; none on ad-hoc subjects, whatever their headers say.
    pub run_header: Option<String>,
    /// The revision of the record a planner made.
    pub revision: Option<u64>,
    /// The W3C trace context it carries.
    pub traceparent: Option<String>,
    /// The task.
    pub payload: Bytes,
    /// How often the server handed it out, this time included. Not the attempt: the ledger counts those.
    pub deliveries: u64,
    /// Its place in the stream; unique for ever.
    pub sequence: u64,
    /// How many more lay in its queue when it was handed out.
    pub left: u64,
    /// When it came, in elapsed time of our clock.
    pub received_at: Duration,
}

impl Delivery {
    pub(crate) fn of(streams: &Streams, message: async_nats::Message) -> Option<Self> {
        let reply = message.reply.clone()?;
        let (origin, _, name, key) = streams.names().parse_task(&message.subject)?;
        let tokens = (name.to_owned(), key.to_owned());
        let trusted = |header: &str| {
            let value = headers::value(message.headers.as_ref(), header)?;
            (origin == Origin::Due).then(|| value.to_owned())
        };
        let (run_header, revision) = (trusted(headers::RUN), trusted(headers::REVISION));
        let traceparent = headers::value(message.headers.as_ref(), headers::TRACEPARENT).map(str::to_owned);
        let subject = message.subject.to_string();
        let payload = message.payload.clone();
        let message = jetstream::Message { message, context: streams.jetstream().clone() };
        let info = message.info().ok()?;
        let (deliveries, sequence) = (info.delivered.max(1).unsigned_abs(), info.stream_sequence);
        let left = info.pending;
        Some(Self {
            streams: streams.clone(),
            reply,
            left,
            origin,
            subject,
            tokens,
            run_header,
            revision: revision.and_then(|text| text.parse().ok()),
            traceparent,
            payload,
            deliveries,
            sequence,
            received_at: streams.clock().elapsed(),
        })
    }

    /// Whether its message is its schedule's lock: while it is in the queue, no other run of the schedule can be.
    pub fn is_lock(&self) -> bool {
        self.origin == Origin::Due && self.tokens.1 == LOCK_KEY
    }

    /// It is done, or need not be done: the server forgets it.
    pub async fn ack(&self) -> Result<(), NotConfirmed> {
        self.answer("+ACK").await
    }

    /// It is being worked on: the acknowledge wait begins anew.
    pub async fn in_progress(&self) -> Result<(), NotConfirmed> {
        self.answer("+WPI").await
    }

    /// It goes back to the queue, and comes out again after this wait.
    pub async fn hand_back(&self, wait: Duration) -> Result<(), NotConfirmed> {
        // A zero delay would be read as "no delay given", which is the same.
        self.answer(&format!("-NAK {{\"delay\":{}}}", wait.as_nanos())).await
    }

    /// It will never be done; the server forgets it. Only after its dead letter is stored.
    pub async fn terminate(&self, reason: &str) -> Result<(), NotConfirmed> {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(128).collect();
        self.answer(&format!("+TERM {reason}")).await
    }

    async fn answer(&self, answer: &str) -> Result<(), NotConfirmed> {
        let request = || Request::new().payload(answer.to_owned().into()).timeout(Some(ANSWER_WAIT));
        // Through the shared inbox, not async-nats' `double_ack`, which subscribes anew for each message.
        for _ in 0..2 {
            if self.streams.client().send_request(self.reply.clone(), request()).await.is_ok() {
                return Ok(());
            }
        }
        Err(NotConfirmed)
    }
}
