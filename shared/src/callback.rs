//! Targets that take a run on and say later how it ended: what they are told, what the record says meanwhile, and what they
//! answer with in the end.
//!
//! A token that only this attempt's target is told names the place where its answer is left. The record holds its hash, so
//! that whoever looks knows the right answer, and nobody learns from a record how to give one.

use std::{str::FromStr, time::Duration};

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Timestamp,
    human_duration::HumanDuration,
    limits::{ASYNC_DEADLINE_DEFAULT, ASYNC_DEADLINE_MAX, ASYNC_HEARTBEAT_MIN, ASYNC_LOOK},
    mistake::json_words,
    suggest::explain_unknown,
};

/// How long a target may take that answers later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AsyncSettings {
    /// How long after the request the end may come, at most: up to 7days, default 1h.
    pub deadline: HumanDuration,
    /// How long the target may be silent; each sign of life begins it anew. 1s or more. Default: until the deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<HumanDuration>,
}

impl Default for AsyncSettings {
    fn default() -> Self {
        Self { deadline: ASYNC_DEADLINE_DEFAULT.into(), heartbeat: None }
    }
}

/// Times that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("async.{field} is {value}; it is {min} to {max}", min = HumanDuration(ASYNC_HEARTBEAT_MIN), max = HumanDuration(*.max))]
pub struct AsyncError {
    field: &'static str,
    value: HumanDuration,
    max: Duration,
}

impl AsyncSettings {
    /// Checks what serde cannot.
    pub(crate) fn check(&self) -> Result<(), AsyncError> {
        let deadline = ("deadline", Some(self.deadline), ASYNC_DEADLINE_MAX);
        for (field, value, max) in [deadline, ("heartbeat", self.heartbeat, self.deadline.0)] {
            let is_bad = |value: &HumanDuration| value.0 < ASYNC_HEARTBEAT_MIN || value.0 > max;
            if let Some(value) = value.filter(is_bad) {
                return Err(AsyncError { field, value, max });
            }
        }
        Ok(())
    }
}

/// What only one attempt's target is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallbackToken(Uuid);

impl CallbackToken {
    /// One that nobody can guess: 122 random bits.
    #[expect(clippy::new_without_default, reason = "a token is made, there is no usual one")]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// As it stands in a subject or a URL: 32 hex digits.
    pub fn text(&self) -> String {
        self.0.simple().to_string()
    }

    /// What a record keeps of it.
    pub fn hash(&self) -> String {
        Uuid::new_v5(&self.0, b"cronfleet callback").simple().to_string()
    }
}

impl FromStr for CallbackToken {
    type Err = NoToken;

    /// Reads it as it stands in a subject or a URL, and in no other way.
    fn from_str(text: &str) -> Result<Self, NoToken> {
        let is_as_written =
            text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        Uuid::try_parse(text).ok().filter(|_| is_as_written).map(Self).ok_or(NoToken)
    }
}

/// What was written for a token is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no token; it is 32 hex digits, as the attempt's target was told")]
pub struct NoToken;

/// The hash of what may be a token, whoever wrote it.
fn hash_of(text: &str) -> Option<String> {
    text.parse::<CallbackToken>().ok().map(|token| token.hash())
}

/// What a run waits for whose target has taken it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Awaited {
    /// When the target took it on.
    pub accepted_at: Timestamp,
    /// When it must have ended.
    pub deadline: Timestamp,
    /// How long the target may be silent before that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heartbeat: Option<HumanDuration>,
    /// By this the right answer is known.
    pub token_hash: String,
}

impl Awaited {
    /// Whether this is what the attempt's target was told.
    pub fn is_answered_under(&self, token: &str) -> bool {
        hash_of(token).as_ref() == Some(&self.token_hash)
    }

    /// When it is over if nothing more is heard. `heard_at`: the last sign of life.
    pub fn over_at(&self, heard_at: Option<Timestamp>) -> Timestamp {
        let Some(silence) = self.heartbeat.and_then(|silence| TimeDelta::from_std(silence.0).ok()) else {
            return self.deadline;
        };
        let heard_at = heard_at.unwrap_or(self.accepted_at).max(self.accepted_at);
        heard_at.checked_add_signed(silence).map_or(self.deadline, |silent_at| silent_at.min(self.deadline))
    }

    /// How long to wait before it is looked at again; nothing if it is over.
    pub fn look_again_in(&self, heard_at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
        let left = (self.over_at(heard_at) - now).to_std().ok().filter(|left| !left.is_zero())?;
        Some(left.min(ASYNC_LOOK))
    }
}

/// How a target says that a run came on, or to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackStatus {
    /// It is at work.
    Progress,
    /// It ended well.
    Success,
    /// It ended with an error.
    Failed,
}

/// What a target leaves for the run it took on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// Absent: failed if there is an error, success otherwise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<CallbackStatus>,
    /// The run's output.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<Value>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<CallbackError>,
}

/// What went wrong in a target that answers later.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallbackError {
    /// In words.
    #[serde(default)]
    pub message: String,
    /// Whether another attempt may mend it; by default it may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retryable: Option<bool>,
    /// How long to wait before it: seconds, or an HTTP date.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<Value>,
}

