//! Submitting an ad-hoc task; cancelling and retrying a run.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use shared::{
    Timestamp,
    human_duration::HumanDuration,
    limits::TASK_BYTES_MAX,
    names::{Name, QueueName, RunKey},
    queue::Recording,
    run::RunId,
    run_record::{Reason, RunRecord},
    task::Task,
    trace::TraceContext,
};
use streams::{
    cancel::{CancelError, CancelRequest, Cancelling},
    dead::{RetryError, Retrying},
    operate::{
        refusals::refusal,
        submit::{Sent, Submission, check_run, not_before, parse_key},
        unknown,
    },
};

use super::{RUN, no_run};
use crate::api::{
    call::Call,
    kinds,
    parameter::{BY, IDEMPOTENCY_KEY, PREFER},
    problem::Problem,
    promised::promised,
    schedules::steering::odd_promise,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
    waiting,
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "runs.submit",
        method: Method::Post,
        path: "/api/v1/runs",
        summary: "Submits an ad-hoc task",
        about: "What any NATS client does with one publish, with checks before it. The run's id is `name.key`; the key makes it idempotent for as \
                long as the ledger remembers it. With `at` or `in` it waits for its instant.",
        parameters: &[IDEMPOTENCY_KEY, PREFER, BY],
        body: Some(BodyOf {
            schema: schema_of::<SubmitBody>,
            bytes_max: TASK_BYTES_MAX + 4_096,
            is_yaml_read: false,
            is_optional: false,
        }),
        answers: &waiting::ANSWERS,
        run: Run::Once(|api, call| Box::pin(submit(api, call))),
    },
    Verb {
        id: "runs.cancel",
        method: Method::Post,
        path: "/api/v1/runs/{run}/cancel",
        summary: "Cancels a run",
        about: "One that waits is taken out of its queue, and answered 200. One that runs is stopped by its worker, and answered 202: ask again, or \
                look at it, until it has ended.",
        parameters: &[RUN, BY],
        body: None,
        answers: &[
            AnswerOf {
                status: 200,
                means: "It is cancelled; its record",
                schema: Some(schema_of::<RunRecord>),
            },
            AnswerOf {
                status: 202,
                means: "Its worker was asked to stop it; its record",
                schema: Some(schema_of::<RunRecord>),
            },
        ],
        run: Run::Once(|api, call| Box::pin(cancel(api, call))),
    },
    Verb {
        id: "runs.retry",
        method: Method::Post,
        path: "/api/v1/runs/{run}/retry",
        summary: "Runs a run that failed again, under its own id",
        about: "Its task is the one in its dead letter, and its attempts are granted anew. What ended otherwise, or has not ended, is refused.",
        parameters: &[RUN, PREFER, BY],
        body: None,
        answers: &waiting::ANSWERS,
        run: Run::Once(|api, call| Box::pin(retry(api, call))),
    },
];

/// An ad-hoc task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SubmitBody {
    /// The name the run goes by: the first half of its id.
    name: Name,
    /// The second half, which makes it idempotent. Default: one that was never used.
    #[serde(default)]
    key: Option<String>,
    /// The queue it travels on. Default `default`.
    #[serde(default = "QueueName::default_queue")]
    queue: QueueName,
    /// Not before this instant.
    #[serde(default)]
    at: Option<Timestamp>,
    /// Not before this long from now.
    #[serde(default, rename = "in")]
    after: Option<HumanDuration>,
    /// What to do.
    #[schemars(with = "Task")]
    task: Value,
}

