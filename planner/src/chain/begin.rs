//! Behind which end a schedule begins to follow another. Pure.

use shared::{Timestamp, names::Name};
use streams::schedules::Version;

/// Where a schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Where its partition's cursor is: who wrote that followed the ends for it, too.
    AtCursor,
    /// With the ends after this instant: since then it follows this schedule, and who wrote the cursor may not have known.
    At(Timestamp),
}

impl Beginning {
    /// Where a schedule begins that follows the same one since this version.
    pub(crate) fn of(revision: u64, since: Timestamp, heard: u64) -> Self {
        if revision <= heard { Self::AtCursor } else { Self::At(since) }
    }
}

/// Where a schedule begins to follow this one, by the versions of its definition, oldest first, and the newest revision
/// that who wrote its partition's cursor had heard of. None if it does not follow it, by its newest version.
pub(crate) fn beginning(versions: &[Version], heard: u64, upstream: &Name) -> Option<Beginning> {
    let follows = |version: &&Version| {
        let schedule = version.definition.as_ref().ok().and_then(Option::as_ref);
        schedule.and_then(|schedule| schedule.after()).is_some_and(|after| after.schedule == *upstream)
    };
    let oldest = versions.iter().rev().take_while(follows).last()?;
    Some(Beginning::of(oldest.revision, oldest.since, heard))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(texts: &[&str]) -> Vec<Version> {
        let version = |(index, text): (usize, &&str)| Version {
            name: "down".parse().expect("name"),
            definition: match *text {
                "-" => Ok(None),
                "?" => Err("nonsense".to_owned()),
                upstream => {
                    let after =
                        format!(r#"{{"after":{{"schedule":"{upstream}"}},"task":{{"command":["a"]}}}}"#);
                    Ok(Some(serde_json::from_str(&after).expect("schedule")))
                }
            },
            revision: 10 * (index as u64 + 1),
            since: at(index),
        };
        texts.iter().enumerate().map(version).collect()
    }

    fn at(index: usize) -> Timestamp {
        format!("2026-11-24T0{index}:00:00Z").parse().expect("instant")
    }

    #[test]
    fn a_schedule_begins_where_it_took_up_the_link_or_where_the_cursor_is_if_its_writer_knew() {
        use Beginning::{At, AtCursor};
        for (texts, heard, expected, why) in [
            (&["up"][..], 0, Some(At(at(0))), "nobody ever followed it"),
            (&["up"], 10, Some(AtCursor), "the writer knew it"),
            (&["up", "up", "up"], 0, Some(At(at(0))), "its task was changed twice before any planner lived"),
            (&["up", "up", "up"], 15, Some(AtCursor), "changed since, but not in what it follows"),
            (&["x", "up", "up"], 15, Some(At(at(1))), "it followed another one then"),
            (&["x", "up", "up"], 25, Some(AtCursor), "and this one by now"),
            (&["up", "-", "up"], 15, Some(At(at(2))), "deleted in between"),
            (&["up", "?", "up"], 15, Some(At(at(2))), "not to be understood in between"),
            (&["up", "x"], 15, None, "it follows another one now"),
            (&[], 15, None, "nothing is known"),
        ] {
            let up = "up".parse().expect("name");
            assert_eq!(beginning(&versions(texts), heard, &up), expected, "{texts:?} {heard}: {why}");
        }
    }
}
