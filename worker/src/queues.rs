//! The settings of the queues as the fleet knows them; `targets.rs` keeps them up to date by its watch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use shared::{names::QueueName, queue::QueueSettings, suggest::nearest};
use streams::{ReadError, Streams};

/// The settings of the queues this worker knows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Queues {
    known: Arc<Mutex<HashMap<QueueName, QueueSettings>>>,
}

impl Queues {
    /// The settings of a queue; the usual ones, if none are known.
    pub(crate) fn settings(&self, name: &QueueName) -> QueueSettings {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    /// Notes what the catalog says of a queue.
    pub(crate) fn note(&self, name: QueueName, settings: Option<QueueSettings>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match settings {
            Some(settings) => known.insert(name, settings),
            None => known.remove(&name),
        };
    }
}

/// What is said of a queue that cannot be opened. One that nobody declared is most often a slip, and no `init` makes it.
pub(crate) async fn why_not_opened(streams: &Streams, queue: &QueueName, error: ReadError) -> String {
    match (error, streams.catalog().queues().await) {
        (ReadError::Missing { .. }, Ok(declared)) if !declared.contains_key(queue) => {
            undeclared(queue, declared.keys())
        }
        (error, _) => error.to_string(),
    }
}

fn undeclared<'a>(queue: &QueueName, declared: impl Iterator<Item = &'a QueueName>) -> String {
    let near = nearest(queue.as_str(), declared.map(QueueName::as_str));
    let meant = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    format!("it is not declared{meant}; declare it under `queues:` and apply, or serve another")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_declared_gets_the_name_that_was_meant() {
        let declared: Vec<QueueName> =
            ["default", "local"].iter().map(|name| name.parse().expect("a queue")).collect();
        let words = |queue: &str| undeclared(&queue.parse().expect("a queue"), declared.iter());
        assert!(words("loocal").contains("(did you mean local?); declare it"), "{}", words("loocal"));
        assert!(!words("reports").contains("did you mean"), "{}", words("reports"));
    }
}
