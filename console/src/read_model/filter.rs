//! Which runs are wanted: a pure description, and what it says of a record.

use std::{fmt, str::FromStr};

use chrono::SubsecRound;
use shared::{
    Timestamp,
    limits::{NAME_CHARS_MAX, SEARCH_TEXT_CHARS_MAX},
    names::{ActionName, MemberId, Name, QueueName, TargetName},
    run_record::{Reason, RunRecord},
    run_state::RunState,
};

/// Instants from one on, up to and without another. An end that is absent is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// From an instant on.
    pub fn since(from: Timestamp) -> Self {
        Self { from: Some(from), to: None }
    }

    /// Whether all instants are in it.
    pub fn is_open(self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Whether an instant is in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }
}

/// A text to look for in errors. Upper and lower case of A-Z are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorText(String);

/// What the ids of runs begin with: a name, or a name, a dot and the beginning of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

/// A text that cannot be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing to look for.
    #[error("the text to look for is empty; leave the filter out, or give it a character")]
    Empty,
    /// More than is looked for.
    #[error(
        "the text to look for has {0} characters; at most {SEARCH_TEXT_CHARS_MAX} are allowed: shorten it"
    )]
    TooLong(usize),
    /// No run's id begins like this.
    #[error(
        "{0:?} is not the beginning of a run's id; write it as <name>, or as <name>.<beginning of the key>, such as \
         reindex.47"
    )]
    NoPrefix(String),
}

impl ErrorText {
    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ErrorText {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text.chars().count() {
            0 => Err(FilterError::Empty),
            1..=SEARCH_TEXT_CHARS_MAX => Ok(Self(text.to_ascii_lowercase())),
            chars => Err(FilterError::TooLong(chars)),
        }
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl IdPrefix {
    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdPrefix {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let is_part = |part: &str, chars_min: usize| {
            (chars_min..=NAME_CHARS_MAX).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        let is_prefix = match text.split_once('.') {
            None => is_part(text, 1),
            Some((name, key)) => is_part(name, 1) && is_part(key, 0),
        };
        if is_prefix {
            return Ok(Self(text.to_owned()));
        }
        Err(FilterError::NoPrefix(text.chars().take(NAME_CHARS_MAX).collect()))
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which runs are wanted: those for which everything holds that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Runs of this schedule.
    pub schedule: Option<Name>,
    /// Runs under this name, ad hoc or of a schedule.
    pub name: Option<Name>,
    /// In this queue.
    pub queue: Option<QueueName>,
    /// In one of these states; in any if there is none.
    pub statuses: Vec<RunState>,
    /// In their state for one of these reasons; for any if there is none.
    pub reasons: Vec<Reason>,
    /// Whose latest attempt this worker made.
    pub worker: Option<MemberId>,
    /// Acting on this target.
    pub target: Option<TargetName>,
    /// Asking for this action, or running this command.
    pub action: Option<ActionName>,
    /// Created within.
    pub created: TimeRange,
    /// Whose slot is within; runs without a slot are left out if it is set.
    pub slot: TimeRange,
    /// Whose latest error says this.
    pub error_text: Option<ErrorText>,
    /// Dispatched late, or not.
    pub late: Option<bool>,
    /// In, or ended with, this attempt or a later one.
    pub attempts_min: Option<u32>,
    /// Whose id begins so.
    pub id_prefix: Option<IdPrefix>,
}

impl RunFilter {
    /// The reasons of slots at which a schedule was due and did not run.
    pub const SKIPS: [Reason; 4] =
        [Reason::SkippedOverlap, Reason::SkippedMissed, Reason::SkippedCalendar, Reason::Paused];

    /// Runs of a schedule.
    pub fn of_schedule(schedule: &Name) -> Self {
        Self { schedule: Some(schedule.clone()), ..Self::default() }
    }

    /// The slots of a schedule at which it was due and did not run; each record says why.
    pub fn skips_of(schedule: &Name) -> Self {
        Self {
            statuses: vec![RunState::Cancelled],
            reasons: Self::SKIPS.to_vec(),
            ..Self::of_schedule(schedule)
        }
    }

    /// Whether a record is one of those that are wanted. Instants count in whole milliseconds.
    pub fn matches(&self, record: &RunRecord) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let says = |text: &ErrorText| {
            let error = record.error.as_ref();
            error.is_some_and(|error| error.message.to_ascii_lowercase().contains(text.as_str()))
        };
        // A record that names another schedule than its id does is a stranger's, and of no schedule.
        let schedule = record.schedule.as_ref().filter(|schedule| **schedule == record.id.name);
        is(self.schedule.as_ref(), schedule)
            && is(self.name.as_ref(), Some(&record.id.name))
            && is(self.queue.as_ref(), Some(&record.queue))
            && is(self.worker.as_ref(), record.worker.as_ref())
            && is(self.target.as_ref(), record.target_service.as_ref())
            && is(self.action.as_ref(), record.action.as_ref())
            && is(self.late.as_ref(), Some(&record.late))
            && (self.statuses.is_empty() || self.statuses.contains(&record.status))
            && (self.reasons.is_empty() || record.reason.is_some_and(|reason| self.reasons.contains(&reason)))
            && self.created.contains(record.created_at.trunc_subsecs(3))
            && (self.slot.is_open()
                || record.slot.is_some_and(|slot| self.slot.contains(slot.trunc_subsecs(3))))
            && self.attempts_min.is_none_or(|attempts| record.attempt >= attempts)
            && self.error_text.as_ref().is_none_or(says)
            && self.id_prefix.as_ref().is_none_or(|prefix| record.id.to_string().starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::limits;

    #[test]
    fn a_prefix_is_the_beginning_of_an_id_and_nothing_else() {
        for good in ["a", "daily_archive", "daily.", "daily.20261124T", "a-b.c_d"] {
            assert_eq!(good.parse::<IdPrefix>().expect(good).as_str(), good);
        }
        let long = "x".repeat(limits::NAME_CHARS_MAX + 1);
        for bad in ["", ".", ".a", "a.b.c", "a*", "a b", "ä", "%", &long] {
            let error = bad.parse::<IdPrefix>().expect_err(bad).to_string();
            assert!(error.contains("write it as <name>"), "{error}");
        }
    }

    #[test]
    fn a_text_is_looked_for_in_lower_case_and_has_its_bounds() {
        assert_eq!("Connection REFUSED".parse::<ErrorText>().expect("a text").as_str(), "connection refused");
        assert_eq!("".parse::<ErrorText>(), Err(FilterError::Empty));
        let long = "x".repeat(SEARCH_TEXT_CHARS_MAX + 1);
        assert_eq!(long.parse::<ErrorText>(), Err(FilterError::TooLong(SEARCH_TEXT_CHARS_MAX + 1)));
    }
}
