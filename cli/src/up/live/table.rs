//! A table that fits: the columns that matter least get narrower first, and go when that is not enough.

use super::text::{clip, width};
use crate::table::Colour;

const GAP: usize = 2;

/// How a text looks where colours are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Coloured(Colour),
}

impl Style {
    /// Matters less.
    pub(super) const FAINT: Style = Style::Coloured(Colour::Dim);
    /// Went wrong.
    pub(super) const BAD: Style = Style::Coloured(Colour::Red);

    /// The text, in this style if colours are allowed. An escape sequence has no width, so it comes last.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        match self {
            Style::Strong if colour => format!("\x1b[1m{text}\x1b[0m"),
            Style::Coloured(one) if colour => one.paint(text),
            _ => text.to_owned(),
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// It is not made narrower than this, unless its cells are.
    pub(super) narrowest: usize,
    /// The column with the highest number gets narrower first, and goes first; 0 stays.
    pub(super) goes: u8,
    pub(super) right: bool,
}

/// A cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// The table as lines of at most this many columns: the titles, then the rows.
pub(super) fn lines(columns: &[Column], rows: &[Vec<Cell>], columns_max: usize, colour: bool) -> Vec<String> {
    let widths = widths(columns, rows, columns_max);
    let line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
        let mut line = String::new();
        let mut room = columns_max;
        let mut before = 0;
        for ((column, taken), (text, style)) in columns.iter().zip(&widths).zip(cells) {
            let Some(taken) = taken.filter(|_| room > 0) else { continue };
            let text = clip(text, taken.min(room));
            let padding = " ".repeat(taken.saturating_sub(width(&text)));
            let painted = style.paint(&text, colour && !text.is_empty());
            line.push_str(&" ".repeat(before));
            // Padding on the right waits for the next cell, so that no line ends with blanks.
            before = GAP + if column.right { 0 } else { padding.len() };
            if column.right {
                line.push_str(&padding);
            }
            line.push_str(&painted);
            room = room.saturating_sub(taken + GAP);
        }
        line
    };
    let titles = line(&mut columns.iter().map(|column| (column.title, Style::FAINT)));
    let rows = rows.iter().map(|row| line(&mut row.iter().map(|cell| (cell.text.as_str(), cell.style))));
    std::iter::once(titles).chain(rows).collect()
}

/// How wide each column is; none for those that had to go.
fn widths(columns: &[Column], rows: &[Vec<Cell>], columns_max: usize) -> Vec<Option<usize>> {
    let natural = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| width(&cell.text));
        cells.chain([width(columns[index].title)]).max().unwrap_or(0)
    };
    let mut widths: Vec<Option<usize>> = (0..columns.len()).map(|index| Some(natural(index))).collect();
    let least =
        |index: usize, wide: usize| wide.min(columns[index].narrowest.max(width(columns[index].title)));
    loop {
        let all_least = widths.iter().enumerate().map(|(index, wide)| wide.map(|wide| least(index, wide)));
        if total(&all_least.collect::<Vec<_>>()) <= columns_max {
            break;
        }
        let kept = (0..columns.len()).filter(|index| widths[*index].is_some() && columns[*index].goes > 0);
        let Some(goes) = kept.max_by_key(|index| columns[*index].goes) else { break };
        widths[goes] = None;
    }
    // The less a column matters the sooner it gives; of those that matter as much, the one with the most to give.
    while total(&widths) > columns_max {
        let slack = |index: usize| widths[index].map_or(0, |wide| wide - least(index, wide));
        let giving = (0..columns.len()).filter(|index| slack(*index) > 0);
        let Some(gives) = giving.max_by_key(|index| (columns[*index].goes, slack(*index))) else { break };
        widths[gives] = widths[gives].map(|wide| wide - 1);
    }
    widths
}

fn total(widths: &[Option<usize>]) -> usize {
    let kept = widths.iter().flatten();
    kept.clone().sum::<usize>() + GAP * kept.count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "NAME", narrowest: 6, goes: 0, right: false },
        Column { title: "IN", narrowest: 4, goes: 1, right: true },
        Column { title: "DOES", narrowest: 8, goes: 2, right: false },
    ];

    fn rows() -> Vec<Vec<Cell>> {
        let row = |cells: [&str; 3]| cells.map(Cell::plain).to_vec();
        vec![row(["daily_archive", "9s", "archives what is old"]), row(["每日归档", "12s", "x"])]
    }

    #[test]
    fn a_table_with_room_is_shown_whole() {
        assert_eq!(
            lines(&COLUMNS, &rows(), 80, false),
            ["NAME            IN  DOES", "daily_archive   9s  archives what is old", "每日归档       12s  x",]
        );
    }

    #[test]
    fn a_narrow_table_shrinks_and_then_loses_columns() {
        assert_eq!(lines(&COLUMNS, &rows(), 30, false)[1], "daily_archive   9s  archives …");
        assert_eq!(lines(&COLUMNS, &rows(), 14, false)[1], "daily_ar…   9s");
        assert_eq!(lines(&COLUMNS, &rows(), 8, false)[1], "daily_a…");
        assert_eq!(lines(&COLUMNS, &rows(), 3, false)[1], "da…");
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for columns_max in 0..60 {
            for line in lines(&COLUMNS, &rows(), columns_max, false) {
                assert!(width(&line) <= columns_max, "{columns_max}: {line:?}");
            }
        }
    }
}
