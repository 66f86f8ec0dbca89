//! The wall clock as planning may use it: it answers only while it is believed.

use std::sync::{Arc, Mutex, PoisonError};

use shared::{
    Timestamp,
    clock::SharedClock,
    clock_check::{ClockCheck, Reading, Sample, Suspicion},
};

use crate::status::Status;

/// Watches over the planner's clock. Whether it can be believed [`ClockCheck`] decides.
pub(crate) struct ClockGuard {
    clock: SharedClock,
    check: Mutex<ClockCheck>,
    status: Arc<Status>,
}

impl ClockGuard {
    pub(crate) fn new(clock: SharedClock, status: Arc<Status>) -> Self {
        Self { clock, check: Mutex::default(), status }
    }

    /// The wall time; none while the clock is suspect: then nothing may be planned by it.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        let reading = Reading::of(&*self.clock);
        let check = self.change(|check| check.after_reading(reading));
        check.suspicion().is_none().then_some(reading.wall)
    }

    /// Reads the clock, only to notice in time that it was set.
    pub(crate) fn look(&self) {
        let _ = self.now();
    }

    /// Takes in a comparison with the server's clock.
    pub(crate) fn compare(&self, sample: Sample) {
        self.change(|check| check.after_sample(sample));
    }

    /// Whether the clock is not believed, for whatever reason.
    pub(crate) fn is_suspect(&self) -> bool {
        self.lock().suspicion().is_some()
    }

    /// Whether the clock is known to be wrong, and not merely to be compared anew.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.lock().suspicion(), Some(Suspicion::Off(_)))
    }

    fn change(&self, change: impl FnOnce(ClockCheck) -> ClockCheck) -> ClockCheck {
        let mut check = self.lock();
        let before = *check;
        *check = change(before);
        let after = *check;
        drop(check);
        if (before.offset(), before.suspicion()) != (after.offset(), after.suspicion()) {
            self.status.note_clock(after.offset(), after.suspicion());
            say(&before, &after);
        }
        after
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ClockCheck> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say(before: &ClockCheck, after: &ClockCheck) {
    let kind = |check: &ClockCheck| check.suspicion().map(|suspicion| std::mem::discriminant(&suspicion));
    let offset_ms = after.offset().unwrap_or_default().num_milliseconds();
    if let Some(suspicion) = after.suspicion() {
        if kind(before) != kind(after) {
            tracing::error!(
                clock.offset_ms = offset_ms,
                "The clock is suspect: {suspicion}. Nothing is dispatched until it agrees with the server's again"
            );
        }
    } else if before.suspicion().is_some_and(|suspicion| suspicion != Suspicion::NeverCompared) {
        tracing::info!(
            clock.offset_ms = offset_ms,
            "The clock agrees with the server's again: {offset_ms} ms ahead"
        );
    } else if after.is_worth_a_warning() && !before.is_worth_a_warning() {
        tracing::warn!(
            clock.offset_ms = offset_ms,
            "The clock is {offset_ms} ms ahead of the server's; check NTP on both machines"
        );
    }
}
