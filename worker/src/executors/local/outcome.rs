//! What a command's end means: its output, or what went wrong.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use serde_json::{Value, json};
use shared::{limits, run_record::ErrorKind};

use super::{
    super::{
        Failure,
        answer::{on_one_line, without_controls},
    },
    guard::{EXIT_NOT_FOUND, EXIT_NOT_STARTED, WORDS_PREFIX},
    tail::Tail,
};

/// Bytes of a command's last words that an error message quotes.
const WORDS_BYTES_MAX: usize = 1024;
/// Bytes of text kept as output. Written as JSON, where a quote or a line break takes two, it fits into a record.
const TEXT_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX / 2 - 1024;
/// "The command was used incorrectly" (sysexits.h): the same arguments will not do next time.
const EX_USAGE: i32 = 64;
/// "The input data was incorrect" (sysexits.h).
const EX_DATAERR: i32 = 65;

/// The output of a command that ended well.
///
/// All of its standard output, if that is JSON; otherwise its last line that is a JSON object or array, so that a
/// command may talk before it answers; otherwise the last of its text. Numbers and words alone on a line are text:
/// `3` in the middle of a report is not an answer.
pub(super) fn output(stdout: &Tail) -> Value {
    let bytes = stdout.bytes();
    if bytes.trim_ascii().is_empty() {
        return Value::Null;
    }
    if let (false, Ok(value)) = (stdout.is_cut(), serde_json::from_slice(bytes)) {
        return value;
    }
    let answers = |line: &[u8]| {
        let line = line.trim_ascii();
        let looks_so = line.starts_with(b"{") || line.starts_with(b"[");
        looks_so.then(|| serde_json::from_slice(line).ok()).flatten()
    };
    bytes.rsplit(|byte| *byte == b'\n').find_map(answers).unwrap_or_else(|| text(stdout))
}

fn text(stdout: &Tail) -> Value {
    let clean = without_controls(&String::from_utf8_lossy(stdout.bytes()));
    let kept = end_of(clean.trim_end(), TEXT_BYTES_MAX);
    if stdout.is_cut() || kept.len() < clean.trim_end().len() {
        return json!({ "text": kept, "truncated": true, "bytes": stdout.total() });
    }
    json!({ "text": kept })
}

/// The end of a text, cut between characters.
fn end_of(text: &str, bytes_max: usize) -> &str {
    let mut beginning = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(beginning) {
        beginning += 1;
    }
    &text[beginning..]
}

/// A command's last words, on one line.
pub(super) fn last_words(stderr: &Tail) -> String {
    let clean = on_one_line(&String::from_utf8_lossy(stderr.bytes()));
    let words = end_of(clean.trim(), WORDS_BYTES_MAX);
    match words {
        "" => "it wrote nothing to its error output".to_owned(),
        words => format!("its last words: {words}"),
    }
}

/// What the end of a command says, if it did not end well.
pub(super) fn failure(name: &str, status: ExitStatus, stderr: &Tail) -> Option<Failure> {
    if status.success() {
        return None;
    }
    let code = status.code();
    if let Some(words) = not_started(code, stderr) {
        return Some(Failure::permanent(
            ErrorKind::Command,
            format!("command {name} could not be started: {words}"),
        ));
    }
    let how = match (code, status.signal()) {
        // What the guard, like a shell, makes of a signal.
        (Some(code @ 129..=192), _) => {
            format!("exit code {code} (signal {}){}", code - 128, hint(code - 128))
        }
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}{}", hint(signal)),
        (None, None) => status.to_string(),
    };
    let message = format!("command {name} ended with {how}; {}", last_words(stderr));
    Some(match code {
        Some(EX_USAGE | EX_DATAERR) => Failure::permanent(ErrorKind::Command, message),
        _ => Failure::retryable(ErrorKind::Command, message),
    })
}

fn hint(signal: i32) -> &'static str {
    if signal == 9 { ": killed; if nobody did, the machine may have run out of memory" } else { "" }
}

/// What the guard said if there was no program to guard.
fn not_started(code: Option<i32>, stderr: &Tail) -> Option<String> {
    let from_guard = stderr.bytes().starts_with(WORDS_PREFIX.as_bytes());
    let is_code = code == Some(EXIT_NOT_FOUND.into()) || code == Some(EXIT_NOT_STARTED.into());
    (from_guard && is_code).then(|| {
        let words = String::from_utf8_lossy(&stderr.bytes()[WORDS_PREFIX.len()..]).into_owned();
        on_one_line(words.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tail::tail_of, *};

    #[test]
    fn the_output_is_the_json_that_was_written_or_the_last_of_the_text() {
        for (stdout, wanted) in [
            ("", Value::Null),
            ("{\"rows\": 3}\n", json!({"rows": 3})),
            ("{\n  \"rows\": 3\n}\n", json!({"rows": 3})),
            ("42\n", json!(42)),
            ("beginning\n{\"rows\": 3}\ndone\n", json!({"rows": 3})),
            ("3\n{\"a\":1}\n{\"b\":2}\r\n\n", json!({"b": 2})),
            ("3\nrows\n", json!({"text": "3\nrows"})),
            ("\u{1b}[31mred\u{1b}[0m\r\n", json!({"text": "[31mred[0m"})),
            ("{broken\n", json!({"text": "{broken"})),
        ] {
            assert_eq!(output(&tail_of(stdout.as_bytes(), 1024)), wanted, "{stdout:?}");
        }
    }

    #[test]
    fn a_text_that_is_cut_says_so_and_fits_into_a_record() {
        let long = "\"\n".repeat(40_000);
        let output = output(&tail_of(long.as_bytes(), 64 * 1024));
        assert_eq!((&output["truncated"], &output["bytes"]), (&json!(true), &json!(80_000)));
        assert_eq!(shared::run_record::bounded_output(output.clone()), output);
    }

    #[test]
    fn a_bad_end_says_how_and_whether_it_is_worth_another_try() {
        let stderr = tail_of(b"first\n\x1b[1mno such table\n", 1024);
        for (raw, part, permanent) in [
            (3 << 8, "exit code 3; its last words: first [1mno such table", false),
            (EX_USAGE << 8, "exit code 64", true),
            (EX_DATAERR << 8, "exit code 65", true),
            (137 << 8, "exit code 137 (signal 9): killed", false),
            (127 << 8, "exit code 127", false),
            (9, "signal 9: killed", false),
            (11, "signal 11;", false),
        ] {
            let failure = failure("tool", ExitStatus::from_raw(raw), &stderr).expect("a failure");
            assert!(failure.error.message.contains(part), "{}", failure.error.message);
            assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, permanent), "{part}");
        }
        assert_eq!(failure("tool", ExitStatus::from_raw(0), &stderr), None);
        let long = "é".repeat(5_000);
        assert!(last_words(&tail_of(long.as_bytes(), 64 * 1024)).len() <= WORDS_BYTES_MAX + 20);
    }

    #[test]
    fn a_program_that_the_guard_cannot_start_is_not_tried_again() {
        let words = format!("{WORDS_PREFIX}/x/y: Exec format error\n");
        let status = ExitStatus::from_raw(i32::from(EXIT_NOT_STARTED) << 8);
        let failure = failure("tool", status, &tail_of(words.as_bytes(), 1024)).expect("a failure");
        assert!(failure.permanent);
        assert!(failure.error.message.contains("could not be started: /x/y: Exec format error"));
    }
}
