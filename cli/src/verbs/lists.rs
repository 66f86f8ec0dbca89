//! Queues, workers, planners and targets, as `get` lists them.

use serde::Serialize;
use serde_json::{Map, Value};
use shared::{
    names::{QueueName, TargetName},
    target::{Address, Target},
};
use streams::{
    Streams,
    members::{Member, PlannerStatus, WorkerStatus},
};

use super::{
    get::show,
    when::{ago, milliseconds},
};
use crate::{
    output::{Output, talk},
    table::{Cell, Colour, Table},
};

/// Something with a name, as one object.
#[derive(Debug, Serialize)]
struct Named<N> {
    name: N,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

fn fields(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The planners that are alive.
pub async fn alive_planners(streams: &Streams) -> anyhow::Result<Vec<PlannerStatus>> {
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
pub async fn alive_workers(streams: &Streams) -> anyhow::Result<Vec<WorkerStatus>> {
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

/// Lists queues.
pub async fn queues(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let workers = alive_workers(streams).await?;
    let mut items = Vec::new();
    for (name, settings) in streams.catalog().queues().await? {
        let mut fields = fields(&settings);
        match streams.queue_depth(&name).await {
            Ok(depth) => fields.extend(self::fields(&depth)),
            Err(error) => talk(format!("warning: {error}; `cronfleet doctor` says more")),
        }
        fields.insert("workers".to_owned(), serving(&workers, &name).into());
        items.push(Named { name, fields });
    }
    let columns = ["waiting", "in_flight", "redelivered", "pulls", "workers", "max_in_flight", "ack_wait"];
    let table = |items: &[Named<QueueName>]| {
        let mut table = Table::new(&[
            "NAME",
            "WAITING",
            "IN FLIGHT",
            "REDELIVERED",
            "PULLS",
            "WORKERS",
            "MAX IN FLIGHT",
            "ACK WAIT",
        ]);
        for item in items {
            let cell = |column: &str| match item.fields.get(column) {
                Some(Value::String(text)) => Cell::from(text.as_str()),
                other => Cell::optional(other.map(ToString::to_string)),
            };
            let name = std::iter::once(item.name.as_str().into());
            table.row(name.chain(columns.iter().map(|column| cell(column))).collect());
        }
        table
    };
    show(
        output,
        "queue",
        &items,
        |item| item.name.to_string(),
        wanted,
        table,
        "no queues; run `cronfleet init`",
    )
}

/// Lists workers.
pub async fn workers(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let now = streams.clock().now();
    let workers = alive_workers(streams).await?;
    let table = |workers: &[WorkerStatus]| {
        let mut table = Table::new(&["ID", "STATE", "QUEUES", "RUNNING", "PLACES", "AGE", "VERSION"]);
        for worker in workers {
            let queues: Vec<&str> = worker.queues.iter().map(QueueName::as_str).collect();
            table.row(vec![
                worker.id.as_str().into(),
                state(worker.draining, "draining"),
                queues.join(",").into(),
                worker.running.len().to_string().into(),
                worker.places.to_string().into(),
                ago(worker.started_at, now).into(),
                worker.version.as_str().into(),
            ]);
        }
        table
    };
    let when_empty = "no worker is alive; start one with `cronfleet worker`";
    show(output, "worker", &workers, |worker| worker.id.to_string(), wanted, table, when_empty)
}

/// Lists planners.
pub async fn planners(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let now = streams.clock().now();
    let planners = alive_planners(streams).await?;
    let table = |planners: &[PlannerStatus]| {
        let mut table = Table::new(&[
            "ID",
            "STATE",
            "PARTITIONS",
            "SCHEDULES",
            "INVALID",
            "LATENESS",
            "WAITING",
            "CLOCK",
            "AGE",
            "VERSION",
        ]);
        for planner in planners {
            let waiting = planner.waiting.as_ref();
            table.row(vec![
                planner.id.as_str().into(),
                planner_state(planner),
                planner.partitions.len().to_string().into(),
                planner.schedules.to_string().into(),
                planner.invalid.len().to_string().into(),
                Cell::optional(planner.lateness_ms.map(milliseconds)),
                Cell::optional(
                    waiting.map(|waiting| format!("{} for {}", waiting.slots, ago(waiting.since, now))),
                ),
                Cell::optional(planner.clock_offset_ms.map(|ms| format!("{ms:+}ms"))),
                ago(planner.started_at, now).into(),
                planner.version.as_str().into(),
            ]);
        }
        table
    };
    let when_empty = "no planner is alive; start one with `cronfleet planner`";
    show(output, "planner", &planners, |planner| planner.id.to_string(), wanted, table, when_empty)
}

fn planner_state(planner: &PlannerStatus) -> Cell {
    if planner.clock_suspect.is_some() {
        return Cell::coloured("suspect", Some(Colour::Red));
    }
    state(planner.stopping, "stopping")
}

fn state(ending: bool, word: &str) -> Cell {
    if ending {
        Cell::coloured(word, Some(Colour::Yellow))
    } else {
        Cell::coloured("alive", Some(Colour::Green))
    }
}

/// Lists targets.
pub async fn targets(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let targets = streams.catalog().all().await?.targets;
    let items: Vec<Named<TargetName>> =
        targets.iter().map(|(name, target)| Named { name: name.clone(), fields: fields(target) }).collect();
    let table = |items: &[Named<TargetName>]| {
        let mut table = Table::new(&["NAME", "REACHED BY", "HEALTH", "MAX CONCURRENT"]);
        for target in items.iter().filter_map(|item| Some((&item.name, targets.get(&item.name)?))) {
            table.row(target_row(target.0, target.1));
        }
        table
    };
    let when_empty = "no targets; add some under `targets:` with `cronfleet apply -f FILE`";
    show(output, "target", &items, |item| item.name.to_string(), wanted, table, when_empty)
}

fn target_row(name: &TargetName, target: &Target) -> Vec<Cell> {
    let reached_by = match &target.address {
        Address::Http(url) => url.clone(),
        Address::Message(prefix) => format!("messages to {prefix}"),
        Address::Service(name) => format!("service {name}"),
    };
    let health = match &target.reason {
        _ if target.enabled => target.health_url(),
        Some(reason) => Some(format!("disabled: {reason}")),
        None => Some("disabled".to_owned()),
    };
    vec![
        name.as_str().into(),
        reached_by.into(),
        Cell::optional(health),
        Cell::optional(target.max_concurrent),
    ]
}
