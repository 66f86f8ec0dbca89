//! Writing to stdout where it may be slow: a terminal that was stopped with ctrl-S, or a pipe nobody reads, must not
//! hold up the fleet. A thread of its own writes; what it cannot keep up with is left out.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    time::Duration,
};

use super::text::width;

/// To the other page of the terminal, so that what was on it comes back; no cursor; an empty page.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Lines waiting for a reader, at most.
const LINES_WAITING_MAX: usize = 4_096;
/// Restoring the terminal takes no time, unless it is stopped.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// What stdout is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::up) enum Kind {
    /// A picture that is drawn again and again.
    Picture {
        /// Whether it may have colours.
        colour: bool,
    },
    /// Lines, one after the other.
    Lines,
}

impl Kind {
    /// What this process's stdout is good for.
    pub(in crate::up) fn of_stdout() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if io::stdout().is_terminal() && !is_dumb {
            Kind::Picture { colour: !is_set("NO_COLOR") }
        } else {
            Kind::Lines
        }
    }
}

/// Stdout, written by a thread. When it is dropped the terminal is as it was.
pub(super) struct Screen {
    frames: Option<SyncSender<String>>,
    ended: Receiver<()>,
}

impl Screen {
    /// A page for pictures.
    pub(super) fn picture() -> Self {
        Self::start(1, ENTER, LEAVE)
    }

    /// A place for lines.
    pub(super) fn lines() -> Self {
        Self::start(LINES_WAITING_MAX, "", "")
    }

    fn start(waiting_max: usize, enter: &'static str, leave: &'static str) -> Self {
        let (frames, waiting) = sync_channel::<String>(waiting_max);
        let (end, ended) = channel();
        std::thread::spawn(move || {
            let mut stdout = io::stdout().lock();
            let mut write = |text: &str| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            let _ = write(enter);
            for frame in &waiting {
                // Nobody there any more: the fleet goes on without being watched.
                if write(&frame).is_err() {
                    break;
                }
            }
            let _ = write(leave);
            let _ = end.send(());
        });
        Self { frames: Some(frames), ended }
    }

    /// Shows a picture, unless the one before is still being written.
    pub(super) fn draw(&self, picture: &str, columns: usize) {
        self.write(frame(picture, columns));
    }

    /// Adds a line, unless thousands wait already; whether it was added.
    pub(super) fn line(&self, line: &str) -> bool {
        self.write(format!("{line}\n"))
    }

    fn write(&self, text: String) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.try_send(text).is_ok())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.frames.take());
        let _ = self.ended.recv_timeout(LEAVE_WAIT);
    }
}

/// One write for the whole picture: over the one before, each line cleared behind its text, so that nothing flickers.
fn frame(picture: &str, columns: usize) -> String {
    let mut frame = String::from("\x1b[H");
    for (number, line) in picture.split('\n').enumerate() {
        if number > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(line);
        // Behind the last column there is nothing to clear, and some terminals would clear the last character.
        if width(&without_colours(line)) < columns {
            frame.push_str("\x1b[K");
        }
    }
    frame.push_str("\x1b[J\x1b[H");
    frame
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.filter_map(|part| part.split_once('m').map(|(_, text)| text));
    std::iter::once(first).chain(rest).collect()
}

/// Columns and lines of the terminal.
pub(super) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_one_before_and_clears_what_it_does_not_cover() {
        assert_eq!(frame("ab\n\x1b[31mabc\x1b[0m", 3), "\x1b[Hab\x1b[K\r\n\x1b[31mabc\x1b[0m\x1b[J\x1b[H");
    }
}
