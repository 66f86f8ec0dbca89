//! Creating, replacing and deleting schedules, and what that would do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use schemars::JsonSchema;
use serde::Serialize;
use shared::{limits::DEFINITIONS_BYTES_MAX, names::Name, schedule::Schedule};
use streams::{
    WriteError,
    operate::{fleet::Outcome, patiently},
    schedules::{Applied, Expected},
};

use super::{
    NAME, definition_of, no_schedule,
    preview::{Preview, preview, warnings},
    reading::LANG,
};
use crate::api::{
    call::Call,
    kinds,
    parameter::{BY, DRY_RUN, IF_MATCH, IF_NONE_MATCH},
    problem::Problem,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
};

/// One definition, as it stands in a file below its name.
pub const DEFINITION: BodyOf = BodyOf {
    schema: schema_of::<Schedule>,
    bytes_max: DEFINITIONS_BYTES_MAX,
    is_yaml_read: true,
    is_optional: false,
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "schedules.put",
        method: Method::Put,
        path: "/api/v1/schedules/{name}",
        summary: "Creates or replaces a schedule",
        about: "The body is a definition as it stands in a file below its name, as JSON or YAML. It takes effect at once; runs that are queued \
                or running keep the task they were made with. A pause stays.",
        parameters: &[NAME, DRY_RUN, LANG, IF_MATCH, IF_NONE_MATCH, BY],
        body: Some(DEFINITION),
        answers: &[
            AnswerOf {
                status: 200,
                means: "It is replaced, is just so already, or (dry run) what would be done",
                schema: Some(schema_of::<Preview>),
            },
            AnswerOf { status: 201, means: "It is created", schema: Some(schema_of::<Preview>) },
        ],
        run: Run::Once(|api, call| Box::pin(put(api, call))),
    },
    Verb {
        id: "schedules.preview",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/preview",
        summary: "Says what a definition means, before it is written",
        about: "In words, with its next slots, and how it differs from what is in force. Nothing is changed.",
        parameters: &[NAME, LANG],
        body: Some(DEFINITION),
        answers: &[AnswerOf { status: 200, means: "What it means", schema: Some(schema_of::<Preview>) }],
        run: Run::Once(|api, call| Box::pin(look(api, call))),
    },
    Verb {
        id: "schedules.delete",
        method: Method::Delete,
        path: "/api/v1/schedules/{name}",
        summary: "Deletes a schedule",
        about: "A run that is queued or running still comes to its end. The records of its runs and the history of its definition stay.",
        parameters: &[NAME, DRY_RUN, IF_MATCH, BY],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "It is deleted, or (dry run) would be",
            schema: Some(schema_of::<Deleted>),
        }],
        run: Run::Once(|api, call| Box::pin(delete(api, call))),
    },
];

/// What was deleted.
#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    /// The schedule.
    name: Name,
    /// `deleted`, also if it only would be.
    change: Outcome,
}

async fn look(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let schedule = definition_of(&api, &call, &name).await?;
    Ok(Answer::ok(preview(&api, &name, &schedule, call.language()).await?))
}

async fn put(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let expected = call.expected()?;
    let schedule = definition_of(&api, &call, &name).await?;
    write(&api, &call, &name, &schedule, expected).await
}

/// Writes a definition over what is expected to be there, or says what that would do.
pub async fn write(
    api: &Api,
    call: &Call,
    name: &Name,
    schedule: &Schedule,
    expected: Expected,
) -> Result<Answer, Problem> {
    let mut shown = preview(api, name, schedule, call.language()).await?;
    if call.is("dry_run") {
        return Ok(Answer::ok(shown));
    }
    let (applied, revision) =
        put_patiently(api, name, schedule, expected).await.map_err(|error| lost(error, expected, name))?;
    // Who came in between may have made of a creation a change: what was done counts.
    shown.change = applied.into();
    shown.warnings = warnings(name, schedule, shown.next.is_empty());
    tracing::info!(schedule = %name, by = call.by, revision, "{} wrote schedule `{name}` ({})", call.by, shown.change.as_str());
    let status = if applied == Applied::Created { 201 } else { 200 };
    Ok(Answer::with(status, shown).at_revision(revision).located(format!("/api/v1/schedules/{name}")))
}

/// Repeats a write whose answer was lost; what is found just so then is ours.
async fn put_patiently(
    api: &Api,
    name: &Name,
    schedule: &Schedule,
    expected: Expected,
) -> Result<(Applied, u64), WriteError> {
    let schedules = api.streams.schedules();
    let answer_was_lost = AtomicBool::new(false);
    let written = patiently(api.clock().as_ref(), || async {
        let put = schedules.put(name, schedule, expected).await;
        answer_was_lost.fetch_or(matches!(put, Err(WriteError::Unknown { .. })), Ordering::Relaxed);
        put
    })
    .await;
    match written {
        Err(WriteError::Conflict { what }) if answer_was_lost.load(Ordering::Relaxed) => {
            match schedules.get(name).await {
                Ok(Some(stored)) if stored.value == *schedule => Ok((Applied::Changed, stored.revision)),
                _ => Err(WriteError::Conflict { what }),
            }
        }
        written => written,
    }
}

fn lost(error: WriteError, expected: Expected, name: &Name) -> Problem {
    let words = match (&error, expected) {
        (WriteError::Conflict { .. }, Expected::Revision(revision)) => {
            format!(
                "schedule {name} is not at revision {revision} any more; read it again, and write over what is there now"
            )
        }
        (WriteError::Conflict { .. }, Expected::Nothing) => {
            format!("schedule {name} exists already; leave If-None-Match out to replace it")
        }
        (WriteError::Conflict { .. }, Expected::Something) => {
            format!("there is no schedule {name} to replace; leave If-Match out to create it")
        }
        _ => return error.into(),
    };
    Problem::new(&kinds::LOST_UPDATE, words)
}

async fn delete(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let expected = call.expected()?;
    if call.is("dry_run") {
        super::check_known(&api, &name).await?;
    } else {
        let schedules = api.streams.schedules();
        let deleted = patiently(api.clock().as_ref(), || schedules.delete_if(&name, expected)).await;
        if !deleted.map_err(|error| lost(error, expected, &name))? {
            return Err(no_schedule(&api, &name));
        }
        tracing::info!(schedule = %name, by = call.by, "{} deleted schedule `{name}`", call.by);
    }
    Ok(Answer::ok(Deleted { name, change: Outcome::Deleted }))
}
