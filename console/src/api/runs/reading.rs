//! Lists of runs, one of them, its life, its log.

use std::sync::Arc;

use futures::StreamExt;
use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    Timestamp,
    past_attempts::{PastAttempt, attempts_of},
    run::RunId,
    run_log::LogLine,
    run_record::RunRecord,
};
use streams::{ReadError, log::LogReader, operate::progress::with_progress};

use super::{RUN, no_run};
use crate::{
    api::{
        call::Call,
        kinds,
        parameter::{CURSOR, Kind, LIMIT, Parameter, TEXT, queries, query},
        problem::Problem,
        schedules::reading::Page,
        state::Api,
        verb::{Answer, AnswerOf, Event, Events, Method, Run, Verb, schema_of},
    },
    read_model::RunQuery,
};

/// The filters of lists of runs; names and values are those of the read model.
pub const FILTERS: [Parameter; 16] = [
    query("schedule", Kind::Name, "Runs of this schedule."),
    query("name", Kind::Name, "Runs under this name, of a schedule or ad hoc."),
    query("queue", Kind::Name, "In this queue."),
    queries("status", Kind::State, "In this state. May be given several times."),
    queries(
        "reason",
        Kind::Text(64),
        "For this reason, such as `skipped_overlap`. May be given several times.",
    ),
    query("worker", Kind::Member, "Whose latest attempt this worker made."),
    query("target", Kind::Name, "Acting on this target."),
    query("action", Kind::Name, "Asking for this action, or running this command."),
    query("created_from", Kind::Instant, "Created at this instant or later."),
    query("created_to", Kind::Instant, "Created before this instant."),
    query("slot_from", Kind::Instant, "Whose slot is at this instant or later."),
    query("slot_to", Kind::Instant, "Whose slot is before this instant."),
    query("error", TEXT, "Whose latest error has this text in it, in whatever case."),
    query("late", Kind::Boolean, "Dispatched late, or not."),
    query(
        "attempts_min",
        Kind::Number { min: 1, max: 1_000 },
        "In, or ended with, this attempt or a later one.",
    ),
    query(
        "id_prefix",
        Kind::Text(160),
        "Whose id begins so: a name, or a name, a dot and the beginning of a key.",
    ),
];

/// All that a list of runs takes.
const LIST: [Parameter; 19] = {
    let mut all = [LIMIT; 19];
    let mut at = 0;
    while at < FILTERS.len() {
        all[at] = FILTERS[at];
        at += 1;
    }
    all[16] = query(
        "order",
        Kind::Text(16),
        "`newest` (default), `oldest`, or `failures`: those that failed first.",
    );
    all[17] = LIMIT;
    all[18] = CURSOR;
    all
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "runs.list",
        method: Method::Get,
        path: "/api/v1/runs",
        summary: "Lists runs",
        about: "By filters that all hold, from the console's read model, which is behind the ledger by milliseconds as a rule. Outputs are left out; \
                a run by itself has its own.",
        parameters: &LIST,
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "A page of runs",
            schema: Some(schema_of::<Page<RunRecord>>),
        }],
        run: Run::Once(|api, call| Box::pin(list(api, call))),
    },
    Verb {
        id: "runs.get",
        method: Method::Get,
        path: "/api/v1/runs/{run}",
        summary: "Shows a run",
        about: "Its record from the ledger, with how far it is if it says so. `ETag` is the record's revision.",
        parameters: &[RUN],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "The run",
            schema: Some(schema_of::<streams::operate::progress::RunItem>),
        }],
        run: Run::Once(|api, call| Box::pin(get(api, call))),
    },
    Verb {
        id: "runs.timeline",
        method: Method::Get,
        path: "/api/v1/runs/{run}/timeline",
        summary: "Shows the life of a run",
        about: "Its states as they were recorded, the earliest first, as far as the ledger keeps them, and its attempts.",
        parameters: &[RUN],
        body: None,
        answers: &[AnswerOf { status: 200, means: "Its life", schema: Some(schema_of::<Timeline>) }],
        run: Run::Once(|api, call| Box::pin(timeline(api, call))),
    },
    Verb {
        id: "runs.logs",
        method: Method::Get,
        path: "/api/v1/runs/{run}/logs",
        summary: "Shows what a run said",
        about: "What commands and handlers wrote, kept for seven days.",
        parameters: &[RUN, ATTEMPT],
        body: None,
        answers: &[AnswerOf { status: 200, means: "Its log", schema: Some(schema_of::<Page<Said>>) }],
        run: Run::Once(|api, call| Box::pin(logs(api, call))),
    },
    Verb {
        id: "runs.follow_logs",
        method: Method::Get,
        path: "/api/v1/runs/{run}/logs/stream",
        summary: "Follows what a run says",
        about: "Server-sent events: `line` for each line from the beginning on, `end` when the run has ended and all was said.",
        parameters: &[RUN, ATTEMPT],
        body: None,
        answers: &[AnswerOf { status: 200, means: "Its log, as it grows", schema: Some(schema_of::<Said>) }],
        run: Run::Stream(|api, call| Box::pin(follow_logs(api, call))),
    },
];

const ATTEMPT: Parameter =
    query("attempt", Kind::Number { min: 1, max: 1_000 }, "Only what this attempt said.");

/// One version of a run's record.
#[derive(Debug, Serialize, JsonSchema)]
struct Step {
    /// When it was recorded.
    at: Timestamp,
    /// The revision of the record then.
    revision: u64,
    /// The record then.
    #[serde(flatten)]
    run: RunRecord,
}

