//! How a connection to a target over HTTP comes about, and what every request on it carries.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
};

use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, SECRET_VARIABLE_PREFIX};

/// The value of a header: a text, or where the worker finds it. The worker reads it for each request, and writes it nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderText {
    /// As it is.
    Text(String),
    /// From the worker's own surroundings.
    Secret(Secret),
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeaderTextVisitor)
    }
}

/// By hand, so that a mistake within the object is told as what it is.
struct HeaderTextVisitor;

impl<'de> Visitor<'de> for HeaderTextVisitor {
    type Value = HeaderText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text, {{env: {SECRET_VARIABLE_PREFIX}NAME}} or {{file: NAME}}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderText, E> {
        Ok(HeaderText::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderText, A::Error> {
        Secret::deserialize(de::value::MapAccessDeserializer::new(map)).map(HeaderText::Secret)
    }
}

/// Where a worker finds what no file of definitions should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// A variable of the worker's environment; its name begins with `CRONFLEET_SECRET_`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub env: Option<String>,
    /// A file in the worker's folder of secrets (`--secrets`); a plain name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// What comes before it, such as `"Bearer "`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub prefix: String,
}

/// How TLS is spoken with a target. All paths are those of the worker's machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file with the authorities that are trusted, instead of the machine's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca: Option<String>,
    /// PEM file with the certificate that the worker shows; with `key`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cert: Option<String>,
    /// PEM file with that certificate's key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The name that the target's certificate has, if it is not the one in its URL. Requests name it as their host, too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_name: Option<String>,
}

/// What cannot be sent, or not be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// More than servers take.
    #[error("headers has {0} of them; at most {HEADERS_MAX} are allowed")]
    Headers(usize),
    /// A name that is none, or not for people.
    #[error("header {name:?} {reason}")]
    Name {
        /// As it was written.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value that would break a request.
    #[error(
        "the value of header {0} has a character that is not visible ASCII, or more than {HEADER_BYTES_MAX} bytes"
    )]
    Value(String),
    /// A secret in the clear.
    #[error(
        "header {0} holds a secret, and a file of definitions is read by many; write {{env: {SECRET_VARIABLE_PREFIX}NAME}} or {{file: NAME}}, which the worker reads"
    )]
    InTheClear(String),
    /// A secret that is nowhere, or anywhere.
    #[error("the secret of header {header} {reason}")]
    Secret {
        /// The header.
        header: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Half of a pair, or a path that depends on where the worker was started.
    #[error("tls: {0}")]
    Tls(&'static str),
}

/// Headers that the request itself decides on.
const OF_THE_REQUEST: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "proxy-authorization",
    "idempotency-key",
    "traceparent",
];

/// Headers whose value is a secret, whoever writes it.
const SECRET_BY_NAME: [&str; 4] = ["authorization", "cookie", "x-api-key", "x-auth-token"];

