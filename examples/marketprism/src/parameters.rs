//! Reads the parameters of a request, one by one; whatever nobody asked for is refused at the end.
//!
//! A refusal names the parameter with its value, the rule, and the repair: it ends up in a run's record, where
//! somebody reads it at night.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ServiceError;

/// Shown of a wrong value; the rest would only bury the rule.
const VALUE_CHARS_SHOWN_MAX: usize = 100;
/// Readers of one report.
const RECIPIENTS_MAX: usize = 20;

/// The parameters of one request, not yet read.
#[derive(Debug)]
pub(crate) struct Parameters {
    unread: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Parameters {
    /// Takes `parameters` out of a request's body; other fields there (`run`, `attempt`, …) are none of our concern.
    /// An empty body has no parameters.
    pub(crate) fn of_request(body: &[u8]) -> Result<Self, ServiceError> {
        let mut unread = Map::new();
        if !body.trim_ascii().is_empty() {
            let request: Value = serde_json::from_slice(body).map_err(|error| {
                ServiceError::bad_request(format!(
                    "the body is not JSON: {error}; send an object with \"parameters\""
                ))
            })?;
            let Value::Object(mut request) = request else {
                let message = "the body must be a JSON object; send {\"parameters\": {…}}";
                return Err(ServiceError::bad_request(message));
            };
            match request.remove("parameters") {
                None | Some(Value::Null) => {}
                Some(Value::Object(parameters)) => unread = parameters,
                Some(other) => {
                    return Err(refusal("", &other, "must be an object", "send {\"parameters\": {…}}"));
                }
            }
        }
        Ok(Self { unread, known: Vec::new() })
    }

    /// A text that `read` understands. `rule` is the end of "it must be …".
    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        rule: &str,
        default: Option<&str>,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ServiceError> {
        let value = match (self.take(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => Value::from(default),
            (None, None) => return Err(missing(name, rule)),
        };
        let parsed = value.as_str().and_then(read);
        parsed.ok_or_else(|| refusal(name, &value, &format!("must be {rule}"), &repair(default)))
    }

    /// A whole number in a range.
    pub(crate) fn integer(
        &mut self,
        name: &'static str,
        range: &RangeInclusive<i64>,
        default: i64,
    ) -> Result<i64, ServiceError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let integer = value.as_i64().filter(|integer| range.contains(integer));
        let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
        integer.ok_or_else(|| refusal(name, &value, &rule, &repair(Some(&default.to_string()))))
    }

    /// A number above 0 and at most 1.
    pub(crate) fn fraction(&mut self, name: &'static str, default: f64) -> Result<f64, ServiceError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let fraction = value.as_f64().filter(|fraction| *fraction > 0.0 && *fraction <= 1.0);
        let rule = "must be a number above 0 and at most 1";
        fraction.ok_or_else(|| refusal(name, &value, rule, &repair(Some(&default.to_string()))))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, ServiceError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let rule = "must be true or false";
        value.as_bool().ok_or_else(|| refusal(name, &value, rule, &repair(Some(&default.to_string()))))
    }

    /// One of a few words.
    pub(crate) fn choice(
        &mut self,
        name: &'static str,
        allowed: &[&'static str],
        default: &'static str,
    ) -> Result<&'static str, ServiceError> {
        let rule = format!("one of {}", allowed.join(", "));
        self.parsed(name, &rule, Some(default), |text| allowed.iter().find(|word| **word == text).copied())
    }

    /// Some of a few words, in the order written, without repeats; all of them when left out.
    pub(crate) fn choices(
        &mut self,
        name: &'static str,
        allowed: &[&'static str],
    ) -> Result<Vec<&'static str>, ServiceError> {
        let Some(value) = self.take(name) else { return Ok(allowed.to_vec()) };
        let mut chosen = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            let word = item.as_str().and_then(|text| allowed.iter().find(|word| **word == text));
            match word {
                Some(word) if chosen.contains(word) => {}
                Some(word) => chosen.push(*word),
                None => {
                    let rule = format!("may only have {}", allowed.join(", "));
                    return Err(refusal(name, &value, &rule, &format!("take out {item}")));
                }
            }
        }
        if chosen.is_empty() {
            let rule = format!("must be a list of at least one of {}", allowed.join(", "));
            return Err(refusal(name, &value, &rule, "or leave it out for all of them"));
        }
        Ok(chosen)
    }

    /// Mail addresses. Checked for what could break a mail's header, not for whether anybody reads there.
    pub(crate) fn addresses(
        &mut self,
        name: &'static str,
        default: &[&str],
    ) -> Result<Vec<String>, ServiceError> {
        let Some(value) = self.take(name) else {
            return Ok(default.iter().map(ToString::to_string).collect());
        };
        let rule = format!("must be a list of 1 to {RECIPIENTS_MAX} mail addresses");
        let texts: Option<Vec<&str>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        let texts = texts.filter(|texts| (1..=RECIPIENTS_MAX).contains(&texts.len()));
        let texts = texts.filter(|texts| texts.iter().all(|text| is_address(text)));
        let repair = "write each as name@host, without spaces, commas or brackets";
        let texts = texts.ok_or_else(|| refusal(name, &value, &rule, repair))?;
        Ok(texts.into_iter().map(str::to_owned).collect())
    }

    /// Refuses what was not read: a misspelt parameter must not quietly become its default.
    pub(crate) fn finish(self) -> Result<(), ServiceError> {
        match self.unread.into_iter().next() {
            None => Ok(()),
            Some((name, value)) => {
                let known = self.known.join(", ");
                Err(refusal(&name, &value, "is not a parameter of this action", &format!("it has: {known}")))
            }
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.unread.remove(name).filter(|value| !value.is_null())
    }
}

fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"<>(),;:\"\\[]@".contains(c);
    let part = |part: &str| !part.is_empty() && part.chars().all(plain);
    text.len() <= 254 && text.split_once('@').is_some_and(|(name, host)| part(name) && part(host))
}

fn repair(default: Option<&str>) -> String {
    default.map_or_else(
        || "correct it".to_owned(),
        |default| format!("correct it, or leave it out for {default}"),
    )
}

fn missing(name: &str, rule: &str) -> ServiceError {
    ServiceError::bad_request(format!("parameters.{name} is missing: it must be {rule}; add it"))
}

fn refusal(name: &str, value: &Value, rule: &str, repair: &str) -> ServiceError {
    let mut shown = value.to_string();
    if let Some((end, _)) = shown.char_indices().nth(VALUE_CHARS_SHOWN_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    let name: String = name.chars().take(VALUE_CHARS_SHOWN_MAX).collect();
    let dot = if name.is_empty() { "" } else { "." };
    ServiceError::bad_request(format!("parameters{dot}{name} = {shown}: it {rule}; {repair}"))
}
