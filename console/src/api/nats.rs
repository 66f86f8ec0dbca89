//! The verbs over NATS: a request to `api.<verb>` with a JSON object of its parameters, and the body under `body`.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use serde_json::{Map, Value};
use shared::limits::{CONSOLE_REQUEST_WAIT, CONSOLE_RUN_WAIT_MAX};
use streams::{
    ReadError,
    api_service::{ApiAnswer, ApiVerb},
};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Body, Call, read_json},
    kinds,
    problem::Problem,
    state::Api,
    table,
    verb::{Answer, Run, Verb},
};

/// The verbs that are served over NATS: all that answer once.
pub fn verbs() -> impl Iterator<Item = &'static Verb> {
    table::all().filter(|verb| !verb.is_stream())
}

/// Answers until it is told to stop.
pub async fn serve(api: Arc<Api>, stop: CancellationToken) -> Result<(), ReadError> {
    let announced = verbs().map(|verb| ApiVerb {
        id: verb.id.to_owned(),
        summary: verb.summary.to_owned(),
        http: format!("{} {}", verb.method.as_str(), verb.path),
    });
    let streams = api.streams.clone();
    let handler = move |id: String, payload: Bytes| {
        let api = Arc::clone(&api);
        async move { answer(api, &id, &payload).await }
    };
    streams.serve_api(announced.collect(), handler, stop).await
}

async fn answer(api: Arc<Api>, id: &str, payload: &Bytes) -> ApiAnswer {
    let clock = api.clock().clone();
    let running = std::panic::AssertUnwindSafe(run(api, id, payload)).catch_unwind();
    let answered = tokio::select! {
        answered = running => answered.unwrap_or_else(|_| {
            tracing::error!(verb = id, "`{id}` panicked");
            Err(Problem::new(&kinds::INTERNAL, "the console's log says more"))
        }),
        () = clock.sleep(CONSOLE_REQUEST_WAIT + CONSOLE_RUN_WAIT_MAX) => {
            Err(Problem::new(&kinds::TIMED_OUT, "no answer in the time a request may take"))
        }
    };
    match answered {
        Ok(Answer { status, body, revision, .. }) => {
            let body = body.map(|body| serde_json::to_vec(&body).unwrap_or_default()).unwrap_or_default();
            ApiAnswer { status, body: body.into(), error: None, revision }
        }
        Err(problem) => ApiAnswer {
            status: problem.kind.status,
            body: problem.json().into(),
            error: Some(format!("{}: {}", problem.kind.title, problem.detail)),
            revision: None,
        },
    }
}

async fn run(api: Arc<Api>, id: &str, payload: &Bytes) -> Result<Answer, Problem> {
    let not_found = || Problem::new(&kinds::NOT_FOUND, format!("there is no verb {id}"));
    let verb = table::find(id).ok_or_else(not_found)?;
    let Run::Once(run) = verb.run else { return Err(not_found()) };
    // Who asks over NATS has reached it, and so have we.
    run(api, call_of(verb, payload)?).await
}

fn call_of(verb: &Verb, payload: &Bytes) -> Result<Call, Problem> {
    let mut given: Map<String, Value> = if payload.is_empty() { Map::new() } else { read_json(payload)? };
    let body = body_of(verb, given.remove("body"))?;
    let mut arguments = Vec::new();
    for (name, value) in given {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => {
                    let words =
                        format!("{name} is neither a text, a number, true nor false, nor a list of those");
                    return Err(Problem::new(&kinds::BAD_PARAMETER, words).at(name));
                }
            };
            arguments.push((name.clone(), text));
        }
    }
    Call::read_by_key(verb, arguments, body, "nats".to_owned())
}

fn body_of(verb: &Verb, body: Option<Value>) -> Result<Body, Problem> {
    let refuse = |words: &str| Err(Problem::new(&kinds::BAD_BODY, words).at("body"));
    match (verb.body, body) {
        (None, None) => Ok(Body::default()),
        (None, Some(_)) => refuse("this verb takes no body; leave `body` out"),
        (Some(expected), None) if expected.is_optional => Ok(Body::default()),
        (Some(_), None) => refuse("`body` is missing; `/openapi.json` has what it is to be"),
        (Some(expected), Some(body)) => {
            // Definitions may be YAML, as a text.
            let (bytes, is_yaml) = match body {
                Value::String(text) if expected.is_yaml_read => (text.into_bytes(), true),
                body => (serde_json::to_vec(&body).unwrap_or_default(), false),
            };
            if bytes.len() > expected.bytes_max {
                let words = format!(
                    "the body has {} bytes; at most {} are read here",
                    bytes.len(),
                    expected.bytes_max
                );
                return Err(Problem::new(&kinds::TOO_LARGE, words).at("body"));
            }
            Ok(Body { bytes: bytes.into(), is_yaml })
        }
    }
}
