//! Following over HTTP: changes of runs as they come, and a log while it grows.

use harness::{Console, Fleet, HttpRequest};
use serde_json::{Value, json};

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action, "retry": {"attempts": 1}})
}

#[tokio::test]
async fn changes_of_runs_are_followed_filtered_and_resumed_where_they_were_left() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let console = Console::start(&fleet).await;
    let follow = |query: &str| HttpRequest::new("GET", &format!("/api/v1/results/stream{query}"));
    let (head, mut all) = follow("?name=one").follow(&console.address).await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for (name, key) in [("two", "a"), ("one", "a"), ("one", "b")] {
        let submit = HttpRequest::new("POST", "/api/v1/runs")
            .json(&json!({"name": name, "key": key, "task": task("ok")}))
            .header("Prefer", "wait=60");
        console.send(submit).await.expect(200);
    }
    let mut last = None;
    for wanted in ["one.a", "one.b"] {
        loop {
            let (id, kind, run) = all.event().await;
            assert_eq!(
                (kind.as_str(), run["id"].as_str()),
                ("run", Some(wanted)),
                "only what is wanted, in its order"
            );
            let id = id.expect("a place");
            if run["status"] == "SUCCESS" {
                last = last.or(Some(id));
                break;
            }
        }
    }
    drop(all);
    let resumed = follow("?name=one").header("Last-Event-ID", &last.expect("a place"));
    let (_, mut rest) = resumed.follow(&console.address).await;
    let (_, _, run) = rest.event().await;
    assert_eq!(run["id"], json!("one.b"), "what was seen is not told again, and nothing is left out");
    for (name, value) in [("Last-Event-ID", "yesterday"), ("Last-Event-ID", "-1")] {
        console.send(follow("").header(name, value)).await.problem(400, "bad-parameter");
    }
    console.send(follow("?statsu=FAILED")).await.problem(400, "bad-parameter");
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let fleet = Fleet::start().await;
    let script = fleet.folder().join("talk.sh");
    std::fs::write(&script, "#!/bin/sh\necho first\nsleep 1\nprintf '\\033[2Jlast\\n'\n").expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let commands = fleet.folder().join("commands.yaml");
    std::fs::write(&commands, format!("commands: {{talk: {{program: {}}}}}", script.display()))
        .expect("written");
    let _worker = fleet.worker(&["--commands", commands.to_str().expect("a path")]);
    let console = Console::start(&fleet).await;
    console.get("/api/v1/runs/talk.1/logs/stream").await.problem(404, "unknown");
    let submit = json!({"name": "talk", "key": "1", "task": {"command": ["talk"]}});
    console.post("/api/v1/runs", &submit).await.expect(202);
    harness::eventually("its record", async || {
        let answer = console.get("/api/v1/runs/talk.1").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
    let follow = HttpRequest::new("GET", "/api/v1/runs/talk.1/logs/stream");
    let (head, mut lines) = follow.follow(&console.address).await;
    assert_eq!(head.status, 200);
    let mut texts = Vec::new();
    loop {
        let (_, kind, data) = lines.event().await;
        if kind == "end" {
            break;
        }
        texts.push(data["text"].as_str().expect("a text").to_owned());
    }
    assert!(
        texts.contains(&"first".to_owned()) && texts.iter().any(|text| text.contains("last")),
        "{texts:?}"
    );
    let whole = console.get("/api/v1/runs/talk.1/logs").await;
    assert!(!whole.body.contains('\u{1b}'), "control characters are written as what they are");
    assert_eq!(whole.expect(200)["items"].as_array().map(Vec::len), Some(texts.len()));
}
