//! Makes lines out of what a command writes, and hands them to its run's log.

use shared::{
    clock::SharedClock,
    limits,
    run_log::{LogSource, Progress},
};

use super::mask::Masker;
use crate::run_log::{RunLog, Said};

/// Splits what comes in pieces into lines. Pure. A line ends with a line feed or a carriage return, so that each state of a
/// progress bar is one; of a long one only the beginning is held.
#[derive(Debug)]
pub(super) struct Splitter {
    held: Vec<u8>,
    /// Bytes of a line that are held.
    hold: usize,
    /// Bytes of the present line, held or not.
    length: u64,
    after_return: bool,
}

impl Splitter {
    pub(super) fn new(hold: usize) -> Self {
        Self { held: Vec::new(), hold, length: 0, after_return: false }
    }

    /// Takes a piece; calls `each` with every line that it ends: with what is held of it, and its length.
    pub(super) fn push(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8], u64)) {
        while !piece.is_empty() {
            let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &piece[..end.unwrap_or(piece.len())];
            let room = self.hold.saturating_sub(self.held.len());
            self.held.extend_from_slice(&part[..part.len().min(room)]);
            self.length += part.len() as u64;
            let Some(end) = end else {
                self.after_return &= part.is_empty();
                return;
            };
            // A line feed behind a carriage return ends the same line.
            let is_second = piece[end] == b'\n' && self.after_return && self.length == 0;
            self.after_return = piece[end] == b'\r';
            if !is_second {
                each(&self.held, self.length);
            }
            self.held.clear();
            self.length = 0;
            piece = &piece[end + 1..];
        }
    }

    /// What came after the last end of a line.
    pub(super) fn rest(&mut self, each: impl FnOnce(&[u8], u64)) {
        if self.length > 0 {
            each(&self.held, self.length);
        }
        self.held.clear();
        self.length = 0;
    }
}

/// The way from one of a command's outputs to its run's log.
pub(super) struct Feed {
    splitter: Splitter,
    masker: Masker,
    from: LogSource,
    log: RunLog,
    clock: SharedClock,
}

impl Feed {
    pub(super) fn new(from: LogSource, masker: &Masker, log: &RunLog, clock: &SharedClock) -> Self {
        let splitter = Splitter::new(limits::LOG_LINE_BYTES_MAX + masker.longest());
        Self { splitter, masker: masker.clone(), from, log: log.clone(), clock: clock.clone() }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let Self { splitter, masker, from, log, clock } = self;
        let speaker = Speaker { masker, from: *from, log, clock };
        if log.has_room() {
            return splitter.push(piece, |held, length| speaker.say(held, length));
        }
        // Whoever has said too much is only listened to for progress: the rest is counted, all of a piece at once.
        let (mut lines, mut bytes) = (0, 0);
        splitter.push(piece, |held, length| {
            if !speaker.says_progress(held) {
                lines += 1;
                bytes += length;
            }
        });
        log.leave_out(lines, bytes);
    }

    /// What came last, if its line has no end.
    pub(super) fn end(&mut self) {
        let Self { splitter, masker, from, log, clock } = self;
        splitter.rest(|held, length| Speaker { masker, from: *from, log, clock }.say(held, length));
    }
}

/// Says lines in a run's log.
struct Speaker<'a> {
    masker: &'a Masker,
    from: LogSource,
    log: &'a RunLog,
    clock: &'a SharedClock,
}

impl Speaker<'_> {
    fn says_progress(&self, held: &[u8]) -> bool {
        if self.from != LogSource::Stdout {
            return false;
        }
        let Some(said) = Progress::said_in(held) else { return false };
        let note = said.note.as_deref().map(|note| self.masker.words(note));
        let progress = Progress::new(said.progress, note.as_deref());
        self.log.progress(progress, self.clock.now(), self.clock.elapsed());
        true
    }

    fn say(&self, held: &[u8], length: u64) {
        if self.says_progress(held) {
            return;
        }
        let masked = self.masker.line(held, limits::LOG_LINE_BYTES_MAX);
        // Where a line was cut in the middle of a character, it is text all the same.
        let lossy = std::str::from_utf8(held).is_err_and(|error| error.error_len().is_some());
        let text = String::from_utf8_lossy(&masked).into_owned();
        let kept = (held.len() as u64).min(limits::LOG_LINE_BYTES_MAX as u64);
        let cut = (length > kept).then(|| length - kept);
        self.log.say(Said { from: self.from, text, cut, lossy }, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<(String, u64)> {
        let (mut splitter, mut lines) = (Splitter::new(8), Vec::new());
        let text = |held: &[u8]| String::from_utf8_lossy(held).into_owned();
        for piece in pieces {
            splitter.push(piece, |held, length| lines.push((text(held), length)));
        }
        splitter.rest(|held, length| lines.push((text(held), length)));
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_come_in_pieces() {
        let text = b"first\r\n\nlong line that goes on\rbar 10 %\rbar 20 %\n\r\nlast";
        let whole = lines(&[text]);
        let wanted =
            [("first", 5), ("", 0), ("long lin", 22), ("bar 10 %", 8), ("bar 20 %", 8), ("", 0), ("last", 4)];
        assert_eq!(whole, wanted.map(|(line, length)| (line.to_owned(), length)));
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&single), whole);
        for at in 0..text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), whole, "{at}");
        }
        assert!(lines(&[b""]).is_empty());
    }
}
