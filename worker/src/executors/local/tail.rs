//! The end of a command's output, however much it writes.

use std::sync::{Arc, Mutex, PoisonError};

use shared::clock::Clock;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::JoinHandle,
};

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
}

impl Tail {
    fn new(keep: usize) -> Self {
        Self { kept: Vec::new(), keep, total: 0 }
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
    }

    /// The last bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.kept
    }

    /// How many bytes there were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether the beginning is missing.
    pub(super) fn is_cut(&self) -> bool {
        self.total > self.kept.len() as u64
    }
}

/// Reads a pipe to its end, so that whoever writes never waits, and keeps the last bytes.
#[derive(Debug)]
pub(super) struct Capture {
    tail: Arc<Mutex<Tail>>,
    reading: JoinHandle<()>,
}

impl Capture {
    /// Reads from now on.
    pub(super) fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static, keep: usize) -> Self {
        let tail = Arc::new(Mutex::new(Tail::new(keep)));
        let filling = Arc::clone(&tail);
        let reading = tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK_BYTES];
            // A pipe that breaks has no more to say, like one that ends.
            while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
                filling.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..count]);
            }
        });
        Self { tail, reading }
    }

    /// What came, once the pipe is closed, or a moment after its command has ended.
    pub(super) async fn end(mut self, clock: &dyn Clock) -> Tail {
        tokio::select! {
            _ = &mut self.reading => {}
            () = clock.sleep(CLOSE_WAIT) => self.reading.abort(),
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.cut();
        let keep = tail.keep;
        std::mem::replace(&mut *tail, Tail::new(keep))
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