/// The life of a run.
#[derive(Debug, Serialize, JsonSchema)]
struct Timeline {
    /// Its states, the earliest first.
    items: Vec<Step>,
    /// Its attempts, the earliest first.
    attempts: Vec<PastAttempt>,
}

/// A line of a run's log.
#[derive(Debug, Serialize, JsonSchema)]
struct Said {
    /// The attempt that said it.
    attempt: u32,
    /// The attempt's fencing number.
    fence: u64,
    #[serde(flatten)]
    line: LogLine,
}

/// The query of the read model that a call's parameters are.
pub fn query_of(call: &Call, names: impl IntoIterator<Item = &'static str>) -> Result<RunQuery, Problem> {
    let pairs =
        names.into_iter().flat_map(|name| call.texts(name).iter().map(move |value| (name, value.as_str())));
    RunQuery::from_pairs(pairs).map_err(|error| Problem::new(&kinds::BAD_PARAMETER, error.to_string()))
}

async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let query = query_of(&call, LIST.iter().map(|parameter| parameter.name))?;
    let page = api.model.runs(&query).await?;
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(Answer::ok(Page { items: page.items, next }))
}

async fn get(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    let Some(stored) = api.streams.ledger().get(&run).await? else { return Err(no_run(&run)) };
    let revision = stored.revision;
    let item = with_progress(&api.streams, vec![stored.value]).await?.into_iter().next();
    Ok(Answer::ok(item.ok_or_else(|| no_run(&run))?).at_revision(revision))
}

async fn timeline(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    let versions = api.streams.ledger().history(&run).await?;
    if versions.is_empty() {
        return Err(no_run(&run));
    }
    let attempts = attempts_of(versions.iter().map(|stored| (&stored.value, stored.stored_at)));
    let items = versions
        .into_iter()
        .map(|stored| Step { at: stored.stored_at, revision: stored.revision, run: stored.value })
        .collect();
    Ok(Answer::ok(Timeline { items, attempts }))
}

async fn check_run(api: &Api, run: &RunId) -> Result<RunRecord, Problem> {
    let stored = api.streams.ledger().get(run).await?;
    Ok(stored.ok_or_else(|| no_run(run))?.value)
}

async fn logs(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    let attempt = call.parsed("attempt")?;
    check_run(&api, &run).await?;
    let batches = match api.streams.log_of(&run).rest().await {
        // A fleet that has no logs yet has said nothing.
        Err(ReadError::Missing { .. }) => Vec::new(),
        batches => batches?,
    };
    let items = batches.into_iter().flat_map(|batch| said(batch, attempt)).collect();
    Ok(Answer::ok(Page { items, next: None }))
}

fn said(batch: shared::run_log::LogBatch, attempt: Option<u32>) -> Vec<Said> {
    if attempt.is_some_and(|attempt| attempt != batch.attempt) {
        return Vec::new();
    }
    let (attempt, fence) = (batch.attempt, batch.fence);
    batch.lines.into_iter().map(|line| Said { attempt, fence, line }).collect()
}

/// Between two looks at a log that is followed.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// So many looks apart the ledger is asked whether the run has ended.
const LOOKS_PER_ASK: u32 = 5;

async fn follow_logs(api: Arc<Api>, call: Call) -> Result<Events, Problem> {
    let run: RunId = call.path("run")?;
    let attempt = call.parsed("attempt")?;
    let has_ended = check_run(&api, &run).await?.status.is_final();
    let log = api.streams.log_of(&run);
    let following = Following { api, run, attempt, log, has_ended, is_over: false, looks: 0 };
    Ok(futures::stream::unfold(following, |mut following| async move {
        let events = following.next().await?;
        Some((futures::stream::iter(events), following))
    })
    .flatten()
    .boxed())
}

/// A log that is followed.
struct Following {
    api: Arc<Api>,
    run: RunId,
    attempt: Option<u32>,
    log: LogReader,
    has_ended: bool,
    is_over: bool,
    looks: u32,
}

impl Following {
    /// What came since the last look; none when it is over.
    async fn next(&mut self) -> Option<Vec<Event>> {
        if self.is_over {
            return None;
        }
        loop {
            let batch = match self.log.next().await {
                Ok(batch) => batch,
                Err(error) => {
                    self.is_over = true;
                    let problem = Problem::from(error).json();
                    let data = String::from_utf8_lossy(&problem).into_owned();
                    return Some(vec![Event { kind: "problem", data, id: None }]);
                }
            };
            if let Some(batch) = batch {
                let lines = said(batch, self.attempt).into_iter().map(|line| Event {
                    id: None,
                    kind: "line",
                    data: serde_json::to_string(&line).unwrap_or_default(),
                });
                return Some(lines.collect());
            }
            // What a run says is stored before its end is: whoever looks after that has seen all of it.
            if self.has_ended && self.log.is_current().await.unwrap_or(false) {
                self.is_over = true;
                return Some(vec![Event { kind: "end", data: "{}".to_owned(), id: None }]);
            }
            self.api.clock().sleep(LOOK).await;
            self.looks += 1;
            if self.looks.is_multiple_of(LOOKS_PER_ASK) && !self.has_ended {
                let record = self.api.streams.ledger().get(&self.run).await.ok().flatten();
                self.has_ended = record.is_some_and(|record| record.value.status.is_final());
            }
        }
    }
}
