//! The processes below another, as the kernel lists them in `/proc`.

use std::{collections::HashSet, fs, io};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    /// Pages of memory it holds, shared ones included.
    resident: u64,
    is_zombie: bool,
}

/// What everybody below a process uses together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) processes: u64,
    pub(super) memory_bytes: u64,
}

/// What everybody below `root` uses; none if it cannot be told. What processes share is counted once, but only looked at so
/// closely when it may matter: where `memory_of_interest` bytes are passed if it is counted for each of them.
pub(super) fn usage_below(root: Pid, memory_of_interest: u64) -> Option<Usage> {
    let alive: Vec<Process> =
        descendants_of(root).ok()?.into_iter().filter(|process| !process.is_zombie).collect();
    let page = rustix::param::page_size() as u64;
    let resident = |process: &Process| process.resident.saturating_mul(page);
    let mut memory_bytes: u64 = alive.iter().map(resident).sum();
    if memory_bytes > memory_of_interest {
        // Of others' processes (a set-uid program) only the upper bound is told.
        memory_bytes =
            alive.iter().map(|process| share_of(process.id).unwrap_or_else(|| resident(process))).sum();
    }
    Some(Usage { processes: alive.len() as u64, memory_bytes })
}

/// The memory a process holds, what it shares divided among all who do.
fn share_of(id: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    parse_share(&text)
}

fn parse_share(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Sends a signal to everybody below `root`: to those of `group` at once, so that none of them slips away by forking,
/// and to the others one by one.
pub(super) fn signal(root: Pid, group: Pid, signal: Signal) {
    let Ok(descendants) = descendants_of(root) else {
        // Without /proc the group is all that is known.
        let _ = kill_process_group(group, signal);
        return;
    };
    let (in_group, others): (Vec<Process>, Vec<Process>) =
        descendants.into_iter().partition(|process| process.group == group.as_raw_nonzero().get());
    // Only while somebody of ours is in it: the number of an empty group may by now be somebody else's.
    if !in_group.is_empty() {
        let _ = kill_process_group(group, signal);
    }
    for pid in others.iter().filter_map(|process| Pid::from_raw(process.id)) {
        // Whoever has ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn descendants_of(root: Pid) -> io::Result<Vec<Process>> {
    let processes: Vec<Process> = fs::read_dir("/proc")?
        .filter_map(|entry| {
            let id: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // A process may end while it is being looked at.
            parse(&fs::read(format!("/proc/{id}/stat")).ok()?)
        })
        .collect();
    Ok(below(root.as_raw_nonzero().get(), processes))
}

fn below(root: i32, mut rest: Vec<Process>) -> Vec<Process> {
    let mut known = HashSet::from([root]);
    let mut found = Vec::new();
    loop {
        let (children, others): (Vec<Process>, Vec<Process>) =
            rest.into_iter().partition(|process| known.contains(&process.parent));
        if children.is_empty() {
            return found;
        }
        known.extend(children.iter().map(|process| process.id));
        found.extend(children);
        rest = others;
    }
}

/// Reads `/proc/<pid>/stat`: `pid (name) state parent group …`, where the name may hold anything, brackets too.
fn parse(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (id, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    // The 24th of all fields (proc(5)); this is the 6th.
    let resident = fields.nth(18).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Some(Process { id: id.parse().ok()?, parent, group, resident, is_zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let read = |stat: &str| parse(stat.as_bytes());
        let process = |parent, group| Process { id: 7, parent, group, resident: 0, is_zombie: false };
        assert_eq!(read("7 (sh) S 1 7 7 0 -1"), Some(process(1, 7)));
        let of_a_zombie = Process { is_zombie: true, ..process(3, 5) };
        assert_eq!(read("7 (a) S 9 (b) Z 3 5 7 0"), Some(of_a_zombie));
        let whole = "7 (sh) S 1 7 7 34816 7 4194560 200 0 0 0 0 0 0 0 20 0 1 0 12345 2695168 433 18446744073709551615 1";
        assert_eq!(read(whole), Some(Process { resident: 433, ..process(1, 7) }));
        assert_eq!(read("7 (sh"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn descendants_are_found_in_whatever_order_they_are_listed() {
        let process = |id, parent| Process { id, parent, group: id, resident: 0, is_zombie: false };
        let all = vec![process(4, 3), process(3, 2), process(2, 1), process(9, 8), process(1, 0)];
        let mut found: Vec<i32> = below(2, all).iter().map(|process| process.id).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn a_share_of_memory_is_read_in_bytes() {
        let text = "559a-7ffd ---p 00000000 00:00 0  [rollup]\nRss:     1732 kB\nPss:      214 kB\nPss_Dirty: 100 kB\n";
        assert_eq!(parse_share(text), Some(214 * 1024));
        assert_eq!(parse_share(""), None);
    }

    #[test]
    fn this_process_has_nobody_below_it_or_somebody_who_uses_something() {
        let usage = usage_below(rustix::process::getpid(), 0).expect("usage");
        assert_eq!(usage.processes == 0, usage.memory_bytes == 0);
    }
}
