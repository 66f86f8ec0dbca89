//! How much a command may use.

use serde::{Deserialize, Deserializer, Serialize};
use shared::human_duration::HumanDuration;

/// The smallest address space a program can be started in at all.
const ADDRESS_SPACE_MIB_MIN: u64 = 16;
/// The largest number of mebibytes that is still a number of bytes.
const MIB_MAX: u64 = 1 << 40;
/// Input, output, error output, and a few to work with.
const OPEN_FILES_MIN: u64 = 8;

/// How much a command may use. What is not named is not bounded here.
///
/// `memory_mib` and `processes` count the whole tree, whoever it runs as: its guard looks five times a second and kills it,
/// in words. `address_space_mib` and `open_files` are the kernel's limits of each single process (`RLIMIT_AS`,
/// `RLIMIT_NOFILE`), which it cannot pass for a moment; what a program says then is up to the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommandLimits {
    /// How long it may take, however long the task's own timeout is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<HumanDuration>,
    /// Mebibytes of memory that it and all it started may hold together; what processes share counts once.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "memory_mib")]
    pub memory_mib: Option<u64>,
    /// Processes that it and all it started may be. Threads are not counted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "processes")]
    pub processes: Option<u64>,
    /// Mebibytes of address space of each process. Programs that reserve much and use little (Go, Java, Node) need far more
    /// than the memory they hold.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "address_space_mib")]
    pub address_space_mib: Option<u64>,
    /// Files that each process may have open.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "open_files")]
    pub open_files: Option<u64>,
    /// By how much it steps back behind others: 0 to 19, as `nice(1)` says it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nice")]
    pub nice: Option<u8>,
}

impl CommandLimits {
    /// Those that are a guard's to keep: without one they cannot be kept.
    pub(super) fn need_a_guard(&self) -> bool {
        *self != Self { time: self.time, ..Self::default() }
    }
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    name: &str,
    (least, most): (u64, u64),
) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(number) if !(least..=most).contains(&number) => {
            Err(serde::de::Error::custom(format!("{name} is {number}; it is {least} to {most}")))
        }
        number => Ok(number),
    }
}

fn memory_mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, "memory_mib", (1, MIB_MAX))
}

fn processes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, "processes", (1, 1_000_000))
}

fn address_space_mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, "address_space_mib", (ADDRESS_SPACE_MIB_MIN, MIB_MAX))
}

fn open_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, "open_files", (OPEN_FILES_MIN, 1_000_000))
}

fn nice<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    Ok(within(deserializer, "nice", (0, 19))?.and_then(|nice| u8::try_from(nice).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_what_is_none_is_refused_with_its_bounds() {
        let text =
            "{time: 10m, memory_mib: 512, processes: 8, address_space_mib: 4096, open_files: 64, nice: 10}";
        let limits: CommandLimits = serde_saphyr::from_str(text).expect("limits");
        assert_eq!((limits.memory_mib, limits.nice, limits.need_a_guard()), (Some(512), Some(10), true));
        let only_time: CommandLimits = serde_saphyr::from_str("{time: 10m}").expect("limits");
        assert!(!only_time.need_a_guard() && !CommandLimits::default().need_a_guard());
        for (text, part) in [
            ("{memory_mib: 0}", "memory_mib is 0; it is 1 to"),
            ("{nice: 20}", "nice is 20; it is 0 to 19"),
            ("{open_files: 2}", "it is 8 to 1000000"),
            ("{address_space_mib: 1}", "it is 16 to"),
            ("{memory: 5}", "unknown field"),
            ("{time: soon}", "soon"),
        ] {
            let error = serde_saphyr::from_str::<CommandLimits>(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
