//! Changes gates by compare-and-set. Of one worker one change of a gate is under way at a time: so as many contend for it
//! as there are workers, not as there are runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{Timestamp, hash::mixed_64, limit::GateKey};
use streams::{
    ReadError, Streams, WriteError,
    gates::{Gate, GateSeen},
    ledger::Update,
};

/// Writes of others that one change is tried over before its run is handed back.
const CHANGES_MAX: u32 = 64;
/// The longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_millis(8);
/// What we knew of a gate this long ago is good enough to refuse somebody, so that many that come at once share one look.
const KNOWN_FOR: Duration = Duration::from_millis(5);
/// Gates of which is remembered what was known last: a lane for each value of a key would be as many as its users think of.
const KNOWN_MAX: usize = 4_096;
/// For how long the server's clock is computed from one look at it.
const CLOCK_LOOK: Duration = Duration::from_secs(10);

/// A gate that could not be read or changed just now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("too many change the gate of {0} at once")]
    Contended(String),
}

/// What a look at a gate leads to.
pub(super) enum Step<R> {
    /// It becomes this.
    Write(Gate, R),
    /// It stays as it is.
    Leave(R),
}

/// The newest we know of a gate, and since when; none if it is to be read.
type Known = Arc<tokio::sync::Mutex<Option<(GateSeen, Duration)>>>;

/// What is known of gates. Bounded: when it is full, all go that nobody is at.
#[derive(Default)]
struct Cells {
    known: HashMap<GateKey, Known>,
}

impl Cells {
    fn of(&mut self, key: &GateKey) -> Known {
        if let Some(known) = self.known.get(key) {
            return Arc::clone(known);
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        Arc::clone(self.known.entry(key.clone()).or_default())
    }
}

pub(super) struct Keeper {
    streams: Streams,
    known: Mutex<Cells>,
    /// What the server's clock showed, and when we were told.
    server: tokio::sync::Mutex<Option<(Timestamp, Duration)>>,
}

impl Keeper {
    pub(super) fn new(streams: Streams) -> Self {
        Self { streams, known: Mutex::default(), server: tokio::sync::Mutex::new(None) }
    }

    /// Changes a gate as `step` says, which is asked again whenever somebody else was faster. That it shall stay as it is
    /// counts only of what the leader has just told, or a moment ago.
    pub(super) async fn change<R>(
        &self,
        key: &GateKey,
        mut step: impl FnMut(&Gate) -> Step<R>,
    ) -> Result<R, GateError> {
        let clock = self.streams.clock();
        let cell = self.cell(key);
        let mut known = cell.lock().await;
        for attempt in 0..CHANGES_MAX {
            let asked_at = clock.elapsed();
            let (seen, at) = match known.take() {
                Some(known) => known,
                None => (self.streams.gates().get(key).await?, asked_at),
            };
            match step(&seen.gate) {
                // After the first time it has always just been read.
                Step::Leave(result) if attempt > 0 || clock.elapsed().saturating_sub(at) < KNOWN_FOR => {
                    *known = Some((seen, at));
                    return Ok(result);
                }
                Step::Leave(_) => {}
                Step::Write(gate, result) => {
                    match self.streams.gates().write(key, &gate, seen.revision).await {
                        Ok(Update::Stored(revision)) => {
                            *known = Some((GateSeen { gate, revision }, asked_at));
                            return Ok(result);
                        }
                        Ok(Update::Stale) if attempt > 1 => {
                            self.streams.clock().sleep(self.pause(key, attempt)).await;
                        }
                        // It may have been stored: what is there says so.
                        Ok(Update::Stale) | Err(WriteError::Unknown { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Err(GateError::Contended(key.scope.to_string()))
    }

    /// A gate as the leader has it.
    pub(super) async fn read(&self, key: &GateKey) -> Result<Gate, GateError> {
        Ok(self.streams.gates().get(key).await?.gate)
    }

    /// What the server's clock shows at least: it was read before the answer came, and time has passed since. So no turn is
    /// taken early, however the clocks of workers differ.
    pub(super) async fn server_now(&self) -> Result<Timestamp, GateError> {
        let clock = self.streams.clock();
        let mut server = self.server.lock().await;
        let now = clock.elapsed();
        if let Some((shown, told_at)) = *server
            && now.saturating_sub(told_at) < CLOCK_LOOK
        {
            return Ok(shown + since(told_at, now));
        }
        let shown = self.streams.gates().server_now().await?;
        *server = Some((shown, clock.elapsed()));
        Ok(shown)
    }

    fn pause(&self, key: &GateKey, attempt: u32) -> Duration {
        let now = self.streams.clock().elapsed().as_nanos();
        let drawn = mixed_64(&[&key.scope.to_string(), &attempt.to_string(), &now.to_string()]);
        Duration::from_micros(drawn % PAUSE_MAX.as_micros() as u64)
    }

    fn cell(&self, key: &GateKey) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).of(key)
    }
}

fn since(earlier: Duration, now: Duration) -> TimeDelta {
    TimeDelta::from_std(now.saturating_sub(earlier)).unwrap_or(TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_without_end_take_no_memory_without_end_and_one_that_is_changed_is_kept() {
        let key = |lane: u64| GateKey {
            scope: "t-a".parse().expect("a scope"),
            lane: format!("{lane:x}").parse().ok(),
        };
        let mut cells = Cells::default();
        let at_work = cells.of(&key(0));
        for lane in 1..100_000 {
            drop(cells.of(&key(lane)));
        }
        assert!(cells.known.len() <= KNOWN_MAX, "{}", cells.known.len());
        assert!(
            Arc::ptr_eq(&at_work, &cells.of(&key(0))),
            "two that change a gate at once wait for each other"
        );
    }
}
