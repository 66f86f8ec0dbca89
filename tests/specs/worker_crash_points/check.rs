//! What must hold when a worker was killed and another one has finished: by the ledger, by the streams, and by the target's
//! own memory of what it was asked.

use std::collections::{BTreeMap, BTreeSet};

use harness::eventually;
use shared::{Timestamp, run_record::RunRecord, run_state::RunState};
use streams::dead::Wanted;

use super::{stage::Stage, way::Place};

/// More than there are.
const VERSIONS_MAX: u64 = 100_000;

/// What a target, or a command, was asked: by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    run: String,
    attempt: u64,
    fence: u64,
}

/// What was asked for the runs of a place, in its order.
pub(super) fn asked(stage: &Stage, place: &Place) -> Vec<Asked> {
    let of_place = |asked: &Asked| asked.run.starts_with(&format!("{}.", place.name()));
    let by_http = stage.fleet.target.calls().into_iter().map(|call| Asked {
        run: call.run,
        attempt: call.attempt,
        fence: call.fence,
    });
    let noted = std::fs::read_to_string(stage.fleet.folder().join("asked")).unwrap_or_default();
    let by_command = noted.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let run = words.next()?.to_owned();
        Some(Asked { run, attempt: words.next()?.parse().ok()?, fence: words.next()?.parse().ok()? })
    });
    by_http.chain(by_command).filter(of_place).collect()
}

/// Each run of a place ended once and as it should, with the attempts it should have, and the target was not asked too often.
pub(super) async fn all_went_as_it_should(
    stage: &Stage,
    place: &Place,
    records: &[RunRecord],
    lives: &Lives,
) {
    let title = place.title();
    let asked = asked(stage, place);
    let parts = || records.iter().filter(|record| record.shards.is_none());
    if let Some(kill) = place.kill {
        let attempts = if records.is_empty() {
            u32::try_from(asked.len()).expect("few")
        } else {
            parts().map(|record| record.attempt).sum()
        };
        assert!(kill.attempts().contains(&attempts), "{title}: {attempts} attempts: {records:#?} {asked:#?}");
        assert!(kill.calls().contains(&asked.len()), "{title}: asked {asked:#?}: {records:#?}");
        for record in records {
            assert_eq!(record.status, kill.end, "{title}: {record:?}");
        }
    }
    for record in records {
        lives.end_once(&title, record);
    }
    for record in parts() {
        let id = record.id.to_string();
        let its: Vec<&Asked> = asked.iter().filter(|asked| asked.run == id).collect();
        for pair in its.windows(2) {
            let is_later = pair[0].fence < pair[1].fence && pair[0].attempt <= pair[1].attempt;
            assert!(is_later, "{title}: fences and attempts never go back, and none is used twice: {its:?}");
        }
        if record.status == RunState::Success {
            let last = its.last().unwrap_or_else(|| panic!("{title}: {id} was never asked for"));
            let recorded = (u64::from(record.attempt), record.fence);
            assert_eq!((last.attempt, Some(last.fence)), recorded, "{title}: the last attempt is recorded");
        }
        is_buried_if_it_failed(stage, &title, record).await;
    }
    if place.way.is_one_at_a_time() {
        let name = format!("{}.", place.name());
        let at_once = stage.fleet.target.most_at_once(|call| call.run.starts_with(&name));
        assert!(at_once <= 1, "{title}: {at_once} at once");
    }
}

/// What the records of all runs said, one after another.
pub(super) struct Lives(BTreeMap<String, Vec<RunState>>);

impl Lives {
    /// Of all runs there are.
    pub(super) async fn read(stage: &Stage) -> Self {
        let written = stage.fleet.streams.ledger().written_since(Timestamp::UNIX_EPOCH, VERSIONS_MAX).await;
        let mut lives: BTreeMap<String, Vec<RunState>> = BTreeMap::new();
        for stored in written.expect("the ledger") {
            lives.entry(stored.value.id.to_string()).or_default().push(stored.value.status);
        }
        Self(lives)
    }

    /// Once, or once for each time it was retried by hand; and nothing was written after that.
    fn end_once(&self, title: &str, record: &RunRecord) {
        let life = &self.0[&record.id.to_string()];
        let ends = life.iter().filter(|state| state.is_final()).count();
        assert_eq!(ends, 1 + record.times_retried() as usize, "{title}: {life:?}");
        assert!(life.last().is_some_and(|state| state.is_final()), "{title}: {life:?}");
    }
}

async fn is_buried_if_it_failed(stage: &Stage, title: &str, record: &RunRecord) {
    if record.status == RunState::Failed {
        let lives = |run: &RunRecord| (run.status, run.attempt, run.fence, run.times_retried());
        // The letter of an earlier life is replaced.
        eventually(&format!("the dead letter of {title}"), async || {
            let letter = stage.fleet.streams.dead_letter(record).await.map_err(|error| error.to_string())?;
            let of = letter.map(|letter| lives(&letter.run));
            if of == Some(lives(record)) { Ok(()) } else { Err(format!("{of:?}")) }
        })
        .await;
    } else {
        let letter = stage.fleet.streams.dead_letter(record).await.expect("the dead letters");
        assert!(letter.is_none(), "{title}: {letter:?}");
    }
}

/// Nothing waits or is queued any more, no permit is held, and there is one dead letter for each run that failed.
pub(super) async fn nothing_is_left(stage: &Stage) {
    let streams = &stage.fleet.streams;
    eventually("empty streams, and no permit that is held", async || {
        let error = |error: streams::ReadError| error.to_string();
        let (tasks, _) = streams.tasks_stored().await.map_err(error)?;
        let delayed = streams.delayed().count().await.map_err(error)?;
        let limited = streams.anybody_waiting(1).await.map_err(error)?;
        let gates = streams.gates().list().await.map_err(error)?;
        let held: Vec<_> = gates.into_iter().filter(|(_, gate)| !gate.held.is_empty()).collect();
        if tasks + delayed == 0 && limited.is_none() && held.is_empty() {
            return Ok(());
        }
        Err(format!("{tasks} queued, {delayed} waiting, {limited:?} limited, inside: {held:?}"))
    })
    .await;
    let failed = stage.fleet.records().await.into_iter().filter(|run| run.value.status == RunState::Failed);
    let failed: BTreeSet<String> = failed.map(|stored| stored.value.id.to_string()).collect();
    let mut buried = Vec::new();
    let each = |found: streams::dead::Found| buried.push(found.letter.run.id.to_string());
    streams.each_dead_letter(&Wanted::default(), each).await.expect("the dead letters");
    buried.sort();
    assert_eq!(buried, failed.into_iter().collect::<Vec<_>>(), "one letter for each run that failed");
}
