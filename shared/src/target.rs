//! A target: a service that tasks act on.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    limit::{KeyLimit, Rate},
    names::ActionName,
};

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over HTTP, at this base URL without a trailing slash.
    Http(String),
    /// Over NATS, under this subject prefix.
    Message(String),
}

/// A service that tasks act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TargetFields", into = "TargetFields")]
pub struct Target {
    /// How it is reached.
    pub address: Address,
    /// Where an action is found below an HTTP address; `{action}` stands for its name.
    pub path: Option<String>,
    /// Path of the health check below an HTTP address; asked before an attempt.
    pub health: Option<String>,
    /// Attempts at this target at once, over all workers.
    pub max_concurrent: Option<NonZeroU32>,
    /// Attempts at this target in a time, over all workers.
    pub rate: Option<Rate>,
    /// Attempts at once for one value of a key, over all workers.
    pub limit: Option<KeyLimit>,
}

/// A target as it is written in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Target")]
pub struct TargetFields {
    /// Base URL; the action is appended as `/actions/<action>` unless `path` says else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<String>,
    /// Subject prefix; a request goes to `<prefix>.<action>`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Path of an action below the base URL; `{action}` stands for its name. Default `/actions/{action}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Path of the health check below the base URL; it must answer 2xx before an attempt is made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<String>,
    /// Attempts at this target at once, over all workers. Default: no limit but the workers' places.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_concurrent: Option<NonZeroU32>,
    /// Attempts at this target in a time, over all workers, evenly spread: `10/s`, or `{max: 10, per: 1s}`. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
    /// Attempts at once for one value of a key, over all workers: `{key: parameters.symbol, max: 1}`. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<KeyLimit>,
}

/// A target that cannot be reached as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// None or both of the two ways.
    #[error("a target has either `http` (a base URL) or `message` (a subject prefix); this one has {0}")]
    Ways(&'static str),
    /// Not a URL that requests can be sent to.
    #[error(
        "http is {0:?}; write a base URL with scheme and host and no query, such as http://127.0.0.1:9101"
    )]
    Url(String),
    /// Not a subject, or one that is not for targets.
    #[error("message is {text:?}; {reason}: write a subject prefix such as svc.market-data-collector")]
    Subject {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a path.
    #[error("{field} is {text:?}; it must begin with / and hold no blanks, ? or #")]
    Path {
        /// Which of the two.
        field: &'static str,
        /// What was given.
        text: String,
    },
    /// A field that only makes sense for HTTP.
    #[error("{0} is for targets with `http`; this one has `message`: leave it out")]
    OnlyHttp(&'static str),
}

impl TryFrom<TargetFields> for Target {
    type Error = TargetError;
    fn try_from(fields: TargetFields) -> Result<Self, TargetError> {
        let address = match (fields.http, fields.message) {
            (Some(url), None) => Address::Http(check_url(&url)?),
            (None, Some(prefix)) => Address::Message(check_subject(prefix)?),
            (Some(_), Some(_)) => return Err(TargetError::Ways("both")),
            (None, None) => return Err(TargetError::Ways("neither")),
        };
        for (field, value) in [("path", &fields.path), ("health", &fields.health)] {
            let Some(text) = value else { continue };
            if matches!(address, Address::Message(_)) {
                return Err(TargetError::OnlyHttp(field));
            }
            if !text.starts_with('/')
                || text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c))
            {
                return Err(TargetError::Path { field, text: text.clone() });
            }
        }
        Ok(Self {
            address,
            path: fields.path,
            health: fields.health,
            max_concurrent: fields.max_concurrent,
            rate: fields.rate,
            limit: fields.limit,
        })
    }
}

impl From<Target> for TargetFields {
    fn from(target: Target) -> Self {
        let (http, message) = match target.address {
            Address::Http(url) => (Some(url), None),
            Address::Message(prefix) => (None, Some(prefix)),
        };
        Self {
            http,
            message,
            path: target.path,
            health: target.health,
            max_concurrent: target.max_concurrent,
            rate: target.rate,
            limit: target.limit,
        }
    }
}