/// Refuses headers that could not be sent, or must not be.
pub(crate) fn check_headers(headers: &BTreeMap<String, HeaderText>) -> Result<(), ConnectionError> {
    if headers.len() > HEADERS_MAX {
        return Err(ConnectionError::Headers(headers.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in headers {
        let wrong = |reason| ConnectionError::Name { name: name.clone(), reason };
        let lower = name.to_ascii_lowercase();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
            return Err(wrong("is no header name: 1 to 128 letters, digits and -"));
        }
        if OF_THE_REQUEST.contains(&lower.as_str()) || lower.starts_with("cronfleet-") {
            return Err(wrong("is set by the worker itself: leave it out"));
        }
        if !seen.insert(lower.clone()) {
            return Err(wrong("is there twice; upper and lower case are the same"));
        }
        match value {
            HeaderText::Text(text) => {
                if SECRET_BY_NAME.contains(&lower.as_str()) {
                    return Err(ConnectionError::InTheClear(name.clone()));
                }
                check_value(name, text)?;
            }
            HeaderText::Secret(secret) => {
                check_value(name, &secret.prefix)?;
                check_secret(secret)
                    .map_err(|reason| ConnectionError::Secret { header: name.clone(), reason })?;
            }
        }
    }
    Ok(())
}

fn check_value(name: &str, text: &str) -> Result<(), ConnectionError> {
    let is_visible = |byte: u8| matches!(byte, b' '..=b'~');
    let is_good = text.len() <= HEADER_BYTES_MAX && text.bytes().all(is_visible);
    if is_good { Ok(()) } else { Err(ConnectionError::Value(name.to_owned())) }
}

fn check_secret(secret: &Secret) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match (&secret.env, &secret.file) {
        // Whoever may apply must not be able to have the worker's own passwords sent anywhere.
        (Some(name), None) if !name.starts_with(SECRET_VARIABLE_PREFIX) => Err(format!(
            "is variable {name:?}; only those whose names begin with {SECRET_VARIABLE_PREFIX} are given away: rename it"
        )),
        (Some(name), None) | (None, Some(name))
            if name.is_empty()
                || name.len() > 128
                || name.starts_with('.')
                || !name.bytes().all(is_plain) =>
        {
            Err(format!("is called {name:?}; write a plain name: letters, digits, _ - and ., and no path"))
        }
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err("has either `env` or `file`".to_owned()),
    }
}

impl TlsSettings {
    /// Checks what serde cannot.
    pub(crate) fn check(&self) -> Result<(), ConnectionError> {
        if self.cert.is_some() != self.key.is_some() {
            return Err(ConnectionError::Tls("`cert` and `key` go together: write both, or neither"));
        }
        if [&self.ca, &self.cert, &self.key].into_iter().flatten().any(|path| !path.starts_with('/')) {
            return Err(ConnectionError::Tls(
                "`ca`, `cert` and `key` are absolute paths on the worker's machine",
            ));
        }
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        match &self.server_name {
            Some(name) if name.is_empty() || name.len() > 253 || !name.chars().all(is_of_a_name) => {
                Err(ConnectionError::Tls("`server_name` is the name of a host, such as storage.internal"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        let headers = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        check_headers(&headers).expect_err(yaml).to_string()
    }

    #[test]
    fn headers_that_would_break_a_request_or_give_a_secret_away_are_refused() {
        for (yaml, part) in [
            ("{'X Team': data}", "is no header name"),
            ("{\"X\\r\\nHost\": data}", "is no header name"),
            ("{Host: elsewhere}", "set by the worker itself"),
            ("{Cronfleet-Fence: '1'}", "set by the worker itself"),
            ("{X-Team: a, x-team: b}", "there twice"),
            ("{X-Team: \"a\\r\\nCookie: b\"}", "not visible ASCII"),
            ("{X-Team: 日}", "not visible ASCII"),
            ("{Authorization: Bearer abc}", "write {env: CRONFLEET_SECRET_NAME}"),
            ("{X-Api-Key: {env: NATS_PASSWORD}}", "begin with CRONFLEET_SECRET_"),
            ("{X-Api-Key: {file: ../../etc/shadow}}", "no path"),
            ("{X-Api-Key: {file: .hidden}}", "no path"),
            ("{X-Api-Key: {file: a, env: CRONFLEET_SECRET_A}}", "either"),
            ("{X-Api-Key: {}}", "either"),
        ] {
            let message = refused(yaml);
            assert!(message.contains(part), "{yaml}: {message}");
        }
        let many: BTreeMap<_, _> =
            (0..=HEADERS_MAX).map(|n| (format!("x-{n}"), HeaderText::Text("a".into()))).collect();
        assert!(check_headers(&many).is_err());
        let good = "{Authorization: {env: CRONFLEET_SECRET_STORAGE, prefix: 'Bearer '}, X-Key: {file: key}, X-Team: data 1}";
        assert_eq!(check_headers(&serde_saphyr::from_str(good).expect("headers")), Ok(()));
    }

    #[test]
    fn tls_that_cannot_be_spoken_is_refused() {
        for (yaml, part) in [
            ("{cert: /a}", "go together"),
            ("{ca: ca.pem}", "absolute paths"),
            ("{server_name: 'a b'}", "name of a host"),
        ] {
            let tls: TlsSettings = serde_saphyr::from_str(yaml).expect("settings");
            assert!(tls.check().expect_err(yaml).to_string().contains(part), "{yaml}");
        }
        assert!(serde_saphyr::from_str::<TlsSettings>("{insecure: true}").is_err());
    }
}
