//! Fitting a table into a terminal: the widest columns give way first, until its lines are no wider than the terminal is. Pure.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// No column is made narrower than this: of what is left of it nobody could read anything.
const COLUMN_MIN: usize = 8;
/// What stands for what was cut.
const CUT: char = '…';

/// The widths of columns that fit together, with the gaps between them. As they are, if they do already.
pub(super) fn fitted(mut widths: Vec<usize>, gap: usize, room: usize) -> Vec<usize> {
    let gaps = gap * widths.len().saturating_sub(1);
    let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
    while excess > 0 {
        // Of several that are equally wide the last gives way: the first is most often the name.
        let Some(widest) =
            widths.iter_mut().rev().filter(|width| **width > COLUMN_MIN).max_by_key(|width| **width)
        else {
            break;
        };
        *widest -= 1;
        excess -= 1;
    }
    widths
}

/// As much of a text as has room, with a sign that something is missing. Of an id the middle is left out: ids differ at their
/// ends.
pub(super) fn cut(text: &str, room: usize, is_id: bool) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let left = room.saturating_sub(1);
    let tail = if is_id { left / 2 } else { 0 };
    let end: String = taken(text.chars().rev(), tail).chars().rev().collect();
    format!("{}{CUT}{end}", taken(text.chars(), left - tail))
}

/// So many of the first characters as have room.
fn taken(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    let has_room = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    chars.take_while(has_room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_give_way_and_a_table_that_fits_stays_as_it_is() {
        assert_eq!(fitted(vec![10, 5], 2, 17), [10, 5]);
        assert_eq!(fitted(vec![52, 7, 7, 60], 2, 80), [30, 7, 7, 30]);
        assert_eq!(fitted(vec![30, 7, 90], 2, 80), [30, 7, 39]);
        assert_eq!(fitted(vec![20, 20, 20], 2, 10), [8, 8, 8], "too narrow for anything");
    }

    #[test]
    fn what_is_cut_says_so_and_an_id_keeps_both_ends() {
        assert_eq!(cut("short", 5, true), "short");
        assert_eq!(cut("attempts_exhausted: 503", 9, false), "attempts…");
        assert_eq!(cut("daily.manual-20261123T223732Z-452e47ed", 15, true), "daily.m…52e47ed");
        assert_eq!(cut("数据归档任务", 7, false), "数据归…");
    }
}
