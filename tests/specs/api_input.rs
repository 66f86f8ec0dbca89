//! Every route with malformed, oversized, unknown and hostile input answers 4xx with a problem, and changes nothing.
//!
//! The routes are those of the `OpenAPI` document, so a new one is tried without a word here.

use harness::{Console, Fleet, HttpRequest};
use serde_json::{Value, json};
use shared::limits::{CONSOLE_HEADERS_BYTES_MAX, CONSOLE_URI_BYTES_MAX};

/// An operation as the document says it.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    body: Option<Value>,
}

async fn operations(console: &Console) -> Vec<Operation> {
    let document = console.get("/openapi.json").await.expect(200);
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let body = operation.get("requestBody").cloned();
            all.push(Operation { method: method.to_uppercase(), path: path.clone(), parameters, body });
        }
    }
    assert!(all.len() > 40, "only {} operations", all.len());
    all
}

impl Operation {
    /// The path with a value for each of its parameters, and what else is needed for it to be reached.
    fn request(&self, value: &str, query: &str) -> HttpRequest {
        let mut target = self.path.clone();
        for parameter in self.parameters.iter().filter(|parameter| parameter["in"] == "path") {
            let name = format!("{{{}}}", parameter["name"].as_str().expect("a name"));
            target = target.replace(&name, value);
        }
        HttpRequest::new(&self.method, &format!("{target}{query}"))
    }

    fn has_run(&self) -> bool {
        self.path.contains("{run}")
    }

    fn ordinary(&self) -> &'static str {
        if self.has_run() { "kept.none" } else { "nobody" }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// All that the fleet keeps and a request could change.
async fn kept(fleet: &Fleet) -> String {
    let schedules = fleet.streams.schedules().list().await.expect("schedules");
    let pauses = fleet.streams.schedules().pauses().await.expect("pauses");
    let catalog = fleet.streams.catalog().all().await.expect("the catalog");
    let records = fleet.records().await;
    let wanted = streams::delayed::Wanted { limit: 100, ..streams::delayed::Wanted::default() };
    let delayed = fleet.streams.delayed().list(&wanted).await.expect("what waits");
    let depth = fleet.streams.queue_depth(&"default".parse().expect("queue")).await.expect("a queue");
    format!("{schedules:?} {pauses:?} {catalog:?} {records:?} {delayed:?} {depth:?}")
}

/// Values that no parameter of a path has; the last is none at all once it is read.
const HOSTILE: [&str; 10] = [
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "..%2F..%2Fetc%2Fpasswd",
    "a%00b",
    "%1B%5B2J",
    "%E2%80%AEname",
    "*",
    "%3E",
    "a%20b",
    "%FF%FE",
    "'%20OR%201=1--",
];

#[tokio::test]
async fn every_route_refuses_what_it_cannot_understand_with_a_problem_and_changes_nothing() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets: {target: {http: TARGET}}
schedules: {kept: {cron: '0 2 * * *', task: {target_service: target, action: ok}}}",
    );
    let console = Console::start(&fleet).await;
    let before = kept(&fleet).await;
    for operation in operations(&console).await {
        let name = operation.name();
        let refused = async |request: HttpRequest, why: &str| {
            let answer = console.send(request).await;
            assert!((400..500).contains(&answer.status), "{name}, {why}: {answer:?}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{name}, {why}: {answer:?}"
            );
            let problem = answer.json();
            assert!(
                problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/")),
                "{name}, {why}: {problem}"
            );
            assert!(
                !answer.body.contains('\u{1b}') && !answer.body.contains("<script>alert(1)</script>\n"),
                "{name}: {problem}"
            );
            answer.status
        };
        let reached = |query: &str| operation.request(operation.ordinary(), query);
        refused(reached("?surely_no_parameter=1"), "an unknown parameter").await;
        let long = format!("?{}", "x".repeat(CONSOLE_URI_BYTES_MAX + 1));
        assert_eq!(refused(reached(&long), "a long query").await, 414);
        let large = reached("").header("X-Large", &"x".repeat(CONSOLE_HEADERS_BYTES_MAX + 1));
        assert_eq!(refused(large, "large headers").await, 431);
        refused(HttpRequest { method: "PATCH".to_owned(), ..reached("") }, "a method there is not").await;
        refused(HttpRequest { method: "FROBNICATE".to_owned(), ..reached("") }, "no method").await;
        if operation.path.contains('{') {
            for value in HOSTILE {
                refused(operation.request(value, ""), value).await;
            }
            refused(operation.request(&"x".repeat(500), ""), "a long name").await;
            // Well-formed and unknown.
            if operation.body.is_none() {
                refused(reached(""), "what there is not").await;
            }
        }
        for parameter in &operation.parameters {
            let text = parameter["name"].as_str().expect("a name");
            match parameter["in"].as_str() {
                Some("query") => {
                    for value in ["", "%00", "%1B%5B31m"] {
                        refused(reached(&format!("?{text}={value}")), text).await;
                    }
                    if parameter["schema"]["type"] != "string" || parameter["schema"].get("pattern").is_some()
                    {
                        refused(reached(&format!("?{text}=%3Cscript%3E")), text).await;
                    }
                    if parameter["schema"]["type"] != "array" {
                        let good = parameter["schema"]["enum"][0].as_str().unwrap_or("1");
                        refused(reached(&format!("?{text}={good}&{text}={good}")), "given twice").await;
                    }
                }
                Some("header") => {
                    refused(reached("").header(text, &"x".repeat(2_000)), text).await;
                }
                _ => {}
            }
        }
        if operation.body.is_none() {
            if operation.method != "GET" {
                refused(reached("").body("application/json", b"{\"a\":1}"), "a body").await;
            }
            continue;
        }
        for body in hostile_bodies() {
            let why = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            refused(reached("").body("application/json", &body), &why).await;
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
        {
            assert_eq!(refused(reached("").body(kind, b"{}"), kind).await, 415);
        }
        let huge = vec![b' '; 6 * 1024 * 1024];
        assert_eq!(refused(reached("").body("application/json", &huge), "six mebibytes").await, 413);
    }
    assert_eq!(kept(&fleet).await, before, "nothing was changed");
    assert!(fleet.target.calls().is_empty());
    console.get("/readyz").await.expect(200);
}

