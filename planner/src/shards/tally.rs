//! How the parts of a sharded run have ended, and what that means for the whole. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::{
    Timestamp,
    run::RunId,
    run_record::{ErrorKind, Reason, RunError, RunRecord, bounded_output},
    run_state::{IllegalTransition, RunEvent, RunState},
    shard::{Shards, shard_of},
};
use streams::cancel::CancelRequest;

/// Shards that are named in a record; of more it says how many.
const NAMED_MAX: usize = 8;

/// How a shard has ended.
#[derive(Debug, Clone, PartialEq)]
struct End {
    status: RunState,
    output: Option<Value>,
}

/// How the parts of a sharded run have ended, as far as is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    parent: RunId,
    total: u16,
    ended: BTreeMap<u16, End>,
}

impl Tally {
    pub(super) fn new(parent: &RunId, total: u16) -> Self {
        Self { parent: parent.clone(), total, ended: BTreeMap::new() }
    }

    /// Notes what a shard's record says. One that was written over by a stranger's run says nothing.
    pub(super) fn note(&mut self, index: u16, record: &RunRecord) {
        let is_ours = record.shard.as_ref().is_some_and(|shard| shard.parent == self.parent);
        if is_ours && record.status.is_final() && index < self.total {
            let end = End { status: record.status, output: record.output.clone() };
            self.ended.insert(index, end);
        }
    }

    /// Notes that a shard that was made is not there any more: nobody will ever say how it ended.
    pub(super) fn note_gone(&mut self, index: u16) {
        self.ended.insert(index, End { status: RunState::Failed, output: None });
    }

    /// The shards of which no end is known.
    pub(super) fn missing(&self) -> Vec<u16> {
        (0..self.total).filter(|index| !self.ended.contains_key(index)).collect()
    }

    /// How far they are.
    pub(super) fn progress(&self) -> Shards {
        let count = |status| {
            let ended = self.ended.values().filter(|end| end.status == status);
            u16::try_from(ended.count()).unwrap_or(u16::MAX)
        };
        Shards {
            total: self.total,
            succeeded: count(RunState::Success),
            failed: count(RunState::Failed),
            cancelled: count(RunState::Cancelled),
        }
    }

    /// The record of the whole when all parts have ended; none before. Whoever asked for its end has the last word, if that
    /// stopped anything; then failures count more than cancellations.
    pub(super) fn end_of(
        &self,
        parent: &RunRecord,
        asked: Option<&CancelRequest>,
        now: Timestamp,
    ) -> Result<Option<RunRecord>, IllegalTransition> {
        if !self.missing().is_empty() {
            return Ok(None);
        }
        let shards = self.progress();
        let ended = if shards.cancelled > 0 && asked.is_some() {
            asked
                .map_or_else(|| parent.apply(RunEvent::Cancelled, now), |request| request.end(parent, now))?
        } else if shards.failed > 0 {
            let words = format!(
                "{} failed; look at each with `cronfleet describe run`",
                self.named(RunState::Failed)
            );
            let failed = parent.apply(RunEvent::FailedForGood, now)?.because(Reason::Shards);
            failed.with_error(RunError::new(ErrorKind::Shards, words))
        } else if shards.cancelled > 0 {
            let cancelled = parent.apply(RunEvent::Cancelled, now)?.because(Reason::Shards);
            cancelled.noting(format!("{} cancelled", self.named(RunState::Cancelled)))
        } else {
            parent.apply(RunEvent::Succeeded, now)?
        };
        let output = self.ended.values().map(|end| end.output.clone().unwrap_or_default()).collect();
        Ok(Some(RunRecord { shards: Some(shards), output: Some(bounded_output(output)), ..ended }))
    }

