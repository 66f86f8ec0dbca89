//! Runs, dead letters, workers and targets over HTTP.

use harness::{Console, Fleet, HttpRequest, eventually};
use serde_json::{Value, json};
use shared::run_state::RunState;

fn task(action: &str) -> Value {
    json!({"target_service": "target", "action": action, "retry": {"attempts": 1}})
}

#[tokio::test]
async fn a_task_is_submitted_once_waited_for_and_looked_at_over_http() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let console = Console::start(&fleet).await;
    let body = json!({"name": "reindex", "key": "4711", "task": task("echo")});
    let submit = || HttpRequest::new("POST", "/api/v1/runs").json(&body);
    let ended = console.send(submit().header("Prefer", "wait=60")).await;
    assert_eq!(ended.header("location"), Some("/api/v1/runs/reindex.4711"));
    assert_eq!(ended.expect(200)["status"], json!("SUCCESS"));
    console.send(submit()).await.problem(409, "conflict");
    let read = console.get("/api/v1/runs/reindex.4711").await;
    assert!(read.header("etag").is_some());
    assert_eq!(read.expect(200)["attempt"], json!(1));
    let life = console.get("/api/v1/runs/reindex.4711/timeline").await.expect(200);
    assert_eq!(
        life["items"].as_array().and_then(|items| items.last()).map(|item| &item["status"]),
        Some(&json!("SUCCESS"))
    );
    console.get("/api/v1/runs/reindex.4712").await.problem(404, "unknown");

    let without_key = json!({"name": "reindex", "task": task("ok")});
    let keyed = |key: &str| {
        HttpRequest::new("POST", "/api/v1/runs").json(&without_key).header("Idempotency-Key", key)
    };
    let first = console.send(keyed("one")).await.expect(202)["id"].clone();
    assert_eq!(console.send(keyed("one")).await.expect(202)["id"], first);
    assert_ne!(console.send(keyed("two")).await.expect(202)["id"], first);
    let run = first.as_str().expect("an id");
    assert_eq!(fleet.end_of(run).await.status, RunState::Success);
    assert_eq!(console.send(keyed("one")).await.expect(202)["id"], first, "also when it has ended");
    assert_eq!(fleet.target.calls_of(run).len(), 1);

    eventually("the runs in the list", async || {
        let page = console.get("/api/v1/runs?name=reindex&status=SUCCESS&limit=2").await.expect(200);
        let count = page["items"].as_array().map_or(0, Vec::len);
        let Some(next) = page["next"].as_str().filter(|_| count == 2) else { return Err(page.to_string()) };
        let rest =
            console.get(&format!("/api/v1/runs?name=reindex&status=SUCCESS&limit=2&cursor={next}")).await;
        let rest = rest.expect(200);
        if rest["items"].as_array().map(Vec::len) == Some(1) && rest.get("next").is_none() {
            Ok(())
        } else {
            Err(rest.to_string())
        }
    })
    .await;
    for (field, part, bad) in [
        ("task", "", json!({"name": "a", "task": {"action": "x"}})),
        ("queue", "no queue", json!({"name": "a", "queue": "nowhere", "task": task("ok")})),
        ("key", "planners' own", json!({"name": "a", "key": "_", "task": task("ok")})),
        ("at", "over already", json!({"name": "a", "at": "2020-01-01T00:00:00Z", "task": task("ok")})),
        ("nam", "did you mean `name`?", json!({"nam": "a", "task": task("ok")})),
    ] {
        let problem = console.post("/api/v1/runs", &bad).await.json();
        assert_eq!((&problem["status"], &problem["field"]), (&json!(422), &json!(field)), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{problem}");
    }
}

#[tokio::test]
async fn waiting_ends_when_the_time_is_over_and_the_run_goes_on() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;
    let submit = HttpRequest::new("POST", "/api/v1/runs")
        .json(&json!({"name": "later", "key": "1", "task": task("ok")}))
        .header("Prefer", "respond-async, wait=1");
    let answer = console.send(submit).await;
    assert_eq!(
        (answer.expect(202)["id"].as_str(), answer.header("location")),
        (Some("later.1"), Some("/api/v1/runs/later.1"))
    );
    let _worker = fleet.worker(&[]);
    assert_eq!(fleet.end_of("later.1").await.status, RunState::Success);
}

#[tokio::test]
async fn runs_are_cancelled_one_by_one_and_many_at_once_after_a_count() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;
    for n in 0..5 {
        console
            .post(
                "/api/v1/runs",
                &json!({"name": "wait", "key": format!("k{n}"), "in": "1h", "task": task("ok")}),
            )
            .await
            .expect(202);
    }
    let waiting = console.get("/api/v1/delayed?name=wait").await.expect(200);
    assert_eq!(waiting["items"].as_array().map(Vec::len), Some(5));
    let cancelled = console.send(HttpRequest::new("POST", "/api/v1/runs/wait.k0/cancel")).await.expect(200);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("CANCELLED"), &json!("by_operator")));
    console.send(HttpRequest::new("POST", "/api/v1/runs/wait.k0/cancel")).await.problem(409, "conflict");
    console.send(HttpRequest::new("POST", "/api/v1/runs/wait.none/cancel")).await.problem(404, "unknown");
    let ids = json!({"ids": ["wait.k1", "wait.k2", "wait.none"]});
    let count = console.post("/api/v1/runs/cancel?dry_run=true", &ids).await.expect(200);
    assert_eq!((&count["matched"], &count["done"]), (&json!(3), &json!(0)));
    let done = console.post("/api/v1/runs/cancel", &ids).await.expect(200);
    assert_eq!((&done["done"], &done["left"]["wait.none"]), (&json!(2), &json!("there is no such run")));
    for bad in [
        json!({}),
        json!({"ids": [], "filter": {}}),
        json!({"filter": {}}),
        json!({"filter": {"nme": "a"}}),
        json!({"ids": ["x"]}),
    ] {
        console.post("/api/v1/runs/cancel", &bad).await.problem(422, "bad-body");
    }
}

