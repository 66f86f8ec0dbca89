//! Where a target is.

use crate::{
    names::TargetName,
    target::{TargetError, TargetFields},
};

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over HTTP, at this base URL without a trailing slash.
    Http(String),
    /// Over NATS, under this subject prefix.
    Message(String),
    /// Over NATS, wherever the micro service of this name says that it listens.
    Service(String),
}

/// The one way in which a target is reached.
pub(crate) fn address_of(fields: &TargetFields) -> Result<Address, TargetError> {
    match (&fields.http, &fields.message, &fields.service) {
        (Some(url), None, None) => Ok(Address::Http(check_url(url)?)),
        (None, Some(prefix), None) => Ok(Address::Message(check_subject(prefix.clone())?)),
        // Names of services and of targets are spelled by one rule.
        (None, None, Some(name)) => match name.parse::<TargetName>() {
            Ok(_) => Ok(Address::Service(name.clone())),
            Err(_) => Err(TargetError::Service(name.clone())),
        },
        (None, None, None) => Err(TargetError::Ways("none of them")),
        _ => Err(TargetError::Ways("several")),
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
