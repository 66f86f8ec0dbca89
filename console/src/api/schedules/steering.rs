//! Steering a schedule: a run now, a pause and its end, a range of slots afterwards.

use std::sync::Arc;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::{
    Timestamp,
    backfill::BackfillOverlap,
    human_duration::HumanDuration,
    limits::{PAUSE_REASON_CHARS_MAX, TASK_BYTES_MAX},
    names::{BackfillId, Name, RunKey},
    pause::{PauseInForce, PauseState},
    run::RunId,
};
use streams::{
    backfills::{BackfillProgress, BackfillRequest},
    control::Trigger,
    operate::{
        backfill::{Plan, Prospect, plan, prospects},
        patiently,
        pausing::{Wish, change, wish},
    },
};

use super::{NAME, check_known, reading::Page};
use crate::api::{
    call::{Call, is_too_deep},
    kinds,
    parameter::{BY, DRY_RUN, IDEMPOTENCY_KEY, PREFER, parse_instant},
    problem::Problem,
    promised::promised,
    state::Api,
    verb::{Answer, AnswerOf, BodyOf, Method, Run, Verb, schema_of},
    waiting,
};

/// A small body.
const SMALL: usize = 16 * 1024;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "schedules.trigger",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/trigger",
        summary: "Runs a schedule's task now",
        about: "The run is one more: it does not replace a slot, and the schedule's overlap policy holds for it. A planner makes it, at once if one \
                is alive.",
        parameters: &[NAME, IDEMPOTENCY_KEY, PREFER, BY],
        body: Some(BodyOf {
            schema: schema_of::<TriggerBody>,
            bytes_max: TASK_BYTES_MAX,
            is_yaml_read: false,
            is_optional: true,
        }),
        answers: &waiting::ANSWERS,
        run: Run::Once(|api, call| Box::pin(trigger(api, call))),
    },
    Verb {
        id: "schedules.pause",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/pause",
        summary: "Keeps a schedule from running",
        about: "Its slots are recorded as CANCELLED, `paused`, and nothing is caught up afterwards. A schedule that is paused already keeps its \
                pause, unless another reason or end is given.",
        parameters: &[NAME, BY],
        body: Some(BodyOf {
            schema: schema_of::<PauseBody>,
            bytes_max: SMALL,
            is_yaml_read: false,
            is_optional: true,
        }),
        answers: &[AnswerOf { status: 200, means: "It is paused", schema: Some(schema_of::<Standing>) }],
        run: Run::Once(|api, call| Box::pin(pause(api, call))),
    },
    Verb {
        id: "schedules.resume",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/resume",
        summary: "Ends the pause of a schedule",
        about: "Slots from now on run again. What is not paused is no error.",
        parameters: &[NAME, BY],
        body: None,
        answers: &[AnswerOf { status: 200, means: "It is not paused", schema: Some(schema_of::<Standing>) }],
        run: Run::Once(|api, call| Box::pin(resume(api, call))),
    },
    Verb {
        id: "schedules.backfill",
        method: Method::Post,
        path: "/api/v1/schedules/{name}/backfill",
        summary: "Runs the slots of a range that have not run",
        about: "A slot that has run, or is running, is left alone; one that was skipped is run under its own record. `dry_run=true` says what would \
                become of each slot.",
        parameters: &[NAME, DRY_RUN, IDEMPOTENCY_KEY, BY],
        body: Some(BodyOf {
            schema: schema_of::<BackfillBody>,
            bytes_max: SMALL,
            is_yaml_read: false,
            is_optional: false,
        }),
        answers: &[
            AnswerOf {
                status: 200,
                means: "What would become of each slot (dry run)",
                schema: Some(schema_of::<Prospects>),
            },
            AnswerOf { status: 202, means: "It is asked for", schema: Some(schema_of::<BackfillAccepted>) },
        ],
        run: Run::Once(|api, call| Box::pin(backfill(api, call))),
    },
    Verb {
        id: "schedules.backfills",
        method: Method::Get,
        path: "/api/v1/schedules/{name}/backfills",
        summary: "Lists the backfills of a schedule",
        about: "With how far each is, the latest first.",
        parameters: &[NAME],
        body: None,
        answers: &[AnswerOf {
            status: 200,
            means: "Its backfills",
            schema: Some(schema_of::<Page<BackfillProgress>>),
        }],
        run: Run::Once(|api, call| Box::pin(backfills(api, call))),
    },
];

/// With what a run is triggered.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    /// Parameters that replace or add to those of the schedule's task.
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// How a schedule is paused.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    /// Why, for whoever wonders why nothing runs.
    #[serde(default)]
    reason: Option<String>,
    /// When it resumes by itself: an instant (RFC 3339), or a length of time from now, such as `2h`.
    #[serde(default)]
    until: Option<String>,
}

/// Whether a schedule is paused.
#[derive(Debug, Serialize, JsonSchema)]
struct Standing {
    /// The schedule.
    name: Name,
    /// Whether this request changed that.
    changed: bool,
    /// By whom, why and until when it is paused; absent if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<PauseInForce>,
}

/// Which slots are run afterwards.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackfillBody {
    /// The first instant that is meant.
    from: Timestamp,
    /// The last instant that is meant; not in the future.
    to: Timestamp,
    /// What happens at a slot while a run of the schedule has not ended. Default: `allow` if the schedule says so, else `buffer_all`.
    #[serde(default)]
    overlap: Option<BackfillOverlap>,
}

/// What would become of the slots of a range.
#[derive(Debug, Serialize, JsonSchema)]
struct Prospects {
    /// How many would run.
    would_run: usize,
    /// Each slot.
    items: Vec<Prospect>,
}