fn check_url(url: &str) -> Result<String, TargetError> {
    let trimmed = url.trim_end_matches('/');
    let host = trimmed.strip_prefix("http://").or_else(|| trimmed.strip_prefix("https://"));
    // A user or password in a URL would end up in records and logs; a query would swallow the action's path.
    let bad = |c: char| c.is_whitespace() || c.is_control() || "?#@\\".contains(c);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(['/', ':']) && !trimmed.contains(bad) => {
            Ok(trimmed.to_owned())
        }
        _ => Err(TargetError::Url(without_secrets(url))),
    }
}

/// A URL as it may be said in errors: without the user and password it must not have, and without its query.
fn without_secrets(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?***"));
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].rfind('@') {
        Some(at) => format!("{}***{}{query}", &url[..start], &url[start + at..]),
        None => format!("{url}{query}"),
    }
}

fn check_subject(text: String) -> Result<String, TargetError> {
    let reason = if text.is_empty() || text.split('.').any(str::is_empty) {
        "it has an empty token"
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c)) {
        "it has a wildcard or a blank"
    } else if text.starts_with('$') || text.starts_with("_INBOX") {
        // Whatever a schedule says, it must not speak to the server's own API.
        "subjects of the server are not targets"
    } else {
        return Ok(text);
    };
    Err(TargetError::Subject { text, reason })
}

impl Target {
    /// Where an action of this target is: a URL, or a subject.
    pub fn place_of(&self, action: &ActionName) -> String {
        match &self.address {
            Address::Http(base) => {
                let path = self.path.as_deref().unwrap_or("/actions/{action}");
                format!("{base}{}", path.replace("{action}", action.as_str()))
            }
            Address::Message(prefix) => format!("{prefix}.{action}"),
        }
    }

    /// The URL of the health check, if one is declared.
    pub fn health_url(&self) -> Option<String> {
        match (&self.address, &self.health) {
            (Address::Http(base), Some(path)) => Some(format!("{base}{path}")),
            _ => None,
        }
    }
}

impl JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        TargetFields::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TargetFields::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> Result<Target, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_action_is_found_below_its_target() {
        let action: ActionName = "archive_hot_data".parse().expect("action");
        for (json, place) in [
            (r#"{"http":"http://127.0.0.1:9101/"}"#, "http://127.0.0.1:9101/actions/archive_hot_data"),
            (
                r#"{"http":"https://h/base","path":"/do/{action}/now"}"#,
                "https://h/base/do/archive_hot_data/now",
            ),
            (r#"{"message":"svc.storage"}"#, "svc.storage.archive_hot_data"),
        ] {
            assert_eq!(target(json).expect(json).place_of(&action), place);
        }
    }

    #[test]
    fn a_password_or_a_token_in_an_address_is_refused_without_being_repeated() {
        for url in [
            "http://user:s3cret@host/a",
            "http://host/?token=s3cret",
            "user:s3cret@host",
            "http://u:a/s3cret@h",
        ] {
            let message = target(&format!(r#"{{"http":"{url}"}}"#)).expect_err(url);
            assert!(!message.contains("s3cret") && message.contains("***"), "{message}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_reached_is_refused_with_the_repair() {
        for (json, part) in [
            ("{}", "neither"),
            (r#"{"http":"http://a","message":"b"}"#, "both"),
            (r#"{"http":"file:///etc/passwd"}"#, "scheme and host"),
            (r#"{"http":"http://user:secret@host"}"#, "scheme and host"),
            (r#"{"http":"http://"}"#, "scheme and host"),
            (r#"{"message":"$JS.API"}"#, "not targets"),
            (r#"{"message":"a..b"}"#, "empty token"),
            (r#"{"message":"a.>"}"#, "wildcard"),
            (r#"{"message":"a","health":"/healthz"}"#, "leave it out"),
            (r#"{"http":"http://a","health":"healthz"}"#, "begin with /"),
            (r#"{"http":"http://a","max_concurrent":0}"#, "nonzero"),
        ] {
            let message = target(json).expect_err(json);
            assert!(message.contains(part), "{json}: {message}");
        }
    }
}
