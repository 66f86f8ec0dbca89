//! What can go wrong between us and the server, by what the caller has to do about it.

/// A write that did not go through, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote this key since it was read (or, for a creation, before).
    #[error("{what}: somebody else wrote it first")]
    Conflict {
        /// The key or subject.
        what: String,
    },
    /// The subject holds a message already: the run, or another of its schedule, is queued or running.
    #[error("{what}: a run is queued or running there already")]
    Occupied {
        /// The subject.
        what: String,
    },
    /// The stream is at its limit. Nothing was stored; wait, or make room.
    #[error("{what}: the stream is full ({detail}); finish or remove what is in it, or raise its max_bytes")]
    Full {
        /// The subject.
        what: String,
        /// The server's words.
        detail: String,
    },
    /// No answer in time: it may have happened. Repeat it idempotently, or read it back.
    #[error("{what}: no answer from the server; it is not known whether it was stored")]
    Unknown {
        /// The key or subject.
        what: String,
    },
    /// Nobody answers for this subject: no stream takes it, or the stream has no leader just now.
    #[error(
        "{what}: no stream takes this subject; is the queue declared, and was `cronfleet init` run? (A cluster that is \
         choosing a leader says the same: it passes within seconds)"
    )]
    NoStream {
        /// The subject.
        what: String,
    },
    /// Larger than the server takes.
    #[error("{what}: {bytes} bytes are more than a message may have; pass a reference instead of the data")]
    TooLarge {
        /// The key or subject.
        what: String,
        /// How large it is.
        bytes: usize,
    },
    /// The server refused, for a reason of its own.
    #[error("{what}: the server refused it: {detail} (code {code})")]
    Refused {
        /// The key or subject.
        what: String,
        /// `JetStream`'s error code.
        code: u64,
        /// The server's words.
        detail: String,
    },
    /// A header value that would break the message.
    #[error("header {name}: {value:?} holds a line break; remove it")]
    Header {
        /// The header.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl WriteError {
    /// Whether the same write may go through a moment later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, WriteError::Full { .. } | WriteError::Unknown { .. } | WriteError::NoStream { .. })
    }
}

/// A read that gave nothing to decide on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer in time, or no leader.
    #[error("{what}: no answer from the server: {detail}")]
    Unavailable {
        /// The key, stream or subject.
        what: String,
        /// The client's words.
        detail: String,
    },
    /// The stream or bucket is not there.
    #[error("{what} does not exist; run `cronfleet init`, which creates what is missing")]
    Missing {
        /// The stream or bucket.
        what: String,
    },
    /// What is stored there cannot be understood.
    #[error("{what} (revision {revision}) cannot be understood: {detail}")]
    Corrupt {
        /// The key.
        what: String,
        /// Its revision.
        revision: u64,
        /// What is wrong with it.
        detail: String,
    },
}

impl ReadError {
    pub(crate) fn unavailable(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::Unavailable { what: what.into(), detail: error.to_string() }
    }
}
