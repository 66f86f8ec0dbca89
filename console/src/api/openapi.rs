//! The `OpenAPI` 3.1 document, made from the table of verbs and the schemas of the types that are read and written. Nothing in it is said
//! twice, so it cannot say something else than the console does.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    kinds::{self, Kind},
    parameter::Place,
    problem::Written,
    table,
    verb::{AnswerOf, Verb, schema_of},
};

/// The document.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let problem = schema_of::<Written>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for verb in table::all() {
        let path = paths.entry(verb.path).or_insert_with(|| json!({}));
        path[verb.method.as_str().to_ascii_lowercase()] = operation(verb, &mut generator);
    }
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cronfleet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Registering schedules, steering runs and looking at a fleet. What is wrong is answered as application/problem+json; \
                            each `type` has a page. Lists are `{items, next}`: `next` is the `cursor` of the next page, absent at the end. The same \
                            verbs are a NATS micro service: docs/PROTOCOL.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This console" }],
        "security": [{}, { "token": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Where the console's settings have a token." },
            },
            "responses": responses(&problem.to_value()),
        },
    })
}

/// The document as it is checked in.
pub fn page() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn tags() -> Vec<Value> {
    let mut names: Vec<&str> = table::all().map(tag).collect();
    names.dedup();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

fn tag(verb: &Verb) -> &'static str {
    verb.id.split('.').next().unwrap_or_default()
}

fn operation(verb: &'static Verb, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": verb.id,
        "tags": [tag(verb)],
        "summary": verb.summary,
        "description": verb.about,
        "responses": {},
    });
    if !verb.parameters.is_empty() {
        operation["parameters"] = verb
            .parameters
            .iter()
            .map(|parameter| {
                json!({
                    "name": parameter.name,
                    "in": parameter.place.as_str(),
                    "required": parameter.place == Place::Path,
                    "description": parameter.about,
                    "schema": parameter.schema(),
                })
            })
            .collect();
    }
    if let Some(body) = verb.body {
        let schema = (body.schema)(generator).to_value();
        let mut content = json!({ "application/json": { "schema": schema } });
        if body.is_yaml_read {
            content["application/yaml"] = json!({ "schema": schema });
        }
        operation["requestBody"] = json!({ "required": !body.is_optional, "content": content });
    }
    for answer in verb.answers {
        operation["responses"][answer.status.to_string()] = answered(verb, answer, generator);
    }
    for status in problems(verb) {
        operation["responses"][status.to_string()] =
            json!({ "$ref": format!("#/components/responses/{}", response_name(status)) });
    }
    operation
}

fn answered(verb: &Verb, answer: &AnswerOf, generator: &mut SchemaGenerator) -> Value {
    let mut written = json!({ "description": answer.means });
    if let Some(schema) = answer.schema {
        let kind = if verb.is_stream() { "text/event-stream" } else { "application/json" };
        written["content"][kind]["schema"] = schema(generator).to_value();
    }
    written
}

/// The statuses of problems that a verb may be answered with.
fn problems(verb: &Verb) -> Vec<u16> {
    let mut statuses = vec![400, 401, 421, 429, 500, 503];
    let has = |name: &str| verb.parameters.iter().any(|parameter| parameter.name == name);
    let is_named = verb.parameters.iter().any(|parameter| parameter.place == Place::Path);
    for (is_possible, status) in [
        (!verb.is_read() || verb.is_stream(), 403),
        (is_named, 404),
        (!verb.is_read(), 409),
        (has("If-Match") || has("If-None-Match"), 412),
        (!verb.is_read(), 413),
        (verb.body.is_some(), 415),
        (verb.body.is_some() || has("Idempotency-Key"), 422),
    ] {
        if is_possible {
            statuses.push(status);
        }
    }
    statuses.sort_unstable();
    statuses
}

fn response_name(status: u16) -> String {
    format!("Problem{status}")
}

/// One answer for each status that problems have, with their kinds.
fn responses(problem: &Value) -> Map<String, Value> {
    let mut all: Map<String, Value> = Map::new();
    for kind in kinds::ALL {
        let of_status: Vec<&&Kind> = kinds::ALL.iter().filter(|other| other.status == kind.status).collect();
        let titles: Vec<String> =
            of_status.iter().map(|kind| format!("{} ({})", kind.title, kind.name)).collect();
        all.insert(
            response_name(kind.status),
            json!({
                "description": titles.join("; "),
                "content": { "application/problem+json": { "schema": problem } },
            }),
        );
    }
    all
}
