//! Data on stdout, in the format that was asked for; talk on stderr.

use std::{
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use serde::Serialize;

use crate::table::Table;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// Where a verb's data goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How it is written.
    pub format: Format,
    /// Whether it is coloured: on a terminal, without `NO_COLOR`.
    pub colours: bool,
}

impl Output {
    /// Stdout, in this format.
    pub fn new(format: Format) -> Self {
        // https://no-color.org: present and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, colours: io::stdout().is_terminal() && !unwanted }
    }

    /// Writes a list: an array, a table, or its names. An empty table says on stderr what to do about it.
    pub fn list<T: Serialize>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> String,
        table: impl FnOnce() -> Table,
        when_empty: &str,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table if items.is_empty() => {
                talk(when_empty);
                Ok(())
            }
            Format::Table => write(&table().render(self.colours)),
            Format::Name => items.iter().try_for_each(|item| line(name(item))),
            Format::Json | Format::Yaml => self.structured(&items),
        }
    }

    /// Writes one thing: an object, a text for people, or its name.
    pub fn one<T: Serialize>(
        &self,
        item: &T,
        name: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => write(&text()),
            Format::Name => line(name()),
            Format::Json | Format::Yaml => self.structured(item),
        }
    }

    fn structured<T: Serialize>(self, item: &T) -> anyhow::Result<()> {
        match self.format {
            Format::Yaml => write(&serde_saphyr::to_string(item)?),
            _ => write(&format!("{}\n", serde_json::to_string_pretty(item)?)),
        }
    }
}

/// Writes one line to stdout.
pub fn line(text: impl Display) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}

/// Writes to stdout. A reader that went away is an error here, and none in [`crate::exit::report`].
pub fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Says something to the person, on stderr.
pub fn talk(text: impl Display) {
    let text = text.to_string();
    let text = text.lines().map(printable).collect::<Vec<_>>().join("\n");
    // Nobody to hear it: nothing to be done.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A text as a terminal may have it: what a stranger wrote must not move the cursor or change the title.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push(' '),
            // The control characters have pictures in Unicode: ␛ for escape.
            '\0'..='\x1f' => safe.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            // So have those that reorder text or hide in it, but no pictures.
            '\x7f'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                let _ = write!(safe, "\\u{{{:x}}}", c as u32);
            }
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}]0;title\u{7}b\tc\r\n"), "a␛]0;title␇b c␍␊");
        assert_eq!(printable("运维 Zoë"), "运维 Zoë");
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
    }
}
