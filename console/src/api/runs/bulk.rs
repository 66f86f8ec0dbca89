//! Many runs at once, with a count before it.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    limits::{BULK_MAX, PAGE_MAX},
    run::RunId,
    run_record::Reason,
    run_state::RunState,
};
use streams::{
    Streams,
    cancel::{CancelRequest, Cancelling},
    dead::Retrying,
    operate::refusals::in_short,
};

use super::reading::FILTERS;
use crate::{
    api::{
        call::Call,
        kinds,
        parameter::{BY, DRY_RUN},
        problem::Problem,
        state::Api,
        verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
    },
    read_model::RunQuery,
};

/// Runs that are worked on at once.
const AT_ONCE: usize = 16;
/// A body of so many ids.
const BODY: BodyOf = BodyOf {
    schema: schema_of::<Selection>,
    bytes_max: 256 * 1_024,
    is_yaml_read: false,
    is_optional: false,
};
const ANSWERS: &[AnswerOf] = &[AnswerOf {
    status: 200,
    means: "What was done, or (dry run) how many are meant",
    schema: Some(schema_of::<Outcome>),
}];

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "runs.cancel_many",
        method: Method::Post,
        path: "/api/v1/runs/cancel",
        summary: "Cancels many runs",
        about: "Those of `ids`, or those that match `filter` and have not ended, at most 1000 at a time: `remaining` says how many more match.",
        parameters: &[DRY_RUN, BY],
        body: Some(BODY),
        answers: ANSWERS,
        run: Run::Once(|api, call| Box::pin(cancel_many(api, call))),
    },
    Verb {
        id: "runs.retry_many",
        method: Method::Post,
        path: "/api/v1/runs/retry",
        summary: "Runs many runs that failed again",
        about: "Those of `ids`, or those that match `filter` and are FAILED, at most 1000 at a time: `remaining` says how many more match.",
        parameters: &[DRY_RUN, BY],
        body: Some(BODY),
        answers: ANSWERS,
        run: Run::Once(|api, call| Box::pin(retry_many(api, call))),
    },
];

/// Which runs: these, or those that match.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Selection {
    /// These runs.
    #[serde(default)]
    ids: Option<Vec<RunId>>,
    /// Those that match: names and values are those of the filters of the list of runs; values are texts, or lists of them.
    #[serde(default)]
    filter: Option<Map<String, Value>>,
}

/// What was done.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Outcome {
    /// How many were meant.
    pub matched: usize,
    /// With how many it was done.
    pub done: usize,
    /// Those that were left alone, and why.
    pub left: BTreeMap<String, String>,
    /// How many more there are at least: ask again.
    pub remaining: u64,
}

async fn cancel_many(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let open = [RunState::Pending, RunState::Running, RunState::Retry];
    let (ids, remaining) = meant(&api, &call, &open).await?;
    if call.is("dry_run") {
        return Ok(Answer::ok(Outcome { matched: ids.len(), remaining, ..Outcome::default() }));
    }
    drop(call.place.take());
    let act = move |run: RunId| {
        let (streams, by, at) = (api.streams.clone(), call.by.clone(), api.clock().now());
        let cancelling = async move {
            cancel_one(&streams, CancelRequest { run, reason: Reason::ByOperator, by, at }).await
        };
        cancelling.boxed()
    };
    Ok(Answer::ok(each(ids, remaining, act).await))
}

