//! The processes below another, as the kernel lists them in `/proc`.

use std::{collections::HashSet, fs, io};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
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
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some(Process {
        id: id.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let read = |stat: &str| parse(stat.as_bytes());
        assert_eq!(read("7 (sh) S 1 7 7 0 -1"), Some(Process { id: 7, parent: 1, group: 7 }));
        assert_eq!(read("7 (a) S 9 (b) Z 3 5 7 0"), Some(Process { id: 7, parent: 3, group: 5 }));
        assert_eq!(read("7 (sh"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn descendants_are_found_in_whatever_order_they_are_listed() {
        let process = |id, parent| Process { id, parent, group: id };
        let all = vec![process(4, 3), process(3, 2), process(2, 1), process(9, 8), process(1, 0)];
        let mut found: Vec<i32> = below(2, all).iter().map(|process| process.id).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }
}
