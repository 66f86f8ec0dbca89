//! A server that an earlier `up` left behind: killed with -9 its guard ends the server, but the guard may have been
//! killed too, or the server may still be shutting down.

use std::{fs, path::Path, time::Duration};

use anyhow::bail;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared::clock::SharedClock;

use super::config;
use crate::up::{data_dir::DataDir, talk::Talk};

/// A server flushes its streams and ends within this; then it is killed.
const END_WAIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends the server that still runs on this data directory, if one does, and waits until it has ended.
///
/// We hold the directory's lock, so nobody else means to use it.
pub(super) async fn end(data: &DataDir, talk: &Talk, clock: &SharedClock) -> anyhow::Result<()> {
    let config = data.file(config::CONFIG);
    let Some(pid) = fs::read_to_string(data.file(config::PID)).ok().and_then(|text| text.trim().parse().ok())
    else {
        return Ok(());
    };
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    // First a handle, then the look at what it is: a number may be given to another process, a handle is not.
    let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    if !serves(pid, &config) {
        return Ok(());
    }
    talk.say(format!("nats-server of an earlier run (process {pid}) is still there; ending it"));
    for (signal, wait) in [(Signal::TERM, END_WAIT), (Signal::KILL, END_WAIT)] {
        let _ = pidfd_send_signal(&handle, signal);
        let asked = clock.elapsed();
        while clock.elapsed().saturating_sub(asked) < wait {
            if !serves(pid, &config) {
                return Ok(());
            }
            clock.sleep(LOOK_EVERY).await;
        }
    }
    bail!(
        "nats-server of an earlier run (process {pid}) does not end; end it by hand (kill -9 {pid}), or start with \
         --data-dir OTHER"
    )
}

/// Whether this process is a server with our configuration. A process that has ended has no command line.
fn serves(pid: i32, config: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    line.split(|byte| *byte == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_names_our_configuration_is_ours() {
        let own = std::process::id().cast_signed();
        let program = std::env::args().next().expect("our own name");
        assert!(serves(own, Path::new(&program)));
        assert!(!serves(own, Path::new("/somebody/elses.conf")));
        assert!(!serves(i32::MAX, Path::new(&program)));
    }
}
