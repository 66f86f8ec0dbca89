//! What a command's end means: its output, or what went wrong.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use serde_json::{Value, json};
use shared::{limits, run_log::Progress, run_record::ErrorKind};

use super::{
    super::{
        Failure,
        answer::{on_one_line, without_controls},
    },
    exit_codes::{ExitCodes, Meaning},
    guard::{EXIT_NOT_FOUND, EXIT_NOT_NOW, EXIT_NOT_STARTED, EXIT_OVER_LIMIT, WORDS_PREFIX},
    mask::Masker,
    tail::Tail,
};

/// Bytes of a command's last words that an error message quotes.
const WORDS_BYTES_MAX: usize = 1024;
/// Bytes of text kept as output. Written as JSON, where a quote or a line break takes two, it fits into a record.
const TEXT_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX / 2 - 1024;
/// The output of a command that ended well.
///
/// All of its standard output, if that is JSON; otherwise its last line that is a JSON object or array, so that a
/// command may talk before it answers; otherwise the last of its text. Numbers and words alone on a line are text:
/// `3` in the middle of a report is not an answer. Nor is a line that says how far it is. Secrets are masked.
pub(super) fn output(stdout: &Tail, masker: &Masker) -> Value {
    let bytes = stdout.bytes();
    if bytes.trim_ascii().is_empty() || Progress::said_in(bytes).is_some() {
        return Value::Null;
    }
    if let (false, Ok(value)) = (stdout.is_cut(), serde_json::from_slice(bytes)) {
        return masker.value(value);
    }
    let answers = |line: &[u8]| {
        let line = line.trim_ascii();
        let looks_so = line.starts_with(b"{") || line.starts_with(b"[");
        let looks_so = looks_so && Progress::said_in(line).is_none();
        looks_so.then(|| serde_json::from_slice(line).ok()).flatten()
    };
    let answer = bytes.rsplit(|byte| *byte == b'\n').find_map(answers);
    answer.map_or_else(|| text(&stdout.masked(masker)), |answer| masker.value(answer))
}

