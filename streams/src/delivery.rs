//! A task as the server hands it to a worker, and the four answers a worker has for it.

use std::time::Duration;

use async_nats::{Request, Subject};
use bytes::Bytes;
use shared::Timestamp;

use crate::{Streams, bucket::timestamp, headers, names::Origin, witness};

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
    /// Whether it lies on its schedule's lock, and holds it: two runs of such a schedule never go on at once.
    pub is_on_lock: bool,
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
    /// Whether it says that it has a record, although no planner made it for a slot. Anybody may say so.
    pub is_recorded: bool,
    /// The W3C trace context it carries.
    pub traceparent: Option<String>,
    /// The task.
    pub payload: Bytes,
    /// How often the server handed it out, this time included. Not the attempt: the ledger counts those.
    pub deliveries: u64,
    /// Its place in the stream; unique for ever.
    pub sequence: u64,
    /// Whether it says that it was put back after a wait for its next attempt: a hint, which anybody may give.
    pub is_put_back: bool,
    /// When the server took it.
    pub published_at: Timestamp,
    /// How many more lay in its queue when it was handed out.
    pub left: u64,
    /// When it came, in elapsed time of our clock.
    pub received_at: Duration,
}

impl Delivery {
    pub(crate) fn of(streams: &Streams, message: async_nats::Message) -> Option<Self> {
        let async_nats::Message { subject, reply, payload, headers: said, .. } = message;
        let (reply, said) = (reply?, said.as_ref());
        let (origin, _, name, key) = streams.names().parse_task(&subject)?;
        let tokens = (name.to_owned(), key.to_owned());
        let trusted =
            |header: &str| headers::value(said, header).filter(|_| origin == Origin::Due).map(str::to_owned);
        let (run_header, revision) = (trusted(headers::RUN), trusted(headers::REVISION));
        let traceparent = headers::value(said, headers::TRACEPARENT).map(str::to_owned);
        let is_put_back = headers::value(said, headers::SEQUENCE).is_some();
        // What waited for its next attempt has a record, too.
        let is_recorded = is_put_back || headers::value(said, headers::RECORDED).is_some();
        let Handed { deliveries, sequence, published_at, left } = Handed::parse(&reply)?;
        let is_on_lock = streams.names().is_lock(&subject);
        let subject = subject.into_string();
        Some(Self {
            streams: streams.clone(),
            reply,
            left,
            is_on_lock,
            origin,
            subject,
            tokens,
            run_header,
            revision: revision.and_then(|text| text.parse().ok()),
            is_recorded,
            traceparent,
            payload,
            deliveries,
            sequence,
            is_put_back,
            published_at,
            received_at: streams.clock().elapsed(),
        })
    }

    /// It is done, or need not be done: the server forgets it.
    pub async fn ack(&self) -> Result<(), NotConfirmed> {
        self.answer("+ACK", "ack.task").await
    }

    /// It is done, and its end is in the ledger: the server is told and not waited for. If the word is lost, it comes out again, is
    /// found ended, and is acknowledged then.
    pub async fn ack_unheard(&self) -> Result<(), NotConfirmed> {
        self.streams.client().publish(self.reply.clone(), "+ACK".into()).await.map_err(|_| NotConfirmed)?;
        witness::passed("ack.said");
        Ok(())
    }

    /// It is being worked on: the acknowledge wait begins anew.
    pub async fn in_progress(&self) -> Result<(), NotConfirmed> {
        self.answer("+WPI", "hold.task").await
    }

    /// It goes back to the queue, and comes out again after this wait.
    pub async fn hand_back(&self, wait: Duration) -> Result<(), NotConfirmed> {
        // A zero delay would be read as "no delay given", which is the same.
        self.answer(&format!("-NAK {{\"delay\":{}}}", wait.as_nanos()), "back.task").await
    }

    /// It will never be done; the server forgets it. Only after its dead letter is stored.
    pub async fn terminate(&self, reason: &str) -> Result<(), NotConfirmed> {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(128).collect();
        self.answer(&format!("+TERM {reason}"), "term.task").await
    }

    async fn answer(&self, answer: &str, point: &'static str) -> Result<(), NotConfirmed> {
        let request = || Request::new().payload(answer.to_owned().into()).timeout(Some(ANSWER_WAIT));
        // Through the shared inbox, not async-nats' `double_ack`, which subscribes anew for each message.
        for _ in 0..2 {
            if self.streams.client().send_request(self.reply.clone(), request()).await.is_ok() {
                witness::passed(point);
                return Ok(());
            }
        }
        Err(NotConfirmed)
    }
}

/// What the subject of an acknowledgement says of the delivery it is for.
#[derive(Debug, PartialEq)]
struct Handed {
    deliveries: u64,
    sequence: u64,
    published_at: Timestamp,
    left: u64,
}

/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>` (ADR-15).
const ACK_TOKENS: usize = 9;
/// With the domain and the account before the stream, and more behind what is there.
const ACK_TOKENS_LONG: usize = 11;

impl Handed {
    /// Reads it where it lies: async-nats' own way clones a context for each message.
    fn parse(reply: &str) -> Option<Self> {
        let skipped = match reply.split('.').count() {
            ACK_TOKENS => 4,
            tokens if tokens >= ACK_TOKENS_LONG => 6,
            _ => return None,
        };
        let mut numbers = reply.strip_prefix("$JS.ACK.")?.split('.').skip(skipped - 2);
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let (deliveries, sequence, _) = (next()?, next()?, next()?);
        let published_at = timestamp(next()?.into());
        Some(Self { deliveries: deliveries.max(1), sequence, published_at, left: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_an_acknowledgement_says_what_the_delivery_is() {
        let published_at = "2026-11-24T02:00:00.5Z".parse().expect("instant");
        let handed = Handed { deliveries: 2, sequence: 71, published_at, left: 40 };
        for reply in [
            "$JS.ACK.cronfleet_TASKS.default.2.71.99.1795485600500000000.40",
            "$JS.ACK.hub.ACCOUNT.cronfleet_TASKS.default.2.71.99.1795485600500000000.40",
            "$JS.ACK._.ACCOUNT.cronfleet_TASKS.default.2.71.99.1795485600500000000.40.token",
        ] {
            assert_eq!(Handed::parse(reply).as_ref(), Some(&handed), "{reply}");
        }
        for reply in ["", "_INBOX.x", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.one.2.3.4.5", "a.b.c.d.1.2.3.4.5"] {
            assert_eq!(Handed::parse(reply), None, "{reply}");
        }
    }
}
