//! What a run says while it runs: the lines of its log, as the log stream keeps them, and its progress.
//!
//! Text is kept as it came, control characters included: JSON carries them safely, and whoever shows it to a terminal
//! makes them harmless. Only what is no UTF-8 is replaced, and marked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Timestamp, limits, names::MemberId};

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// A command's standard output.
    Stdout,
    /// A command's error output.
    Stderr,
    /// The worker itself.
    Worker,
    /// A source of a newer version, which this one has no word for.
    #[serde(other)]
    Other,
}

impl LogSource {
    /// As records and tables write it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
            LogSource::Worker => "worker",
            LogSource::Other => "other",
        }
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Its number within the attempt, from 1, over all sources. Lines that were left out have numbers too.
    pub n: u64,
    /// When the worker had it.
    pub at: Timestamp,
    /// Where it comes from.
    pub from: LogSource,
    /// What it says, without its end; at most [`limits::LOG_LINE_BYTES_MAX`] bytes.
    pub text: String,
    /// Bytes of it that are not here, because it was too long.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut: Option<u64>,
    /// It was no UTF-8: each piece that was none is a `U+FFFD` here.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub lossy: bool,
    /// How far the run is, from 0 to 1, if the line says that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<f64>,
}

impl LogLine {
    /// Bytes it counts for: its text, and something for the rest.
    pub fn weight(&self) -> usize {
        self.text.len() + limits::LOG_LINE_OVERHEAD_BYTES
    }
}

/// Lines of one attempt, as one message of the log stream carries them. May be stored twice: whoever reads leaves out what
/// it has seen of an attempt (by fence and number).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogBatch {
    /// The attempt's number.
    pub attempt: u32,
    /// Its fencing number, which tells two workers apart that are at the same run.
    pub fence: u64,
    /// The worker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worker: Option<MemberId>,
    /// The lines, in their order.
    pub lines: Vec<LogLine>,
}

/// What every line holds that says progress.
const WORD: &[u8] = b"\"progress\"";

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// From 0 to 1.
    pub progress: f64,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

impl Progress {
    /// The progress that a line of output says: `{"progress": 0.4, "note": "half the tables"}`, and nothing else in it.
    /// The fraction is 0 to 1; what lies outside is no progress, and such a line is an ordinary one.
    pub fn said_in(line: &[u8]) -> Option<Self> {
        let line = line.trim_ascii();
        // Most lines are none: no JSON is read for those.
        let may_be = line.first() == Some(&b'{') && line.len() <= limits::LOG_LINE_BYTES_MAX;
        if !may_be || !line.windows(WORD.len()).any(|window| window == WORD) {
            return None;
        }
        let Value::Object(fields) = serde_json::from_slice(line).ok()? else { return None };
        let progress = fields.get("progress")?.as_f64().filter(|part| (0.0..=1.0).contains(part))?;
        let note = match fields.get("note") {
            None => None,
            Some(Value::String(note)) => Some(note.as_str()),
            Some(_) => return None,
        };
        let is_all = fields.len() == 1 + usize::from(note.is_some());
        is_all.then(|| Self::new(progress, note))
    }

    /// A progress; a fraction outside 0 to 1 becomes the nearer end, and the note is cut to its bound.
    pub fn new(progress: f64, note: Option<&str>) -> Self {
        let progress = if progress.is_nan() { 0.0 } else { progress.clamp(0.0, 1.0) };
        let cut = |note: &str| note.chars().take(limits::PROGRESS_NOTE_CHARS_MAX).collect();
        Self { progress, note: note.map(cut) }
    }

    /// In words: `40 %: half the tables`.
    pub fn words(&self) -> String {
        // Down, so that 100 % is said only of what is done.
        let percent = (self.progress * 100.0).floor();
        match &self.note {
            Some(note) => format!("{percent} %: {note}"),
            None => format!("{percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_progress_if_it_says_that_and_nothing_else() {
        let said = |line: &str| Progress::said_in(line.as_bytes()).map(|progress| progress.words());
        for (line, words) in [
            (r#"{"progress": 0.4, "note": "half"}"#, Some("40 %: half")),
            (" {\"progress\":1}\r", Some("100 %")),
            (r#"{"progress": 0.999}"#, Some("99 %")),
            (r#"{"progress": 1.5}"#, None),
            (r#"{"progress": -0.1}"#, None),
            (r#"{"progress": "half"}"#, None),
            (r#"{"progress": 0.4, "note": 7}"#, None),
            (r#"{"progress": 1, "rows": 3}"#, None),
            ("progress: 0.4", None),
            ("{broken", None),
            ("", None),
        ] {
            assert_eq!(said(line).as_deref(), words, "{line}");
        }
        assert_eq!(Progress::new(f64::NAN, None).progress.to_bits(), 0.0_f64.to_bits());
        let long = "é".repeat(1_000);
        let note = Progress::new(7.0, Some(&long)).note.expect("a note");
        assert_eq!(note.chars().count(), limits::PROGRESS_NOTE_CHARS_MAX);
    }

    #[test]
    fn a_batch_is_read_also_from_a_newer_version_and_leaves_out_what_does_not_apply() {
        let text = r#"{"attempt":1,"fence":9,"later":true,"lines":[{"n":1,"at":"2026-11-24T02:00:00Z","from":"dreams","text":"x"}]}"#;
        let batch: LogBatch = serde_json::from_str(text).expect("a batch");
        assert_eq!((batch.lines[0].from, batch.lines[0].cut), (LogSource::Other, None));
        let line = LogLine { from: LogSource::Stdout, ..batch.lines[0].clone() };
        let written = serde_json::to_string(&line).expect("JSON");
        assert_eq!(written, r#"{"n":1,"at":"2026-11-24T02:00:00Z","from":"stdout","text":"x"}"#);
    }
}
