//! Registering and steering schedules over HTTP.

use std::fmt::Write as _;

use harness::{Console, Fleet, HttpRequest, eventually};
use serde_json::{Value, json};
use shared::run_state::RunState;

const NIGHTLY: &str = "\
# a comment stays nobody's business
cron: \"0 2 * * *\"
timezone: Asia/Shanghai
task: {target_service: target, action: ok, parameters: {n: 1}}
";

const AT: &str = "/api/v1/schedules/nightly";

#[tokio::test]
async fn a_schedule_is_created_read_previewed_replaced_and_deleted_over_http() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;

    let preview = console
        .send(HttpRequest::new("POST", &format!("{AT}/preview")).body("text/yaml", NIGHTLY.as_bytes()));
    let preview = preview.await.expect(200);
    assert_eq!((&preview["change"], &preview["words"]), (&json!("created"), &json!("at 02:00 every day")));
    assert_eq!(preview["next"].as_array().map(Vec::len), Some(10), "{preview}");
    console.put(&format!("{AT}?dry_run=true"), NIGHTLY).await.expect(200);
    console.get(AT).await.problem(404, "unknown");

    let created = console.put(AT, NIGHTLY).await;
    let shown = created.expect(201);
    assert_eq!((created.header("location"), &shown["change"]), (Some(AT), &json!("created")));
    let tag = created.header("etag").expect("a tag").to_owned();
    let read = console.get(&format!("{AT}?lang=zh")).await;
    assert_eq!(read.header("etag"), Some(tag.as_str()));
    let read = read.expect(200);
    assert_eq!((&read["cron"], &read["task"]["parameters"]["n"]), (&json!("0 2 * * *"), &json!(1)));
    assert!(read["words"].as_str().is_some_and(|words| !words.is_ascii()), "{read}");

    let same = console.put(AT, NIGHTLY).await;
    assert_eq!((&same.expect(200)["change"], same.header("etag")), (&json!("unchanged"), Some(tag.as_str())));
    let as_json = json!({"cron": "30 2 * * *", "task": {"target_service": "target", "action": "ok"}});
    let changed = console.send(HttpRequest::new("PUT", AT).json(&as_json)).await.expect(200);
    assert_eq!(changed["change"], json!("changed"));
    assert!(changed["diff"].as_str().is_some_and(|diff| diff.contains("+cron: 30 2 * * *")), "{changed}");

    let next = console.get(&format!("{AT}/next?from=2026-11-24T00:00:00Z&count=2")).await.expect(200);
    let slots: Vec<&Value> =
        next["slots"].as_array().expect("slots").iter().map(|slot| &slot["at"]).collect();
    assert_eq!(slots, [&json!("2026-11-24T02:30:00Z"), &json!("2026-11-25T02:30:00Z")]);

    let would = console.send(HttpRequest::new("DELETE", &format!("{AT}?dry_run=true"))).await;
    would.expect(200);
    console.send(HttpRequest::new("DELETE", AT)).await.expect(200);
    console.send(HttpRequest::new("DELETE", AT)).await.problem(404, "unknown");
    let back = console.post(&format!("{AT}/rollback"), &json!({})).await.expect(201);
    assert_eq!(back["change"], json!("created"));
    let history = console.get(&format!("{AT}/history")).await.expect(200);
    let what: Vec<&str> =
        history["items"].as_array().expect("items").iter().filter_map(|item| item["what"].as_str()).collect();
    assert_eq!(what, ["created", "deleted", "changed", "created"]);
    let first = history["items"][3]["revision"].as_u64().expect("a revision");
    let rolled = console.post(&format!("{AT}/rollback"), &json!({"to": first})).await.expect(200);
    assert_eq!((&rolled["change"], &rolled["timezone"]), (&json!("changed"), &json!("Asia/Shanghai")));
}