fn text(stdout: &Tail) -> Value {
    let lines = stdout.bytes().split(|byte| *byte == b'\n');
    let lines: Vec<&[u8]> = lines.filter(|line| Progress::said_in(line).is_none()).collect();
    let clean = without_controls(&String::from_utf8_lossy(&lines.join(&b'\n')));
    if clean.trim().is_empty() {
        return Value::Null;
    }
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

/// What the end of a command says, if it did not end well. Secrets are masked in what it wrote already.
pub(super) fn failure(name: &str, status: ExitStatus, stderr: &Tail, codes: &ExitCodes) -> Option<Failure> {
    let code = status.code();
    if let Some(failure) = said_by_the_guard(name, code, stderr) {
        return Some(failure);
    }
    let meaning = code.and_then(|code| u8::try_from(code).ok()).map(|code| codes.meaning(code));
    if meaning == Some(Meaning::Success) {
        return None;
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
    Some(match meaning {
        Some(Meaning::Permanent) => Failure::permanent(ErrorKind::Command, message),
        _ => Failure::retryable(ErrorKind::Command, message),
    })
}

fn hint(signal: i32) -> &'static str {
    if signal == 9 { ": killed; if nobody did, the machine may have run out of memory" } else { "" }
}

/// What the guard said: that there was no program to guard, or that it used too much.
fn said_by_the_guard(name: &str, code: Option<i32>, stderr: &Tail) -> Option<Failure> {
    let code = u8::try_from(code?).ok()?;
    let said = String::from_utf8_lossy(stderr.bytes());
    let (before, words) = said.rsplit_once(WORDS_PREFIX)?;
    let words = on_one_line(words.trim());
    let failed = |how: &str, make: fn(ErrorKind, String) -> Failure| {
        Some(make(ErrorKind::Command, format!("command {name} {how}: {words}")))
    };
    match code {
        EXIT_OVER_LIMIT => failed("was killed", Failure::retryable),
        // These it says before anybody else can have said anything.
        EXIT_NOT_NOW if before.is_empty() => failed("could not be started just now", Failure::retryable),
        EXIT_NOT_FOUND | EXIT_NOT_STARTED if before.is_empty() => {
            failed("could not be started", Failure::permanent)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            exit_codes::{EX_DATAERR, EX_USAGE},
            tail::tail_of,
        },
        *,
    };

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
            ("{\"progress\": 1}\n", Value::Null),
            ("{\"rows\": 3}\n{\"progress\": 1}", json!({"rows": 3})),
            ("{\"progress\": 0.5}\ndone\n{\"progress\": 1}\n", json!({"text": "done"})),
            ("{\"rows\": 3, \"token\": \"s3cret\"}", json!({"rows": 3, "token": "***"})),
            ("read s3cret\n", json!({"text": "read ***"})),
        ] {
            let masker = Masker::of([b"s3cret".to_vec()]);
            assert_eq!(output(&tail_of(stdout.as_bytes(), 1024), &masker), wanted, "{stdout:?}");
        }
    }

    #[test]
    fn a_text_that_is_cut_says_so_and_fits_into_a_record() {
        let long = "\"\n".repeat(40_000);
        let output = output(&tail_of(long.as_bytes(), 64 * 1024), &Masker::default());
        assert_eq!((&output["truncated"], &output["bytes"]), (&json!(true), &json!(80_000)));
        assert_eq!(shared::run_record::bounded_output(output.clone()), output);
    }

    #[test]
    fn a_bad_end_says_how_and_whether_it_is_worth_another_try() {
        let stderr = tail_of(b"first\n\x1b[1mno such table\n", 1024);
        let codes = ExitCodes::default();
        for (raw, part, permanent) in [
            (3 << 8, "exit code 3; its last words: first [1mno such table", false),
            (i32::from(EX_USAGE) << 8, "exit code 64", true),
            (i32::from(EX_DATAERR) << 8, "exit code 65", true),
            (137 << 8, "exit code 137 (signal 9): killed", false),
            (127 << 8, "exit code 127", false),
            (9, "signal 9: killed", false),
            (11, "signal 11;", false),
        ] {
            let failure = failure("tool", ExitStatus::from_raw(raw), &stderr, &codes).expect("a failure");
            assert!(failure.error.message.contains(part), "{}", failure.error.message);
            assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, permanent), "{part}");
        }
        assert_eq!(failure("tool", ExitStatus::from_raw(0), &stderr, &codes), None);
        let long = "é".repeat(5_000);
        assert!(last_words(&tail_of(long.as_bytes(), 64 * 1024)).len() <= WORDS_BYTES_MAX + 20);
    }

    #[test]
    fn a_program_that_the_guard_cannot_start_is_not_tried_again() {
        let fails = |code: u8, said: &str| {
            let status = ExitStatus::from_raw(i32::from(code) << 8);
            failure("tool", status, &tail_of(said.as_bytes(), 1024), &ExitCodes::default())
                .expect("a failure")
        };
        let not_started = fails(EXIT_NOT_STARTED, &format!("{WORDS_PREFIX}/x/y: Exec format error\n"));
        assert!(not_started.permanent);
        assert!(not_started.error.message.contains("could not be started: /x/y: Exec format error"));
        let not_now = fails(EXIT_NOT_NOW, &format!("{WORDS_PREFIX}/x/y: Resource temporarily unavailable\n"));
        assert!(!not_now.permanent && not_now.error.message.contains("just now: /x/y"));
        let said_itself = fails(EXIT_NOT_STARTED, &format!("working\n{WORDS_PREFIX}no\n"));
        assert!(!said_itself.permanent, "a command may end with this code, too");
    }

    #[test]
    fn a_command_that_used_too_much_was_killed_for_it_and_may_do_better_next_time() {
        let said =
            format!("half a line{WORDS_PREFIX}it used 513 MiB of memory, and may use 512 (memory_mib)\n");
        let status = ExitStatus::from_raw(i32::from(EXIT_OVER_LIMIT) << 8);
        let failure = failure("tool", status, &tail_of(said.as_bytes(), 1024), &ExitCodes::default());
        let failure = failure.expect("a failure");
        let words = "command tool was killed: it used 513 MiB of memory, and may use 512 (memory_mib)";
        assert_eq!((failure.error.message.as_str(), failure.permanent), (words, false));
    }
}
