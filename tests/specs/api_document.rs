//! The `OpenAPI` document is valid, complete, and says what is served.

use std::collections::BTreeSet;

use harness::{Console, Fleet};
use serde_json::Value;

/// Everything in a value that is called like this.
fn find<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields {
                if field == name {
                    found.push(inner);
                }
                find(inner, name, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find(item, name, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_is_valid_and_complete() {
    let document = console::api::openapi::document();
    assert_eq!(document["openapi"], "3.1.0");
    for field in ["title", "version"] {
        assert!(document["info"][field].is_string(), "{field}");
    }
    let mut references = Vec::new();
    find(&document, "$ref", &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.as_str().expect("a text").strip_prefix('#').expect("a place in the document");
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let legal = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    for kind in ["schemas", "responses", "securitySchemes"] {
        let components = document["components"][kind].as_object().expect("components");
        assert!(components.keys().all(|name| legal(name)), "{kind}");
    }
    let tags: BTreeSet<&str> =
        document["tags"].as_array().expect("tags").iter().filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        assert!(path.starts_with("/api/v1/"), "{path}");
        for (method, operation) in methods.as_object().expect("methods") {
            let at = format!("{method} {path}");
            assert!(["get", "put", "post", "delete"].contains(&method.as_str()), "{at}");
            assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{at}");
            for field in ["summary", "description"] {
                assert!(operation[field].as_str().is_some_and(|text| text.len() > 5), "{at}: {field}");
            }
            assert!(tags.contains(operation["tags"][0].as_str().expect("a tag")), "{at}");
            let answers = operation["responses"].as_object().expect("answers");
            assert!(answers.keys().any(|status| status.starts_with('2')), "{at}");
            for status in ["400", "401", "429", "503"] {
                assert!(answers.contains_key(status), "{at}: {status}");
            }
            for (status, answer) in answers {
                let is_described = answer["description"].is_string() || answer["$ref"].is_string();
                assert!(is_described && status.len() == 3, "{at}: {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in &parameters {
                assert!(
                    parameter["schema"]["type"].is_string() && parameter["description"].is_string(),
                    "{at}: {parameter}"
                );
                assert_eq!(parameter["required"], parameter["in"] == "path", "{at}: {parameter}");
            }
            let in_path: Vec<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let declared = parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert!(declared.filter_map(|parameter| parameter["name"].as_str()).eq(in_path), "{at}");
            if let Some(body) = operation.get("requestBody") {
                assert!(body["content"]["application/json"]["schema"].is_object(), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_checked_in_and_every_kind_of_problem_has_its_page() {
    let fleet = Fleet::start().await;
    let console = Console::start(&fleet).await;
    let served = console.get("/openapi.json").await;
    let checked_in =
        std::fs::read_to_string(harness::repository().join("docs/openapi.json")).expect("the file");
    assert!(served.body == checked_in, "docs/openapi.json is not what is served; repair: make docs-generate");
    for kind in console::api::kinds::ALL {
        let page = console.get(&kind.path()).await;
        assert_eq!(page.status, 200, "{}", kind.name);
        assert!(page.body.contains(kind.name), "{}", page.body);
    }
}
