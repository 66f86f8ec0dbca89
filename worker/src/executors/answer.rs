//! What executors share: reading what came back, and saying what was wrong with it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shared::run_record::ErrorKind;

use super::Failure;

/// Characters of an answer that an error message quotes.
pub(super) const QUOTED_CHARS_MAX: usize = 500;

/// An answer as a run's output: JSON if it is JSON, whatever it calls itself; otherwise its text; nothing is null.
pub(super) fn output_of(body: &[u8]) -> Value {
    if body.trim_ascii().is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| json!({ "text": String::from_utf8_lossy(body) }))
}

/// The beginning of an answer, fit for an error message: on one line, and without what would steer a terminal.
pub(super) fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let clean = on_one_line(&text);
    let mut words = clean.trim().chars();
    let mut quoted: String = words.by_ref().take(QUOTED_CHARS_MAX).collect();
    if words.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// A text on one line, without control characters.
pub(super) fn on_one_line(text: &str) -> String {
    without_controls(text).replace(['\n', '\t'], " ")
}

/// A text without control characters but line breaks and tabs.
pub(super) fn without_controls(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || turns_text(*c))).collect()
}

/// Marks that change the direction of text, and so what a reader believes to see.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the target means it: what it calls the caller's fault will be so again, except for a time-out (408),
/// a request that came too early (425) and too many requests (429).
pub(super) fn is_permanent(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 408 | 425 | 429)
}

/// The failure of an attempt whose target answered with an error. What its declaration says of this code comes before what the
/// code itself says.
pub(super) fn refused(place: &str, code: u16, words: &str, declared: Option<bool>) -> Failure {
    let mut message = format!("{place} answered {code}");
    if !words.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(message, ": {words}");
    }
    if declared.unwrap_or_else(|| is_permanent(code)) {
        message.push_str(match declared {
            Some(_) => "; not tried again: the target's `permanent` has this code",
            None => "; not tried again: the request itself has to be mended",
        });
        return Failure::permanent(ErrorKind::Target, message);
    }
    Failure::retryable(ErrorKind::Target, message)
}

/// The failure of an attempt whose answer was larger than is read.
pub(super) fn too_large(place: &str, bytes_max: usize) -> Failure {
    Failure::permanent(
        ErrorKind::ResponseTooLarge,
        format!(
            "{place} answered with more than {bytes_max} bytes, unpacked; let it answer with a reference to the data instead"
        ),
    )
}

/// The failure of an attempt that was told to stop.
pub(super) fn stopped(what: &str) -> Failure {
    Failure::retryable(ErrorKind::Timeout, format!("{what}: stopped before it was done"))
}

/// An error with its causes on one line; libraries put the cause that matters last.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_if_it_is_json_and_text_otherwise() {
        for (body, output) in [
            (&b""[..], Value::Null),
            (b" \n", Value::Null),
            (br#"{"rows":3}"#, json!({"rows": 3})),
            (b"3\n", json!(3)),
            (b"done", json!({"text": "done"})),
            (b"{\"cut", json!({"text": "{\"cut"})),
            (b"\xff", json!({"text": "\u{fffd}"})),
        ] {
            assert_eq!(output_of(body), output);
        }
        let deep = "[".repeat(100_000);
        assert_eq!(output_of(deep.as_bytes()), json!({"text": deep}), "nesting has its bound");
    }

    #[test]
    fn what_a_message_quotes_is_short_and_cannot_steer_a_terminal() {
        assert_eq!(quoted("\u{1b}[2Jline\r\nnext\u{202e}\0\n".as_bytes()), "[2Jline next");
        let long = quoted("é".repeat(QUOTED_CHARS_MAX + 1).as_bytes());
        assert_eq!((long.chars().count(), long.chars().last()), (QUOTED_CHARS_MAX + 1, Some('…')));
        assert_eq!(quoted("é".repeat(QUOTED_CHARS_MAX).as_bytes()).chars().count(), QUOTED_CHARS_MAX);
    }

    #[test]
    fn the_callers_own_faults_are_permanent_and_the_rest_may_pass() {
        for (code, permanent) in [
            (400, true),
            (404, true),
            (422, true),
            (499, true),
            (408, false),
            (425, false),
            (429, false),
            (500, false),
            (503, false),
            (0, false),
            (101, false),
        ] {
            assert_eq!(refused("there", code, "no", None).permanent, permanent, "{code}");
            for declared in [true, false] {
                assert_eq!(refused("there", code, "no", Some(declared)).permanent, declared, "{code}");
            }
        }
    }
}