#[tokio::test]
async fn a_lost_update_is_refused_and_changes_nothing() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;
    let body = |minute: u32| json!({"cron": format!("{minute} 2 * * *"), "task": {"target_service": "target", "action": "ok"}});
    let put = |minute: u32| HttpRequest::new("PUT", AT).json(&body(minute));
    let missing = console.send(put(0).header("If-Match", "*")).await;
    missing.problem(412, "lost-update");
    let created = console.send(put(1).header("If-None-Match", "*")).await;
    let old = created.header("etag").expect("a tag").to_owned();
    created.expect(201);
    console.send(put(2).header("If-None-Match", "*")).await.problem(412, "lost-update");
    let ann = console.send(put(3).header("If-Match", &old)).await;
    let new = ann.header("etag").expect("a tag").to_owned();
    ann.expect(200);
    let bob = console.send(put(4).header("If-Match", &old)).await.problem(412, "lost-update");
    assert!(bob["detail"].as_str().is_some_and(|detail| detail.contains("read it again")), "{bob}");
    let delete = |tag: &str| HttpRequest::new("DELETE", AT).header("If-Match", tag);
    console.send(delete(&old)).await.problem(412, "lost-update");
    assert_eq!(console.get(AT).await.expect(200)["cron"], json!("3 2 * * *"));
    console.send(delete(&new)).await.expect(200);
    for tag in ["42", "W/\"1\"", "\"x\""] {
        console.send(put(5).header("If-Match", tag)).await.problem(400, "bad-parameter");
    }
    // Of eight who write over the same revision at once, one does.
    let tag = console.send(put(6)).await.header("etag").expect("a tag").to_owned();
    let writes = (10..18).map(|minute| console.send(put(minute).header("If-Match", &tag)));
    let statuses: Vec<u16> =
        futures::future::join_all(writes).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 412].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_definition_that_cannot_be_followed_is_refused_with_its_place_and_repair() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;
    for (from, to, part, field) in [
        ("timezone", "timezon", "did you mean `timezone`?", None),
        ("0 2 * * *", "0 0 31 2 *", "31", None),
        (
            "target_service: target",
            "target_service: targt",
            "did you mean \"target\"?",
            Some("task.target_service"),
        ),
        ("timezone: Asia/Shanghai", "queue: nowhere", "not declared", Some("queue")),
        ("timezone: Asia/Shanghai", "calendar: none", "not declared", Some("calendar")),
    ] {
        let body = NIGHTLY.replacen(from, to, 1);
        let problem = console.put(AT, &body).await.problem(422, "bad-definition");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{problem}");
        assert!(field.is_none_or(|field| problem["field"] == field), "{problem}");
    }
    console.get(AT).await.problem(404, "unknown");
}

