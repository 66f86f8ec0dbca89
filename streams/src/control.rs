//! Control: what operators ask of planners. Kept in a stream, so that it is done even if no planner lives just now,
//! and so that there is an audit of who did what.

use async_nats::{
    Message,
    jetstream::{
        self,
        consumer::{Consumer, pull},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{Timestamp, run::RunId};

use crate::{
    Names, ReadError, Streams, WriteError,
    headers::{self, Headers},
    names::CONTROL_CONSUMER,
    witness,
};

/// "Run this schedule now."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// The run to make: the schedule's name and a key that is no slot.
    pub run: RunId,
    /// Parameters that replace or add to those of the schedule's task.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A trigger as a planner gets it.
pub struct TriggerDelivery {
    /// What is asked; `Err` if it cannot be understood.
    pub trigger: Result<Trigger, String>,
    message: jetstream::Message,
}

impl TriggerDelivery {
    /// It was done, or can never be: the server need not hand it out again.
    pub async fn done(&self) {
        // If this is lost it is handed out again, and found to be done.
        let _ = self.message.ack().await;
        witness::saw(|| "ack.trigger".to_owned());
    }

    /// It could not be done just now; hand it out again after a wait.
    pub async fn later(&self, wait: std::time::Duration) {
        let _ = self.message.ack_with(jetstream::AckKind::Nak(Some(wait))).await;
    }
}

impl Streams {
    /// Asks the planners to run a schedule now. Stored when this returns, whether or not a planner lives.
    pub async fn trigger(&self, trigger: &Trigger) -> Result<u64, WriteError> {
        let headers = Headers::new()
            .with(headers::BY, &trigger.by)?
            .with(headers::MESSAGE_ID, &trigger.run.to_string())?;
        let bytes = Bytes::from(serde_json::to_vec(trigger).unwrap_or_default());
        self.write(&self.names().trigger(&trigger.run), headers, bytes).await
    }

    /// The wish that made a run, as it was stored; none if the audit does not reach back to it any more.
    pub async fn trigger_of(&self, run: &RunId) -> Result<Option<Trigger>, ReadError> {
        let payload = self.last_control(&self.names().trigger(run)).await?;
        Ok(payload.and_then(|payload| serde_json::from_slice(&payload).ok()))
    }

    /// The last message on a control subject, read from the stream's leader.
    pub(crate) async fn last_control(&self, subject: &str) -> Result<Option<Bytes>, ReadError> {
        Ok(self.last_control_with_place(subject).await?.map(|(payload, _)| payload))
    }

    /// As [`Streams::last_control`], with its place in the stream.
    pub(crate) async fn last_control_with_place(
        &self,
        subject: &str,
    ) -> Result<Option<(Bytes, u64)>, ReadError> {
        let name = self.names().control_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable(name.clone(), error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some((message.payload, message.sequence))),
            Err(error) => match error.kind() {
                jetstream::stream::LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(unavailable(&error)),
            },
        }
    }

    /// The triggers that no planner has done yet, as they come; each goes to one planner at a time.
    pub async fn triggers(
        &self,
    ) -> Result<impl Stream<Item = Result<TriggerDelivery, ReadError>> + Send + Unpin + use<>, ReadError>
    {
        let name = self.names().control_stream();
        let unavailable = |error: &dyn std::fmt::Display| ReadError::unavailable("triggers", error);
        let stream = self.jetstream().get_stream_no_info(&name).await.map_err(|error| unavailable(&error))?;
        let consumer: Consumer<pull::Config> =
            stream.get_consumer(CONTROL_CONSUMER).await.map_err(|error| unavailable(&error))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(16)
            .heartbeat(std::time::Duration::from_secs(5))
            .expires(std::time::Duration::from_secs(30))
            .messages()
            .await
            .map_err(|error| unavailable(&error))?;
        let names = self.names().clone();
        Ok(Box::pin(messages.map(move |message| match message {
            Ok(message) => Ok(TriggerDelivery { trigger: parse(&names, &message), message }),
            Err(error) => Err(ReadError::unavailable("triggers", error)),
        })))
    }
}

fn parse(names: &Names, message: &Message) -> Result<Trigger, String> {
    let trigger: Trigger = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
    // Who may ask for what is a matter of subjects (permissions, audit): the body may not say otherwise.
    if names.trigger(&trigger.run) != message.subject.as_str() {
        return Err(format!("its body asks for {}, its subject is {}", trigger.run, message.subject));
    }
    if Names::is_reserved_key(&trigger.run.key) {
        return Err(format!("{} has a key that only planners use", trigger.run));
    }
    Ok(trigger)
}
