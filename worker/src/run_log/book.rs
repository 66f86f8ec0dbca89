//! What an attempt has said and nobody has written down yet. Pure: lines in, batches out.

use std::{collections::VecDeque, time::Duration};

use shared::{
    Timestamp, limits,
    run_log::{LogLine, LogSource, Progress},
};

use super::Said;

#[derive(Debug, Default)]
pub(super) struct Book {
    waiting: VecDeque<LogLine>,
    /// What they weigh.
    weight: usize,
    /// What the attempt has put into the log so far.
    spent: usize,
    /// The number of the last line, those that were left out counted.
    last: u64,
    left_out: LeftOut,
    /// The latest progress, if it is not in the log yet.
    progress: Option<(Progress, Timestamp)>,
    progress_said_at: Option<Duration>,
    ended: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LeftOut {
    lines: u64,
    bytes: u64,
}

impl Book {
    /// Whether a line more would be taken.
    pub(super) fn has_room(&self) -> bool {
        let heaviest = limits::LOG_LINE_BYTES_MAX + limits::LOG_LINE_OVERHEAD_BYTES;
        !self.ended
            && self.spent + heaviest <= limits::LOG_ATTEMPT_BYTES_MAX
            && self.weight + heaviest <= limits::LOG_QUEUE_BYTES_MAX
    }

    /// Takes a line, or counts it.
    pub(super) fn say(&mut self, said: Said, at: Timestamp) {
        if !self.has_room() {
            let length = said.text.len() as u64 + said.cut.unwrap_or(0);
            return self.leave_out(1, length);
        }
        let Said { from, text, cut, lossy } = said;
        self.put(LogLine { n: 0, at, from, text, cut, lossy, progress: None });
    }

    pub(super) fn leave_out(&mut self, lines: u64, bytes: u64) {
        if self.ended {
            return;
        }
        self.last += lines;
        self.left_out.lines += lines;
        self.left_out.bytes += bytes;
    }

    /// Takes a progress: as a line, if the last one that was is long enough ago.
    pub(super) fn progress(&mut self, progress: Progress, at: Timestamp, now: Duration) {
        self.progress = Some((progress, at));
        let is_time =
            self.progress_said_at.is_none_or(|said| now.saturating_sub(said) >= limits::PROGRESS_LOG);
        if is_time && self.has_room() {
            self.progress_said_at = Some(now);
            self.say_progress();
        }
    }

    fn say_progress(&mut self) {
        if let Some((progress, at)) = self.progress.take() {
            let text = progress.words();
            let progress = Some(progress.progress);
            self.put(LogLine { n: 0, at, from: LogSource::Worker, text, cut: None, lossy: false, progress });
        }
    }

    fn put(&mut self, line: LogLine) {
        self.last += 1;
        let line = LogLine { n: self.last, ..line };
        self.weight += line.weight();
        self.spent += line.weight();
        self.waiting.push_back(line);
    }

    /// Nothing more is said. The latest progress, and what was left out, are the last lines: they have room always.
    pub(super) fn end(&mut self, at: Timestamp) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.say_progress();
        self.say_what_is_missing(at);
    }

    fn say_what_is_missing(&mut self, at: Timestamp) {
        let LeftOut { lines, bytes } = std::mem::take(&mut self.left_out);
        if lines > 0 {
            let text =
                format!("{lines} lines ({bytes} bytes) of this attempt's output are left out of its log");
            self.put(LogLine {
                n: 0,
                at,
                from: LogSource::Worker,
                text,
                cut: None,
                lossy: false,
                progress: None,
            });
        }
    }

    /// What is to be written at once: up to a batch.
    pub(super) fn take(&mut self) -> Vec<LogLine> {
        let (mut lines, mut weight) = (Vec::new(), 0);
        while let Some(line) = self.waiting.pop_front() {
            if weight + line.weight() > limits::LOG_BATCH_BYTES_MAX {
                self.waiting.push_front(line);
                break;
            }
            weight += line.weight();
            lines.push(line);
        }
        self.weight -= weight;
        lines
    }

