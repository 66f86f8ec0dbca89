//! Places in a text: lines and columns, and where a key or a value stands.

use std::{fmt::Write as _, ops::Range};

/// Lines shown above and below a mistake.
const LINES_AROUND: usize = 2;
/// A longer line is no help to look at.
const LINE_CHARS_MAX: usize = 200;

/// A place in a text; both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of a byte, which begins a character.
    pub(super) fn at(text: &str, offset: usize) -> Self {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    pub(super) fn offset_in(self, text: &str) -> Option<usize> {
        let mut offset = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if number + 1 == self.line {
                return Some(offset + line.chars().take(self.column - 1).map(char::len_utf8).sum::<usize>());
            }
            offset += line.len();
        }
        None
    }

    /// The scalar that begins here, as it is written; empty if none does.
    pub(super) fn value_in(self, text: &str) -> String {
        let Some(offset) = self.offset_in(text) else { return String::new() };
        let line = text[offset..].lines().next().unwrap_or_default();
        let quote = line.chars().next().filter(|c| ['"', '\''].contains(c));
        if let Some(quote) = quote {
            return line[1..].split(quote).next().unwrap_or_default().to_owned();
        }
        let line_start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let in_flow = text[line_start..offset].contains(['{', '[']);
        let ends: &[char] = if in_flow { &[',', '}', ']'] } else { &[] };
        let value = line.split(" #").next().unwrap_or_default();
        value.split(ends).next().unwrap_or_default().trim().to_owned()
    }

    /// A message with this place, and the lines around it with a mark below.
    pub(super) fn show(self, text: &str, path: Option<&str>, message: &str) -> String {
        let Place { line, column } = self;
        let path = path.map_or_else(String::new, |path| format!("{path}: "));
        let mut shown = format!("{path}line {line} column {column}: {message}\n");
        let first = line.saturating_sub(LINES_AROUND).max(1);
        let width = (line + LINES_AROUND).to_string().len();
        let _ = write!(shown, "{:width$}--> <input>:{line}:{column}\n{:width$} |", "", "");
        let around = text.lines().enumerate().skip(first - 1).take(line + LINES_AROUND + 1 - first);
        for (at, content) in around {
            let content = if content.chars().count() > LINE_CHARS_MAX { "…" } else { content };
            let _ = write!(shown, "\n{:>width$} | {content}", at + 1);
            if at + 1 == line && content != "…" {
                let _ = write!(shown, "\n{:width$} | {:>column$}", "", "^");
            }
        }
        shown
    }
}

/// The end of the mapping whose first key begins here: where a line is indented less than it.
pub(super) fn block_of(text: &str, from: usize) -> usize {
    let line_start = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[line_start..from];
    let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
    // Within a line, as `{…}` is: its own line, and what is indented deeper.
    let is_first = before.bytes().all(|byte| byte == b' ');
    let indent = if is_first { before.len() } else { blanks(&text[line_start..]) + 1 };
    let mut at = text[from..].find('\n').map_or(text.len(), |end| from + end + 1);
    for line in text[at..].split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') && blanks(line) < indent {
            return at;
        }
        at += line.len();
    }
    text.len()
}

/// Where a key stands, with or without quotes around it.
pub(super) fn find_key(text: &str, within: Range<usize>, key: &str) -> Option<usize> {
    candidates(text, within, key).find(|at| {
        let rest = &text[at + key.len()..];
        let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
        rest.trim_start_matches(' ').starts_with(':')
    })
}

/// Where the value of a key begins.
pub(super) fn value_after(text: &str, key_end: usize) -> usize {
    let rest = &text[key_end..];
    let value = rest.trim_start_matches(['"', '\'']).trim_start_matches(' ');
    let value = value.strip_prefix(':').unwrap_or(value).trim_start_matches(' ');
    key_end + rest.len() - value.len()
}

/// Where the value stands that a key has.
pub(super) fn find_pair(text: &str, within: Range<usize>, key: &str, value: &str) -> Option<usize> {
    let mut from = within.start;
    while let Some(at) = find_key(text, from..within.end, key) {
        let start = value_after(text, at + key.len());
        let written = text[start..].trim_start_matches(['"', '\'']);
        if written.strip_prefix(value).is_some_and(|rest| !rest.starts_with(is_name)) {
            return Some(start);
        }
        from = at + key.len();
    }
    None
}

/// Where a value stands, its quotes included.
pub(super) fn find_value(text: &str, within: Range<usize>, value: &str) -> Option<usize> {
    let mut found = candidates(text, within, value);
    let at = found.find(|at| !text[at + value.len()..].starts_with(is_name))?;
    Some(if text[..at].ends_with(['"', '\'']) { at - 1 } else { at })
}

/// Where a word begins, outside of comments.
fn candidates<'a>(text: &'a str, within: Range<usize>, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let from = within.start;
    let found = text.get(within).unwrap_or_default().match_indices(word).map(move |(at, _)| from + at);
    found.filter(move |at| {
        let before = &text[..*at];
        let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
        !word.is_empty() && !before.ends_with(is_name) && !line.trim_start().starts_with('#')
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || ['_', '-', '/'].contains(&c)
}
