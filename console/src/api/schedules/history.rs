//! The earlier versions of a schedule, and going back to one.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{Timestamp, names::Name, pause::Pause, schedule::Schedule, text_diff::unified};

use super::{
    NAME, check_references, no_schedule,
    preview::{Preview, as_yaml},
    reading::LANG,
    writing::write,
};
use crate::api::{
    call::Call,
    kinds,
    parameter::{BY, DRY_RUN, IF_MATCH},
    problem::Problem,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "schedules.history",
        method: Method::Get,
        path: "/api/v1/schedules/{name}/history",
        summary: "Lists the versions of a schedule",
        about: "The latest first, at most 64, with what each changed; and what was said of its pause.",
        parameters: &[NAME],
        body: None,
        answers: &[AnswerOf { status: 200, means: "Its versions", schema: Some(schema_of::<History>) }],
        run: Run::Once(|api, call| Box::pin(history(api, call))),
    },
    Verb {
        id: "schedules.rollback",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/rollback",
        summary: "Goes back to an earlier version of a schedule",
        about: "Writes the earlier definition anew, as a version of its own. Without `to` it is the latest one that differs. What was deleted comes \
                back.",
        parameters: &[NAME, DRY_RUN, LANG, IF_MATCH, BY],
        body: Some(BodyOf {
            schema: schema_of::<RollbackBody>,
            bytes_max: 1_024,
            is_yaml_read: false,
            is_optional: true,
        }),
        answers: &[
            AnswerOf {
                status: 200,
                means: "It is as it was, or (dry run) what would be done",
                schema: Some(schema_of::<Preview>),
            },
            AnswerOf {
                status: 201,
                means: "It was deleted, and is there again",
                schema: Some(schema_of::<Preview>),
            },
        ],
        run: Run::Once(|api, call| Box::pin(rollback(api, call))),
    },
];

/// The versions of a schedule.
#[derive(Debug, Serialize, JsonSchema)]
struct History {
    /// Its definitions, the latest first.
    items: Vec<VersionItem>,
    /// What was said of its pause, the latest first.
    pauses: Vec<PauseItem>,
}

/// A version.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionItem {
    /// Its revision.
    revision: u64,
    /// From when on it was in force.
    since: Timestamp,
    /// `created`, `changed`, `deleted` or `unreadable`.
    what: &'static str,
    /// What it says; absent if it is a deletion, or cannot be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Schedule>,
    /// Why it cannot be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<String>,
    /// The lines that differ from the version before, as `diff -u` shows them.
    diff: String,
}

/// What was said of a pause.
#[derive(Debug, Serialize, JsonSchema)]
struct PauseItem {
    /// Its revision.
    revision: u64,
    /// From when on it held.
    since: Timestamp,
    /// By whom, why and until when it was paused; absent if it was resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<Pause>,
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    /// The revision of an earlier version. Default: the latest that differs from what is in force.
    #[serde(default)]
    to: Option<u64>,
}

async fn history(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let versions = api.streams.schedules().history(&name).await?;
    if versions.is_empty() {
        return Err(no_schedule(&api, &name));
    }
    let (mut items, mut before) = (Vec::new(), String::new());
    for version in versions {
        let (text, what) = match &version.definition {
            Ok(Some(schedule)) if before.is_empty() => (as_yaml(schedule), "created"),
            Ok(Some(schedule)) => (as_yaml(schedule), "changed"),
            Ok(None) => (String::new(), "deleted"),
            Err(reason) => (format!("# cannot be understood: {reason}\n"), "unreadable"),
        };
        let (definition, invalid) = match version.definition {
            Ok(definition) => (definition, None),
            Err(reason) => (None, Some(reason)),
        };
        let diff = unified(&before, &text);
        items.push(VersionItem {
            revision: version.revision,
            since: version.since,
            what,
            definition,
            invalid,
            diff,
        });
        before = text;
    }
    items.reverse();
    let pauses = api.streams.schedules().pause_history(&name).await?.into_iter().rev();
    let pauses =
        pauses.map(|epoch| PauseItem { revision: epoch.revision, since: epoch.since, paused: epoch.pause });
    Ok(Answer::ok(History { items, pauses: pauses.collect() }))
}

async fn rollback(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let RollbackBody { to } = call.json()?;
    let versions = api.streams.schedules().history(&name).await?;
    let Some(latest) = versions.last() else { return Err(no_schedule(&api, &name)) };
    let in_force = latest.definition.as_ref().ok().and_then(Option::as_ref);
    let found = versions.iter().rev().find_map(|version| {
        let definition = version.definition.as_ref().ok()?.as_ref()?;
        let is_meant = to.map_or_else(|| Some(definition) != in_force, |to| version.revision == to);
        is_meant.then_some(definition)
    });
    let Some(schedule) = found else {
        let words = match to {
            Some(to) => format!(
                "schedule {name} has no version {to} that can be understood; its history lists those it has"
            ),
            None => format!("schedule {name} has no earlier version that differs"),
        };
        return Err(Problem::new(&kinds::CONFLICT, words).at("to"));
    };
    check_references(&api, &name, schedule).await?;
    write(&api, &call, &name, schedule, call.expected()?).await
}
