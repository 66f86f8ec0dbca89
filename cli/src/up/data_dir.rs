//! The data directory of one `up`: created, told, and locked, so that two never work on the same data.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::settings::{ADDRESS_FILE, LOCK_FILE};

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    // The lock goes with the file, also when we are killed.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is absent, and locks it. Refused at once while another process holds it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| {
            format!("the data directory {shown} cannot be created; name another with --data-dir")
        })?;
        // Absolute, because nats-server gets it too, and a link in it must not hide a second holder.
        let path =
            path.canonicalize().with_context(|| format!("the data directory {shown} cannot be entered"))?;
        if path.to_str().is_none_or(|text| text.contains(char::is_control)) {
            bail!("the path of the data directory {shown} is not plain text; name another with --data-dir");
        }
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves the server's address for others to read.
    pub(super) fn write_address(&self, address: &str) -> anyhow::Result<()> {
        let path = self.file(ADDRESS_FILE);
        // Renamed into place: nobody reads half an address.
        let unfinished = self.file("address.new");
        fs::write(&unfinished, format!("{address}\n"))
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Nobody answers there any more.
    pub(super) fn remove_address(&self) {
        let _ = fs::remove_file(self.file(ADDRESS_FILE));
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK_FILE);
    let shown = path.display();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("{shown} cannot be opened"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            // Empty for the moment between another's lock and its writing.
            let (who, stop) = match holder.parse::<u32>() {
                Ok(pid) => (format!("process {pid}"), format!("stop that one (kill {pid})")),
                Err(_) => ("another process".to_owned(), "stop that one".to_owned()),
            };
            bail!(
                "the data directory {} is in use by {who}; {stop}, or start this one with --data-dir OTHER",
                dir.display()
            );
        }
        Err(TryLockError::Error(error)) => return Err(error).context(format!("{shown} cannot be locked")),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("{shown} cannot be written"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cronfleet-up-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it_and_what_to_do() {
        let path = scratch("lock");
        let first = DataDir::open(&path).expect("the first");
        let message = DataDir::open(&path).expect_err("the second").to_string();
        for part in
            [first.path().to_str().expect("text"), &std::process::id().to_string(), "--data-dir OTHER"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        drop(first);
        DataDir::open(&path).expect("free again");
        let _ = fs::remove_dir_all(&path);
    }

    #[test]
    fn the_address_is_there_while_somebody_answers() {
        let path = scratch("address");
        let dir = DataDir::open(&path).expect("opens");
        dir.write_address("nats://127.0.0.1:4222").expect("written");
        assert_eq!(fs::read_to_string(dir.file(ADDRESS_FILE)).expect("read"), "nats://127.0.0.1:4222\n");
        dir.remove_address();
        assert!(!dir.file(ADDRESS_FILE).exists());
        let _ = fs::remove_dir_all(&path);
    }
}
