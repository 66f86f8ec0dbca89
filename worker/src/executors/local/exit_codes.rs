//! What a command's exit codes mean.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

/// "The command was used incorrectly" (sysexits.h): the same arguments will not do next time.
pub(super) const EX_USAGE: u8 = 64;
/// "The input data was incorrect" (sysexits.h).
pub(super) const EX_DATAERR: u8 = 65;

/// What the exit codes of a command mean. Each code is named once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct ExitCodes {
    /// It did what it was asked for. Default: 0.
    pub success: BTreeSet<u8>,
    /// Another attempt would not mend it. Default: 64 and 65, those of them that are not named elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permanent: Option<BTreeSet<u8>>,
    /// Another attempt may mend it.
    pub retryable: BTreeSet<u8>,
    /// What all others mean. Default: retryable.
    pub others: Others,
}

/// What the codes mean that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// Another attempt may mend it.
    #[default]
    Retryable,
    /// Another attempt would not mend it.
    Permanent,
}

/// What one code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Success,
    Retryable,
    Permanent,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self { success: [0].into(), permanent: None, retryable: BTreeSet::new(), others: Others::Retryable }
    }
}

impl<'de> Deserialize<'de> for ExitCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The derived one, which reads each field by itself; here they are looked at together.
        let codes = Self::deserialize(deserializer)?;
        let named = codes.success.iter().chain(&codes.retryable).chain(codes.permanent.iter().flatten());
        let mut seen = BTreeSet::new();
        match named.copied().find(|code| !seen.insert(*code)) {
            Some(code) => Err(serde::de::Error::custom(format!(
                "exit code {code} is named twice; name it under one of success, permanent and retryable"
            ))),
            None => Ok(codes),
        }
    }
}

impl Serialize for ExitCodes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl ExitCodes {
    /// What a code means.
    pub(super) fn meaning(&self, code: u8) -> Meaning {
        let is_permanent = match &self.permanent {
            Some(codes) => codes.contains(&code),
            None => matches!(code, EX_USAGE | EX_DATAERR),
        };
        if self.success.contains(&code) {
            Meaning::Success
        } else if self.retryable.contains(&code) {
            Meaning::Retryable
        } else if is_permanent || self.others == Others::Permanent {
            Meaning::Permanent
        } else {
            Meaning::Retryable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ExitCodes, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn codes_mean_what_the_entry_says_and_else_what_is_usual() {
        use Meaning::{Permanent, Retryable, Success};
        let table: [(&str, &[(u8, Meaning)]); 5] = [
            ("{}", &[(0, Success), (1, Retryable), (64, Permanent), (65, Permanent), (75, Retryable)]),
            ("{success: [0, 3]}", &[(0, Success), (3, Success), (64, Permanent)]),
            ("{success: [3]}", &[(0, Retryable), (3, Success)]),
            ("{retryable: [64], permanent: [2]}", &[(64, Retryable), (2, Permanent), (65, Retryable)]),
            ("{retryable: [75], others: permanent}", &[(0, Success), (75, Retryable), (1, Permanent)]),
        ];
        for (text, codes) in table {
            let read = read(text).expect(text);
            for (code, meaning) in codes {
                assert_eq!(read.meaning(*code), *meaning, "{text}: {code}");
            }
        }
    }

    #[test]
    fn a_code_that_is_named_twice_or_is_none_is_refused() {
        for (text, part) in [
            ("{success: [0, 3], permanent: [3]}", "exit code 3 is named twice"),
            ("{retryable: [0]}", "exit code 0 is named twice"),
            ("{success: [256]}", "256"),
            ("{sucess: [0]}", "unknown field"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
