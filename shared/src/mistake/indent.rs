//! Lines that are indented otherwise than their neighbours.
//!
//! Only asked about texts that were refused, so a guess is allowed to be one. Flow mappings, block texts and comments
//! are passed over.

use std::fmt;

use super::Place;

/// A line that fits none of the levels above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    line: usize,
    indent: usize,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// It ends a level, and begins where none is: these are there.
    NoLevel(Vec<usize>),
    /// It is deeper than a line that has its value already.
    Deeper(usize),
}

impl Misfit {
    /// Where the line begins.
    pub(super) fn place(&self) -> Place {
        Place { line: self.line, column: self.indent + 1 }
    }

    /// Whether it is read as more of the value above it.
    pub(super) fn continues_a_value(&self) -> bool {
        matches!(self.why, Why::Deeper(_))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spaces = |n: usize| if n == 1 { "1 space".to_owned() } else { format!("{n} spaces") };
        write!(f, "this line is indented by {}, ", spaces(self.indent))?;
        match &self.why {
            Why::NoLevel(levels) => {
                let levels: Vec<String> = levels.iter().map(ToString::to_string).collect();
                write!(f, "and the levels above it by {}; indent it as its neighbours are", levels.join(", "))
            }
            Why::Deeper(line) => {
                write!(
                    f,
                    "deeper than line {line}, which has its value already; indent both alike, or take that value away"
                )
            }
        }
    }
}

/// The first misfit from the line before this one on, so many lines down.
pub(super) fn misfit_near(text: &str, line: usize, lines_below: usize) -> Option<Misfit> {
    let near = line.saturating_sub(1)..=line.saturating_add(lines_below);
    misfits(text).into_iter().find(|misfit| near.contains(&misfit.line))
}

fn misfits(text: &str) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut levels: Vec<usize> = Vec::new();
    // The last line that was a key with its value.
    let mut with_value: Option<usize> = None;
    let mut open_brackets = 0_i64;
    let mut block_text: Option<usize> = None;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let content = content.split(" #").next().unwrap_or_default().trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if block_text.is_some_and(|parent| indent > parent) {
            continue;
        }
        block_text = None;
        if open_brackets > 0 {
            open_brackets += brackets(content);
            continue;
        }
        let kept = levels.iter().take_while(|level| **level <= indent).count();
        if kept < levels.len() && (kept == 0 || levels[kept - 1] < indent) {
            found.push(Misfit { line: number, indent, why: Why::NoLevel(levels.clone()) });
        }
        let is_deeper = kept == levels.len();
        levels.truncate(kept);
        if levels.last().is_none_or(|level| *level < indent) {
            if let Some(above) = with_value.filter(|_| is_deeper && key_of(content).is_some()) {
                found.push(Misfit { line: number, indent, why: Why::Deeper(above) });
            }
            levels.push(indent);
        }
        let item = content.trim_start_matches("- ");
        if item.len() < content.len() {
            levels.push(indent + content.len() - item.len());
        }
        open_brackets = brackets(item).max(0);
        let value = key_of(item).map(str::trim_start).unwrap_or_default();
        with_value = (!value.is_empty()).then_some(number);
        if value.starts_with(['|', '>']) {
            block_text = Some(indent);
        }
    }
    found
}

/// What follows the colon, if the line begins with a key.
fn key_of(content: &str) -> Option<&str> {
    let (key, value) = content.split_once(':')?;
    let is_key = !key.is_empty() && !key.contains(['{', '[', ' ', '"', '\'']);
    (is_key && (value.is_empty() || value.starts_with(' '))).then_some(value)
}

/// Opened less closed, outside of quotes.
fn brackets(content: &str) -> i64 {
    let mut quote = None;
    let mut open = 0;
    for c in content.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(begun), c) if begun == c => quote = None,
            (None, '{' | '[') => open += 1,
            (None, '}' | ']') => open -= 1,
            _ => {}
        }
    }
    open
}
