//! Bugs that the simulation plants into planning, to show that it would find them. Outside of tests none is ever there.

/// Whether a bug is planted: always false outside of tests.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        let is_planted = $crate::planted::is_planted($crate::planted::Bug::$bug);
        #[cfg(not(test))]
        let is_planted = false;
        is_planted
    }};
}
pub(crate) use planted;

#[cfg(test)]
pub(crate) use tests_only::{Bug, is_planted, plant};

#[cfg(test)]
mod tests_only {
    use std::cell::Cell;

    /// A bug.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Bug {
        /// The task is published before its record is created.
        TaskBeforeRecord,
        /// A slot counts as accounted for when its errand begins.
        CursorBeforeDispatch,
        /// The lease is trusted for half a minute more.
        LeaseTrustedTooLong,
        /// The window of what is due has both its ends.
        WindowClosedAtBothEnds,
        /// The window of what is due has neither of its ends.
        WindowOpenAtBothEnds,
        /// An answer that comes too late is taken for that to another ask.
        LateAnswerTakenForAnother,
        /// A cursor follows the wall clock back.
        CursorGoesBack,
        /// A record that is there is made anew.
        RecordMadeAnew,
        /// Slots are due by a clock that is not believed.
        ClockBelievedAlways,
        /// A pause that was heard of is not asked for again before a slot is skipped for it.
        PauseByHearsay,
        /// Nobody looks for runs under the lock that the schedule had in another queue.
        LockOfOtherQueueForgotten,
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs in this thread, or none.
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