fn hostile_bodies() -> Vec<Vec<u8>> {
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(2_000), "}".repeat(2_000));
    let mut all: Vec<Vec<u8>> = [
        "{",
        "null",
        "[]",
        "\"text\"",
        "1e999",
        "{\"surely_no_field\": 1}",
        "{\"a\": 1, \"a\": 2}",
        "{} {}",
        "{\"<script>alert(1)</script>\": \"\\u001b[2J\"}",
        &deep,
        &deep_object,
        &json!({"surely_no_field": "x".repeat(100_000)}).to_string()[..],
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(vec![0xff, 0xfe, 0x00]);
    all.push(b"{\"name\": \"\xff\"}".to_vec());
    // An alias bomb, for readers of YAML.
    all.push(
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            .to_vec(),
    );
    all
}

#[tokio::test]
async fn what_a_stranger_wrote_stays_text() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let console = Console::start(&fleet).await;
    let said = "<script>alert(1)</script>\u{1b}[2J\u{202e}";
    let put = HttpRequest::new("PUT", "/api/v1/schedules/odd").json(&json!({
        "description": said, "cron": "0 2 * * *", "task": {"target_service": "target", "action": "ok"},
    }));
    console.send(put).await.expect(201);
    let read = console.get("/api/v1/schedules/odd").await;
    assert_eq!(read.header("content-type"), Some("application/json"));
    assert_eq!(read.header("x-content-type-options"), Some("nosniff"));
    assert!(!read.body.contains('\u{1b}'), "control characters are written as what they are");
    assert_eq!(read.json()["description"], json!(said));
    let pause = console.post("/api/v1/schedules/odd/pause", &json!({"reason": said})).await.expect(200);
    assert_eq!(pause["paused"]["reason"], json!(said));
    let by =
        HttpRequest::new("POST", "/api/v1/schedules/odd/resume").header("Cronfleet-By", &"x".repeat(200));
    console.send(by).await.problem(400, "bad-parameter");
}
