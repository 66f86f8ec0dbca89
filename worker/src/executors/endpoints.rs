//! Where the actions of NATS micro services are found: asked of their instances, and remembered for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    limits::{DISCOVERY_KEPT, DISCOVERY_REMEMBERED_MAX, DISCOVERY_WAIT},
    names::{ActionName, TargetName},
    run_record::ErrorKind,
};
use streams::{Streams, services::Endpoint};

use super::Failure;

/// Finds endpoints. Clones share what they remember.
#[derive(Clone)]
pub(super) struct Endpoints {
    streams: Streams,
    known: Arc<Mutex<HashMap<(String, ActionName), Known>>>,
}

struct Known {
    subject: String,
    at: Duration,
}

impl Endpoints {
    pub(super) fn new(streams: Streams) -> Self {
        Self { streams, known: Arc::default() }
    }

    /// The subject of an action.
    pub(super) async fn of(&self, service: &str, action: &ActionName) -> Result<String, Failure> {
        if let Some(subject) = self.remembered(service, action) {
            return Ok(subject);
        }
        let unreachable = |words: String| Failure::retryable(ErrorKind::Unreachable, words);
        let name: TargetName = service.parse().map_err(|error| {
            Failure::permanent(ErrorKind::UnknownTarget, format!("service {service:?}: {error}"))
        })?;
        let found = self.streams.find_endpoint(&name, DISCOVERY_WAIT, |all| subject_of(action, all)).await;
        match found {
            Ok(Some(subject)) => {
                self.remember(service, action, &subject);
                Ok(subject)
            }
            Ok(None) => Err(unreachable(format!(
                "no instance of service {service} said within {DISCOVERY_WAIT:?} that it has an endpoint {action}; look with `nats micro info {service}`"
            ))),
            Err(error) => Err(unreachable(format!("service {service} cannot be found: {error}"))),
        }
    }

    /// What is remembered of an action was wrong.
    pub(super) fn forget(&self, service: &str, action: &ActionName) {
        self.lock().remove(&(service.to_owned(), action.clone()));
    }

    fn remembered(&self, service: &str, action: &ActionName) -> Option<String> {
        let now = self.streams.clock().elapsed();
        let known = self.lock();
        let known = known.get(&(service.to_owned(), action.clone()))?;
        (now.saturating_sub(known.at) < DISCOVERY_KEPT).then(|| known.subject.clone())
    }

    fn remember(&self, service: &str, action: &ActionName, subject: &str) {
        let at = self.streams.clock().elapsed();
        let mut known = self.lock();
        if known.len() >= DISCOVERY_REMEMBERED_MAX {
            known.clear();
        }
        known.insert((service.to_owned(), action.clone()), Known { subject: subject.to_owned(), at });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, ActionName), Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The subject of an action among the endpoints of one instance: that of the endpoint of its name; else the one that ends with
/// it; else one whose last token is `*`, in whose place it is put. Pure.
fn subject_of(action: &ActionName, all: &[Endpoint]) -> Option<String> {
    let is_plain = |subject: &str| !subject.contains(['*', '>']) && !subject.contains(char::is_whitespace);
    let ends_with_it = |endpoint: &&Endpoint| {
        endpoint.subject.rsplit_once('.').is_some_and(|(_, last)| last == action.as_str())
    };
    let in_place_of_a_star = || {
        all.iter().find_map(|endpoint| {
            let prefix = endpoint.subject.strip_suffix(".*")?;
            is_plain(prefix).then(|| format!("{prefix}.{action}"))
        })
    };
    let plain = || all.iter().filter(|endpoint| is_plain(&endpoint.subject) && !endpoint.subject.is_empty());
    plain()
        .find(|endpoint| endpoint.name == action.as_str())
        .or_else(|| plain().find(ends_with_it))
        .map(|endpoint| endpoint.subject.clone())
        .or_else(in_place_of_a_star)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_the_endpoint_of_its_name_or_one_whose_subject_has_a_place_for_it() {
        let endpoint =
            |(name, subject): &(&str, &str)| Endpoint { name: (*name).into(), subject: (*subject).into() };
        for (all, subject) in [
            (&[("other", "a.other"), ("archive", "x.y")][..], Some("x.y")),
            (&[("all", "svc.*"), ("default", "svc.archive")], Some("svc.archive")),
            (&[("all", "svc.*")], Some("svc.archive")),
            (&[("archive", "svc.*")], Some("svc.archive")),
            (&[("all", "svc.>")], None),
            (&[("all", "svc.*.*")], None),
            (&[("all", "*")], None),
            (&[("archive", "")], None),
            (&[("other", "svc.other")], None),
            (&[], None),
        ] {
            let all: Vec<Endpoint> = all.iter().map(endpoint).collect();
            assert_eq!(subject_of(&"archive".parse().expect("a name"), &all).as_deref(), subject, "{all:?}");
        }
    }
}
