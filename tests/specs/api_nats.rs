//! The same verbs over NATS: one table makes both, and this compares what comes of it.

use std::collections::BTreeSet;

use harness::{Console, Fleet, PlainClient, eventually};
use serde_json::{Value, json};

async fn info(client: &mut PlainClient) -> Value {
    let answer = client.request("$SRV.INFO.cronfleet-api", b"").await;
    serde_json::from_str(&answer.payload).unwrap_or(Value::Null)
}

#[tokio::test]
async fn every_verb_of_http_is_a_discoverable_endpoint_over_nats_and_no_other_is() {
    let fleet = Fleet::start().await;
    let console = Console::start(&fleet).await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let document = console.get("/openapi.json").await.expect(200);
    let mut over_http = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let is_stream = operation["responses"]["200"]["content"].get("text/event-stream").is_some();
            if !is_stream {
                let id = operation["operationId"].as_str().expect("an id");
                over_http.insert(format!("cronfleet.api.{id} {} {path}", method.to_uppercase()));
            }
        }
    }
    let over_nats = {
        let mut all = Value::Null;
        // It comes up a moment after the port.
        for _ in 0..100 {
            all = info(&mut client).await;
            if all["endpoints"].as_array().map(Vec::len) >= Some(over_http.len()) {
                break;
            }
            harness::wait::for_a_while(std::time::Duration::from_millis(50)).await;
        }
        all
    };
    let endpoints = over_nats["endpoints"].as_array().expect("endpoints").iter();
    let found: BTreeSet<String> = endpoints
        .map(|one| {
            format!(
                "{} {}",
                one["subject"].as_str().expect("a subject"),
                one["metadata"]["http"].as_str().expect("its way")
            )
        })
        .collect();
    assert_eq!(found, over_http);
}

#[tokio::test]
async fn a_service_without_an_http_client_does_the_same_over_nats() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    let console = Console::start(&fleet).await;
    let client = tokio::sync::Mutex::new(PlainClient::connect(&fleet.nats.url()).await);
    let ask = async |verb: &str, payload: &Value| {
        let payload = payload.to_string();
        client.lock().await.request(&format!("cronfleet.api.{verb}"), payload.as_bytes()).await
    };
    let yaml = "cron: '0 2 * * *'\ntask: {target_service: target, action: ok}\n";
    eventually("the service", async || {
        let answer = ask("queues.list", &json!({})).await;
        if answer.payload.contains("items") { Ok(()) } else { Err(answer.headers) }
    })
    .await;
    let put = ask("schedules.put", &json!({"name": "nightly", "if_none_match": "*", "body": yaml})).await;
    assert!(put.headers.contains("Cronfleet-Status: 201"), "{put:?}");
    let lost = ask("schedules.put", &json!({"name": "nightly", "if_none_match": "*", "body": yaml})).await;
    assert!(lost.headers.contains("Nats-Service-Error-Code: 412"), "{lost:?}");
    assert!(lost.headers.contains("/problems/lost-update"), "{lost:?}");
    let read = ask("schedules.get", &json!({"name": "nightly"})).await;
    let over_nats: Value = serde_json::from_str(&read.payload).expect("JSON");
    let over_http = console.get("/api/v1/schedules/nightly").await;
    assert_eq!(over_nats, over_http.expect(200), "both say the same");
    let trigger = json!({"name": "nightly", "prefer": "wait=60", "idempotency_key": "k", "body": {"parameters": {"n": 1}}});
    let first = ask("schedules.trigger", &trigger).await;
    let record: Value =
        serde_json::from_str(&first.payload).unwrap_or_else(|error| panic!("{error}: {first:?}"));
    assert_eq!((&record["status"], &record["by"]), (&json!("SUCCESS"), &json!("nats")));
    // The same key is the same run, whichever way it comes.
    let request = harness::HttpRequest::new("POST", "/api/v1/schedules/nightly/trigger")
        .json(&json!({"parameters": {"n": 1}}))
        .header("Idempotency-Key", "k");
    assert_eq!(console.send(request).await.expect(202)["id"], record["id"]);
    for (verb, payload, code) in [
        ("schedules.get", json!({"name": "nihgtly"}), 404),
        ("schedules.get", json!({}), 400),
        ("schedules.get", json!({"name": "a.b"}), 400),
        ("schedules.get", json!({"name": "nightly", "surely_no_parameter": 1}), 400),
        ("schedules.get", json!({"name": "nightly", "body": {}}), 422),
        ("schedules.put", json!({"name": "x", "body": "cron: ["}), 422),
        ("runs.submit", json!({"body": {"name": "a", "task": {}}}), 422),
        ("schedules.list", json!([]), 422),
    ] {
        let answer = ask(verb, &payload).await;
        assert!(
            answer.headers.contains(&format!("Nats-Service-Error-Code: {code}")),
            "{verb} {payload}: {answer:?}"
        );
    }
    let garbage = client.lock().await.request("cronfleet.api.schedules.list", b"\xff\x00{").await;
    assert!(garbage.headers.contains("Nats-Service-Error-Code: 422"), "{garbage:?}");
}