/// A backfill that is asked for.
#[derive(Debug, Serialize, JsonSchema)]
struct BackfillAccepted {
    /// Its id.
    id: String,
    /// Slots in its range.
    slots: usize,
}

async fn trigger(api: Arc<Api>, mut call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let TriggerBody { parameters } = call.json()?;
    if parameters.values().any(is_too_deep) {
        return Err(Problem::new(
            &kinds::BAD_BODY,
            "parameters nest too deep; pass a reference instead of the data",
        )
        .at("parameters"));
    }
    check_known(&api, &name).await?;
    let now = api.clock().now();
    let new = RunId { name: name.clone(), key: RunKey::by_hand(now) };
    let promised = promised(&api, &call, &format!("schedules.trigger {name}"), new.to_string()).await?;
    let run: RunId = promised.id.parse().map_err(|_| odd_promise(&promised.id))?;
    let trigger = Trigger { run: run.clone(), parameters, by: call.by.clone(), at: now };
    let streams = &api.streams;
    waiting::asked(&api, &mut call, &run, async {
        if !promised.is_kept() {
            // Repeating it is harmless: the run has its id already.
            patiently(streams.clock().as_ref(), || streams.trigger(&trigger)).await?;
            promised.keep(&api).await;
        }
        Ok(())
    })
    .await
}

/// A promise that names no run was written by somebody else.
pub(crate) fn odd_promise(id: &str) -> Problem {
    Problem::new(
        &kinds::UNREADABLE,
        format!("the promise under this Idempotency-Key names {id:?}, which is none of ours"),
    )
}

async fn pause(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let PauseBody { reason, until } = call.json()?;
    let now = api.clock().now();
    let until = until.map(|text| read_until(&text, now)).transpose()?;
    let reason = reason.map(|text| read_reason(&text)).transpose()?;
    check_known(&api, &name).await?;
    let changed = change(&api.streams, &name, |found| {
        match wish(found.standing(now), reason.clone(), until, call.by.clone()) {
            Wish::IsPaused(_) => None,
            Wish::Pause(pause) => Some(PauseState::Paused(pause)),
        }
    })
    .await?;
    paused(&api, name, changed.1.is_some()).await
}

async fn resume(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let now = api.clock().now();
    check_known(&api, &name).await?;
    let changed = change(&api.streams, &name, |found| {
        found.standing(now).map(|_| PauseState::Resumed { by: call.by.clone() })
    })
    .await?;
    paused(&api, name, changed.1.is_some()).await
}

async fn paused(api: &Api, name: Name, changed: bool) -> Result<Answer, Problem> {
    let paused = api.streams.schedules().pause(&name).await?.standing(api.clock().now());
    Ok(Answer::ok(Standing { name, changed, paused }))
}

fn read_until(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let bad = |words: String| Problem::new(&kinds::BAD_BODY, words).at("until");
    let until = match text.parse::<HumanDuration>() {
        Ok(length) => TimeDelta::from_std(length.0).ok().and_then(|length| now.checked_add_signed(length)),
        Err(_) => {
            Some(parse_instant(text).map_err(|words| bad(format!("{words}; or a length of time: 2h")))?)
        }
    };
    match until {
        Some(until) if until > now => Ok(until),
        _ => Err(bad(format!("{text:?} is over already, or beyond all time: nothing would be paused"))),
    }
}

fn read_reason(text: &str) -> Result<String, Problem> {
    let bad = |words: String| Err(Problem::new(&kinds::BAD_BODY, words).at("reason"));
    let text = text.trim();
    match text.chars().count() {
        0 => bad("it is empty; leave it out, or say why".to_owned()),
        chars if chars > PAUSE_REASON_CHARS_MAX => {
            bad(format!("it has {chars} characters; at most {PAUSE_REASON_CHARS_MAX} are kept: shorten it"))
        }
        _ => Ok(text.to_owned()),
    }
}

async fn backfill(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    let BackfillBody { from, to, overlap } = call.json()?;
    check_known(&api, &name).await?;
    let Plan { schedule, revision, slots } = plan(&api.streams, &name, from, to).await?;
    if call.is("dry_run") {
        let items = prospects(&api.streams, &name, &slots).await?;
        let would_run = items.iter().filter(|prospect| prospect.would_run).count();
        return Ok(Answer::ok(Prospects { would_run, items }));
    }
    let now = api.clock().now();
    let scope = format!("schedules.backfill {name}");
    let promised = promised(&api, &call, &scope, BackfillId::new(now).to_string()).await?;
    let id: BackfillId = promised.id.parse().map_err(|_| odd_promise(&promised.id))?;
    let overlap = overlap.unwrap_or_else(|| BackfillOverlap::of(&schedule));
    let by = call.by.clone();
    let request = BackfillRequest { id, schedule: name.clone(), revision, from, to, overlap, by, at: now };
    if !promised.is_kept() {
        // Repeating it is harmless: it has its id already.
        patiently(api.clock().as_ref(), || api.streams.backfill(&request)).await?;
        promised.keep(&api).await;
    }
    let accepted = BackfillAccepted { id: request.id.to_string(), slots: slots.len() };
    Ok(Answer::with(202, accepted).located(format!("/api/v1/schedules/{name}/backfills")))
}

async fn backfills(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name: Name = call.path("name")?;
    check_known(&api, &name).await?;
    let mut items = api.streams.backfills().of(&name).await?;
    items.reverse();
    Ok(Answer::ok(Page { items, next: None }))
}
