//! Queues, workers, planners, and what waits for its instant.

pub mod targets;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::names::{MemberId, QueueName};
use streams::{
    delayed::{Listed, Wanted},
    drain::DrainRequest,
    members::{PlannerStatus, WorkerStatus},
    operate::{
        members::{alive_planners, alive_workers, queue_item, serving},
        patiently, unknown,
    },
};

use super::{
    call::Call,
    kinds,
    parameter::{BY, Kind, LIMIT, Parameter, path, query},
    problem::Problem,
    schedules::reading::Page,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, any_object, schema_of},
};

const QUEUE: Parameter = path("name", Kind::Name, "The queue.");
const WORKER: Parameter = path("id", Kind::Member, "The worker.");
const PLANNER: Parameter = path("id", Kind::Member, "The planner.");

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "queues.list",
        method: Method::Get,
        path: "/api/v1/queues",
        summary: "Lists the queues",
        about: "Each with its settings, how full it is by the server's count, and how many workers serve it.",
        parameters: &[],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The queues", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(queues(api, call))),
    },
    Verb {
        id: "queues.get",
        method: Method::Get,
        path: "/api/v1/queues/{name}",
        summary: "Shows a queue",
        about: "With its settings, how full it is by the server's count, and how many workers serve it.",
        parameters: &[QUEUE],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The queue", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(queue(api, call))),
    },
    Verb {
        id: "workers.list",
        method: Method::Get,
        path: "/api/v1/workers",
        summary: "Lists the workers that are alive",
        about: "Each with its queues, its places and what it runs.",
        parameters: &[],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "The workers",
            schema: Some(schema_of::<Page<WorkerStatus>>),
        }],
        run: Run::Once(|api, call| Box::pin(workers(api, call))),
    },
    Verb {
        id: "workers.get",
        method: Method::Get,
        path: "/api/v1/workers/{id}",
        summary: "Shows a worker",
        about: "With its queues, its places and what it runs.",
        parameters: &[WORKER],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The worker", schema: Some(schema_of::<WorkerStatus>) }],
        run: Run::Once(|api, call| Box::pin(worker(api, call))),
    },
    Verb {
        id: "workers.drain",
        method: Method::Post,
        path: "/api/v1/workers/{id}/drain",
        summary: "Has a worker stop",
        about: "It fetches nothing new, lets its runs finish for as long as its own --drain says, hands the rest back without using up an attempt, \
                and ends.",
        parameters: &[WORKER, BY],
        body: Some(BodyOf {
            schema: schema_of::<DrainBody>,
            bytes_max: 1_024,
            is_yaml_read: false,
            is_optional: true,
        }),
        answers: &[AnswerOf { status: 202, means: "It is asked to", schema: Some(schema_of::<Drained>) }],
        run: Run::Once(|api, call| Box::pin(drain(api, call))),
    },
    Verb {
        id: "planners.list",
        method: Method::Get,
        path: "/api/v1/planners",
        summary: "Lists the planners that are alive",
        about: "Each with its partitions, how late it runs and how right its clock is.",
        parameters: &[],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "The planners",
            schema: Some(schema_of::<Page<PlannerStatus>>),
        }],
        run: Run::Once(|api, call| Box::pin(planners(api, call))),
    },
    Verb {
        id: "planners.get",
        method: Method::Get,
        path: "/api/v1/planners/{id}",
        summary: "Shows a planner",
        about: "With its partitions, how late it runs and how right its clock is.",
        parameters: &[PLANNER],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The planner", schema: Some(schema_of::<PlannerStatus>) }],
        run: Run::Once(|api, call| Box::pin(planner(api, call))),
    },
    Verb {
        id: "delayed.list",
        method: Method::Get,
        path: "/api/v1/delayed",
        summary: "Lists submissions that wait for their instant",
        about: "The first due first. They have no record yet; cancelling one takes it back.",
        parameters: &[
            query("queue", Kind::Name, "Those that go to this queue."),
            query("name", Kind::Name, "Those submitted under this name."),
            LIMIT,
        ],
        body: None,
        answers: &[AnswerOf { status: 200, means: "What waits", schema: Some(schema_of::<Page<Listed>>) }],
        run: Run::Once(|api, call| Box::pin(delayed(api, call))),
    },
];

/// How a worker stops.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    /// Hand back what runs at once, instead of letting it finish.
    #[serde(default)]
    now: bool,
}

/// A worker that was asked to stop.
#[derive(Debug, Serialize, JsonSchema)]
struct Drained {
    /// The worker.
    id: MemberId,
    /// Runs it has now.
    running: usize,
    /// What is worth a second look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

async fn queues(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    let workers = alive_workers(&api.streams).await?;
    let mut items = Vec::new();
    for (name, settings) in api.streams.catalog().queues().await? {
        items.push(queue_item(&api.streams, &name, &settings, &workers).await.0);
    }
    Ok(Answer::ok(serde_json::json!({ "items": items })))
}

async fn queue(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: QueueName = call.path("name")?;
    let all = api.streams.catalog().queues().await?;
    let Some(settings) = all.get(&name) else {
        let words = unknown("queue", name.as_str(), all.keys().map(QueueName::as_str));
        return Err(Problem::new(&kinds::UNKNOWN, words).at("name"));
    };
    let workers = alive_workers(&api.streams).await?;
    Ok(Answer::ok(queue_item(&api.streams, &name, settings, &workers).await.0))
}

async fn workers(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Ok(Answer::ok(Page { items: alive_workers(&api.streams).await?, next: None }))
}

async fn find_worker(api: &Api, id: &MemberId) -> Result<(WorkerStatus, Vec<WorkerStatus>), Problem> {
    let all = alive_workers(&api.streams).await?;
    if let Some(found) = all.iter().find(|worker| worker.id == *id) {
        return Ok((found.clone(), all));
    }
    let words = unknown("worker", id.as_str(), all.iter().map(|worker| worker.id.as_str()));
    Err(Problem::new(&kinds::UNKNOWN, words).at("id"))
}

async fn worker(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Ok(Answer::ok(find_worker(&api, &call.path("id")?).await?.0))
}

async fn drain(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let DrainBody { now } = call.json()?;
    let (worker, all) = find_worker(&api, &call.path("id")?).await?;
    let request = DrainRequest { worker: worker.id.clone(), now, by: call.by.clone(), at: api.clock().now() };
    // Repeating it is harmless.
    patiently(api.clock().as_ref(), || api.streams.drain(&request)).await?;
    let is_left_alone = |queue: &&QueueName| serving(&all, queue) <= usize::from(!worker.draining);
    let warn = |queue: &QueueName| format!("no other worker serves queue {queue}; its runs wait for one");
    let warnings = worker.queues.iter().filter(is_left_alone).map(warn).collect();
    Ok(Answer::with(202, Drained { id: worker.id.clone(), running: worker.running.len(), warnings }))
}

async fn planners(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Ok(Answer::ok(Page { items: alive_planners(&api.streams).await?, next: None }))
}

async fn planner(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let id: MemberId = call.path("id")?;
    let all = alive_planners(&api.streams).await?;
    if let Some(found) = all.iter().find(|planner| planner.id == id) {
        return Ok(Answer::ok(found));
    }
    let words = unknown("planner", id.as_str(), all.iter().map(|planner| planner.id.as_str()));
    Err(Problem::new(&kinds::UNKNOWN, words).at("id"))
}

async fn delayed(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted = Wanted { queue: call.parsed("queue")?, name: call.parsed("name")?, limit: call.limit() };
    let items = api.streams.delayed().list(&wanted).await?;
    Ok(Answer::ok(Page { items, next: None }))
}
