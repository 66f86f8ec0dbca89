//! How far runs are, as their workers tell it at each heartbeat.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use shared::{run::RunId, run_log::Progress, run_record::RunRecord, run_state::RunState};

use crate::{ReadError, Streams, members::Member};

/// A run with its progress, in one object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunItem {
    /// The run.
    #[serde(flatten)]
    pub run: RunRecord,
    /// How far it is; absent if it does not say, or does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// Adds to these runs how far they are.
pub async fn with_progress(streams: &Streams, runs: Vec<RunRecord>) -> Result<Vec<RunItem>, ReadError> {
    // Most lists are of runs that have ended: then nobody is asked.
    let is_any_running = runs.iter().any(|run| run.status == RunState::Running);
    let members = if is_any_running { streams.members().list().await? } else { Vec::new() };
    Ok(join(runs, &members))
}

fn join(runs: Vec<RunRecord>, members: &[Member]) -> Vec<RunItem> {
    let mut told: BTreeMap<&RunId, (&Member, &Progress)> = BTreeMap::new();
    for member in members {
        if let Member::Worker(worker) = member {
            told.extend(worker.progress.iter().map(|(run, progress)| (run, (member, progress))));
        }
    }
    let items = runs.into_iter().map(|run| {
        // What another worker says of it is of an attempt that is over.
        let progress = told.get(&run.id).filter(|(member, _)| {
            run.status == RunState::Running && run.worker.as_ref() == Some(member.id())
        });
        let progress = progress.map(|(_, progress)| (*progress).clone());
        RunItem { run, progress }
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    use crate::members::WorkerStatus;

    use super::*;

    #[test]
    fn a_run_is_as_far_as_its_own_worker_says() {
        let at: shared::Timestamp = "2026-11-24T02:00:00Z".parse().expect("instant");
        let id: RunId = "a.1".parse().expect("id");
        let pending = RunRecord::pending(id.clone(), "default".parse().expect("queue"), at);
        let worker = shared::names::MemberId::new("worker", "here");
        let member = Member::Worker(WorkerStatus {
            id: worker.clone(),
            version: String::new(),
            started_at: at,
            queues: Vec::new(),
            places: 1,
            running: Vec::new(),
            progress: vec![(id, Progress::new(0.4, Some("half")))],
            draining: false,
            drained_by: None,
            commands: Vec::new(),
            weights: std::collections::BTreeMap::default(),
        });
        let running = RunRecord { status: RunState::Running, worker: Some(worker), ..pending.clone() };
        let of_another = RunRecord { worker: None, ..running.clone() };
        let found = join(vec![running, of_another, pending], &[member]);
        let words: Vec<Option<String>> =
            found.iter().map(|item| item.progress.as_ref().map(Progress::words)).collect();
        assert_eq!(words, [Some("40 %: half".to_owned()), None, None]);
        let json = serde_json::to_value(&found[0]).expect("JSON");
        assert_eq!((&json["id"], &json["progress"]["note"]), (&"a.1".into(), &"half".into()));
    }
}
