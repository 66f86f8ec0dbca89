//! Dead letters: runs that failed for good, with their tasks.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    Timestamp,
    limits::BULK_MAX,
    names::{Name, QueueName, TargetName},
    run::RunId,
    run_state::RunState,
};
use streams::dead::{DeadLetter, Wanted};

use super::{
    call::{Call, moment},
    kinds,
    parameter::{BY, DRY_RUN, Kind, LIMIT, PREFER, TEXT, query},
    problem::Problem,
    runs::{
        RUN,
        bulk::{Outcome, retry_each},
        writing::retry,
    },
    schedules::reading::Page,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
    waiting,
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "dead.list",
        method: Method::Get,
        path: "/api/v1/dead",
        summary: "Lists dead letters",
        about: "Runs that failed for good, with their whole tasks and attempts, the latest first. All that is asked of them must hold.",
        parameters: &[
            query("queue", Kind::Name, "Those of this queue."),
            query("name", Kind::Name, "Those of this schedule, or submitted under this name."),
            query("target", Kind::Name, "Those that act on this target."),
            query(
                "since",
                Kind::Moment,
                "Those that failed at this instant or later: RFC 3339, or how long ago, such as 2h.",
            ),
            query("until", Kind::Moment, "Those that failed before this instant."),
            query("error", TEXT, "Those whose error, its kind or the reason has this text in it."),
            LIMIT,
        ],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "The latest of them",
            schema: Some(schema_of::<Page<Item>>),
        }],
        run: Run::Once(|api, call| Box::pin(list(api, call))),
    },
    Verb {
        id: "dead.get",
        method: Method::Get,
        path: "/api/v1/dead/{run}",
        summary: "Shows a dead letter",
        about: "The whole task, and all attempts with their errors.",
        parameters: &[RUN],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The letter", schema: Some(schema_of::<Item>) }],
        run: Run::Once(|api, call| Box::pin(get(api, call))),
    },
    Verb {
        id: "dead.retry",
        method: Method::Post,
        path: "/api/v1/dead/{run}/retry",
        summary: "Runs a dead letter again, under its own id",
        about: "The same as retrying its run.",
        parameters: &[RUN, PREFER, BY],
        body: None,
        answers: &waiting::ANSWERS,
        run: Run::Once(|api, call| Box::pin(retry(api, call))),
    },
    Verb {
        id: "dead.replay",
        method: Method::Post,
        path: "/api/v1/dead/replay",
        summary: "Runs many dead letters again",
        about: "Those that match, the earliest first, at most 1000 at a time: `remaining` says how many more match. One whose schedule is occupied is \
                left, and is there when it is asked for again.",
        parameters: &[DRY_RUN, BY],
        body: Some(BodyOf {
            schema: schema_of::<Filter>,
            bytes_max: 64 * 1_024,
            is_yaml_read: false,
            is_optional: false,
        }),
        answers: &[AnswerOf {
            status: 200,
            means: "What was done, or (dry run) how many are meant",
            schema: Some(schema_of::<Outcome>),
        }],
        run: Run::Once(|api, call| Box::pin(replay(api, call))),
    },
];

/// A dead letter.
#[derive(Debug, Serialize, JsonSchema)]
struct Item {
    /// The run.
    id: RunId,
    /// Its run's state now; absent if the ledger does not know it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<RunState>,
    /// When it failed.
    failed_at: Timestamp,
    #[serde(flatten)]
    letter: DeadLetter,
}

/// Which dead letters: those for which all of it holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Those of this queue.
    #[serde(default)]
    queue: Option<QueueName>,
    /// Those of this schedule, or submitted under this name.
    #[serde(default)]
    name: Option<Name>,
    /// Those that act on this target.
    #[serde(default)]
    target: Option<TargetName>,
    /// Those that failed at this instant or later: RFC 3339, or how long ago.
    #[serde(default)]
    since: Option<String>,
    /// Those that failed before this instant: RFC 3339, or how long ago.
    #[serde(default)]
    until: Option<String>,
    /// Those whose task has these parameters. A dot leads into an object.
    #[serde(default, rename = "where")]
    parameters: Map<String, Value>,
    /// Those whose error, its kind or the reason has this text in it.
    #[serde(default)]
    error: Option<String>,
    /// `true`: all there are. Otherwise at least one of the others is to be said.
    #[serde(default)]
    all: bool,
}

