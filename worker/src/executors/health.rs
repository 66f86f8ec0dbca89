//! The check before an attempt: does the target say that it is well?
//!
//! Promise: a target with a declared check is not asked for work while it says that it is not well, and is not asked
//! how it is for every single run: an answer counts for [`GOOD_FOR`] or [`BAD_FOR`], and whoever wants to know at
//! the same time waits for the same answer.
//! Failure: a target may fall ill between check and attempt. The check saves attempts, it guarantees nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::Client;
use shared::{clock::SharedClock, names::TargetName, run_record::ErrorKind, target::Target};

use super::{Failure, answer::with_causes};

/// How long a target has to answer its check.
pub const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long a good answer counts.
pub const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long a bad answer counts: briefly, so that a target that came back is not kept waiting.
pub const BAD_FOR: Duration = Duration::from_secs(1);
/// Targets whose answers are remembered. More make some be asked again sooner.
const REMEMBERED_MAX: usize = 1_000;

/// Asks targets how they are, and remembers it for a moment. Clones share what they remember.
#[derive(Clone)]
pub struct HealthChecks {
    client: Client,
    clock: SharedClock,
    remembered: Arc<Mutex<HashMap<TargetName, Entry>>>,
}

/// Held while its target is being asked, so that others wait for the answer instead of asking too.
type Entry = Arc<tokio::sync::Mutex<Option<Answer>>>;

struct Answer {
    /// Where it was asked: after an `apply` that may be another place.
    url: String,
    at: Duration,
    result: Result<(), Failure>,
}

impl HealthChecks {
    /// Checks with this client; ages of answers are read off this clock.
    pub fn new(client: Client, clock: SharedClock) -> Self {
        Self { client, clock, remembered: Arc::default() }
    }

    /// Whether an attempt at this target makes sense now. A target without a declared check is taken to be well.
    pub async fn check(&self, name: &TargetName, target: &Target) -> Result<(), Failure> {
        let Some(url) = target.health_url() else { return Ok(()) };
        let entry = self.entry(name);
        let mut answer = entry.lock().await;
        if let Some(known) = answer.as_ref().filter(|known| known.url == url && self.counts(known)) {
            return known.result.clone();
        }
        let result = self.ask(name, &url).await;
        *answer = Some(Answer { url, at: self.clock.elapsed(), result: result.clone() });
        result
    }

    fn counts(&self, answer: &Answer) -> bool {
        let counts_for = if answer.result.is_ok() { GOOD_FOR } else { BAD_FOR };
        self.clock.elapsed().saturating_sub(answer.at) < counts_for
    }

    fn entry(&self, name: &TargetName) -> Entry {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(name) {
            // Whoever is asking holds a second reference; everything else may be asked again.
            remembered.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(remembered.entry(name.clone()).or_default())
    }

    async fn ask(&self, name: &TargetName, url: &str) -> Result<(), Failure> {
        let came = match self.client.get(url).timeout(ANSWER_WAIT).send().await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => format!("answered {}", response.status().as_u16()),
            Err(error) if error.is_timeout() => format!("did not answer within {ANSWER_WAIT:?}"),
            Err(error) => format!("did not answer: {}", with_causes(&error.without_url())),
        };
        Err(Failure::retryable(
            ErrorKind::Precheck,
            format!(
                "target {name} is not well: {url} {came}, where 2xx is expected; look after the service, or mend `health:` of the target and apply"
            ),
        ))
    }
}