    /// `2 of 8 shards (nightly.20261124T020000Z-3, nightly.20261124T020000Z-5)`.
    fn named(&self, status: RunState) -> String {
        let such = self.ended.iter().filter(|(_, end)| end.status == status);
        let ids: Vec<String> = such.map(|(index, _)| shard_of(&self.parent, *index).to_string()).collect();
        let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
        format!(
            "{} of {} shards ({}{more})",
            ids.len(),
            self.total,
            ids[..ids.len().min(NAMED_MAX)].join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::{names::QueueName, shard::Shard};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    fn parent() -> RunRecord {
        let id = "nightly.20261124T020000Z".parse().expect("run");
        let pending = RunRecord::pending(id, QueueName::default_queue(), at("02:00:00"));
        pending.apply(RunEvent::Started, at("02:00:01")).expect("starts")
    }

    fn shard(index: u16, events: &[RunEvent]) -> RunRecord {
        let parent = parent().id;
        let id = shard_of(&parent, index);
        let pending = RunRecord {
            shard: Some(Shard { parent, index, total: 3 }),
            ..RunRecord::pending(id, QueueName::default_queue(), at("02:00:00"))
        };
        let record =
            events.iter().fold(pending, |record, event| record.apply(*event, at("02:00:05")).expect("legal"));
        RunRecord { output: Some(json!(index)), ..record }
    }

    #[test]
    fn the_whole_ends_when_all_parts_have_and_as_they_have() {
        use RunEvent::{Cancelled, FailedForGood, Started, Succeeded};
        let request = CancelRequest {
            run: parent().id,
            reason: Reason::ByOperator,
            by: "ann".to_owned(),
            at: at("02:00:03"),
        };
        let (good, bad, stopped) =
            (&[Started, Succeeded][..], &[Started, FailedForGood][..], &[Cancelled][..]);
        let (success, failed, cancelled) = (RunState::Success, RunState::Failed, RunState::Cancelled);
        for (ends, is_asked, expected) in [
            ([good, good, good], false, Some((success, None))),
            ([good, good, &[Started]], false, None),
            ([good, bad, &[][..]], false, None),
            ([good, bad, good], false, Some((failed, Some(Reason::Shards)))),
            ([good, bad, stopped], false, Some((failed, Some(Reason::Shards)))),
            ([good, good, stopped], false, Some((cancelled, Some(Reason::Shards)))),
            ([good, bad, stopped], true, Some((cancelled, Some(Reason::ByOperator)))),
            // Asked for too late: nothing was stopped.
            ([good, good, good], true, Some((success, None))),
            ([good, bad, good], true, Some((failed, Some(Reason::Shards)))),
        ] {
            let mut tally = Tally::new(&parent().id, 3);
            for (index, events) in (0..).zip(ends) {
                tally.note(index, &shard(index, events));
            }
            let end = tally.end_of(&parent(), is_asked.then_some(&request), at("02:00:09")).expect("legal");
            let found = end.as_ref().map(|end| (end.status, end.reason));
            assert_eq!(found, expected, "{ends:?} {is_asked}");
            if let Some(end) = end {
                assert_eq!(end.shards.map(|shards| shards.ended()), Some(3));
                assert_eq!((end.output, end.duration_ms), (Some(json!([0, 1, 2])), Some(8_000)));
            }
        }
    }

    #[test]
    fn the_whole_says_which_parts_failed_and_a_part_that_is_gone_is_one_of_them() {
        let mut tally = Tally::new(&parent().id, 3);
        tally.note(0, &shard(0, &[RunEvent::Started, RunEvent::Succeeded]));
        let stranger = RunRecord { shard: None, ..shard(1, &[RunEvent::Started, RunEvent::Succeeded]) };
        tally.note(1, &stranger);
        tally.note(7, &shard(7, &[RunEvent::Started, RunEvent::Succeeded]));
        assert_eq!(tally.missing(), [1, 2]);
        assert_eq!(tally.progress(), Shards { total: 3, succeeded: 1, failed: 0, cancelled: 0 });
        tally.note_gone(1);
        tally.note(2, &shard(2, &[RunEvent::Started, RunEvent::FailedForGood]));
        let end = tally.end_of(&parent(), None, at("02:00:09")).expect("legal").expect("ended");
        let said = end.error.expect("an error").message;
        assert!(
            said.starts_with("2 of 3 shards (nightly.20261124T020000Z-1, nightly.20261124T020000Z-2) failed"),
            "{said}"
        );
    }
}
