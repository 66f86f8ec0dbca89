//! Lists of schedules, one of them, its next slots.

use std::{future::ready, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;
use shared::{Timestamp, definition::Definition, names::Name, pause::PauseInForce, schedule::Schedule};
use streams::{
    operate::schedules::{ScheduleItem, mark_cycles},
    schedules::Version,
};

use super::{
    NAME, no_schedule,
    preview::{ComingSlot, slots},
};
use crate::{
    api::{
        call::Call,
        kinds,
        parameter::{CURSOR, Kind, LIMIT, TEXT, query},
        problem::Problem,
        state::Api,
        verb::{Answer, AnswerOf, Method, Run, Verb, schema_of},
    },
    schedule_book::{Entry, Wanted},
};

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `cursor` of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "schedules.list",
        method: Method::Get,
        path: "/api/v1/schedules",
        summary: "Lists schedules by name",
        about: "Each with its definition, its revision, its next slot and its pause.",
        parameters: &[
            query("search", TEXT, "Those whose name has this text in it, in whatever case."),
            query("prefix", Kind::Name, "Those whose name begins so."),
            query("paused", Kind::Boolean, "Those that are paused, or are not."),
            query("invalid", Kind::Boolean, "Those whose definition cannot be understood, or can."),
            LIMIT,
            CURSOR,
        ],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "A page of schedules",
            schema: Some(schema_of::<Page<ScheduleItem>>),
        }],
        run: Run::Once(|api, call| Box::pin(ready(list(&api, &call)))),
    },
    Verb {
        id: "schedules.get",
        method: Method::Get,
        path: "/api/v1/schedules/{name}",
        summary: "Shows a schedule",
        about: "`ETag` is its revision: `If-Match` of a later PUT or DELETE.",
        parameters: &[NAME, LANG],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The schedule", schema: Some(schema_of::<Described>) }],
        run: Run::Once(|api, call| Box::pin(get(api, call))),
    },
    Verb {
        id: "schedules.next",
        method: Method::Get,
        path: "/api/v1/schedules/{name}/next",
        summary: "Shows the next slots of a schedule",
        about: "Also those its calendar leaves out, which are marked.",
        parameters: &[
            NAME,
            query("from", Kind::Instant, "Slots after this instant. Default: now."),
            query("until", Kind::Instant, "Slots up to this instant."),
            query("count", Kind::Number { min: 1, max: 1_000 }, "So many, 1 to 1000. Default 10."),
            LANG,
        ],
        body: None,
        answers: &[AnswerOf { status: 200, means: "Its slots", schema: Some(schema_of::<Next>) }],
        run: Run::Once(|api, call| Box::pin(next(api, call))),
    },
];

/// The language of words.
pub const LANG: crate::api::parameter::Parameter =
    query("lang", Kind::Language, "The language of words: en or zh. Default en.");

/// A schedule with what it means.
#[derive(Debug, Serialize, JsonSchema)]
struct Described {
    #[serde(flatten)]
    item: ScheduleItem,
    /// When it is due, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<String>,
}

/// The slots of a schedule.
#[derive(Debug, Serialize, JsonSchema)]
struct Next {
    /// The schedule.
    name: Name,
    /// When it is due, in words.
    words: String,
    /// The zone its cron lines are read in.
    timezone: String,
    /// Its slots.
    slots: Vec<ComingSlot>,
}

fn list(api: &Api, call: &Call) -> Result<Answer, Problem> {
    if let Some(words) = api.book.waits_for() {
        return Err(Problem::new(&kinds::NOT_READY, words));
    }
    let is = |name: &str| call.text(name).map(|text| text == "true");
    let wanted = Wanted {
        search: call.text("search").map(str::to_owned),
        prefix: call.text("prefix").map(str::to_owned),
        paused: is("paused"),
        invalid: is("invalid"),
        after: call.parsed("cursor")?,
    };
    let now = api.clock().now();
    let found = api.book.page(&wanted, call.limit(), now);
    let mut items: Vec<ScheduleItem> =
        found.items.into_iter().filter_map(|(name, entry, paused)| item(name, entry, paused, now)).collect();
    mark_cycles(&mut items);
    let next = items.last().filter(|_| found.has_more).map(|item| item.name.to_string());
    Ok(Answer::ok(Page { items, next }))
}

fn item(name: Name, entry: Entry, paused: Option<PauseInForce>, now: Timestamp) -> Option<ScheduleItem> {
    let read = |definition: Definition| definition.schedule().map_err(|error| error.to_string());
    let definition = entry.definition.and_then(read).map(Some);
    let version = Version { name, definition, revision: entry.revision, since: entry.since };
    Some(ScheduleItem { paused, ..ScheduleItem::of(version, now)? })
}

async fn get(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let now = api.clock().now();
    let schedules = api.streams.schedules();
    let (definition, revision, since) = match schedules.get(&name).await {
        Ok(None) => return Err(no_schedule(&api, &name)),
        Ok(Some(stored)) => (Ok(Some(stored.value)), stored.revision, stored.stored_at),
        Err(streams::ReadError::Corrupt { revision, detail, .. }) => (Err(detail), revision, now),
        Err(error) => return Err(error.into()),
    };
    let words = definition.as_ref().ok().and_then(Option::as_ref);
    let words = words.map(|schedule: &Schedule| schedule.in_words(call.language()));
    let version = Version { name: name.clone(), definition, revision, since };
    let Some(item) = ScheduleItem::of(version, now) else { return Err(no_schedule(&api, &name)) };
    let paused = schedules.pause(&name).await?.standing(now);
    Ok(Answer::ok(Described { item: ScheduleItem { paused, ..item }, words }).at_revision(revision))
}

async fn next(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let Some(stored) = api.streams.schedules().get(&name).await? else {
        return Err(no_schedule(&api, &name));
    };
    let from = call.instant("from").unwrap_or_else(|| api.clock().now());
    let until = call.instant("until");
    if until.is_some_and(|until| until <= from) {
        return Err(Problem::new(
            &kinds::BAD_PARAMETER,
            "`until` is not after `from`: no slot is between them",
        )
        .at("until"));
    }
    let count = call.parsed("count")?.unwrap_or(10);
    let slots = slots(&api, &stored.value, from, until, count).await?;
    let (words, timezone) = (stored.value.in_words(call.language()), stored.value.timezone.name().to_owned());
    Ok(Answer::ok(Next { name, words, timezone, slots }))
}
