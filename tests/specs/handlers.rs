//! Workers in Rust: handlers with typed parameters, and what becomes of the run by what they say, do or leave undone.

use std::{process::Command, time::Duration};

use harness::{Fleet, Process, eventually, within};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason},
    run_state::RunState,
};
use tokio::task::JoinHandle;
use worker::{HandlerError, RunContext, Stop, Worker, WorkerBuilder, WorkerError};

/// A worker in this process, with what its handlers do as `work`.
struct AtWork {
    stop: Stop,
    running: JoinHandle<Result<(), WorkerError>>,
}

impl AtWork {
    async fn begin(builder: WorkerBuilder) -> Self {
        let worker = builder.build().await.expect("a worker");
        let stop = Stop::default();
        let running = tokio::spawn(worker.run(stop.clone()));
        Self { stop, running }
    }

    async fn end(self) {
        self.stop.drain.cancel();
        self.running.await.expect("no panic").expect("ended well");
    }
}

fn task(action: &str, parameters: &Value) -> Value {
    // The target is declared nowhere.
    json!({"target_service": "nowhere", "action": action, "parameters": parameters,
           "retry": {"attempts": 3, "backoff": "100ms"}})
}

async fn submit(fleet: &Fleet, run: &str, action: &str, parameters: Value) {
    fleet.submit(run, &task(action, &parameters)).await.expect("submitted");
}