#[tokio::test]
async fn schedules_are_searched_and_paged() {
    let fleet = Fleet::start().await;
    let mut file = String::from("targets: {target: {http: TARGET}}\nschedules:\n");
    for n in 0..25 {
        let task = "task: {target_service: target, action: ok}";
        let _ = writeln!(file, "  sweep_{n:02}: {{cron: '0 2 * * *', {task}}}");
    }
    fleet.apply(&file);
    let console = Console::start(&fleet).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = console.get(&format!("/api/v1/schedules?limit=10{cursor}")).await.expect(200);
        let items = page["items"].as_array().expect("items");
        seen.extend(items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let all: Vec<String> = (0..25).map(|n| format!("sweep_{n:02}")).collect();
    assert_eq!(seen, all);
    let found = console.get("/api/v1/schedules?search=P_1").await.expect(200);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(10));
    let found = console.get("/api/v1/schedules?prefix=sweep_2").await.expect(200);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(5));
    console.post("/api/v1/schedules/sweep_03/pause", &json!({"reason": "disk"})).await.expect(200);
    eventually("the pause in the list", async || {
        let paused = console.get("/api/v1/schedules?paused=true").await.expect(200);
        if paused["items"][0]["name"] == "sweep_03" { Ok(()) } else { Err(paused.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_schedule_is_triggered_paused_resumed_and_back_filled_over_http() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    let console = Console::start(&fleet).await;
    console.put(AT, NIGHTLY).await.expect(201);
    let trigger = |key: &str, body: &Value| {
        let request = HttpRequest::new("POST", &format!("{AT}/trigger")).json(body);
        request
            .header("Idempotency-Key", key)
            .header("Prefer", "wait=60")
            .header("Cronfleet-By", "ann@laptop")
    };
    let parameters = json!({"parameters": {"n": 2}});
    let first = console.send(trigger("k1", &parameters)).await;
    assert_eq!(first.header("preference-applied"), Some("wait"), "{first:?}");
    let record = first.expect(200);
    assert_eq!((&record["status"], &record["by"]), (&json!("SUCCESS"), &json!("ann@laptop")));
    let run = record["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.header("location"), Some(format!("/api/v1/runs/{run}").as_str()));
    let again = console.send(trigger("k1", &parameters)).await.expect(200);
    assert_eq!(again["id"], run.as_str(), "the same key is the same run");
    let other = console.send(trigger("k1", &json!({"parameters": {"n": 3}}))).await;
    other.problem(422, "idempotency-key-reused");
    let at_once = (0..4).map(|_| console.send(trigger("k2", &parameters)));
    let mut ids: Vec<String> = futures::future::join_all(at_once)
        .await
        .iter()
        .map(|answer| answer.expect(200)["id"].to_string())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(fleet.target.calls_of(&run).len(), 1);
    assert_eq!(fleet.target.calls().len(), 2, "two keys, two runs");
    let accepted = console.post(&format!("{AT}/trigger"), &json!({})).await;
    assert!(accepted.header("location").is_some());
    let run = accepted.expect(202)["id"].as_str().expect("an id").to_owned();
    assert_eq!(fleet.end_of(&run).await.status, RunState::Success);

    let paused =
        console.post(&format!("{AT}/pause"), &json!({"reason": "disk", "until": "2h"})).await.expect(200);
    assert_eq!((&paused["changed"], &paused["paused"]["reason"]), (&json!(true), &json!("disk")));
    assert_eq!(console.get(AT).await.expect(200)["paused"]["reason"], json!("disk"));
    let resumed = console.send(HttpRequest::new("POST", &format!("{AT}/resume"))).await.expect(200);
    assert_eq!((&resumed["changed"], resumed.get("paused")), (&json!(true), None));

    let now = fleet.now();
    let range = json!({"from": now - chrono::TimeDelta::days(2), "to": now});
    let would = console.post(&format!("{AT}/backfill?dry_run=true"), &range).await.expect(200);
    let slots = would["items"].as_array().expect("items").len();
    assert!(slots >= 1 && would["would_run"].as_u64() == Some(slots as u64), "{would}");
    let backfill =
        || HttpRequest::new("POST", &format!("{AT}/backfill")).json(&range).header("Idempotency-Key", "b");
    let asked = console.send(backfill()).await.expect(202);
    assert_eq!(console.send(backfill()).await.expect(202)["id"], asked["id"]);
    eventually("the end of the backfill", async || {
        let all = console.get(&format!("{AT}/backfills")).await.expect(200);
        let one = all["items"].as_array().map(Vec::len) == Some(1);
        if one && all["items"][0]["state"] == "done" { Ok(()) } else { Err(all.to_string()) }
    })
    .await;
    console.post("/api/v1/schedules/nightli/trigger", &json!({})).await.problem(404, "unknown");
}

#[tokio::test]
async fn a_whole_file_is_applied_over_http_or_not_at_all() {
    let fleet = Fleet::start().await;
    let console = Console::start(&fleet).await;
    let file = "
targets: {storage: {http: 'http://127.0.0.1:1'}}
queues: {reports: {max_in_flight: 2}}
calendars: {cn: {weekdays: mon-fri}}
schedules:
  one: {cron: '0 2 * * *', queue: reports, calendar: cn, task: {target_service: storage, action: a}}
  two: {every: 1h, task: {target_service: storage, action: b}}
";
    let apply = |query: &str, file: &str| {
        HttpRequest::new("POST", &format!("/api/v1/apply{query}")).body("application/yaml", file.as_bytes())
    };
    let would = console.send(apply("?dry_run=true", file)).await.expect(200);
    assert_eq!(would["summary"], json!("5 created"));
    let broken = file.replace("target_service: storage, action: b", "target_service: storge, action: b");
    let refused = console.send(apply("", &broken)).await.problem(422, "bad-definition");
    assert!(
        refused["detail"].as_str().is_some_and(|detail| detail.contains("did you mean \"storage\"")),
        "{refused}"
    );
    assert!(fleet.streams.schedules().list().await.expect("schedules").is_empty(), "nothing was written");
    console.send(apply("", file)).await.expect(200);
    assert_eq!(console.send(apply("", file)).await.expect(200)["summary"], json!("5 unchanged"));
    assert_eq!(console.get("/api/v1/queues/reports").await.expect(200)["max_in_flight"], json!(2));
    assert_eq!(console.get("/api/v1/calendars/cn").await.expect(200)["weekdays"], json!("mon-fri"));
    console.get("/api/v1/calendars/c").await.problem(404, "unknown");
    let fewer = file.lines().filter(|line| !line.contains("  two:")).collect::<Vec<_>>().join("\n");
    let pruned = console.send(apply("?prune=true", &fewer)).await.expect(200);
    assert_eq!(pruned["summary"], json!("4 unchanged, 1 deleted"));
    console
        .send(apply("?prune=true", "queues: {reports: {max_in_flight: 2}}"))
        .await
        .problem(422, "bad-definition");
    console.get("/api/v1/schedules/one").await.expect(200);
}
