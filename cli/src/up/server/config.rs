//! The configuration of the embedded server, and the files it leaves in the data directory.

use std::{net::Ipv4Addr, path::Path};

/// All streams together have a limit of about 10 GB ([`streams::topology`]); this leaves room for more queues' worth.
const FILE_STORE_MAX: &str = "32GB";
/// The server's log is turned over at this size, and so many old ones are kept.
const LOG_SIZE_MAX: &str = "8MB";
const LOGS_KEPT: u8 = 2;

pub(super) const CONFIG: &str = "nats-server.conf";
pub(super) const LOG: &str = "nats-server.log";
pub(super) const PID: &str = "nats-server.pid";
/// Where a server says which port it listens on, once it does: `<binary>_<pid>.ports`.
pub(super) const PORTS_SUFFIX: &str = ".ports";

/// Only this machine may speak to it: it asks for no password.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The text of the configuration file.
pub(super) fn text(data: &Path, port: u16) -> String {
    let mut text = String::from("# Written by `cronfleet up` at each start; changes here are lost.\n");
    let mut set = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    set(format!("listen: \"{HOST}:{port}\""));
    set("server_name: \"cronfleet-up\"".to_owned());
    set(format!("pid_file: {}", quoted(&data.join(PID))));
    set(format!("ports_file_dir: {}", quoted(data)));
    set(format!("log_file: {}", quoted(&data.join(LOG))));
    set(format!("logfile_size_limit: {LOG_SIZE_MAX}"));
    set(format!("logfile_max_num: {LOGS_KEPT}"));
    // The server itself adds `/jetstream`.
    set(format!("jetstream {{ store_dir: {}, max_file_store: {FILE_STORE_MAX} }}", quoted(data)));
    text
}

/// A path as the server's own format takes it. Control characters were refused with the directory.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_this_machine_only_and_writes_into_the_data_directory() {
        let text = text(Path::new("/data/my \"fleet\""), 4222);
        for line in [
            "listen: \"127.0.0.1:4222\"",
            r#"pid_file: "/data/my \"fleet\"/nats-server.pid""#,
            r#"jetstream { store_dir: "/data/my \"fleet\"", max_file_store: 32GB }"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("http"), "{text}");
    }
}
