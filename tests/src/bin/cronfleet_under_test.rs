//! The `cronfleet` binary as the specs start it: the real one, but that its clock can be set, and that it can be made to
//! die right after one of its effects.

use std::{path::PathBuf, sync::Arc};

use harness::{
    clock::{CLOCK_FILE, ShiftedClock},
    crash,
};
use shared::clock::{SharedClock, SystemClock};

fn main() -> std::process::ExitCode {
    let clock: SharedClock = match std::env::var_os(CLOCK_FILE) {
        Some(file) => Arc::new(ShiftedClock::new(PathBuf::from(file))),
        None => SystemClock::shared(),
    };
    crash::arm();
    crash::record();
    crash::slow();
    cli::main_with(clock)
}
