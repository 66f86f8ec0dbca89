//! Queues, workers, planners and targets as they are listed.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    limit::{GateKey, Scope},
    names::{QueueName, TargetName},
    queue::QueueSettings,
    target::Target,
};

use crate::{
    ReadError, Streams,
    gates::Gate,
    members::{Member, PlannerStatus, WorkerStatus},
};

/// Something with a name, as one object.
#[derive(Debug, Clone, Serialize)]
pub struct Named<N> {
    /// Its name.
    pub name: N,
    #[serde(flatten)]
    /// All that is said of it.
    pub fields: Map<String, Value>,
}

/// The fields of a value that is an object.
pub fn fields(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The planners that are alive.
pub async fn alive_planners(streams: &Streams) -> Result<Vec<PlannerStatus>, ReadError> {
    let members = streams.members().list().await?.into_iter();
    let mut planners: Vec<PlannerStatus> = members
        .filter_map(|member| match member {
            Member::Planner(planner) => Some(planner),
            Member::Worker(_) => None,
        })
        .collect();
    planners.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(planners)
}

/// The workers that are alive.
pub async fn alive_workers(streams: &Streams) -> Result<Vec<WorkerStatus>, ReadError> {
    let members = streams.members().list().await?.into_iter();
    let mut workers: Vec<WorkerStatus> = members
        .filter_map(|member| match member {
            Member::Worker(worker) => Some(worker),
            Member::Planner(_) => None,
        })
        .collect();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(workers)
}

/// How many of these workers fetch from a queue.
pub fn serving(workers: &[WorkerStatus], queue: &QueueName) -> usize {
    workers.iter().filter(|worker| !worker.draining && worker.queues.contains(queue)).count()
}

/// A queue as it is listed: its settings, how full it is, how many workers serve it. How full it is may be unknown just now.
pub async fn queue_item(
    streams: &Streams,
    name: &QueueName,
    settings: &QueueSettings,
    workers: &[WorkerStatus],
) -> (Named<QueueName>, Option<ReadError>) {
    let mut all = fields(settings);
    let problem = match streams.queue_depth(name).await {
        Ok(depth) => {
            all.extend(fields(&depth));
            None
        }
        Err(error) => Some(error),
    };
    all.insert("workers".to_owned(), serving(workers, name).into());
    (Named { name: name.clone(), fields: all }, problem)
}

/// A run that has passed a limit.
#[derive(Debug, Serialize)]
pub struct Holder {
    /// The run.
    pub run: String,
    /// Its worker.
    pub worker: String,
    /// The key and its value, if it is one that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How full the limits of a target are.
#[derive(Debug, Default)]
pub struct Fullness {
    /// Runs inside.
    pub inside: usize,
    /// Which they are.
    pub holders: Vec<Holder>,
    /// Runs that wait for their turn.
    pub waiting: Option<u64>,
}

/// How full the limits of this target are, by the gates of all; who waits is not counted here.
pub fn fullness(name: &TargetName, gates: &[(GateKey, Gate)]) -> Fullness {
    let mut found = Fullness::default();
    let mut runs = BTreeSet::new();
    for (key, gate) in gates.iter().filter(|(key, _)| key.scope == Scope::Target(name.clone())) {
        runs.extend(gate.held.iter().map(|permit| &permit.run));
        found.holders.extend(gate.held.iter().map(|permit| Holder {
            run: permit.run.to_string(),
            worker: permit.worker.to_string(),
            key: key.lane.and(gate.label.clone()),
        }));
    }
    found.inside = runs.len();
    found
}

/// A target as it is listed.
pub fn target_item(name: &TargetName, target: &Target, full: &Fullness) -> Named<TargetName> {
    let mut fields = fields(target);
    if !full.holders.is_empty() {
        fields.insert("holders".to_owned(), serde_json::to_value(&full.holders).unwrap_or_default());
    }
    if let Some(waiting) = full.waiting {
        fields.insert("waiting".to_owned(), waiting.into());
    }
    Named { name: name.clone(), fields }
}
