//! NATS micro services (ADR-32): where their endpoints are, by what their instances say of themselves.

use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use shared::{limits::DISCOVERY_ANSWERS_MAX, names::TargetName};

use crate::{Streams, names, requests::RequestError};

/// An endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// What it is called.
    pub name: String,
    /// Where it listens; may have wildcards.
    pub subject: String,
}

/// What an instance says of itself, as far as it matters here.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

impl Streams {
    /// Asks the instances of a service for their endpoints, until one of them has what is looked for, all have had the time to
    /// answer, or more have answered than are listened to.
    pub async fn find_endpoint<T>(
        &self,
        service: &TargetName,
        wait: Duration,
        mut pick: impl FnMut(&[Endpoint]) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        let subject = names::service_info(service);
        let not_sent = |detail: String| RequestError::Send { subject: subject.clone(), detail };
        let inbox = self.client().new_inbox();
        let mut answers =
            self.client().subscribe(inbox.clone()).await.map_err(|error| not_sent(error.to_string()))?;
        let asked = self.client().publish_with_reply(subject.clone(), inbox, "".into()).await;
        asked.map_err(|error| not_sent(error.to_string()))?;
        let reading = async {
            for _ in 0..DISCOVERY_ANSWERS_MAX {
                let Some(answer) = answers.next().await else { break };
                if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
                    return Err(RequestError::NoResponders(subject.clone()));
                }
                // One that says something else is no reason not to hear the others.
                let Ok(info) = serde_json::from_slice::<Info>(&answer.payload) else { continue };
                if let Some(found) = pick(&info.endpoints) {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        };
        tokio::select! {
            found = reading => found,
            () = self.clock().sleep(wait) => Ok(None),
        }
    }
}
