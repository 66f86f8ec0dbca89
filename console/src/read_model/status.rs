//! What the read model says of itself.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// How the read model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    /// Since when there is this model, and why it was built.
    pub built: Built,
    /// Whether it is being built: lists show what has been read by then and are slower, sums come when it is done.
    pub is_rebuilding: bool,
    /// The sequence in the ledger's stream up to which everything is in here.
    pub place: u64,
    /// Changes that were written to the ledger and are not in here, as far as is known.
    pub behind: u64,
    /// How old the newest change in here is while others wait; zero if none does.
    pub behind_for: Duration,
    /// Runs.
    pub runs: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Records that could not be understood, since the process began.
    pub unreadable: u64,
    /// Why it does not get on just now, if it does not.
    pub trouble: Option<String>,
}

/// Since when there is a model, and why it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Built {
    /// When building it began.
    pub since: Timestamp,
    /// Why.
    pub because: BuiltBecause,
}

/// Why a model was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why", content = "detail")]
pub enum BuiltBecause {
    /// There was none.
    New,
    /// There was one that another version of this program had made.
    OtherVersion,
    /// There was one of another ledger: another fleet's, or the ledger was made anew.
    OtherLedger,
    /// There was one that could not be read; in `SQLite`'s words.
    Damaged(String),
    /// Somebody removed it while it was in use.
    Removed,
}

impl fmt::Display for BuiltBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("there was none"),
            Self::OtherVersion => f.write_str("it was of another version"),
            Self::OtherLedger => f.write_str("it was of another ledger"),
            Self::Damaged(detail) => write!(f, "it was damaged: {detail}"),
            Self::Removed => f.write_str("it was removed"),
        }
    }
}
