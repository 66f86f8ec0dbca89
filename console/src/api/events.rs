//! Every change of a run as it comes: server-sent events from the read model's feed, filtered at the console, resumable.

use std::future::ready;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    call::Call,
    kinds,
    parameter::{Kind, Parameter, TEXT, header, query},
    problem::Problem,
    runs::reading::{FILTERS, query_of},
    state::Api,
    verb::{AnswerOf, Event, Events, Method, Run, Verb, any_object},
};
use crate::read_model::{FeedEvent, Subscription};

const LAST_EVENT_ID: Parameter = header(
    "Last-Event-ID",
    TEXT,
    "The `id` of the last event that was seen: those after it come. Browsers send it.",
);
/// For those who cannot send a header.
const AFTER: Parameter =
    query("after", Kind::Number { min: 0, max: u64::MAX }, "The same, for who cannot send that header.");

const TAKES: [Parameter; 18] = {
    let mut all = [AFTER; 18];
    let mut at = 0;
    while at < FILTERS.len() {
        all[at] = FILTERS[at];
        at += 1;
    }
    all[16] = LAST_EVENT_ID;
    all
};

/// The verbs.
pub const VERBS: &[Verb] = &[Verb {
    id: "results.stream",
    method: Method::Get,
    path: "/api/v1/results/stream",
    summary: "Follows the changes of runs",
    about: "Server-sent events: `run` for each change, with the run as lists have it; `removed` when the ledger has forgotten one; `missed` when \
            changes were left out because the reader was too slow, and `anew` when the read model is built anew: ask for the list again then. The \
            filters are those of the list of runs.",
    parameters: &TAKES,
    body: None,
    answers: &[AnswerOf { status: 200, means: "The changes, as they come", schema: Some(any_object) }],
    run: Run::Stream(|api, call| Box::pin(ready(follow(&api, &call)))),
}];

fn follow(api: &Api, call: &Call) -> Result<Events, Problem> {
    let query = query_of(call, FILTERS.iter().map(|parameter| parameter.name))?;
    let after = match call.text("Last-Event-ID").or_else(|| call.text("after")) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            let words = format!("{text:?} is no id of an event; send the last that was seen, or none");
            Problem::new(&kinds::BAD_PARAMETER, words).at("Last-Event-ID")
        })?),
    };
    let feed = api.model.subscribe(after, query.filter);
    Ok(futures::stream::unfold(Some(feed), |feed| async move {
        let mut feed: Subscription = feed?;
        Some(match feed.next().await {
            Ok(event) => (written(event), Some(feed)),
            Err(error) => {
                let problem = Problem::from(error).json();
                let data = String::from_utf8_lossy(&problem).into_owned();
                (Event { id: None, kind: "problem", data }, None)
            }
        })
    })
    .boxed())
}

fn written(event: FeedEvent) -> Event {
    let (id, kind, data): (Option<u64>, _, Value) = match event {
        FeedEvent::Changed(listed) => {
            (Some(listed.revision), "run", serde_json::to_value(&listed).unwrap_or_default())
        }
        FeedEvent::Removed { id, revision } => (Some(revision), "removed", json!({ "id": id })),
        FeedEvent::Lagged { missed } => (None, "missed", json!({ "missed": missed })),
        FeedEvent::Anew => (None, "anew", json!({})),
    };
    Event { id: id.map(|id| id.to_string()), kind, data: data.to_string() }
}
