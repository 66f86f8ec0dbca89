//! Lines of runs that wait for their schedule's lock: who stands where, and mending a line that a stranger wrote over.

use shared::{
    names::Name,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::{ReadError, Streams, ledger::Update, lines::Line};

/// Where a run stands in a line, or would.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It stands there already.
    Stands,
    /// As many wait as may.
    Full,
    /// It joins: the line with it at the end.
    Joins(Vec<RunId>),
}

/// Where a run stands in a line that holds at most `max`. Pure.
pub(crate) fn stand(line: &[RunId], run: &RunId, max: usize) -> Standing {
    if line.contains(run) {
        return Standing::Stands;
    }
    if line.len() >= max {
        return Standing::Full;
    }
    Standing::Joins(line.iter().chain([run]).cloned().collect())
}

/// The lines of all schedules.
#[derive(Clone)]
pub(crate) struct Lines {
    streams: Streams,
}

impl Lines {
    pub(crate) fn new(streams: Streams) -> Self {
        Self { streams }
    }

    /// A schedule's line, of the runs that wait.
    pub(crate) async fn get(&self, schedule: &Name) -> Result<Line, ReadError> {
        let waits = |run: &RunRecord| run.status == RunState::Pending && run.reason == Some(Reason::Buffered);
        read_or_mend(&self.streams, &self.streams.lines(), schedule, waits).await
    }
}

/// A schedule's list of runs. One that cannot be understood is made anew, and written, from the records of the runs that
/// belong in it, the oldest first.
pub(crate) async fn read_or_mend(
    streams: &Streams,
    lists: &streams::lines::Lines,
    schedule: &Name,
    belongs: impl Fn(&RunRecord) -> bool,
) -> Result<Line, ReadError> {
    let (revision, what, detail) = match lists.get(schedule).await {
        Err(ReadError::Corrupt { revision, what, detail }) => (revision, what, detail),
        list => return list,
    };
    tracing::error!(schedule.name = %schedule, detail, "{what} is made anew: {detail}");
    let records = streams.ledger().list(&format!("{schedule}.*")).await?.into_iter();
    let mut found: Vec<_> = records.map(|stored| stored.value).filter(belongs).collect();
    found.sort_by_key(|run| run.created_at);
    let runs: Vec<RunId> = found.into_iter().map(|run| run.id).collect();
    // Written, so that it is said once. If somebody else was faster, theirs is read the next time.
    let revision = match lists.write(schedule, &runs, revision).await {
        Ok(Update::Stored(written)) => written,
        Ok(Update::Stale) | Err(_) => revision,
    };
    Ok(Line { runs, revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::schedule::Overlap;

    fn runs(keys: &[&str]) -> Vec<RunId> {
        keys.iter().map(|key| format!("s.{key}").parse().expect("run")).collect()
    }

    #[test]
    fn as_many_wait_as_the_policy_says_first_come_first_served_and_nobody_twice() {
        let hundred: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let hundred: Vec<&str> = hundred.iter().map(String::as_str).collect();
        let (one, all, replace) = (Overlap::BufferOne, Overlap::BufferAll, Overlap::Replace);
        for (overlap, line, run, expected) in [
            (one, &[][..], "a", Standing::Joins(runs(&["a"]))),
            (one, &["a"], "b", Standing::Full),
            (one, &["a"], "a", Standing::Stands),
            (all, &["a"], "b", Standing::Joins(runs(&["a", "b"]))),
            (all, &["a", "b"], "a", Standing::Stands),
            (all, &hundred[..], "b", Standing::Full),
            (all, &hundred[..], "99", Standing::Stands),
            (replace, &["a"], "b", Standing::Joins(runs(&["a", "b"]))),
            (Overlap::Skip, &[], "a", Standing::Full),
            (Overlap::Allow, &[], "a", Standing::Full),
        ] {
            let run = format!("s.{run}").parse().expect("run");
            assert_eq!(stand(&runs(line), &run, overlap.waiting_max()), expected, "{overlap:?} {line:?}");
        }
    }
}
