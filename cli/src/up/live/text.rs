//! Text in columns: how wide it is, and how it is cut.

use std::{fmt::Write as _, time::Duration};

use unicode_width::UnicodeWidthChar;

/// The columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text in at most this many columns; what is cut off shows as `…`.
pub(super) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut taken = 0;
    for c in text.chars() {
        let next = c.width().unwrap_or(0);
        // One column is kept for the mark.
        if taken + next + 1 > columns {
            break;
        }
        taken += next;
        clipped.push(c);
    }
    if columns > 0 {
        clipped.push('…');
    }
    clipped
}

/// A length of time in two units at most, short: `812ms`, `1.3s`, `2m 49s`, `3h 05m`, `6d 4h`.
pub(super) fn short(duration: Duration) -> String {
    // Rounded, so that it is the same number that other verbs show in full.
    let tenths = (duration.as_millis() + 50) / 100;
    match duration.as_secs() {
        0 => format!("{}ms", duration.subsec_millis()),
        1..60 if tenths < 600 => format!("{}.{}s", tenths / 10, tenths % 10),
        1..60 => coarse(Duration::from_mins(1)),
        _ => coarse(duration),
    }
}

/// The same without parts of a second: what a countdown shows.
pub(super) fn coarse(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Items one after the other, with a separator between, in as many lines as they need.
pub(super) fn flow(items: &[String], columns: usize) -> Vec<String> {
    const BETWEEN: &str = " · ";
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if width(line) + width(BETWEEN) + width(item) <= columns => {
                let _ = write!(line, "{BETWEEN}{item}");
            }
            _ => lines.push(clip(item, columns)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns_and_not_by_characters() {
        for (text, columns, cut) in [
            ("archive", 7, "archive"),
            ("archive", 6, "archi…"),
            ("归档数据", 8, "归档数据"),
            ("归档数据", 7, "归档数…"),
            ("归档数据", 6, "归档…"),
            ("归档", 1, "…"),
            ("归档", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(clip(text, columns), cut, "{text} in {columns}");
            assert!(width(&clip(text, columns)) <= columns);
        }
    }

    #[test]
    fn lengths_of_time_are_short() {
        for (millis, text) in [
            (0, "0ms"),
            (812, "812ms"),
            (1_250, "1.3s"),
            (2_177, "2.2s"),
            (59_990, "1m 00s"),
            (169_000, "2m 49s"),
            (11_100_000, "3h 05m"),
            (532_800_000, "6d 04h"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
        assert_eq!(coarse(Duration::from_millis(9_900)), "9s");
    }

    #[test]
    fn items_flow_over_lines() {
        let items = ["1 planner", "1 worker", "7 schedules"].map(str::to_owned);
        assert_eq!(flow(&items, 80), ["1 planner · 1 worker · 7 schedules"]);
        assert_eq!(flow(&items, 20), ["1 planner · 1 worker", "7 schedules"]);
        assert_eq!(flow(&items, 5), ["1 pl…", "1 wo…", "7 sc…"]);
    }
}
