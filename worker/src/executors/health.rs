//! The check before an attempt: does the target say that it is well?
//!
//! Promise: a target with a declared check is not asked for work while it says that it is not well, and is not asked
//! how it is for every single run: an answer counts for a while, a bad one briefly, and longer each time in a row; whoever
//! wants to know at the same time waits for the same answer. Only the status of an answer is looked at, its body is not read.
//! A target that hangs holds up nobody but its own runs: the others have places of their own (`shared::limits`, `HEALTH_…`).
//! Failure: a target may fall ill between check and attempt. The check saves attempts, it guarantees nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    clock::SharedClock,
    limits::{
        HEALTH_ANSWER_WAIT, HEALTH_BAD_FOR, HEALTH_BAD_FOR_MAX, HEALTH_CHECKS_AT_ONCE_MAX, HEALTH_GOOD_FOR,
        HEALTH_REMEMBERED_MAX,
    },
    names::TargetName,
    run_record::ErrorKind,
    target::Target,
};
use tokio::sync::Semaphore;

use super::{Failure, http::HttpExecutor};

/// Asks targets how they are, and remembers it for a moment. Clones share what they remember.
#[derive(Clone)]
pub struct HealthChecks {
    http: HttpExecutor,
    clock: SharedClock,
    remembered: Arc<Mutex<HashMap<TargetName, Entry>>>,
    asking: Arc<Semaphore>,
}

/// Held while its target is being asked, so that others wait for the answer instead of asking too.
type Entry = Arc<tokio::sync::Mutex<Option<Answer>>>;

struct Answer {
    /// Who was asked: after an `apply` that may be another place, or the same in another way.
    target: Target,
    at: Duration,
    result: Result<(), Failure>,
    /// Bad answers in a row, this one included.
    bad: u32,
}

impl Answer {
    fn counts_for(&self) -> Duration {
        match self.bad {
            0 => HEALTH_GOOD_FOR,
            bad => HEALTH_BAD_FOR.saturating_mul(1 << (bad - 1).min(16)).min(HEALTH_BAD_FOR_MAX),
        }
    }
}

impl HealthChecks {
    /// Checks over these connections; ages of answers are read off this clock.
    pub fn new(http: HttpExecutor, clock: SharedClock) -> Self {
        let asking = Arc::new(Semaphore::new(HEALTH_CHECKS_AT_ONCE_MAX));
        Self { http, clock, remembered: Arc::default(), asking }
    }

    /// Whether an attempt at this target makes sense now. A target without a declared check is taken to be well.
    pub async fn check(&self, name: &TargetName, target: &Target) -> Result<(), Failure> {
        let Some(url) = target.health_url() else { return Ok(()) };
        let entry = self.entry(name);
        let mut answer = entry.lock().await;
        let known = answer.as_ref().filter(|known| known.target == *target);
        if let Some(known) =
            known.filter(|known| self.clock.elapsed().saturating_sub(known.at) < known.counts_for())
        {
            return known.result.clone();
        }
        let bad_before = known.map_or(0, |known| known.bad);
        let result = self.ask(name, target, &url).await;
        let bad = if result.is_ok() { 0 } else { bad_before.saturating_add(1) };
        *answer =
            Some(Answer { target: target.clone(), at: self.clock.elapsed(), result: result.clone(), bad });
        result
    }

    fn entry(&self, name: &TargetName) -> Entry {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= HEALTH_REMEMBERED_MAX && !remembered.contains_key(name) {
            // Whoever is asking holds a second reference; everything else may be asked again.
            remembered.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        Arc::clone(remembered.entry(name.clone()).or_default())
    }

    async fn ask(&self, name: &TargetName, target: &Target, url: &str) -> Result<(), Failure> {
        // Each holds its place for as long as a target may take, so this wait is bounded too.
        let _place = self.asking.acquire().await;
        let came = match self.http.probe(target, url, HEALTH_ANSWER_WAIT).await {
            Ok(200..300) => return Ok(()),
            Ok(status) => format!("answered {status}"),
            Err(words) => words,
        };
        Err(Failure::retryable(
            ErrorKind::Precheck,
            format!(
                "target {name} is not well: {url} {came}, where 2xx is expected; look after the service, or mend `health:` of the target and apply"
            ),
        ))
    }
}