impl Callback {
    /// Reads what a target left; nothing at all means that it ended well.
    ///
    /// A field nobody knows is refused: it may be a failure whose name is misspelt, and would count as a success. Only a sign
    /// of life may say what it likes beside.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // A list would be read as the fields in their order.
        let is_object = bytes.trim_ascii_start().starts_with(b"{");
        let read = if is_object {
            serde_json::from_slice(bytes).or_else(|error| {
                sign_of_life(bytes).ok_or_else(|| explain_unknown(&json_words(&error.to_string())))
            })
        } else {
            Err("it is no JSON object".to_owned())
        };
        read.map_err(|error| {
            format!(
                "{error}; write {{\"status\": \"success\", \"output\": …}}, {{\"error\": {{\"message\": …}}}} or {{\"status\": \"progress\"}}"
            )
        })
    }

    /// What it says.
    pub fn status(&self) -> CallbackStatus {
        let by_error = if self.error.is_some() { CallbackStatus::Failed } else { CallbackStatus::Success };
        self.status.unwrap_or(by_error)
    }
}

/// What says that its target is at work, whatever else it says.
fn sign_of_life(bytes: &[u8]) -> Option<Callback> {
    #[derive(Deserialize)]
    struct Sign {
        status: CallbackStatus,
    }
    let Sign { status } = serde_json::from_slice(bytes).ok()?;
    (status == CallbackStatus::Progress).then(|| Callback { status: Some(status), ..Callback::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn awaited(heartbeat: Option<u64>) -> Awaited {
        Awaited {
            accepted_at: at("02:00:00"),
            deadline: at("03:00:00"),
            heartbeat: heartbeat.map(|seconds| Duration::from_secs(seconds).into()),
            token_hash: CallbackToken(Uuid::from_u128(7)).hash(),
        }
    }

    #[test]
    fn only_the_token_itself_is_the_right_one_and_the_record_does_not_hold_it() {
        let (token, awaited) = (CallbackToken(Uuid::from_u128(7)), awaited(None));
        assert!(awaited.is_answered_under(&token.text()));
        let upper = format!("{:032X}", 0xab_u32);
        for other in ["", "7", &CallbackToken::new().text(), &token.hash(), &token.0.to_string(), &upper] {
            assert!(!awaited.is_answered_under(other), "{other}");
        }
        assert!(!serde_json::to_string(&awaited).expect("json").contains(&token.text()));
    }

    #[test]
    fn signs_of_life_put_off_the_end_of_patience_but_not_the_deadline() {
        for (heartbeat, heard_at, over_at) in [
            (None, None, "03:00:00"),
            (None, Some("02:59:00"), "03:00:00"),
            (Some(60), None, "02:01:00"),
            (Some(60), Some("02:30:00"), "02:31:00"),
            (Some(60), Some("01:00:00"), "02:01:00"),
            (Some(60), Some("02:59:30"), "03:00:00"),
        ] {
            assert_eq!(
                awaited(heartbeat).over_at(heard_at.map(at)),
                at(over_at),
                "{heartbeat:?} {heard_at:?}"
            );
        }
        let look = |now| awaited(Some(60)).look_again_in(None, at(now));
        assert_eq!(look("02:00:10"), Some(ASYNC_LOOK));
        assert_eq!(look("02:00:59"), Some(Duration::from_secs(1)));
        assert_eq!(look("02:01:00"), None);
    }

    #[test]
    fn what_a_target_leaves_is_read_and_garbage_is_told_what_to_write() {
        for (text, status) in [
            ("", CallbackStatus::Success),
            (r#"{"output":{"rows":3}}"#, CallbackStatus::Success),
            (r#"{"error":{"message":"no"}}"#, CallbackStatus::Failed),
            (r#"{"status":"progress","done":7}"#, CallbackStatus::Progress),
        ] {
            assert_eq!(Callback::read(text.as_bytes()).expect(text).status(), status, "{text}");
        }
        for text in ["done", r#"{"status":"ok"}"#, "[]", "{\"output\":"] {
            assert!(Callback::read(text.as_bytes()).expect_err(text).contains("write {"), "{text}");
        }
    }

    #[test]
    fn a_field_nobody_knows_is_refused_so_that_no_failure_counts_as_a_success() {
        for (text, words) in [
            (
                r#"{"erorr":{"message":"boom"}}"#,
                "unknown field `erorr`, expected one of `status`, `output`, `error`",
            ),
            (r#"{"erorr":{"message":"boom"}}"#, "did you mean `error`?"),
            (r#"{"success":false,"message":"disk is full"}"#, "unknown field `success`"),
            (r#"{"outputt":3}"#, "did you mean `output`?"),
            (r#"{"error":{"mesage":"boom"}}"#, "did you mean `message`?"),
            (r#"{"staus":"progress","done":7}"#, "did you mean `status`?"),
        ] {
            let refused = Callback::read(text.as_bytes()).expect_err(text);
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }

    #[test]
    fn times_that_cannot_be_kept_are_refused() {
        let settings = |json: &str| serde_json::from_str::<AsyncSettings>(json).expect(json).check();
        assert_eq!(settings("{}"), Ok(()));
        for (json, part) in [
            (r#"{"deadline":"8days"}"#, "1s to 7days"),
            (r#"{"deadline":"0s"}"#, "1s to 7days"),
            (r#"{"deadline":"1m","heartbeat":"2m"}"#, "async.heartbeat is 2m; it is 1s to 1m"),
        ] {
            assert!(settings(json).expect_err(json).to_string().contains(part), "{json}");
        }
    }
}