async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let now = api.clock().now();
    let wanted = Wanted {
        queue: call.parsed("queue")?,
        name: call.parsed("name")?,
        target: call.parsed("target")?,
        since: call.moment("since", now),
        until: call.moment("until", now),
        parameters: Vec::new(),
        error: call.text("error").map(str::to_owned),
    };
    // Only where those lie that failed last: a letter may be large.
    let mut latest: BinaryHeap<Reverse<(Timestamp, u64, RunId)>> = BinaryHeap::new();
    let limit = call.limit();
    api.streams
        .each_dead_letter(&wanted, |found| {
            latest.push(Reverse((found.failed_at(), found.sequence, found.letter.run.id)));
            if latest.len() > limit {
                latest.pop();
            }
        })
        .await?;
    let mut items = Vec::new();
    for Reverse((_, _, run)) in latest.into_sorted_vec() {
        items.extend(find(&api, &run).await?);
    }
    Ok(Answer::ok(Page { items, next: None }))
}

async fn find(api: &Api, run: &RunId) -> Result<Option<Item>, Problem> {
    let Some(found) = api.streams.find_dead_letter(run).await? else { return Ok(None) };
    let status = api.streams.ledger().get(run).await.ok().flatten().map(|stored| stored.value.status);
    Ok(Some(Item { id: run.clone(), status, failed_at: found.failed_at(), letter: found.letter }))
}

async fn get(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    if let Some(item) = find(&api, &run).await? {
        return Ok(Answer::ok(item));
    }
    let words = format!("{run} has no dead letter; `GET /api/v1/runs/{run}` says how it is");
    Err(Problem::new(&kinds::UNKNOWN, words).at("run"))
}

async fn replay(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let now = api.clock().now();
    let wanted = wanted(call.json()?, now)?;
    let mut meant: Vec<(Timestamp, RunId)> = Vec::new();
    api.streams
        .each_dead_letter(&wanted, |found| meant.push((found.failed_at(), found.letter.run.id)))
        .await?;
    meant.sort();
    let remaining = meant.len().saturating_sub(BULK_MAX) as u64;
    meant.truncate(BULK_MAX);
    if call.is("dry_run") {
        return Ok(Answer::ok(Outcome { matched: meant.len(), remaining, ..Outcome::default() }));
    }
    drop(call.place.take());
    let ids = meant.into_iter().map(|(_, run)| run).collect();
    Ok(Answer::ok(retry_each(&api.streams, ids, remaining, &call.by).await))
}

fn wanted(filter: Filter, now: Timestamp) -> Result<Wanted, Problem> {
    let read = |text: Option<String>, field: &str| {
        let read = text.map(|text| moment(&text, now)).transpose();
        read.map_err(|words| Problem::new(&kinds::BAD_BODY, words).at(field))
    };
    let Filter { queue, name, target, since, until, parameters, error, all } = filter;
    let says_nothing = queue.is_none()
        && name.is_none()
        && target.is_none()
        && since.is_none()
        && until.is_none()
        && parameters.is_empty()
        && error.is_none();
    if says_nothing != all {
        let words = "say which are meant, or `all: true` alone if all are";
        return Err(Problem::new(&kinds::BAD_BODY, words).at("all"));
    }
    let until = read(until, "until")?;
    Ok(Wanted {
        queue,
        name,
        target,
        since: read(since, "since")?,
        // What fails from now on is another failure.
        until: Some(until.map_or(now, |until| until.min(now))),
        parameters: parameters.into_iter().collect(),
        error,
    })
}