async fn submit(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let SubmitBody { name, key, queue, at, after, task } = call.json()?;
    let bytes = serde_json::to_vec(&task).unwrap_or_default();
    let task = Task::from_json(&bytes)
        .map_err(|error| Problem::new(&kinds::BAD_TASK, error.to_string()).at("task"))?;
    if at.is_some() && after.is_some() {
        return Err(
            Problem::new(&kinds::BAD_BODY, "`at` and `in` contradict each other; write one of them").at("in")
        );
    }
    let now = api.clock().now();
    let key: Option<RunKey> = match key {
        Some(text) => {
            Some(parse_key(&text).map_err(|words| Problem::new(&kinds::BAD_BODY, words).at("key"))?)
        }
        None => None,
    };
    check(&api, &queue, &task, call.wait()?.is_some() && at.is_none() && after.is_none()).await?;
    let has_key = key.is_some();
    let new = RunId { name: name.clone(), key: key.unwrap_or_else(RunKey::unique) };
    check_run(&new).map_err(|words| Problem::new(&kinds::BAD_BODY, words).at("key"))?;
    let promised = promised(&api, &call, "runs.submit", new.to_string()).await?;
    let run: RunId = promised.id.parse().map_err(|_| odd_promise(&promised.id))?;
    // Of a request that is repeated the instant may be over by now: it was not when it was made.
    let not_before = if promised.is_older() {
        at
    } else {
        let read = not_before(at, after, now);
        read.map_err(|words| Problem::new(&kinds::BAD_BODY, words.replace("--", "")).at("at"))?
    };
    let streams = &api.streams;
    waiting::asked(&api, &mut call, &run, async {
        let is_known = promised.is_kept() || streams.ledger().get(&run).await?.is_some();
        if is_known && !promised.is_older() && has_key {
            let words = format!("{run} was submitted before; take another key, or look at that run");
            return Err(Problem::new(&kinds::CONFLICT, words).at("key"));
        }
        if !is_known {
            let submission = Submission { queue: &queue, run: &run, not_before, task: &bytes };
            let sent = submission.send(streams, &TraceContext::root().to_string()).await?;
            if sent == Sent::There && !promised.is_older() {
                let words = format!(
                    "{run} waits, is queued or runs already; nothing was submitted: take another key"
                );
                return Err(Problem::new(&kinds::CONFLICT, words).at("key"));
            }
        }
        promised.keep(&api).await;
        Ok(())
    })
    .await
}

/// What can be known before it is submitted: its queue, and how it goes with its target. A target nobody declared is no error: it may be
/// declared in a moment.
async fn check(api: &Api, queue: &QueueName, task: &Task, is_waited_for: bool) -> Result<(), Problem> {
    let catalog = api.streams.catalog().all().await?;
    let bad = |words: String, field: &str| Problem::new(&kinds::BAD_TASK, words).at(field);
    let Some(settings) = catalog.queues.get(queue) else {
        let words = unknown("queue", queue.as_str(), catalog.queues.keys().map(QueueName::as_str));
        return Err(bad(words, "queue"));
    };
    if let Some(target) = task.target().and_then(|name| catalog.targets.get(name)) {
        task.check_target(target).map_err(|error| bad(error.to_string(), "task"))?;
    }
    if is_waited_for && settings.record == Recording::Failures {
        let words = format!(
            "queue {queue} has `record: failures`: a run that goes well leaves no record to wait for; leave out Prefer, or take another queue"
        );
        return Err(bad(words, "queue"));
    }
    Ok(())
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Read(error) => error.into(),
            CancelError::Write(error) => error.into(),
            CancelError::Restless(_) => Self::new(&kinds::CHANGED_MEANWHILE, error.to_string()),
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        let words = error.to_string();
        match error {
            RetryError::Read(error) => error.into(),
            RetryError::Write(error) => error.into(),
            _ => Self::new(&kinds::CHANGED_MEANWHILE, words),
        }
    }
}

async fn cancel(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    let at = api.clock().now();
    let request = CancelRequest { run: run.clone(), reason: Reason::ByOperator, by: call.by.clone(), at };
    Ok(match api.streams.cancel(&request).await? {
        Cancelling::Cancelled(record) => Answer::ok(record),
        Cancelling::Asked(record) => Answer::with(202, record).located(waiting::place_of(&run)),
        Cancelling::Ended(record) => {
            let words = format!("{run} is {} already; there is nothing to cancel", record.status);
            return Err(Problem::new(&kinds::CONFLICT, words));
        }
        Cancelling::Unknown => return Err(no_run(&run)),
    })
}

/// Retries a run.
pub async fn retry(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let run: RunId = call.path("run")?;
    let by = call.by.clone();
    let streams = &api.streams;
    waiting::asked(&api, &mut call, &run, async {
        match Box::pin(streams.retry(&run, &by)).await? {
            Retrying::Queued(_) => Ok(()),
            // Of two who ask at once, or of one who asks twice, the second finds it done.
            Retrying::Lives(record) if record.retried.is_some() => Ok(()),
            Retrying::Unknown => Err(no_run(&run)),
            refused => Err(Problem::new(&kinds::CONFLICT, refusal(&run, &refused))),
        }
    })
    .await
}
