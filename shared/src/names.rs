//! Names that people give: parsed at the door, so that inside there is no invalid name.
//!
//! All of them are 1 to 64 of `A-Z a-z 0-9 _ -`: at once a NATS token, a KV key part, a URL segment and a metric
//! label. Dots, wildcards and blanks would change the meaning of a subject.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use crate::{Timestamp, limits::NAME_CHARS_MAX};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a {kind} is empty; give it 1 to {NAME_CHARS_MAX} of A-Z a-z 0-9 _ -")]
    Empty {
        /// What kind of name was expected.
        kind: &'static str,
    },
    /// A character that would break a subject.
    #[error(
        "{kind} {text:?} has {found:?} at position {at}; only A-Z a-z 0-9 _ - are allowed: try {repair:?}"
    )]
    Illegal {
        /// What kind of name was expected.
        kind: &'static str,
        /// What was given, cut to a readable length.
        text: String,
        /// The first character that is not allowed.
        found: char,
        /// Its position, counted in characters from 1.
        at: usize,
        /// A name that would do.
        repair: String,
    },
    /// Longer than any subject token should be.
    #[error("{kind} {text:?}… has {chars} characters; at most {NAME_CHARS_MAX} are allowed: shorten it")]
    TooLong {
        /// What kind of name was expected.
        kind: &'static str,
        /// Its beginning.
        text: String,
        /// How many characters it has.
        chars: usize,
    },
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn check(kind: &'static str, text: &str) -> Result<(), NameError> {
    // Almost all are; what is wrong with the others is looked for then.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_name) {
        return Ok(());
    }
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    let chars = text.chars().count();
    if chars > NAME_CHARS_MAX {
        return Err(NameError::TooLong { kind, text: text.chars().take(16).collect(), chars });
    }
    if let Some((index, found)) = text.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
        let repair = text.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
        return Err(NameError::Illegal { kind, text: text.to_owned(), found, at: index + 1, repair });
    }
    Ok(())
}

/// Reads a text as it lies in its document, and parses it there.
pub(crate) struct Parsed<T>(pub(crate) PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        // Shared: names go into records, entries and messages of each run, and are never changed.
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check($kind, text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parsed(PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!("A ", $kind, "."),
                    "pattern": "^[A-Za-z0-9_-]{1,64}$",
                })
            }
        }
    };
}

name!(
    /// The name of a schedule, or of an ad-hoc task: the first half of a run's id.
    Name,
    "name"
);
name!(
    /// The name of a queue: a lane of runs that a pool of workers serves.
    QueueName,
    "queue name"
);
name!(
    /// The name of a target: a service that tasks act on.
    TargetName,
    "target name"
);
name!(
    /// What a target is asked to do.
    ActionName,
    "action"
);
name!(
    /// The name of a calendar.
    CalendarName,
    "calendar name"
);
name!(
    /// The id of a planner, worker or console: its kind, its host and a random part; new at every start.
    MemberId,
    "member id"
);
name!(
    /// The second half of a run's id: the slot of a planned run, the caller's idempotency key of an ad-hoc one.
    RunKey,
    "run key"
);
name!(
    /// The id of a backfill: when it was asked for, and something nobody else has.
    BackfillId,
    "backfill id"
);

impl QueueName {
    /// The queue of tasks that name none.
    pub fn default_queue() -> Self {
        Self("default".into())
    }
}

impl MemberId {
    /// A new id that is readable and unique: `worker-<host>-<8 hex digits>`.
    pub fn new(kind: &str, host: &str) -> Self {
        let host: String =
            host.chars().map(|c| if is_allowed(c) { c } else { '-' }).take(NAME_CHARS_MAX - 24).collect();
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{kind}-{host}-{}", &unique[..8]).into())
    }

    /// Whether it is the id of a member of this kind on this machine.
    pub fn is_of(&self, kind: &str, host: &str) -> bool {
        let here = Self::new(kind, host);
        let shared = here.0.len() - 8;
        self.0.len() == here.0.len() && self.0[..shared] == here.0[..shared]
    }
}

impl RunKey {
    /// A key nobody has used: it sorts by the time it was made.
    pub fn unique() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }

    /// A key for a run that was asked for by hand: when, and something nobody else has.
    pub fn by_hand(at: Timestamp) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("manual-{}-{}", at.format("%Y%m%dT%H%M%SZ"), &unique[..8]).into())
    }
}

impl BackfillId {
    /// A new id that is readable and unique: `backfill-20261124T020000Z-<8 hex digits>`.
    pub fn new(at: Timestamp) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("backfill-{}-{}", at.format("%Y%m%dT%H%M%SZ"), &unique[..8]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_would_change_a_subject_and_says_how_to_mend_it() {
        for (text, part) in [
            ("", "is empty"),
            ("a.b", "try \"a_b\""),
            ("*", "only A-Z"),
            (">", "only A-Z"),
            ("a b", "position 2"),
            ("a\n", "position 2"),
            ("../x", "try \"___x\""),
            ("nаme", "position 2"), // a Cyrillic а
        ] {
            let message = text.parse::<Name>().expect_err(text).to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
        let message = "x".repeat(65).parse::<Name>().expect_err("65").to_string();
        assert!(message.contains("65 characters; at most 64"), "{message}");
        assert!("x".repeat(64).parse::<Name>().is_ok());
    }

    #[test]
    fn member_ids_are_names_whatever_the_host_is_called() {
        for host in ["laptop", "a.b.c", "host with blanks", &"long".repeat(40)] {
            let id = MemberId::new("worker", host);
            assert!(id.is_of("worker", host) && !id.is_of("planner", host));
            assert!(!id.is_of("worker", "another"), "{host}");
            assert_eq!(id.as_str().parse::<MemberId>().expect("valid"), id);
        }
    }
}
