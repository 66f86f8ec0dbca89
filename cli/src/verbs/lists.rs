//! Queues, workers, planners and targets, as `get` lists them.

use serde_json::Value;
use shared::{names::QueueName, queue::QueueShare};
pub use streams::operate::members::{alive_planners, alive_workers, serving};
use streams::{
    Streams,
    members::{PlannerStatus, WorkerStatus},
    operate::members::{Named, queue_item},
};

use super::{
    get::show,
    when::{ago, milliseconds},
};
use crate::{
    output::{Output, talk},
    table::{Cell, Colour, Table},
};

/// Lists queues.
pub async fn queues(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let workers = alive_workers(streams).await?;
    let mut items = Vec::new();
    for (name, settings) in streams.catalog().queues().await? {
        let (item, problem) = queue_item(streams, &name, &settings, &workers).await;
        if let Some(error) = problem {
            talk(format!("warning: {error}; `cronfleet doctor` says more"));
        }
        items.push(item);
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
            let share = |queue: &QueueName| {
                let weight = worker.weights.get(queue).copied().unwrap_or(1);
                QueueShare { queue: queue.clone(), weight }.to_string()
            };
            let queues: Vec<String> = worker.queues.iter().map(share).collect();
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