#[tokio::test]
async fn what_failed_is_listed_retried_and_replayed_over_http() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let console = Console::start(&fleet).await;
    for n in 0..4 {
        let body = json!({"name": "bad", "key": format!("k{n}"), "task": task("fail")});
        let answer = console
            .send(HttpRequest::new("POST", "/api/v1/runs").json(&body).header("Prefer", "wait=60"))
            .await;
        let record = answer.expect(200);
        assert_eq!(record["status"], json!("FAILED"), "{record}");
        let record = fleet.end_of(&format!("bad.k{n}")).await;
        fleet.dead_letter(&record).await;
    }
    let dead = console.get("/api/v1/dead?name=bad&since=1h&error=500").await.expect(200);
    assert_eq!(dead["items"].as_array().map(Vec::len), Some(4), "{dead}");
    assert_eq!(dead["items"][0]["id"], json!("bad.k3"), "the latest first");
    assert_eq!(console.get("/api/v1/dead/bad.k0").await.expect(200)["status"], json!("FAILED"));
    console.get("/api/v1/dead/bad.none").await.problem(404, "unknown");
    let retried =
        console.send(HttpRequest::new("POST", "/api/v1/runs/bad.k0/retry").header("Prefer", "wait=60")).await;
    assert_eq!(retried.expect(200)["attempt"], json!(2), "it failed again, in a second attempt");
    console.send(HttpRequest::new("POST", "/api/v1/runs/none.k0/retry")).await.problem(404, "unknown");
    eventually("four dead letters again", async || {
        let dead =
            console.post("/api/v1/dead/replay?dry_run=true", &json!({"name": "bad"})).await.expect(200);
        if dead["matched"] == 4 { Ok(()) } else { Err(dead.to_string()) }
    })
    .await;
    let replayed =
        console.post("/api/v1/dead/replay", &json!({"name": "bad", "where": {}})).await.expect(200);
    assert_eq!(
        (&replayed["matched"], &replayed["done"], &replayed["remaining"]),
        (&json!(4), &json!(4), &json!(0))
    );
    console.post("/api/v1/dead/replay", &json!({})).await.problem(422, "bad-body");
    eventually("the failures in the list, and a retry of all of them", async || {
        let many = json!({"filter": {"name": "bad", "status": "FAILED", "attempts_min": 2}});
        let count = console.post("/api/v1/runs/retry?dry_run=true", &many).await.expect(200);
        if count["matched"] != 4 {
            return Err(count.to_string());
        }
        let done = console.post("/api/v1/runs/retry", &many).await.expect(200);
        if done["done"] == 4 { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn workers_planners_and_targets_are_shown_and_a_worker_is_drained_over_http() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets:
           target: {http: TARGET, health: /healthz}
           ill: {http: TARGET, health: /no-such-page}
           off: {http: TARGET, enabled: false, reason: disk}
           silent: {message: svc.x}",
    );
    let (_planner, mut worker) = (fleet.planner(), fleet.worker(&[]));
    let console = Console::start(&fleet).await;
    for (name, health) in [("target", "healthy"), ("ill", "ill"), ("off", "disabled"), ("silent", "unknown")]
    {
        let found = console.get(&format!("/api/v1/targets/{name}/health")).await.expect(200);
        assert_eq!(found["health"], json!(health), "{found}");
        console.get(&format!("/api/v1/targets/{name}")).await.expect(200);
    }
    console.get("/api/v1/targets/targt").await.problem(404, "unknown");
    assert_eq!(console.get("/api/v1/targets").await.expect(200)["items"].as_array().map(Vec::len), Some(4));
    let planners = eventually("a planner", async || {
        let all = console.get("/api/v1/planners").await.expect(200);
        if all["items"].as_array().map(Vec::len) == Some(1) { Ok(all) } else { Err(all.to_string()) }
    })
    .await;
    let id = planners["items"][0]["id"].as_str().expect("an id");
    console.get(&format!("/api/v1/planners/{id}")).await.expect(200);
    let workers = eventually("a worker", async || {
        let all = console.get("/api/v1/workers").await.expect(200);
        if all["items"].as_array().map(Vec::len) == Some(1) { Ok(all) } else { Err(all.to_string()) }
    })
    .await;
    let id = workers["items"][0]["id"].as_str().expect("an id");
    console.get(&format!("/api/v1/workers/{id}")).await.expect(200);
    assert_eq!(console.get("/api/v1/queues").await.expect(200)["items"][0]["workers"], json!(1));
    let drained = console.post(&format!("/api/v1/workers/{id}/drain"), &json!({})).await.expect(202);
    assert!(
        drained["warnings"][0].as_str().is_some_and(|words| words.contains("no other worker")),
        "{drained}"
    );
    assert!(worker.ended().await.success());
    console.post("/api/v1/workers/worker-none/drain", &json!({})).await.problem(404, "unknown");
}
