//! "Unknown; did you mean …?", for everything that has a name.

use anyhow::anyhow;
use shared::suggest::nearest;

/// The error for a name that is not there, with the nearest one that is.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => anyhow!("there is no {kind} {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => {
            anyhow!("there is no {kind} {name:?}; there are none at all: `cronfleet apply -f FILE` adds them")
        }
        None => anyhow!("there is no {kind} {name:?}; `cronfleet get {kind}s` lists those there are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_gets_the_name_that_was_meant() {
        let known = ["daily_data_archive", "nightly_vacuum"];
        assert!(
            unknown("schedule", "dayly_data_archive", known)
                .to_string()
                .ends_with("did you mean \"daily_data_archive\"?")
        );
        assert!(unknown("schedule", "x", known).to_string().contains("get schedules"));
        assert!(unknown("schedule", "x", []).to_string().contains("apply -f"));
    }
}
