//! Hears of every effect on the server, right after it: so that a test can end a process between any two of them.
//!
//! All writes, and all answers to what was fetched, go through the few functions that say so here, so an effect that
//! nobody thought of has its point too. A point is named by what was written, as the first words of its subject or key say
//! (`runs.create`, `runs.update`, `due`, `planner.cursor`, `remove.TASKS`), or by what was answered (`ack.trigger`, `ack.task`,
//! `back.task`).

use std::sync::OnceLock;

use crate::Names;

type Witness = Box<dyn Fn(&str) + Send + Sync>;

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// Has this called with the name of the point after each effect of this process. For tests; the first one stays.
pub fn install(witness: impl Fn(&str) + Send + Sync + 'static) {
    let _ = WITNESS.set(Box::new(witness));
}

/// Whether anybody wants to hear of it.
pub(crate) fn is_installed() -> bool {
    WITNESS.get().is_some()
}

/// An effect has happened. Costs nothing where nobody wants to hear of it.
pub(crate) fn saw(point: impl FnOnce() -> String) {
    if let Some(witness) = WITNESS.get() {
        witness(&point());
    }
}

/// A step has been done that is no write to the server and yet cannot be undone: a target was asked, say.
pub fn passed(point: &'static str) {
    saw(|| point.to_owned());
}

/// The point after a write to a subject. `is_creation`: over nothing.
pub(crate) fn point_of(names: &Names, subject: &str, is_creation: bool) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    let namespace = names.namespace().to_string();
    match tokens.as_slice() {
        ["$KV", bucket, key, ..] => {
            let bucket = bucket.strip_prefix(&namespace).unwrap_or(bucket).trim_start_matches('_');
            match bucket {
                // Their keys begin with a name, which says nothing of the kind of effect.
                "runs" if is_creation => "runs.create".to_owned(),
                "runs" => "runs.update".to_owned(),
                "planner" | "catalog" | "members" | "limits" => format!("{bucket}.{key}"),
                _ => bucket.to_owned(),
            }
        }
        [_, "control", kind, ..] => format!("control.{kind}"),
        [_, kind, ..] => (*kind).to_owned(),
        _ => subject.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_by_what_was_written_and_not_by_whose_it_is() {
        let names = Names::new("cronfleet".parse().expect("a namespace"));
        for (subject, is_creation, point) in [
            ("$KV.cronfleet_runs.daily.20261124T020000Z", true, "runs.create"),
            ("$KV.cronfleet_runs.daily.20261124T020000Z", false, "runs.update"),
            ("$KV.cronfleet_planner.cursor.7", true, "planner.cursor"),
            ("$KV.cronfleet_planner.line.7.daily", false, "planner.line"),
            ("$KV.cronfleet_limits.gate.t-risk", false, "limits.gate"),
            ("$KV.cronfleet_backfills.daily.1", false, "backfills"),
            ("cronfleet.due.default.daily._", false, "due"),
            ("cronfleet.control.cancel.daily.1", false, "control.cancel"),
        ] {
            assert_eq!(point_of(&names, subject, is_creation), point);
        }
    }
}
