//! What a stranger wrote on a submission that shall wait, read and judged. Pure.

use chrono::{DateTime, SubsecRound, TimeDelta};
use shared::{
    Timestamp,
    limits::DELAY_MAX,
    names::{NameError, QueueName},
    run::{RunId, RunIdError},
};

use crate::{Names, headers};

/// A submission that waits, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appointment {
    /// The run.
    pub run: RunId,
    /// The queue it goes to.
    pub queue: QueueName,
    /// Not before this instant; whole milliseconds, as the clock has them.
    pub not_before: Timestamp,
}

/// A submission that will never be a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The run it would be, if its subject names one that callers may use.
    pub run: Option<RunId>,
    /// The queue it would go to, if its subject names one.
    pub queue: Option<QueueName>,
    /// What is wrong with it, and what to do about it.
    pub why: String,
}

/// What is wrong with a submission that was to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not say when.
    #[error(
        "it has no header {}; say when it may run, such as 2026-11-24T02:00:00Z, or submit it as a task to run at once",
        headers::NOT_BEFORE
    )]
    NoInstant,
    /// What it says is no instant.
    #[error(
        "its header {}: {value:?} is no instant ({reason}); write it as 2026-11-24T02:00:00Z or 2026-11-24T10:00:00.250+08:00",
        headers::NOT_BEFORE
    )]
    BadInstant {
        /// What it says.
        value: String,
        /// Why that is none.
        reason: String,
    },
    /// It would wait too long.
    #[error("{not_before} is more than {} days after its submission at {submitted_at}; submit it later", DELAY_MAX.as_secs() / 86_400)]
    TooFar {
        /// When it was to run.
        not_before: Timestamp,
        /// When it was submitted.
        submitted_at: Timestamp,
    },
    /// Its key is not for callers.
    #[error("its key {0:?} is reserved for planners; choose one that is no slot and begins with no _")]
    ReservedKey(String),
    /// Its subject names no run.
    #[error("its subject: {0}")]
    Run(#[from] RunIdError),
    /// Its subject names no queue.
    #[error("its subject: {0}")]
    Queue(#[from] NameError),
}

/// Reads the instant a submission waits for.
pub fn read_not_before(written: Option<&str>, submitted_at: Timestamp) -> Result<Timestamp, Fault> {
    let written = written.ok_or(Fault::NoInstant)?.trim();
    let not_before = DateTime::parse_from_rfc3339(written)
        .map_err(|error| Fault::BadInstant { value: written.to_owned(), reason: error.to_string() })?;
    check_not_before(not_before.to_utc(), submitted_at)
}

/// The instant in whole milliseconds, or that it is too far. One that has passed is none the worse: it is due at once.
pub fn check_not_before(not_before: Timestamp, submitted_at: Timestamp) -> Result<Timestamp, Fault> {
    let whole = not_before.trunc_subsecs(3);
    // Up, never down: not a fraction of a millisecond too early.
    let rounded =
        if whole < not_before { whole.checked_add_signed(TimeDelta::milliseconds(1)) } else { Some(whole) };
    let too_far = Fault::TooFar { not_before, submitted_at };
    let latest = submitted_at.checked_add_signed(TimeDelta::from_std(DELAY_MAX).unwrap_or(TimeDelta::MAX));
    match (rounded, latest) {
        (Some(rounded), Some(latest)) if rounded <= latest => Ok(rounded),
        _ => Err(too_far),
    }
}

/// Reads all that can be read of a submission without its task.
pub(super) fn read(
    (queue, name, key): (&str, &str, &str),
    not_before: Option<&str>,
    submitted_at: Timestamp,
) -> Result<Appointment, Unusable> {
    let run: Result<RunId, RunIdError> = format!("{name}.{key}").parse();
    let queue: Result<QueueName, NameError> = queue.parse();
    let usable_run = run.as_ref().ok().filter(|run| !Names::is_reserved(run)).cloned();
    let usable_queue = queue.as_ref().ok().cloned();
    let read = || {
        let (run, queue) = (run?, queue?);
        if Names::is_reserved(&run) {
            return Err(Fault::ReservedKey(run.key.to_string()));
        }
        let not_before = read_not_before(not_before, submitted_at)?;
        Ok(Appointment { run, queue, not_before })
    };
    read().map_err(|why| Unusable { run: usable_run, queue: usable_queue, why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("instant")
    }

    const NOW: &str = "2026-11-24T02:00:00Z";

    #[test]
    fn an_instant_in_any_zone_is_understood_and_never_rounded_down() {
        for (written, read) in [
            ("2026-11-24T02:00:01Z", "2026-11-24T02:00:01Z"),
            ("2026-11-24T10:00:01.250+08:00", "2026-11-24T02:00:01.250Z"),
            ("2026-11-24T02:00:01.2500001Z", "2026-11-24T02:00:01.251Z"),
            (" 2026-11-24T02:00:01Z ", "2026-11-24T02:00:01Z"),
            // One that has passed: due at once.
            ("1999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"),
        ] {
            assert_eq!(read_not_before(Some(written), at(NOW)), Ok(at(read)), "{written}");
        }
    }

    #[test]
    fn what_is_no_instant_or_too_far_is_refused_with_the_value_the_rule_and_the_repair() {
        for (written, words) in [
            (None, "has no header Cronfleet-Not-Before"),
            (Some(""), "\"\" is no instant"),
            (Some("tomorrow"), "\"tomorrow\" is no instant"),
            (Some("90s"), "write it as"),
            (Some("2026-11-24T02:00:00"), "write it as"),
            (Some("2027-11-26T02:00:00Z"), "more than 366 days"),
            (Some("9999-12-31T23:59:59Z"), "more than 366 days"),
        ] {
            let fault = read_not_before(written, at(NOW)).expect_err("refused").to_string();
            assert!(fault.contains(words), "{written:?}: {fault}");
        }
        assert!(read_not_before(Some("2027-11-25T02:00:00Z"), at(NOW)).is_ok(), "exactly as far as allowed");
    }

    #[test]
    fn a_subject_that_callers_may_not_use_is_told_from_one_that_names_a_run() {
        let when = Some("2026-11-24T03:00:00Z");
        let read = |tokens, when| read(tokens, when, at(NOW));
        let found = read(("reports", "reindex", "4711"), when).expect("usable");
        assert_eq!((found.run.to_string().as_str(), found.queue.as_str()), ("reindex.4711", "reports"));
        let no_instant = read(("reports", "reindex", "4711"), None).expect_err("unusable");
        assert_eq!(no_instant.run.map(|run| run.to_string()).as_deref(), Some("reindex.4711"));
        for (tokens, words) in [
            (("default", "daily", "20261124T020000Z"), "reserved"),
            (("default", "daily", "_"), "reserved"),
            (("default", "da$ly", "1"), "its subject"),
        ] {
            let refused = read(tokens, when).expect_err("unusable");
            assert_eq!(refused.run, None, "{tokens:?}: no record may be written under it");
            assert!(refused.why.contains(words), "{tokens:?}: {}", refused.why);
        }
        let queue = read(("de$fault", "a", "1"), when).expect_err("unusable");
        assert_eq!((queue.run.is_some(), queue.queue), (true, None));
    }
}
