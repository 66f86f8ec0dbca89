//! Targets: how they are reached, how full their limits are, how they are.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    limit::Scope,
    limits::HEALTH_ANSWER_WAIT,
    names::TargetName,
    target::{Address, Target},
};
use streams::operate::{
    members::{Named, fullness, target_item},
    unknown,
};

use crate::api::{
    call::Call,
    kinds,
    parameter::{Kind, Parameter, path},
    problem::Problem,
    state::Api,
    verb::{Answer, AnswerOf, Method, Run, Verb, any_object, schema_of},
};

const TARGET: Parameter = path("name", Kind::Name, "The target.");

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        id: "targets.list",
        method: Method::Get,
        path: "/api/v1/targets",
        summary: "Lists the targets",
        about: "Each with how it is reached, and who is inside its limits.",
        parameters: &[],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The targets", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(list(api, call))),
    },
    Verb {
        id: "targets.get",
        method: Method::Get,
        path: "/api/v1/targets/{name}",
        summary: "Shows a target",
        about: "With how it is reached, and who is inside its limits.",
        parameters: &[TARGET],
        body: None,
        answers: &[AnswerOf { status: 200, means: "The target", schema: Some(any_object) }],
        run: Run::Once(|api, call| Box::pin(get(api, call))),
    },
    Verb {
        id: "targets.health",
        method: Method::Get,
        path: "/api/v1/targets/{name}/health",
        summary: "Asks a target how it is",
        about: "Makes its declared health check once, from where the console runs: workers may see it otherwise, and use TLS settings the console \
                has not.",
        parameters: &[TARGET],
        body: None,
        answers: &[AnswerOf { status: 200, means: "How it is", schema: Some(schema_of::<HowItIs>) }],
        run: Run::Once(|api, call| Box::pin(health(api, call))),
    },
];

/// How a target is.
#[derive(Debug, Serialize, JsonSchema)]
struct HowItIs {
    /// The target.
    name: TargetName,
    /// `healthy`, `ill`, `disabled`, or `unknown`: it declares no check that can be made from here.
    health: &'static str,
    /// Why, in words.
    detail: String,
    /// How long it took to answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
}

async fn item(api: &Api, name: &TargetName, target: &Target) -> Result<Named<TargetName>, Problem> {
    // A fleet of an earlier version has no gates.
    let gates = api.streams.gates().list().await.unwrap_or_default();
    let mut full = fullness(name, &gates);
    full.waiting = api.streams.count_waiting(&Scope::Target(name.clone())).await.ok();
    Ok(target_item(name, target, &full))
}

async fn list(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    let mut items = Vec::new();
    for (name, target) in &api.streams.catalog().all().await?.targets {
        items.push(item(&api, name, target).await?);
    }
    Ok(Answer::ok(serde_json::json!({ "items": items })))
}

async fn find(api: &Api, call: &Call) -> Result<(TargetName, Target), Problem> {
    let name: TargetName = call.path("name")?;
    let mut all = api.streams.catalog().all().await?.targets;
    if let Some(target) = all.remove(&name) {
        return Ok((name, target));
    }
    let words = unknown("target", name.as_str(), all.keys().map(TargetName::as_str));
    Err(Problem::new(&kinds::UNKNOWN, words).at("name"))
}

async fn get(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let (name, target) = find(&api, &call).await?;
    Ok(Answer::ok(item(&api, &name, &target).await?))
}

async fn health(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let (name, target) = find(&api, &call).await?;
    let said = |health, detail: String| HowItIs { name: name.clone(), health, detail, took_ms: None };
    if !target.enabled {
        let why = target.reason.clone().unwrap_or_else(|| "no reason is given".to_owned());
        return Ok(Answer::ok(said("disabled", why)));
    }
    let Some(url) = target.health_url() else {
        let why = match target.address {
            Address::Http(_) => "it declares no `health`",
            _ => "it is reached by messages, and has no health check",
        };
        return Ok(Answer::ok(said("unknown", why.to_owned())));
    };
    let clock = api.clock();
    let asked_at = clock.elapsed();
    let answer = tokio::select! {
        answer = api.http.get(&url).send() => Some(answer),
        () = clock.sleep(HEALTH_ANSWER_WAIT) => None,
    };
    let took = |since: Duration| u64::try_from(clock.elapsed().saturating_sub(since).as_millis()).ok();
    let health = match answer {
        None => said("ill", format!("{url} did not answer within {} s", HEALTH_ANSWER_WAIT.as_secs())),
        Some(Ok(answer)) if answer.status().is_success() => {
            said("healthy", format!("{url} answered {}", answer.status()))
        }
        Some(Ok(answer)) => said("ill", format!("{url} answered {}", answer.status())),
        Some(Err(error)) => said("ill", format!("{url} cannot be asked: {}", error.without_url())),
    };
    Ok(Answer::ok(HowItIs { took_ms: took(asked_at), ..health }))
}
