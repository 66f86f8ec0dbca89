//! A whole file of definitions at once, and the calendars.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    calendar::Calendar, definitions::Definitions, limits::DEFINITIONS_BYTES_MAX, names::CalendarName,
};
use streams::operate::{
    apply::{Done, write_all},
    fleet::{Change, Fleet, summary},
    members::{Named, fields},
    unknown,
};

use super::{
    call::Call,
    kinds,
    parameter::{BY, DRY_RUN, Kind, path, query},
    problem::Problem,
    schedules::{not_followed, preview::warnings},
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, any_object, schema_of},
};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "definitions.apply",
        method: Method::Post,
        path: "/api/v1/apply",
        summary: "Makes the fleet be as a file says",
        about: "Targets, queues, calendars and schedules. A file is applied as a whole or not at all if something in it cannot be understood. \
                Applying it again changes nothing.",
        parameters: &[
            DRY_RUN,
            query(
                "prune",
                Kind::Boolean,
                "`true`: delete schedules that are in the fleet and not in the file. All else stays.",
            ),
            BY,
        ],
        body: Some(BodyOf {
            schema: schema_of::<Definitions>,
            bytes_max: DEFINITIONS_BYTES_MAX,
            is_yaml_read: true,
            is_optional: false,
        }),
        answers: &[AnswerOf {
            status: 200,
            means: "What was done, or (dry run) would be",
            schema: Some(schema_of::<Applied>),
        }],
        run: Run::Once(|api, call| Box::pin(apply(api, call))),
    },
    Verb {
        id: "calendars.list",
        method: Method::Get,
        path: "/api/v1/calendars",
        summary: "Lists the calendars",
        about: "Each with its days.",
        parameters: &[],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The calendars", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(calendars(api, call))),
    },
    Verb {
        id: "calendars.get",
        method: Method::Get,
        path: "/api/v1/calendars/{name}",
        summary: "Shows a calendar",
        about: "With its days.",
        parameters: &[path("name", Kind::Name, "The calendar.")],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The calendar", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(calendar(api, call))),
    },
];

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
struct Applied {
    /// In a few words: `2 created, 7 unchanged`.
    summary: String,
    /// Each definition of the file, in the order in which it was written.
    items: Vec<Change>,
    /// What is worth a second look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

async fn apply(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let text = call.body_text()?;
    let files = Definitions::parse(text).map_err(|error| not_followed(&error, text))?;
    let fleet = Fleet::read(&api.streams).await?;
    let is_pruned = call.is("prune");
    let mut stays = fleet.definitions.clone();
    if is_pruned {
        // What will be gone cannot be followed.
        stays.schedules.clear();
    }
    files.check_references(&stays).map_err(|error| not_followed(&error, text))?;
    if is_pruned && files.schedules.is_empty() && fleet.schedule_names().next().is_some() {
        let count = fleet.schedule_names().count();
        let words = format!(
            "the file holds no schedule, so prune would delete all {count}; delete them one by one if that is meant"
        );
        return Err(Problem::new(&kinds::BAD_DEFINITION, words).at("schedules"));
    }
    let planned = fleet.changes(&files, is_pruned);
    let Done { changes: items, failed } = if call.is("dry_run") {
        Done { changes: planned, failed: None }
    } else {
        write_all(&api.streams, &files, planned).await
    };
    if let Some((change, error)) = failed {
        let mut problem = Problem::from(error);
        problem.detail = format!(
            "{} could not be applied, nor was what follows it, after {}; apply the file again: {}",
            change.path(),
            summary(&items),
            problem.detail
        );
        return Err(problem);
    }
    let now = api.clock().now();
    let over = |(name, schedule): (_, &shared::schedule::Schedule)| {
        warnings(name, schedule, schedule.next_after(now).is_none())
    };
    let warnings = files.schedules.iter().flat_map(over).collect();
    Ok(Answer::ok(Applied { summary: summary(&items), items, warnings }))
}

async fn calendars(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    let all = api.streams.catalog().all().await?.calendars;
    let items: Vec<Named<CalendarName>> = all.iter().map(named).collect();
    Ok(Answer::ok(serde_json::json!({ "items": items })))
}

async fn calendar(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: CalendarName = call.path("name")?;
    let all = api.streams.catalog().all().await?.calendars;
    if let Some(found) = all.get_key_value(&name) {
        return Ok(Answer::ok(named(found)));
    }
    let words = unknown("calendar", name.as_str(), all.keys().map(CalendarName::as_str));
    Err(Problem::new(&kinds::UNKNOWN, words).at("name"))
}

fn named((name, calendar): (&CalendarName, &Calendar)) -> Named<CalendarName> {
    Named { name: name.clone(), fields: fields(calendar) }
}
