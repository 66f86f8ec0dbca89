//! "Unknown; did you mean …?", for everything that has a name.

use anyhow::anyhow;

/// The error for a name that is not there, with the nearest one that is.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    anyhow!(streams::operate::unknown(kind, name, known))
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