async fn cancel_one(streams: &Streams, request: CancelRequest) -> Result<(), String> {
    match streams.cancel(&request).await {
        Ok(Cancelling::Cancelled(_) | Cancelling::Asked(_)) => Ok(()),
        Ok(Cancelling::Ended(record)) => Err(format!("it is {} already", record.status)),
        Ok(Cancelling::Unknown) => Err("there is no such run".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn retry_many(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let (ids, remaining) = meant(&api, &call, &[RunState::Failed]).await?;
    if call.is("dry_run") {
        return Ok(Answer::ok(Outcome { matched: ids.len(), remaining, ..Outcome::default() }));
    }
    drop(call.place.take());
    Ok(Answer::ok(retry_each(&api.streams, ids, remaining, &call.by).await))
}

/// Retries these, the first first.
pub async fn retry_each(streams: &Streams, ids: Vec<RunId>, remaining: u64, by: &str) -> Outcome {
    let act = move |run: RunId| {
        let (streams, by) = (streams.clone(), by.to_owned());
        async move { retry_one(&streams, &run, &by).await }.boxed()
    };
    each(ids, remaining, act).await
}

async fn retry_one(streams: &Streams, run: &RunId, by: &str) -> Result<(), String> {
    match streams.retry(run, by).await {
        Ok(Retrying::Queued(_)) => Ok(()),
        Ok(refused) => Err(in_short(&refused).unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    }
}

async fn each(
    ids: Vec<RunId>,
    remaining: u64,
    act: impl Fn(RunId) -> BoxFuture<'static, Result<(), String>> + Send,
) -> Outcome {
    let mut outcome = Outcome { matched: ids.len(), remaining, ..Outcome::default() };
    let acts = ids.into_iter().map(|run| act(run.clone()).map(move |acted| (acted, run)).boxed());
    let mut acts = stream::iter(acts.collect::<Vec<_>>()).buffered(AT_ONCE);
    while let Some((acted, run)) = acts.next().await {
        match acted {
            Ok(()) => outcome.done += 1,
            Err(why) => {
                outcome.left.insert(run.to_string(), why);
            }
        }
    }
    outcome
}

/// The runs that are meant, at most as many as one request works on, and how many more there are.
async fn meant(api: &Api, call: &Call, states: &[RunState]) -> Result<(Vec<RunId>, u64), Problem> {
    let bad = |words: String, field: &str| Problem::new(&kinds::BAD_BODY, words).at(field);
    let filter = match call.json()? {
        Selection { ids: Some(ids), filter: None } if ids.len() <= BULK_MAX => return Ok((ids, 0)),
        Selection { ids: Some(ids), filter: None } => {
            return Err(bad(
                format!("it has {} ids; at most {BULK_MAX} are taken at once: send them in parts", ids.len()),
                "ids",
            ));
        }
        Selection { ids: None, filter: Some(filter) } if !filter.is_empty() => filter,
        Selection { ids: None, .. } => {
            return Err(bad(
                "write `ids`, or a `filter` that is not empty: nothing is meant by nothing".to_owned(),
                "filter",
            ));
        }
        Selection { .. } => {
            return Err(bad(
                "`ids` and `filter` contradict each other; write one of them".to_owned(),
                "filter",
            ));
        }
    };
    let mut pairs = pairs_of(&filter)?;
    if !filter.contains_key("status") {
        pairs.extend(states.iter().map(|state| ("status", state.as_str().to_owned())));
    }
    pairs.push(("order", "oldest".to_owned()));
    pairs.push(("limit", PAGE_MAX.to_string()));
    let pairs = pairs.iter().map(|(name, value)| (*name, value.as_str()));
    let mut query = RunQuery::from_pairs(pairs).map_err(|error| bad(error.to_string(), "filter"))?;
    let (mut ids, mut remaining) = (Vec::new(), 0);
    loop {
        let page = api.model.runs(&query).await?;
        ids.extend(page.items.into_iter().map(|item| item.record.id));
        let Some(next) = page.next else { break };
        if ids.len() >= BULK_MAX {
            let count = api.model.count(&query.filter).await?;
            ids.truncate(BULK_MAX);
            remaining = count.number.saturating_sub(ids.len() as u64);
            break;
        }
        query.cursor = Some(next);
    }
    Ok((ids, remaining))
}

fn pairs_of(filter: &Map<String, Value>) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut pairs = Vec::new();
    for (name, value) in filter {
        let field = format!("filter.{name}");
        let known = FILTERS.iter().find(|parameter| parameter.name == name);
        let Some(parameter) = known else {
            let all: Vec<&str> = FILTERS.iter().map(|parameter| parameter.name).collect();
            let words = format!("there is no filter of this name; there are {}", all.join(", "));
            return Err(Problem::new(&kinds::BAD_BODY, words).at(field));
        };
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => String::new(),
            };
            parameter
                .check(&text)
                .map_err(|words| Problem::new(&kinds::BAD_BODY, words).at(field.clone()))?;
            pairs.push((parameter.name, text));
        }
    }
    Ok(pairs)
}
