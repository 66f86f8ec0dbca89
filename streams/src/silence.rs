//! Telling a watch that has nothing to show from one that has fallen silent.

/// Whether a watch still speaks. Pure: what it has shown, and what the leader had at each look.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// The newest revision it has shown.
    seen: u64,
    /// Whether at the last look, and nothing came since, the leader had something else.
    is_doubted: bool,
}

impl Silence {
    /// It has shown a change: slow it may be, but it speaks.
    pub(crate) fn broken_by(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        self.is_doubted = false;
    }

    /// The leader's newest revision, at a look; 0 if there is none or no answer, which says nothing. Whether the watch is
    /// lost: doubted twice in a row, because what was written a moment ago may be on its way.
    pub(crate) fn is_loss(&mut self, newest: u64) -> bool {
        let was_doubted = self.is_doubted;
        // Lower means that the bucket was made anew and counts from one again.
        self.is_doubted = newest != 0 && newest != self.seen;
        was_doubted && self.is_doubted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_lost_when_the_leader_twice_has_what_it_does_not_show_and_not_before() {
        enum On {
            Shows(u64),
            Look(u64, bool),
        }
        use On::{Look, Shows};
        for (story, words) in [
            (vec![Look(0, false), Look(0, false)], "an empty bucket"),
            (vec![Shows(7), Look(7, false), Look(7, false), Look(7, false)], "nothing is written"),
            (vec![Shows(7), Look(8, false), Look(8, true)], "a change does not come"),
            (vec![Shows(7), Look(8, false), Shows(8), Look(8, false)], "it comes a moment later"),
            (vec![Shows(3), Look(90, false), Shows(4), Look(90, false), Shows(5)], "it is slow"),
            (vec![Shows(7), Look(8, false), Look(0, false), Look(8, false)], "a leader that does not answer"),
            (vec![Shows(70), Look(2, false), Look(3, true)], "a bucket that was made anew"),
        ] {
            let mut silence = Silence::default();
            for event in story {
                match event {
                    Shows(revision) => silence.broken_by(revision),
                    Look(newest, is_loss) => assert_eq!(silence.is_loss(newest), is_loss, "{words}"),
                }
            }
        }
    }
}
