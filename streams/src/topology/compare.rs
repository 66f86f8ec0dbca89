//! How what is there differs from what should be.

use std::collections::BTreeSet;

use async_nats::jetstream::{consumer, stream::Config};

/// What should be there and is not, or is otherwise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The stream, or `stream/consumer`.
    pub what: String,
    /// The setting; `missing` if the whole thing is.
    pub setting: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub wanted: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.setting == "missing" {
            return write!(f, "{} is missing; run `cronfleet init`", self.what);
        }
        write!(f, "{}: {} is {}, should be {}", self.what, self.setting, self.found, self.wanted)
    }
}

pub(super) fn missing(what: String) -> Difference {
    Difference { what, setting: "missing".into(), found: "nothing".into(), wanted: "there".into() }
}

struct Comparison<'a> {
    what: &'a str,
    differences: Vec<Difference>,
}

impl Comparison<'_> {
    fn of<T: PartialEq + std::fmt::Debug>(&mut self, setting: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.differences.push(Difference {
                what: self.what.to_owned(),
                setting: setting.to_owned(),
                found: format!("{found:?}"),
                wanted: format!("{wanted:?}"),
            });
        }
    }
}

/// Only what the promises rest on: an operator may add a placement, metadata or compression of their own.
pub(super) fn compare_streams(found: &Config, wanted: &Config) -> Vec<Difference> {
    let mut c = Comparison { what: &found.name, differences: Vec::new() };
    let set = |subjects: &[String]| subjects.iter().cloned().collect::<BTreeSet<String>>();
    c.of("subjects", &set(&found.subjects), &set(&wanted.subjects));
    c.of("retention", &found.retention, &wanted.retention);
    c.of("storage", &found.storage, &wanted.storage);
    c.of("replicas", &found.num_replicas, &wanted.num_replicas);
    c.of("discard", &found.discard, &wanted.discard);
    c.of("discard_new_per_subject", &found.discard_new_per_subject, &wanted.discard_new_per_subject);
    // The server says -1 where nothing was set.
    let per_subject = |config: &Config| config.max_messages_per_subject.max(0);
    c.of("max_msgs_per_subject", &per_subject(found), &per_subject(wanted));
    c.of("max_age", &found.max_age, &wanted.max_age);
    if wanted.duplicate_window != std::time::Duration::ZERO {
        c.of("duplicate_window", &found.duplicate_window, &wanted.duplicate_window);
    }
    c.of("deny_delete", &found.deny_delete, &wanted.deny_delete);
    c.of("deny_purge", &found.deny_purge, &wanted.deny_purge);
    c.of("allow_rollup", &found.allow_rollup, &wanted.allow_rollup);
    c.of("allow_msg_ttl", &found.allow_message_ttl, &wanted.allow_message_ttl);
    c.of("allow_atomic", &found.allow_atomic_publish, &wanted.allow_atomic_publish);
    c.of("allow_msg_schedules", &found.allow_message_schedules, &wanted.allow_message_schedules);
    let republish =
        |config: &Config| config.republish.as_ref().map(|r| (r.source.clone(), r.destination.clone()));
    c.of("republish", &republish(found), &republish(wanted));
    let transform = |config: &Config| {
        config.subject_transform.as_ref().map(|t| (t.source.clone(), t.destination.clone()))
    };
    c.of("subject_transform", &transform(found), &transform(wanted));
    c.of("sealed", &found.sealed, &false);
    if found.max_bytes <= 0 {
        c.of("max_bytes", &found.max_bytes, &wanted.max_bytes);
    }
    c.differences
}

pub(super) fn compare_consumers(
    what: &str,
    found: &consumer::Config,
    wanted: &consumer::pull::Config,
) -> Vec<Difference> {
    let mut c = Comparison { what, differences: Vec::new() };
    let mut filters: BTreeSet<String> = found.filter_subjects.iter().cloned().collect();
    if !found.filter_subject.is_empty() {
        filters.insert(found.filter_subject.clone());
    }
    c.of("filter_subjects", &filters, &wanted.filter_subjects.iter().cloned().collect());
    c.of("ack_policy", &found.ack_policy, &wanted.ack_policy);
    c.of("deliver_policy", &found.deliver_policy, &wanted.deliver_policy);
    c.of("ack_wait", &found.ack_wait, &wanted.ack_wait);
    c.of("max_deliver", &found.max_deliver, &wanted.max_deliver);
    if wanted.max_ack_pending > 0 {
        c.of("max_ack_pending", &found.max_ack_pending, &wanted.max_ack_pending);
    }
    c.of("backoff", &found.backoff, &Vec::new());
    c.differences
}
