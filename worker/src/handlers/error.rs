//! What a handler says when it did not go well, and what becomes of the run.

use std::{fmt, time::Duration};

use shared::run_record::ErrorKind;

use crate::executors::Failure;

/// Why a handler did not do its work, and whether it is to be tried again.
///
/// `?` makes one of any error, which is then retried by the task's policy; its words are the error's and those of all its causes.
/// It is no [`std::error::Error`] itself, so that this can be so.
///
/// ```
/// use worker::HandlerError;
///
/// fn count(text: &str) -> Result<u64, HandlerError> {
///     if text.is_empty() {
///         return Err(HandlerError::permanent("the table has no name"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert!(count("").is_err_and(|error| error.is_permanent()));
/// assert_eq!(count("7x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    words: String,
    permanent: bool,
    after: Option<Duration>,
}

impl HandlerError {
    /// Another attempt may mend it: the run is tried again while its policy allows it.
    pub fn retry(words: impl fmt::Display) -> Self {
        // Of an `anyhow::Error` this writes the causes too.
        Self { words: format!("{words:#}"), permanent: false, after: None }
    }

    /// No other attempt would mend it: the run ends FAILED and goes among the dead letters.
    pub fn permanent(words: impl fmt::Display) -> Self {
        Self { permanent: true, ..Self::retry(words) }
    }

    /// The next attempt begins after this at the earliest, an hour at most; later if the policy's backoff is longer. Without a
    /// meaning where no attempt follows.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { after: Some(wait), ..self }
    }

    /// The same, but no other attempt would mend it: for an error that came by `?` or [`From`].
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { permanent: true, ..self }
    }

    /// Whether no other attempt would mend it.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    pub(crate) fn into_failure(self) -> Failure {
        let words = if self.words.trim().is_empty() {
            "the handler failed, without words".to_owned()
        } else {
            self.words
        };
        Failure {
            permanent: self.permanent,
            retry_after: self.after.filter(|_| !self.permanent),
            ..Failure::retryable(ErrorKind::Target, words)
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words)
    }
}

impl<E: Into<anyhow::Error>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error = error.into();
        let words = error.chain().fold(String::new(), |words, cause| {
            let cause = cause.to_string();
            // Some errors say their cause's words in their own.
            match words.as_str() {
                "" => cause,
                said if said.ends_with(&cause) => words,
                said => format!("{said}: {cause}"),
            }
        });
        Self::retry(words)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn unreadable() -> std::io::Error {
        std::io::Error::other("disk on fire")
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read trades: {0}")]
    struct Twice(#[source] std::io::Error);

    #[test]
    fn any_error_is_retried_and_says_all_its_causes_once() {
        let plain = || -> Result<(), HandlerError> { Err(unreadable())? };
        let with_context = || -> Result<(), HandlerError> {
            Err(unreadable()).context("reading trades").context("archiving")?;
            Ok(())
        };
        let own = || -> Result<(), HandlerError> { Err(Twice(unreadable()))? };
        for (error, words) in [
            (plain().expect_err("fails"), "disk on fire"),
            (with_context().expect_err("fails"), "archiving: reading trades: disk on fire"),
            (own().expect_err("fails"), "cannot read trades: disk on fire"),
            (HandlerError::retry(anyhow::anyhow!("inner").context("outer")), "outer: inner"),
        ] {
            assert!(!error.is_permanent());
            assert_eq!(error.to_string(), words);
        }
        assert!(HandlerError::from(unreadable()).for_good().is_permanent());
    }

    #[test]
    fn what_becomes_of_the_run_is_what_was_said() {
        let wait = Duration::from_secs(90);
        let again = HandlerError::retry("busy").after(wait).into_failure();
        assert_eq!((again.permanent, again.retry_after), (false, Some(wait)));
        let never = HandlerError::permanent("no such table").after(wait).into_failure();
        assert_eq!((never.permanent, never.retry_after), (true, None));
        assert_eq!(
            HandlerError::retry(" ").into_failure().error.message,
            "the handler failed, without words"
        );
    }
}
