//! A harness for the specs: real nats-servers on free ports with their own folders, real `cronfleet` processes, real
//! target services. Everything it starts it ends, by pid, when it is dropped.
//!
//! It panics where a test would: a test that cannot be set up has failed.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness: where it panics, the test has failed"
)]

pub mod clock;
pub mod console;
pub mod crash;
pub mod fleet;
pub mod http;
pub mod nats;
pub mod plain;
pub mod process;
pub mod proxy;
mod python;
pub mod scripts;
pub mod target;
pub mod wait;

pub use console::Console;
pub use fleet::Fleet;
pub use http::{HttpAnswer, HttpRequest};
pub use nats::{Cluster, Nats};
pub use plain::PlainClient;
pub use process::Process;
pub use proxy::Proxy;
pub use python::python;
pub use target::TargetService;
pub use wait::{eventually, within};

use std::path::PathBuf;

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the root").to_path_buf()
}

/// The binary under test.
///
/// A spec hands over `env!("CARGO_BIN_EXE_cronfleet-under-test")`, which only exists there.
pub fn set_binary(path: &str) {
    let _ = BINARY.set(PathBuf::from(path));
}

static BINARY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// The program under test, for a spec that needs no fleet.
pub fn binary() -> PathBuf {
    let beside = || {
        let mut folder = std::env::current_exe().expect("own path");
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        folder.join("cronfleet-under-test")
    };
    BINARY.get().cloned().unwrap_or_else(beside)
}
