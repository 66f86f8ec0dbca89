//! A clock that a spec sets while a process runs: as an operator, or a broken NTP, would.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    clock::{Clock, Sleep, SystemClock},
};

/// The variable that names the file.
pub const CLOCK_FILE: &str = "CRONFLEET_TEST_CLOCK";

/// The machine's clock, with its wall time shifted by what a file says now. Elapsed time is not touched: nobody can set
/// it.
pub struct ShiftedClock {
    file: PathBuf,
}

impl ShiftedClock {
    /// A clock that follows a file with a number of milliseconds.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }
}

/// Sets the clock of the processes that follow a file.
pub fn shift(file: &Path, by: TimeDelta) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, by.num_milliseconds().to_string()).expect("a file");
    // At once, so that nobody reads half a number.
    std::fs::rename(&fresh, file).expect("a file");
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let text = std::fs::read_to_string(&self.file).expect("the clock's file");
        SystemClock.now() + TimeDelta::milliseconds(text.trim().parse().expect("milliseconds"))
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(async move { SystemClock.sleep(duration).await })
    }
}
