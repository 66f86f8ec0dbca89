//! Tables for people: aligned columns, no frames, and on a terminal no line that it has to wrap.

mod fit;

use shared::run_state::RunState;
use unicode_width::UnicodeWidthStr;

use crate::output::printable;

/// Between two columns.
const GAP: usize = 2;
/// Columns with ids and names, of which the end matters, too.
const IDS: [&str; 4] = ["RUN", "ID", "NAME", "WORKER"];

/// The colours that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// It went well.
    Green,
    /// It went wrong.
    Red,
    /// It may yet go either way.
    Yellow,
    /// It is going on.
    Cyan,
    /// It matters less.
    Dim,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Green => "32",
            Colour::Red => "31",
            Colour::Yellow => "33",
            Colour::Cyan => "36",
            Colour::Dim => "2",
        }
    }

    /// The colour of a run's state.
    pub fn of(state: RunState) -> Option<Self> {
        match state {
            RunState::Success => Some(Colour::Green),
            RunState::Failed => Some(Colour::Red),
            RunState::Retry => Some(Colour::Yellow),
            RunState::Running => Some(Colour::Cyan),
            RunState::Cancelled => Some(Colour::Dim),
            RunState::Pending => None,
        }
    }

    /// A text in this colour.
    pub fn paint(self, text: &str) -> String {
        format!("\u{1b}[{}m{text}\u{1b}[0m", self.code())
    }
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A cell in a colour.
    pub fn coloured(text: impl Into<String>, colour: Option<Colour>) -> Self {
        Self { text: printable(&text.into()), colour }
    }

    /// A run's state.
    pub fn state(state: RunState) -> Self {
        Self::coloured(state.as_str(), Colour::of(state))
    }

    /// What may be absent.
    pub fn optional(value: Option<impl ToString>) -> Self {
        value.map_or_else(|| Self::coloured("-", None), |value| Self::from(value.to_string()))
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::coloured(text, None)
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns and no rows yet.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text, each line with its line feed. If stdout is a terminal, it is made to fit.
    pub fn render(&self, colours: bool) -> String {
        self.render_in(colours, terminal_columns())
    }

    /// The table as text, no line wider than this if that can be.
    fn render_in(&self, colours: bool, room: Option<usize>) -> String {
        self.render_as(self.widths(), true, colours, room)
    }

    /// The rows as they follow others of the same table, for what comes one after the other: columns are as wide as anything
    /// that was shown in them, and the header comes with the first rows.
    pub fn render_more(&self, before: &mut Vec<usize>, colours: bool) -> String {
        self.render_more_in(before, colours, terminal_columns())
    }

    fn render_more_in(&self, before: &mut Vec<usize>, colours: bool, room: Option<usize>) -> String {
        let is_first = before.is_empty();
        before.resize(self.header.len(), 0);
        for (widest, width) in before.iter_mut().zip(self.widths()) {
            *widest = width.max(*widest);
        }
        self.render_as(before.clone(), is_first, colours, room)
    }

    /// How wide each column is by itself.
    fn widths(&self) -> Vec<usize> {
        let width = |(column, title): (usize, &&str)| {
            let cells = self.rows.iter().filter_map(|cells| cells.get(column));
            cells.map(|cell| cell.text.width()).max().unwrap_or(0).max(title.width())
        };
        self.header.iter().enumerate().map(width).collect()
    }

    fn render_as(&self, widths: Vec<usize>, with_header: bool, colours: bool, room: Option<usize>) -> String {
        let header: Vec<Cell> = self.header.iter().map(|title| Cell::from(*title)).collect();
        let lines: Vec<&Vec<Cell>> = with_header.then_some(&header).into_iter().chain(&self.rows).collect();
        let Some(room) = room else {
            return lines.iter().map(|cells| render_line(cells, &widths, colours)).collect();
        };
        let widths = fit::fitted(widths, GAP, room);
        let cut = |cells: &Vec<Cell>| -> Vec<Cell> {
            let cut = |(column, cell): (usize, &Cell)| {
                let is_id = self.header.get(column).is_some_and(|title| IDS.contains(title));
                let room = widths.get(column).copied().unwrap_or(usize::MAX);
                Cell { text: fit::cut(&cell.text, room, is_id), colour: cell.colour }
            };
            cells.iter().enumerate().map(cut).collect()
        };
        lines.iter().map(|cells| render_line(&cut(cells), &widths, colours)).collect()
    }
}

/// How many columns the terminal has that stdout is; none if it is no terminal: whoever reads it there gets all of it.
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

fn render_line(cells: &[Cell], widths: &[usize], colours: bool) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match cell.colour.filter(|_| colours) {
            Some(colour) => line.push_str(&colour.paint(&cell.text)),
            None => line.push_str(&cell.text),
        }
        // The last column is not padded: nobody wants blanks at a line's end.
        if index + 1 < cells.len() {
            line.push_str(&" ".repeat(width.saturating_sub(cell.text.width()) + GAP));
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATUS", "ERROR"]);
        table.row(vec!["数据归档".into(), Cell::state(RunState::Success), "".into()]);
        table.row(vec!["b".into(), Cell::state(RunState::Failed), "line\nbreak".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_whatever_the_script_and_a_row_is_one_line() {
        assert_eq!(
            table().render(false),
            "NAME      STATUS   ERROR\n数据归档  SUCCESS\nb         FAILED   line␊break\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut table = table();
        let id = "daily_data_archive.manual-20261123T223732Z-452e47ed";
        table.row(vec![id.into(), Cell::state(RunState::Retry), "e".repeat(200).into()]);
        let text = table.render_in(false, Some(40));
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        assert!(text.contains("47ed  RETRY") && text.contains("eee…"), "{text}");
        assert!(table.render_in(false, None).contains(id));
    }

    #[test]
    fn rows_that_come_later_stand_under_the_same_header() {
        let mut widths = Vec::new();
        let mut shown = table().render_more_in(&mut widths, false, None);
        let mut more = Table::new(&["NAME", "STATUS", "ERROR"]);
        more.row(vec!["c".into(), Cell::state(RunState::Pending), "e".into()]);
        shown.push_str(&more.render_more_in(&mut widths, false, None));
        assert_eq!(shown.lines().last(), Some("c         PENDING  e"));
        assert_eq!(shown.matches("NAME").count(), 1);
        let narrow = more.render_more_in(&mut widths, false, Some(20));
        assert!(narrow.width() <= 21, "{narrow}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = table().render(true);
        assert!(coloured.contains("\u{1b}[32mSUCCESS\u{1b}[0m"), "{coloured:?}");
        let plain = ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        let trimmed: Vec<&str> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", table().render(false));
    }
}