    /// These were taken and could not be written: they come first again.
    pub(super) fn take_back(&mut self, lines: Vec<LogLine>) {
        self.weight += lines.iter().map(LogLine::weight).sum::<usize>();
        for line in lines.into_iter().rev() {
            self.waiting.push_front(line);
        }
    }

    /// These were taken and will never be written.
    pub(super) fn lost(&mut self, lines: &[LogLine]) {
        // After the end nobody can be told any more: what was to say it may be among them.
        if !self.ended {
            self.left_out.lines += lines.len() as u64;
            self.left_out.bytes += lines.iter().map(|line| line.text.len() as u64).sum::<u64>();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether there is no use in waiting for more: it is the last, or a batch is full.
    pub(super) fn is_urgent(&self) -> bool {
        self.ended || self.weight >= limits::LOG_BATCH_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-11-24T02:00:00Z".parse().expect("an instant")
    }

    fn said(text: &str) -> Said {
        Said { from: LogSource::Stdout, text: text.to_owned(), cut: None, lossy: false }
    }

    fn all(book: &mut Book) -> Vec<LogLine> {
        let mut lines = Vec::new();
        while !book.is_empty() {
            let batch = book.take();
            let weight: usize = batch.iter().map(LogLine::weight).sum();
            assert!(!batch.is_empty() && weight <= limits::LOG_BATCH_BYTES_MAX);
            lines.extend(batch);
        }
        lines
    }

    #[test]
    fn lines_come_out_as_they_went_in_and_are_numbered() {
        let mut book = Book::default();
        for text in ["a", "b", "c"] {
            book.say(said(text), at());
        }
        let lines: Vec<(u64, String)> = all(&mut book).into_iter().map(|line| (line.n, line.text)).collect();
        assert_eq!(lines, [(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())]);
        book.end(at());
        assert!(book.is_empty(), "nothing was left out, so nothing is said of it");
    }

    #[test]
    fn whoever_writes_nothing_down_bounds_the_queue_and_what_has_no_room_is_counted() {
        let mut book = Book::default();
        let text = "x".repeat(1_000);
        for _ in 0..1_000 {
            book.say(said(&text), at());
        }
        assert!(book.weight <= limits::LOG_QUEUE_BYTES_MAX);
        let taken = book.waiting.len() as u64;
        let first = book.take();
        book.take_back(first);
        assert_eq!(book.waiting.len() as u64, taken, "what could not be written waits again");
        all(&mut book);
        book.say(said("later"), at());
        book.end(at());
        let last = all(&mut book);
        assert_eq!(
            (last[0].n, last[0].text.as_str()),
            (1_001, "later"),
            "the gap shows where they are missing"
        );
        let missing = 1_000 - taken;
        let words =
            format!("{missing} lines ({} bytes) of this attempt's output are left out", missing * 1_000);
        assert!(last[1].text.starts_with(&words), "{}", last[1].text);
    }

    #[test]
    fn an_attempt_has_its_share_and_the_last_line_says_what_it_had_no_room_for() {
        let mut book = Book::default();
        let (mut weight, mut count) = (0, 0);
        for _ in 0..100_000 {
            book.say(said("a line of some length"), at());
            for line in book.take() {
                weight += line.weight();
                count += 1;
            }
        }
        assert!(weight <= limits::LOG_ATTEMPT_BYTES_MAX && !book.has_room());
        book.end(at());
        let last = all(&mut book);
        let words = format!("{} lines", 100_000 - count);
        assert!(last.len() == 1 && last[0].text.starts_with(&words), "{last:?}");
        book.say(said("after the end"), at());
        assert!(book.is_empty());
    }

    #[test]
    fn progress_is_said_once_in_a_while_and_the_last_of_it_always() {
        let mut book = Book::default();
        for ms in 0..2_500_u32 {
            let progress = Progress::new(f64::from(ms) / 2_500.0, None);
            book.progress(progress, at(), Duration::from_millis(ms.into()));
        }
        book.end(at());
        let said: Vec<String> = all(&mut book).into_iter().map(|line| line.text).collect();
        assert_eq!(said, ["0 %", "40 %", "80 %", "99 %"]);
    }
}
