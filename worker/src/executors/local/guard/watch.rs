//! What a guard looks at now and then: whether the worker still gives signs of life, and what its command uses.
//!
//! Bounds of what a command and all it started use together, kept by looking: no right of the machine's is needed for it, and
//! it can be said in words. What is used between two looks is not seen; `address_space_mib` and the container are for that.

use std::{fmt, time::Duration};

use super::{
    GuardSettings,
    tree::{Usage, usage_below},
};

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(200);
const MIB: u64 = 1024 * 1024;

/// So often must a silence be seen before it counts: a guard that stood still itself first reads what came meanwhile.
const SILENT_LOOKS: u32 = 2;

/// What a tree of processes may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Mebibytes of memory; what processes share counts once.
    pub memory_mib: Option<u64>,
    /// Processes.
    pub processes: Option<u64>,
}

/// What it used too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    Memory { used_mib: u64, most_mib: u64 },
    Processes { used: u64, most: u64 },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Memory { used_mib, most_mib } => {
                write!(f, "it used {used_mib} MiB of memory, and may use {most_mib} (memory_mib)")
            }
            Excess::Processes { used, most } => {
                write!(f, "it was {used} processes, and may be {most} (processes)")
            }
        }
    }
}

impl Bounds {
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at everybody below this process.
    pub(super) fn excess(&self) -> Option<Excess> {
        let of_interest = self.memory_mib.map_or(u64::MAX, |mib| mib.saturating_mul(MIB));
        if self.are_none() {
            return None;
        }
        // What cannot be told now is looked at again in a moment.
        usage_below(rustix::process::getpid(), of_interest).and_then(|usage| self.excess_of(usage))
    }

    fn excess_of(&self, usage: Usage) -> Option<Excess> {
        // Begun ones count: 512 MiB and a byte are more than 512.
        let used_mib = usage.memory_bytes.div_ceil(MIB);
        let memory = self.memory_mib.filter(|most| used_mib > *most);
        let processes = self.processes.filter(|most| usage.processes > *most);
        memory
            .map(|most_mib| Excess::Memory { used_mib, most_mib })
            .or_else(|| processes.map(|most| Excess::Processes { used: usage.processes, most }))
    }
}

/// The looks of a guard, and what it has heard.
#[derive(Debug)]
pub(super) struct Looks {
    bounds: Bounds,
    silence: Option<Duration>,
    heard_at: Duration,
    silences_seen: u32,
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    AllIsWell,
    /// The worker gave no sign of life for too long.
    Silence,
    Excess(Excess),
}

impl Looks {
    pub(super) fn new(settings: &GuardSettings, now: Duration) -> Self {
        Self { bounds: settings.bounds, silence: settings.silence, heard_at: now, silences_seen: 0 }
    }

    /// How long until the next look; none if there is nothing to look at.
    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.bounds.are_none() || self.silence.is_some()).then_some(LOOK)
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard_at = now;
        self.silences_seen = 0;
    }

    pub(super) fn look(&mut self, now: Duration) -> Look {
        if self.silence.is_some_and(|silence| now.saturating_sub(self.heard_at) > silence) {
            self.silences_seen += 1;
            if self.silences_seen >= SILENT_LOOKS {
                return Look::Silence;
            }
        }
        self.bounds.excess().map_or(Look::AllIsWell, Look::Excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_silent_when_it_was_not_heard_for_long_enough_at_two_looks() {
        let at = Duration::from_secs;
        let settings = GuardSettings { silence: Some(at(10)), ..GuardSettings::of("tool") };
        let mut looks = Looks::new(&settings, at(100));
        assert_eq!(looks.look(at(110)), Look::AllIsWell);
        assert_eq!(looks.look(at(111)), Look::AllIsWell, "it may have been the guard that stood still");
        looks.heard(at(111));
        assert_eq!((looks.look(at(121)), looks.look(at(122))), (Look::AllIsWell, Look::AllIsWell));
        assert_eq!(looks.look(at(122)), Look::Silence);
        let mut unwatched = Looks::new(&GuardSettings::of("tool"), at(0));
        assert_eq!((unwatched.wait(), unwatched.look(at(999))), (None, Look::AllIsWell));
    }

    #[test]
    fn more_than_allowed_is_an_excess_and_as_much_is_none() {
        let bounds = Bounds { memory_mib: Some(512), processes: Some(3) };
        let excess = |processes, memory_bytes| bounds.excess_of(Usage { processes, memory_bytes });
        assert_eq!(excess(3, 512 * MIB), None);
        let words = excess(1, 512 * MIB + 1).expect("an excess").to_string();
        assert_eq!(words, "it used 513 MiB of memory, and may use 512 (memory_mib)");
        let words = excess(4, 0).expect("an excess").to_string();
        assert_eq!(words, "it was 4 processes, and may be 3 (processes)");
        assert_eq!(Bounds::default().excess_of(Usage { processes: 9, memory_bytes: u64::MAX }), None);
    }
}
