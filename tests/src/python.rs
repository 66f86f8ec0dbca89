//! The worker in `examples/python`, where there is a Python with the public NATS client.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{Fleet, Process, repository};

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// The Python that `make test` found or made; none, and it is said, if there is none. With `CRONFLEET_PYTHON_REQUIRED=1` that
/// is a failure: a run that shows nothing must not look like one that does.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("CRONFLEET_PYTHON").map(PathBuf::from);
    let made = || Some(repository().join(".tools/python/bin/python")).filter(|path| path.exists());
    let found = named.or_else(made);
    let is_required = std::env::var_os("CRONFLEET_PYTHON_REQUIRED").is_some_and(|value| value == "1");
    assert!(
        found.is_some() || !is_required,
        "CRONFLEET_PYTHON_REQUIRED is 1 and there is no Python with nats-py; scripts/python-worker.sh makes one"
    );
    if found.is_none() {
        eprintln!(
            "skipped: no Python with nats-py; scripts/python-worker.sh makes one and says what it lacks"
        );
    }
    found
}

impl Fleet {
    /// Starts a worker in Python on queue `default`, with this file of actions.
    pub fn python_worker(&self, python: &PathBuf, actions: &str) -> Process {
        let mut command = Command::new(python);
        let (program, actions) = (repository().join("examples/python/worker.py"), repository().join(actions));
        command.args([program, PathBuf::from("default"), actions]).current_dir(self.folder());
        command.env("NATS_URL", self.nats.url()).env("PYTHONUNBUFFERED", "1");
        // Nothing is written beside the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        Process::start(&format!("python-{number}"), command, &self.folder())
    }
}
