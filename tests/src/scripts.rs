//! Commands for a worker's allow-list: shell scripts in the fleet's folder.

use std::path::PathBuf;

use crate::Fleet;

/// The allow-list of a fleet, in the making.
pub struct Scripts {
    folder: PathBuf,
    entries: String,
}

impl Scripts {
    /// An empty one.
    pub fn of(fleet: &Fleet) -> Self {
        Self { folder: fleet.folder(), entries: String::new() }
    }

    /// With a script, and more fields of its entry, such as `limits: {nice: 5}`. In the script `DIR` is the fleet's folder.
    #[must_use]
    pub fn with(mut self, name: &str, script: &str, more: &str) -> Self {
        let file = self.folder.join(format!("{name}.sh"));
        std::fs::write(&file, script.replace("DIR", &self.folder.display().to_string())).expect("written");
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let entry = format!("  {name}: {{program: /bin/sh, args: [{}]{more}}}\n", file.display());
        self.entries.push_str(&entry);
        self
    }

    /// The file with the allow-list.
    pub fn file(&self) -> String {
        let file = self.folder.join("commands.yaml");
        std::fs::write(&file, format!("commands:\n{}", self.entries)).expect("written");
        file.display().to_string()
    }
}

/// Whether this process runs no more: it is not there, or nobody has looked at its end yet.
pub fn is_gone(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
