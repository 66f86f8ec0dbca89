//! One reading of the machine's counters, from `/proc` and `statvfs`.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{error::ServiceError, service::elapsed};

/// What the kernel counts, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// Names this boot: counters of another one cannot be compared.
    pub(super) boot: String,
    /// Seconds since boot. Rates are over this, not over wall time, which may jump.
    pub(super) up_s: f64,
    /// CPU time spent working, and in all, in the kernel's units, summed over the CPUs.
    pub(super) cpu: Counters,
    pub(super) cpus: u64,
    pub(super) load: [f64; 3],
    pub(super) memory: Use,
    pub(super) disk: Use,
    /// Resident memory of this process.
    pub(super) own_bytes: u64,
    /// Bytes received and sent, without the loopback.
    pub(super) network: Counters,
}

/// Two counters that belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters(pub(super) u64, pub(super) u64);

/// How much of something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
}

impl Use {
    pub(super) fn used_percent(self) -> f64 {
        if self.total_bytes == 0 {
            return 0.0;
        }
        100.0 * self.total_bytes.saturating_sub(self.available_bytes) as f64 / self.total_bytes as f64
    }
}

impl Reading {
    /// Reads everything now. `data_dir` says which disk.
    pub(super) fn take(data_dir: &Path) -> Result<Self, ServiceError> {
        let stat = read("/proc/stat")?;
        let (cpu, cpus) = cpu_of(&stat).ok_or_else(|| unreadable("/proc/stat"))?;
        let load = load_of(&read("/proc/loadavg")?).ok_or_else(|| unreadable("/proc/loadavg"))?;
        let memory = memory_of(&read("/proc/meminfo")?).ok_or_else(|| unreadable("/proc/meminfo"))?;
        let disk = rustix::fs::statvfs(data_dir).map_err(|error| {
            ServiceError::internal(format!("statvfs of {} failed: {error}", data_dir.display()))
        })?;
        Ok(Self {
            // Absent in some sandboxes; then every boot looks the same, and the counters' order still tells.
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            up_s: elapsed().as_secs_f64(),
            cpu,
            cpus,
            load,
            memory,
            disk: Use {
                total_bytes: disk.f_blocks * disk.f_frsize,
                available_bytes: disk.f_bavail * disk.f_frsize,
            },
            own_bytes: kib_of(&read("/proc/self/status")?, "VmRSS:").unwrap_or(0) * 1024,
            // A container without a network has no such file; it has then no traffic either.
            network: network_of(&read("/proc/net/dev").unwrap_or_default()),
        })
    }

    /// Is this an earlier reading of the same boot?
    pub(super) fn comes_before(&self, later: &Self) -> bool {
        self.boot == later.boot && self.up_s <= later.up_s && self.cpu.1 <= later.cpu.1
    }

    pub(super) fn to_json(&self) -> Value {
        let pair = |pair: Use| json!([pair.total_bytes, pair.available_bytes]);
        json!({
            "boot": self.boot, "up_s": self.up_s, "cpu": [self.cpu.0, self.cpu.1], "cpus": self.cpus,
            "load": self.load, "memory": pair(self.memory), "disk": pair(self.disk), "own_bytes": self.own_bytes,
            "network": [self.network.0, self.network.1],
        })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let counters = |name: &str| Some(Counters(value[name][0].as_u64()?, value[name][1].as_u64()?));
        let taken = |name: &str| {
            counters(name).map(|Counters(total_bytes, available_bytes)| Use { total_bytes, available_bytes })
        };
        let load = |index: usize| value["load"][index].as_f64();
        Some(Self {
            boot: value["boot"].as_str()?.to_owned(),
            up_s: value["up_s"].as_f64()?,
            cpu: counters("cpu")?,
            cpus: value["cpus"].as_u64()?,
            load: [load(0)?, load(1)?, load(2)?],
            memory: taken("memory")?,
            disk: taken("disk")?,
            own_bytes: value["own_bytes"].as_u64()?,
            network: counters("network")?,
        })
    }
}

fn read(path: &str) -> Result<String, ServiceError> {
    fs::read_to_string(path)
        .map_err(|error| ServiceError::internal(format!("{path} cannot be read: {error}")))
}

fn unreadable(path: &str) -> ServiceError {
    ServiceError::internal(format!("{path} is not as proc(5) has it; is this Linux?"))
}

/// `cpu user nice system idle iowait irq softirq steal guest …`; guest time is in user time already.
fn cpu_of(stat: &str) -> Option<(Counters, u64)> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = all.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    let idle = times.get(3)? + times.get(4).unwrap_or(&0);
    let total: u64 = times.iter().sum();
    let is_cpu = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    Some((Counters(total - idle, total), stat.lines().filter(is_cpu).count() as u64))
}

fn load_of(loadavg: &str) -> Option<[f64; 3]> {
    let mut loads = loadavg.split_whitespace().map_while(|load| load.parse().ok());
    Some([loads.next()?, loads.next()?, loads.next()?])
}

fn memory_of(meminfo: &str) -> Option<Use> {
    let total_bytes = kib_of(meminfo, "MemTotal:")? * 1024;
    let available = kib_of(meminfo, "MemAvailable:").or_else(|| kib_of(meminfo, "MemFree:"))?;
    Some(Use { total_bytes, available_bytes: available * 1024 })
}

fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The second of `bytes packets errs drop fifo frame compressed multicast` twice, after the interface's name.
fn network_of(dev: &str) -> Counters {
    let mut sum = Counters::default();
    for (name, numbers) in dev.lines().filter_map(|line| line.split_once(':')) {
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", numbers.first(), numbers.get(8)) {
            sum = Counters(sum.0 + received, sum.1 + sent);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_read_as_the_kernel_writes_them() {
        let stat =
            "cpu  10 1 5 80 4 0 0 0 3 0\ncpu0 5 0 2 40 2 0 0 0 0 0\ncpu1 5 1 3 40 2 0 0 0 3 0\nctxt 9\n";
        assert_eq!(cpu_of(stat), Some((Counters(16, 100), 2)));
        assert_eq!(load_of("0.50 1.25 2.00 1/200 999\n"), Some([0.5, 1.25, 2.0]));
        let memory = memory_of("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n").unwrap();
        assert_eq!((memory.total_bytes, memory.used_percent().to_string()), (1_024_000, "75".into()));
        let dev = "Inter-| Receive | Transmit\n face |bytes\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0\n";
        assert_eq!(network_of(dev), Counters(100, 40));
        assert_eq!(cpu_of("nothing"), None);
    }

    #[test]
    fn a_reading_survives_its_file() {
        let reading = Reading::take(Path::new("/")).unwrap();
        let line = reading.to_json().to_string();
        assert_eq!(Reading::from_json(&serde_json::from_str(&line).unwrap()), Some(reading));
    }
}
