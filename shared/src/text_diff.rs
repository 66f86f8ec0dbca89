//! Two texts, line by line: what `diff -u` shows.

use std::fmt::Write as _;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Cells of the comparison table, at most; larger differences are shown as a whole, removed and added.
const CELLS_MAX: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Removed(&'a str),
    Added(&'a str),
}

/// The hunks that make `new` of `old`; nothing if they are the same.
pub fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compare(&old, &new);
    let near = |index: usize| {
        let from = index.saturating_sub(CONTEXT);
        let to = (index + CONTEXT + 1).min(lines.len());
        lines[from..to].iter().any(|line| !matches!(line, Line::Same(_)))
    };
    let mut text = String::new();
    let (mut old_at, mut new_at) = (1, 1);
    let mut index = 0;
    while index < lines.len() {
        let hunk: Vec<Line<'_>> =
            (index..lines.len()).take_while(|at| near(*at)).map(|at| lines[at]).collect();
        let count = |leave: fn(&Line<'_>) -> bool| hunk.iter().filter(|line| !leave(line)).count();
        let olds = count(|line| matches!(line, Line::Added(_)));
        let news = count(|line| matches!(line, Line::Removed(_)));
        if hunk.is_empty() {
            // Far from any change, so the same in both.
            (old_at, new_at, index) = (old_at + 1, new_at + 1, index + 1);
            continue;
        }
        let _ = writeln!(text, "@@ -{} +{} @@", range(old_at, olds), range(new_at, news));
        for line in &hunk {
            let (sign, line) = match line {
                Line::Same(line) => (' ', line),
                Line::Removed(line) => ('-', line),
                Line::Added(line) => ('+', line),
            };
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
        (old_at, new_at, index) = (old_at + olds, new_at + news, index + hunk.len());
    }
    text
}

/// As `diff` writes it: an empty range begins before the line it would have.
fn range(start: usize, length: usize) -> String {
    match length {
        0 => format!("{},0", start - 1),
        1 => start.to_string(),
        _ => format!("{start},{length}"),
    }
}

fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let same = |lines: &[&'a str]| lines.iter().map(|line| Line::Same(line)).collect::<Vec<_>>();
    let mut lines = same(&old[..head]);
    if old_middle.len() * new_middle.len() > CELLS_MAX {
        lines.extend(old_middle.iter().map(|line| Line::Removed(line)));
        lines.extend(new_middle.iter().map(|line| Line::Added(line)));
    } else {
        lines.extend(longest_common(old_middle, new_middle));
    }
    lines.extend(same(&old[old.len() - tail..]));
    lines
}

/// By the longest common subsequence, computed from the end so that the walk goes forward.
fn longest_common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Removed(old[i]));
            i += 1;
        } else {
            lines.push(Line::Added(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_has_no_difference() {
        assert_eq!(unified("a\nb\n", "a\nb"), "");
    }

    #[test]
    fn hunks_are_as_diff_writes_them() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n";
        let new = old.replace("2\n3", "2\nx\n3").replacen("11\n", "", 1);
        assert_eq!(
            unified(old, &new),
            "@@ -1,5 +1,6 @@\n 1\n 2\n+x\n 3\n 4\n 5\n@@ -8,5 +9,4 @@\n 8\n 9\n 10\n-11\n 12\n"
        );
    }

    #[test]
    fn what_is_new_or_gone_is_one_hunk() {
        assert_eq!(unified("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(unified("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        assert_eq!(unified("a\n", "b\n"), "@@ -1 +1 @@\n-a\n+b\n");
    }

    #[test]
    fn a_difference_too_large_to_compare_is_still_shown() {
        let text = |salt: &str| (0..3_000).map(|n| format!("{salt}{n}")).collect::<Vec<_>>().join("\n");
        let shown = unified(&text("a"), &text("b"));
        assert_eq!(shown.lines().count(), 1 + 6_000);
    }
}
