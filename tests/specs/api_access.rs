//! Who may reach a console, and from where.

use harness::{Console, Fleet, HttpRequest};
use serde_json::json;

const TOKEN: &str = "0123456789-abcdefghij";

#[tokio::test]
async fn a_console_that_others_could_reach_refuses_to_start_without_a_token_and_says_how() {
    let fleet = Fleet::start().await;
    for (listen, token, part) in [
        ("0.0.0.0:0", None, "CRONFLEET_CONSOLE_TOKEN"),
        ("0.0.0.0:0", Some("short"), "at least 16"),
        ("127.0.0.1:0", Some("with blanks in the middle"), "token"),
    ] {
        let mut variables = vec![("NATS_URL", fleet.nats.url())];
        variables.extend(token.map(|token| ("CRONFLEET_CONSOLE_TOKEN", token.to_owned())));
        let arguments = ["console", "--listen", listen, "--data-dir", "refused"];
        let output = harness::process::run(&harness::binary(), arguments, &fleet.folder(), &variables);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(token.is_none_or(|token| !said.contains(token)), "a token is never shown: {said}");
    }
    assert!(!fleet.folder().join("refused").exists(), "nothing was begun");
}

#[tokio::test]
async fn where_there_is_a_token_nothing_but_probes_and_documents_is_told_without_it() {
    let fleet = Fleet::start().await;
    let console = Console::start_with(&fleet, &[], &[("CRONFLEET_CONSOLE_TOKEN", TOKEN.to_owned())]).await;
    let document = console.get("/openapi.json").await.expect(200);
    console.get("/livez").await.expect(200);
    assert_eq!(console.get("/problems/unauthorized").await.status, 200);
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let target = path.replace("{run}", "a.b").replace("{name}", "a").replace("{id}", "a");
            let answer = console.send(HttpRequest::new(&method.to_uppercase(), &target)).await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{path}");
        }
    }
    console.get("/no/such/path").await.problem(401, "unauthorized");
    let with = |text: &str| HttpRequest::new("GET", "/api/v1/queues").header("Authorization", text);
    for wrong in ["Bearer 0123456789-abcdefghiX", "Basic 0123456789-abcdefghij", "Bearer", TOKEN] {
        console.send(with(wrong)).await.problem(401, "unauthorized");
    }
    console.send(with(&format!("Bearer {TOKEN}"))).await.expect(200);
    assert!(!console.process.said().contains(TOKEN), "a token is never logged");
}

#[tokio::test]
async fn foreign_hosts_and_the_pages_of_other_sites_are_refused_and_change_nothing() {
    let fleet = Fleet::start().await;
    fleet.apply("schedules: {kept: {cron: '0 2 * * *', task: {command: [a]}}}");
    let console = Console::start_with(&fleet, &["--name", "cronfleet.example"], &[]).await;
    let get = |host: &str| HttpRequest::new("GET", "/api/v1/queues").header("Host", host);
    for host in ["evil.example", "evil.example:8640", "127.0.0.1.evil.example", "192.0.2.7"] {
        console.send(get(host)).await.problem(421, "foreign-host");
    }
    for host in ["localhost", "localhost:1", "[::1]:8640", "cronfleet.example"] {
        console.send(get(host)).await.expect(200);
    }
    console.send(get("a").header("Host", "localhost")).await.problem(400, "bad-request");
    let pause = || HttpRequest::new("POST", "/api/v1/schedules/kept/pause").json(&json!({}));
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost:1"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        console.send(pause().header(name, value)).await.problem(403, "foreign-origin");
        let follow = HttpRequest::new("GET", "/api/v1/results/stream").header(name, value);
        console.send(follow).await.problem(403, "foreign-origin");
    }
    let paused = fleet.streams.schedules().pause(&"kept".parse().expect("name")).await.expect("a read");
    assert_eq!(paused.revision, 0, "nothing was changed");
    let own = format!("http://{}", console.address);
    let answer = console.send(pause().header("Origin", &own)).await;
    assert!(answer.header("access-control-allow-origin").is_none());
    answer.expect(200);
    let preflight = HttpRequest::new("OPTIONS", "/api/v1/schedules/kept/pause").header("Origin", &own);
    console.send(preflight).await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn every_answer_says_what_a_browser_is_to_know() {
    let fleet = Fleet::start().await;
    let console = Console::start(&fleet).await;
    for path in ["/livez", "/openapi.json", "/api/v1/queues", "/problems/unknown", "/no/such/path"] {
        let answer = console.get(path).await;
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    let wrong = console.send(HttpRequest::new("PATCH", "/api/v1/queues")).await;
    wrong.problem(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), Some("GET,HEAD"));
    console.get("/problems/none").await.problem(404, "unknown");
}

#[tokio::test]
async fn a_console_ends_in_order_and_says_why_it_is_not_ready() {
    let mut fleet = Fleet::start().await;
    let mut console = Console::start(&fleet).await;
    let (head, lines) = HttpRequest::new("GET", "/api/v1/results/stream").follow(&console.address).await;
    assert_eq!(head.status, 200);
    fleet.nats.kill();
    let why = harness::eventually("not ready", async || {
        let answer = console.get("/readyz").await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.body) }
    })
    .await
    .problem(503, "not-ready");
    assert!(why["detail"].as_str().is_some_and(|words| words.contains("NATS")), "{why}");
    console.get("/livez").await.expect(200);
    console.get("/api/v1/queues").await.problem(503, "unavailable");
    fleet.nats.restart().await;
    harness::eventually("ready again", async || {
        let answer = console.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
    // Also one that is followed does not hold it up.
    assert!(console.process.stop().await.success(), "{}", console.process.said());
    drop(lines);
}
