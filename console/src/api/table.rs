//! The one table of verbs.

use super::{dead, definitions, events, fleet, runs, schedules, verb::Verb};

/// The tables of all resources, in the order in which the document lists them.
const TABLES: [&[Verb]; 12] = [
    schedules::reading::VERBS,
    schedules::writing::VERBS,
    schedules::steering::VERBS,
    schedules::history::VERBS,
    definitions::VERBS,
    runs::reading::VERBS,
    runs::writing::VERBS,
    runs::bulk::VERBS,
    dead::VERBS,
    fleet::VERBS,
    fleet::targets::VERBS,
    events::VERBS,
];

/// All verbs.
pub fn all() -> impl Iterator<Item = &'static Verb> {
    TABLES.into_iter().flatten()
}

/// The verb of this name.
pub fn find(id: &str) -> Option<&'static Verb> {
    all().find(|verb| verb.id == id)
}

/// Whether a path is that of a stream.
pub fn is_stream(path: &str) -> bool {
    all().any(|verb| verb.is_stream() && is_at(verb.path, path))
}

fn is_at(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part.starts_with('{') || part == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::parameter::Place;

    #[test]
    fn every_verb_has_a_name_and_a_place_of_its_own_and_says_what_it_does() {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for verb in all() {
            assert!(ids.insert(verb.id), "{}", verb.id);
            assert!(places.insert((verb.path, verb.method)), "{}", verb.path);
            assert!(!verb.summary.is_empty() && !verb.summary.ends_with('.'), "{}", verb.id);
            assert!(verb.about.ends_with('.') && verb.path.starts_with("/api/v1/"), "{}", verb.id);
            assert!(!verb.answers.is_empty(), "{}", verb.id);
            let legal = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            assert!(verb.id.chars().all(legal) && verb.id.matches('.').count() == 1, "{}", verb.id);
            let keys: BTreeSet<String> =
                verb.parameters.iter().map(super::super::parameter::Parameter::key).collect();
            assert_eq!(
                keys.len(),
                verb.parameters.len(),
                "{}: over NATS each has a name of its own",
                verb.id
            );
            assert!(!keys.contains("body"), "{}", verb.id);
            let in_path = verb.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let declared = verb.parameters.iter().filter(|parameter| parameter.place == Place::Path);
            assert!(in_path.eq(declared.map(|parameter| parameter.name)), "{}", verb.id);
        }
        assert!(find("schedules.trigger").is_some());
    }

    #[test]
    fn a_stream_is_known_by_its_path() {
        assert!(is_stream("/api/v1/results/stream") && is_stream("/api/v1/runs/a.1/logs/stream"));
        assert!(!is_stream("/api/v1/runs/a.1/logs") && !is_stream("/api/v1/runs/a.1/logs/stream/x"));
    }
}
