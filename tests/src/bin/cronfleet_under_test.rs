//! The `cronfleet` binary as the specs start it: the real one, but that its clock can be set.

use std::{path::PathBuf, sync::Arc};

use harness::clock::{CLOCK_FILE, ShiftedClock};
use shared::clock::{SharedClock, SystemClock};

fn main() -> std::process::ExitCode {
    let clock: SharedClock = match std::env::var_os(CLOCK_FILE) {
        Some(file) => Arc::new(ShiftedClock::new(PathBuf::from(file))),
        None => SystemClock::shared(),
    };
    cli::main_with(clock)
}
