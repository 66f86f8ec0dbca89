//! Processes that die right after one of their effects, as by kill -9, or stand still there.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};

/// The variable that says after which effect, and the how-manieth of its kind: `runs.create:1`.
pub const CRASH_AT: &str = "CRONFLEET_TEST_CRASH_AT";

/// Lets this process die where the variable says, if it is set.
pub fn arm() {
    let Ok(wanted) = std::env::var(CRASH_AT) else { return };
    let (point, nth) = wanted.rsplit_once(':').expect("point:number");
    let (point, left) = (point.to_owned(), AtomicU32::new(nth.parse().expect("a number")));
    streams::witness::install(move |seen| {
        if seen == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill_process(getpid(), Signal::KILL).expect("kill");
            // The signal may take a moment: nothing more is done meanwhile.
            loop {
                std::thread::park();
            }
        }
    });
}

/// The variable that says after which effect, and the how-manieth of its kind, a process stands still for a moment.
pub const SLOW_AT: &str = "CRONFLEET_TEST_SLOW_AT";

/// For how long: longer than a turn at a limit lasts.
const STANDS_STILL: Duration = Duration::from_millis(700);

/// Has this process stand still where the variable says, if it is set.
pub fn slow() {
    let Ok(wanted) = std::env::var(SLOW_AT) else { return };
    let (point, nth) = wanted.rsplit_once(':').expect("point:number");
    let (point, left) = (point.to_owned(), AtomicU32::new(nth.parse().expect("a number")));
    streams::witness::install(move |seen| {
        if seen == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::thread::park_timeout(STANDS_STILL);
        }
    });
}

/// The variable that names a file into which the names of all points are written as they are passed.
pub const POINTS_FILE: &str = "CRONFLEET_TEST_POINTS";

/// Has this process write down the points it passes, if the variable is set.
pub fn record() {
    use std::io::Write as _;
    let Some(file) = std::env::var_os(POINTS_FILE) else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file");
    let file = std::sync::Mutex::new((file, std::collections::BTreeSet::new()));
    streams::witness::install(move |seen| {
        let mut file = file.lock().expect("the file");
        if file.1.insert(seen.to_owned()) {
            // At once, because several processes may write into it.
            file.0.write_all(format!("{seen}\n").as_bytes()).expect("written");
        }
    });
}