async fn says(fleet: &Fleet, run: &str, words: &str) {
    eventually(&format!("{run} says {words:?}"), async || {
        let said = fleet.try_cronfleet(&["logs", run]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
}

async fn message_of(fleet: &Fleet, run: &str) -> String {
    fleet.end_of(run).await.error.expect("an error").message
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    table: String,
    #[serde(default)]
    options: Options,
}

#[derive(Default, Deserialize)]
struct Options {
    batch_size: u32,
}

#[derive(Serialize)]
struct Archived {
    rows: u64,
    by: String,
}

async fn archive(ctx: RunContext, what: Archive) -> Result<Archived, HandlerError> {
    let by = format!("{} attempt {} of {}", what.table, ctx.attempt(), ctx.run());
    Ok(Archived { rows: u64::from(what.options.batch_size) * 2, by })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_its_parameters_as_its_type_and_its_output_is_recorded() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {heavy: {}}");
    let of_one = async |ctx: RunContext, _: Value| {
        Ok(json!({"target": ctx.target(), "fence": ctx.fence(), "slot": ctx.slot()}))
    };
    let worker = Worker::builder(fleet.nats.url())
        .queue("heavy", 3)
        .queue("default", 1)
        .places(4)
        .handler("archive", archive)
        .handler_for("storage", "archive", of_one);
    let worker = AtWork::begin(worker).await;
    submit(&fleet, "archive.1", "archive", json!({"table": "trades", "options": {"batch_size": 21}})).await;
    let run = fleet.end_of("archive.1").await;
    assert_eq!(run.status, RunState::Success);
    assert_eq!(run.output, Some(json!({"rows": 42, "by": "trades attempt 1 of archive.1"})));

    let of_storage = json!({"target_service": "storage", "action": "archive"});
    fleet.submit("archive.2", &of_storage).await.expect("submitted");
    let output = fleet.end_of("archive.2").await.output.expect("an output");
    assert_eq!((&output["target"], &output["slot"]), (&json!("storage"), &Value::Null));
    assert!(output["fence"].is_u64(), "{output}");
    worker.end().await;
    fleet.members("worker", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_speak_and_let_go_of_its_context_on_a_thread_of_its_own() {
    let fleet = Fleet::start().await;
    let aside = async |ctx: RunContext, _: Value| {
        let speaks = std::thread::spawn(move || {
            ctx.log("from aside");
            ctx.progress(0.5, "half");
        });
        tokio::task::spawn_blocking(|| speaks.join().map_err(|_| HandlerError::permanent("it panicked")))
            .await
            .map_err(|error| HandlerError::permanent(error.to_string()))?
    };
    let worker = AtWork::begin(Worker::builder(fleet.nats.url()).handler("aside", aside)).await;
    submit(&fleet, "aside.1", "aside", json!({})).await;
    let record = fleet.end_of("aside.1").await;
    assert_eq!(record.status, RunState::Success, "{record:?}");
    says(&fleet, "aside.1", "from aside").await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_do_not_fit_end_the_run_at_once_and_say_field_rule_and_repair() {
    let fleet = Fleet::start().await;
    let worker = AtWork::begin(Worker::builder(fleet.streams.clone()).handler("archive", archive)).await;
    for (run, parameters, words) in [
        (
            "archive.type",
            json!({"table": "trades", "options": {"batch_size": "many"}}),
            "`options.batch_size`: invalid type: string \"many\", expected u32",
        ),
        ("archive.missing", json!({}), "missing field `table`"),
        ("archive.slip", json!({"tabel": "trades"}), "did you mean `table`?"),
    ] {
        submit(&fleet, run, "archive", parameters).await;
        let record = fleet.end_of(run).await;
        assert_eq!(
            (record.status, record.attempt, record.reason),
            (RunState::Failed, 1, Some(Reason::Permanent)),
            "{run}"
        );
        let error = record.error.clone().expect("an error");
        assert_eq!(error.kind, ErrorKind::Request);
        assert!(error.message.contains(words), "{run}: {}", error.message);
        assert!(error.message.ends_with("mend `parameters` of the task"), "{run}: {}", error.message);
        fleet.dead_letter(&record).await;
    }
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_says_decides_whether_and_when_its_run_is_tried_again() {
    let fleet = Fleet::start().await;
    let ends = async |ctx: RunContext, how: Value| -> Result<u32, HandlerError> {
        let first = ctx.attempt() == 1;
        match how["how"].as_str() {
            Some("permanent") => Err(HandlerError::permanent("no such table")),
            Some("later") if first => Err(HandlerError::retry("busy").after(Duration::from_secs(3))),
            Some("error") if first => {
                let error = std::io::Error::other("disk on fire");
                Err(anyhow::Error::new(error).context("reading trades"))?
            }
            Some("panic") if first => panic!("index {} is out of range", 7),
            _ => Ok(ctx.attempt()),
        }
    };
    let worker = AtWork::begin(Worker::builder(fleet.streams.clone()).places(1).handler("end", ends)).await;
    for how in ["permanent", "later", "error", "panic"] {
        submit(&fleet, &format!("end.{how}"), "end", json!({"how": how})).await;
    }
    let permanent = fleet.end_of("end.permanent").await;
    assert_eq!((permanent.status, permanent.attempt), (RunState::Failed, 1));
    assert_eq!(message_of(&fleet, "end.permanent").await, "no such table");
    for (how, words) in [
        ("later", "busy"),
        ("error", "reading trades: disk on fire"),
        ("panic", "the handler panicked: index 7 is out of range"),
    ] {
        let run = format!("end.{how}");
        let record = fleet.end_of(&run).await;
        assert_eq!(
            (record.status, record.attempt, record.output),
            (RunState::Success, 2, Some(json!(2))),
            "{how}"
        );
        let history = fleet.streams.ledger().history(&run.parse().expect("id")).await.expect("history");
        let mut lives = history.into_iter().map(|stored| stored.value);
        let retry = lives.rfind(|record| record.status == RunState::Retry).expect("it was tried again");
        assert_eq!(retry.error.expect("an error").message, words);
        if how == "later" {
            let next = retry.next_attempt_at.expect("it waits");
            assert!((next - retry.created_at).num_milliseconds() >= 3_000, "{how}: {next}");
            assert!(record.started_at >= Some(next), "{how}: {next}");
        }
    }
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_says_while_it_runs_is_seen_and_a_cancel_stops_it() {
    let fleet = Fleet::start().await;
    let long = async |ctx: RunContext, _: Value| -> Result<(), HandlerError> {
        ctx.progress(0.4, "half the tables");
        ctx.log("trades is next");
        ctx.cancelled().await;
        ctx.log("told to stop");
        Err(HandlerError::retry("stopped"))
    };
    let worker = AtWork::begin(Worker::builder(fleet.streams.clone()).handler("long", long)).await;
    submit(&fleet, "long.1", "long", json!({})).await;
    says(&fleet, "long.1", "trades is next").await;
    within(Duration::from_secs(10), "its progress is seen", async || {
        let runs = fleet.cronfleet(&["get", "runs"]);
        if runs.contains("40 %: half the tables") { Ok(()) } else { Err(runs) }
    })
    .await;
    fleet.cronfleet(&["cancel", "long.1"]);
    let run = fleet.end_of("long.1").await;
    assert_eq!((run.status, run.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    let said = fleet.cronfleet(&["logs", "long.1"]);
    assert!(said.contains("half the tables") && said.contains("told to stop"), "{said}");
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_ignores_its_token_is_given_up_and_hurts_nobody() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {default: {ack_wait: 6s}}");
    let worker = Worker::builder(fleet.streams.clone())
        .places(4)
        .handler("deaf", async |_, _: Value| -> Result<(), HandlerError> { std::future::pending().await })
        .handler("quick", async |_, _: Value| Ok("done"));
    let worker = AtWork::begin(worker).await;
    let deaf =
        json!({"target_service": "nowhere", "action": "deaf", "timeout": "1s", "retry": {"attempts": 1}});
    fleet.submit("deaf.1", &deaf).await.expect("submitted");
    let run = fleet.end_of("deaf.1").await;
    assert_eq!((run.status, run.reason), (RunState::Failed, Some(Reason::Timeout)));
    says(&fleet, "deaf.1", "was given up; let it heed `ctx.cancelled()`").await;
    submit(&fleet, "quick.1", "quick", json!({})).await;
    assert_eq!(fleet.end_of("quick.1").await.output, Some(json!("done")));
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_hands_the_run_of_a_handler_back_with_its_attempt_unspent() {
    let fleet = Fleet::start().await;
    let stops = async |ctx: RunContext, _: Value| -> Result<(), HandlerError> {
        ctx.log("begun");
        ctx.cancelled().await;
        Err(HandlerError::permanent("stopped, and that is nobody's failure"))
    };
    let first = Worker::builder(fleet.streams.clone()).drain(Duration::from_millis(300));
    let first = AtWork::begin(first.handler("work", stops)).await;
    submit(&fleet, "work.1", "work", json!({})).await;
    says(&fleet, "work.1", "begun").await;
    first.end().await;
    let run = fleet.record("work.1").await.expect("a record");
    assert_eq!((run.status, run.attempt, run.reason), (RunState::Pending, 0, Some(Reason::Drained)));
    let done = async |ctx: RunContext, _: Value| Ok(ctx.attempt());
    let second = AtWork::begin(Worker::builder(fleet.streams.clone()).handler("work", done)).await;
    assert_eq!(fleet.end_of("work.1").await.output, Some(json!(1)));
    second.end().await;
}

#[tokio::test]
async fn the_example_in_rust_does_what_it_shows() {
    let fleet = Fleet::start().await;
    // A queue of its own, as it says: workers beside it have no handler and would ask the target.
    fleet.apply("queues: {archive: {}}");
    let _beside = fleet.worker(&[]);
    let submit = |key: &str, parameters: Value| {
        let task = json!({"target_service": "storage", "action": "archive_tables", "parameters": parameters});
        let task = task.to_string();
        fleet.cronfleet(&["submit", "archive", "--key", key, "--queue", "archive", "-d", &task]);
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_archive-worker"));
    command.env("NATS_URL", fleet.nats.url());
    let mut worker = Process::start("archive-worker", command, &fleet.folder());
    submit("1", json!({"cutoff_days": 7}));
    assert_eq!(fleet.end_of("archive.1").await.output, Some(json!({"tables": 3})));
    let log = fleet.cronfleet(&["logs", "archive.1"]);
    assert!(log.contains("quotes is archived, as fence"), "{log}");
    submit("2", json!({"cutoff_days": 0}));
    assert!(message_of(&fleet, "archive.2").await.contains("give it 1 or more"));
    worker.signal(Signal::INT);
    assert!(worker.ended().await.success());
}

#[test]
fn the_readme_shows_the_example_in_rust_as_it_is() {
    let read = |path: &str| std::fs::read_to_string(harness::repository().join(path)).expect(path);
    let example = read("worker/examples/archive.rs");
    let readme = read("README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    // Parts of it, with an ellipsis between.
    for part in shown.split("// …\n") {
        let lines: Vec<_> = part.trim().lines().map(str::trim).collect();
        let is_there = example
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .windows(lines.len())
            .any(|window| window == lines);
        assert!(is_there, "not in the example:\n{part}");
    }
}
