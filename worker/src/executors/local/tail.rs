//! The end of a command's output, however much it writes, and its lines on their way to the run's log.

use std::sync::{Arc, Mutex, PoisonError};

use shared::clock::Clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::JoinHandle,
};

use super::{lines::Feed, mask::Masker};

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long a pipe is read on after its command has ended: whoever escaped with it may keep it open for ever.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// The last bytes of something longer.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Vec<u8>,
    keep: usize,
    total: u64,
    is_cut: bool,
}

impl Tail {
    fn new(keep: usize) -> Self {
        Self { kept: Vec::new(), keep, total: 0, is_cut: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.kept.extend_from_slice(bytes);
        // Twice the room, so that most writes move nothing.
        if self.kept.len() > 2 * self.keep {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.kept.len().saturating_sub(self.keep);
        self.kept.drain(..excess);
        self.is_cut |= excess > 0;
    }

    /// The last bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// The same without the secrets in it.
    pub(super) fn masked(&self, masker: &Masker) -> Self {
        Self { kept: masker.text(&self.kept, self.is_cut), ..*self }
    }

    /// How many bytes there were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether the beginning is missing.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

/// Reads a pipe to its end, so that whoever writes never waits, keeps the last bytes, and hands the lines on.
pub(super) struct Capture {
    output: Arc<Mutex<Output>>,
    reading: JoinHandle<()>,
}

struct Output {
    tail: Tail,
    feed: Feed,
}

impl Capture {
    /// Reads from now on.
    pub(super) fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static, keep: usize, feed: Feed) -> Self {
        let output = Arc::new(Mutex::new(Output { tail: Tail::new(keep), feed }));
        let filling = Arc::clone(&output);
        let reading = tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK_BYTES];
            // A pipe that breaks has no more to say, like one that ends.
            while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
                let mut output = filling.lock().unwrap_or_else(PoisonError::into_inner);
                output.tail.push(&chunk[..count]);
                output.feed.push(&chunk[..count]);
            }
        });
        Self { output, reading }
    }

    /// What came, once the pipe is closed, or a moment after its command has ended.
    pub(super) async fn end(mut self, clock: &dyn Clock) -> Tail {
        tokio::select! {
            _ = &mut self.reading => {}
            () = clock.sleep(CLOSE_WAIT) => self.reading.abort(),
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.feed.end();
        output.tail.cut();
        let keep = output.tail.keep;
        std::mem::replace(&mut output.tail, Tail::new(keep))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[cfg(test)]
pub(super) fn tail_of(bytes: &[u8], keep: usize) -> Tail {
    let mut tail = Tail::new(keep);
    tail.push(bytes);
    tail.cut();
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_and_the_rest_is_counted() {
        let mut tail = Tail::new(4);
        for number in 0..100u8 {
            tail.push(&[number]);
            assert!(tail.bytes().len() <= 8);
        }
        tail.cut();
        assert_eq!((tail.bytes(), tail.total(), tail.is_cut()), (&[96, 97, 98, 99][..], 100, true));
        assert!(!tail_of(b"abc", 4).is_cut());
    }
}
