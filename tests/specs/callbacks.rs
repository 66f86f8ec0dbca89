//! Targets that take a run on and say later how it ended.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use harness::{Fleet, PlainClient, Process, eventually, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use shared::{
    callback::CallbackStatus,
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn task(action: &str) -> Value {
    json!({
        "target_service": "target", "action": action,
        "retry": {"attempts": 50, "backoff": "100ms", "max_backoff": "200ms"},
    })
}

async fn fleet(settings: &str) -> Fleet {
    let fleet = Fleet::start().await;
    let actions = format!("{{later: {{async: {settings}}}, taken_slowly: {{async: {settings}}}}}");
    fleet.apply(&format!("targets: {{target: {{http: TARGET, actions: {actions}}}}}"));
    fleet
}

/// Waits until the record says that the run's target has it, in this attempt; the subject that its target was told.
async fn awaited(fleet: &Fleet, run: &str, attempt: u32) -> String {
    within(
        Duration::from_mins(1),
        &format!("attempt {attempt} of {run} to be taken on"),
        async || match fleet.record(run).await {
            Some(record) if record.attempt == attempt && record.reason == Some(Reason::AwaitsCallback) => {
                Ok(())
            }
            seen => Err(format!(
                "{:?}",
                seen.map(|record| (record.status, record.attempt, record.reason, record.error))
            )),
        },
    )
    .await;
    told(fleet, run, attempt, "cronfleet-callback-subject")
}

/// What the target was told in this header.
fn told(fleet: &Fleet, run: &str, attempt: u32, header: &str) -> String {
    let calls = fleet.target.calls_of(run);
    let call = calls.iter().find(|call| call.attempt == u64::from(attempt)).expect("a call");
    call.headers.get(header).unwrap_or_else(|| panic!("{header} in {:?}", call.headers)).clone()
}

/// Leaves an answer as any NATS client would; the server's ack.
async fn leave(fleet: &Fleet, subject: &str, answer: &Value) {
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let ack = client.request(subject, answer.to_string().as_bytes()).await;
    assert!(ack.payload.contains("_CALLBACKS\""), "{ack:?}");
}

async fn begun(fleet: &Fleet, run: &str) -> String {
    fleet.submit(run, &task("later")).await.expect("submitted");
    awaited(fleet, run, 1).await
}

fn ends(record: &RunRecord) -> (RunState, u32, Option<&Value>) {
    (record.status, record.attempt, record.output.as_ref())
}

#[tokio::test]
async fn a_run_whose_target_answers_later_is_completed_over_nats_and_holds_no_place_of_its_worker_meanwhile()
{
    let fleet = fleet("{deadline: 1h}").await;
    let _worker = fleet.worker(&["--places", "1"]);
    let (first, second) = (begun(&fleet, "later.1").await, begun(&fleet, "later.2").await);
    let record = fleet.record("later.1").await.expect("a record");
    assert_eq!((record.status, record.finished_at), (RunState::Running, None));
    let token = first.rsplit('.').next().expect("a token");
    assert!(
        !serde_json::to_string(&record).expect("json").contains(token),
        "a record tells nobody the token"
    );
    fleet.submit("now.1", &task("ok")).await.expect("submitted");
    assert_eq!(fleet.end_of("now.1").await.status, RunState::Success, "the one place is free");
    leave(&fleet, &second, &json!({"output": {"rows": 2}})).await;
    leave(&fleet, &first, &json!({"status": "success", "output": 1})).await;
    assert_eq!(ends(&fleet.end_of("later.2").await), (RunState::Success, 1, Some(&json!({"rows": 2}))));
    assert_eq!(ends(&fleet.end_of("later.1").await), (RunState::Success, 1, Some(&json!(1))));
    // Taken on at once, its first word is that its target has it.
    assert_eq!(fleet.life("later.1").await, [RunState::Running, RunState::Success]);
    for run in ["later.1", "later.2"] {
        assert_eq!(fleet.target.calls_of(run).len(), 1, "{run}");
        let run = run.parse().expect("a run");
        eventually("its task to leave the queue", async || match fleet.streams.queued_task(&run).await {
            Ok(None) => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_is_there_before_the_record_awaits_it_counts() {
    let fleet = fleet("{deadline: 1h}").await;
    let worker = fleet.worker(&[]);
    fleet.submit_until_called("early.1", &task("later")).await;
    // Whether the record is written by now or not.
    leave(&fleet, &told(&fleet, "early.1", 1, "cronfleet-callback-subject"), &json!({"output": 7})).await;
    assert_eq!(ends(&fleet.end_of("early.1").await), (RunState::Success, 1, Some(&json!(7))));
    drop(worker);
}

#[tokio::test]
async fn an_answer_to_a_run_whose_worker_was_killed_and_that_nobody_heard_is_found_by_the_next_one() {
    let fleet = fleet("{deadline: 1h}").await;
    let mut worker = fleet.worker(&[]);
    let subject = begun(&fleet, "orphan.1").await;
    worker.kill();
    leave(&fleet, &subject, &json!({"output": "kept"})).await;
    let _next = fleet.worker(&[]);
    let record =
        within(Duration::from_mins(1), "the end of the run", async || match fleet.record("orphan.1").await {
            Some(record) if record.status.is_final() => Ok(record),
            seen => Err(format!("{:?}", seen.map(|record| record.status))),
        })
        .await;
    assert_eq!(ends(&record), (RunState::Success, 1, Some(&json!("kept"))));
    assert_eq!(fleet.target.calls_of("orphan.1").len(), 1, "it was asked once");
}

#[tokio::test]
async fn a_worker_that_is_drained_has_nothing_to_wait_for_and_the_next_one_goes_on_waiting() {
    let fleet = fleet("{deadline: 1h}").await;
    let worker = fleet.worker(&["--drain", "1h"]);
    let subject = begun(&fleet, "drained.1").await;
    worker.signal(Signal::TERM);
    fleet.members("worker", 0).await;
    let _next = fleet.worker(&[]);
    fleet.members("worker", 1).await;
    leave(&fleet, &subject, &json!({})).await;
    assert_eq!(ends(&fleet.end_of("drained.1").await), (RunState::Success, 1, None));
    assert_eq!(fleet.target.calls_of("drained.1").len(), 1, "it was asked once");
}

#[tokio::test]
async fn a_run_whose_deadline_passes_is_tried_again_and_an_answer_to_the_first_attempt_changes_nothing() {
    let fleet = fleet("{deadline: 1s}").await;
    let _worker = fleet.worker(&[]);
    let stale = begun(&fleet, "slow.1").await;
    within(Duration::from_mins(1), "the second attempt", async || {
        if fleet.target.calls_of("slow.1").len() > 1 { Ok(()) } else { Err("one call".to_owned()) }
    })
    .await;
    fleet.apply("targets: {target: {http: TARGET, actions: {later: {async: {deadline: 1h}}}}}");
    leave(&fleet, &stale, &json!({"output": "stale"})).await;
    let record =
        within(Duration::from_mins(1), "an attempt with time", async || match fleet.record("slow.1").await {
            Some(record)
                if record
                    .callback
                    .as_ref()
                    .is_some_and(|awaited| (awaited.deadline - awaited.accepted_at).num_minutes() > 1) =>
            {
                Ok(record)
            }
            seen => Err(format!("{:?}", seen.map(|record| (record.status, record.attempt)))),
        })
        .await;
    let fresh = awaited(&fleet, "slow.1", record.attempt).await;
    leave(&fleet, &stale, &json!({"output": "stale"})).await;
    leave(&fleet, &fresh, &json!({"output": "fresh"})).await;
    let record = fleet.end_of("slow.1").await;
    assert_eq!((record.status, record.output), (RunState::Success, Some(json!("fresh"))));
    assert!(record.attempt > 1);
}

#[tokio::test]
async fn signs_of_life_keep_a_run_waiting_and_silence_ends_it() {
    let fleet = fleet("{deadline: 1h, heartbeat: 4s}").await;
    let _worker = fleet.worker(&[]);
    let subject = begun(&fleet, "alive.1").await;
    let accepted_at =
        fleet.record("alive.1").await.and_then(|record| record.callback).expect("awaited").accepted_at;
    within(Duration::from_mins(1), "more than two silences to pass", async || {
        leave(&fleet, &format!("{subject}.progress"), &json!({"status": "progress"})).await;
        let waited = (fleet.now() - accepted_at).num_seconds();
        if waited > 9 { Ok(()) } else { Err(format!("{waited} s")) }
    })
    .await;
    let record = fleet.record("alive.1").await.expect("a record");
    assert_eq!((record.attempt, record.reason), (1, Some(Reason::AwaitsCallback)), "{record:?}");
    let silent = within(Duration::from_mins(1), "the silence to be noticed", async || {
        let history = fleet.streams.ledger().history(&"alive.1".parse().expect("a run")).await;
        let history = history.map_err(|error| error.to_string())?;
        history
            .into_iter()
            .find(|stored| stored.value.status == RunState::Retry)
            .ok_or("no retry yet".to_owned())
    })
    .await;
    let error = silent.value.error.expect("an error");
    assert_eq!((error.kind, silent.value.reason), (ErrorKind::Timeout, Some(Reason::Timeout)));
    assert!(error.message.contains("silent for more than 4s"), "{}", error.message);
}

#[tokio::test]
async fn an_error_that_comes_later_is_judged_like_one_that_comes_at_once() {
    let fleet = fleet("{deadline: 1h}").await;
    let _worker = fleet.worker(&[]);
    let subject = begun(&fleet, "error.final").await;
    leave(&fleet, &subject, &json!({"error": {"message": "no such table", "retryable": false}})).await;
    let record = fleet.end_of("error.final").await;
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Permanent)));
    assert_eq!(record.error.as_ref().map(|error| error.message.as_str()), Some("no such table"));
    assert!(fleet.dead_letter(&record).await.task.is_some(), "the whole task is kept");
    let subject = begun(&fleet, "error.wait").await;
    leave(&fleet, &subject, &json!({"error": {"message": "later", "retry_after": 600}})).await;
    let wait = eventually("the run to wait", async || match fleet.record("error.wait").await {
        Some(record) if record.status == RunState::Retry => {
            Ok(record.next_attempt_at.expect("an instant") - record.started_at.expect("an instant"))
        }
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(wait.num_seconds() >= 600, "{wait}");
}

#[tokio::test]
async fn a_run_that_waits_for_its_target_is_cancelled_at_once_and_an_answer_after_that_changes_nothing() {
    let fleet = fleet("{deadline: 1h}").await;
    let _worker = fleet.worker(&[]);
    let subject = begun(&fleet, "unwanted.1").await;
    fleet.cronfleet(&["cancel", "unwanted.1"]);
    let record = fleet.record("unwanted.1").await.expect("a record");
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    leave(&fleet, &subject, &json!({"output": "late"})).await;
    fleet.submit("after.1", &task("ok")).await.expect("submitted");
    fleet.end_of("after.1").await;
    assert_eq!(fleet.record("unwanted.1").await, Some(record));
}

/// Posts an answer as any HTTP client would: the status, and the body.
async fn post(url: &str, body: &str) -> (u16, String) {
    let (address, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

/// A worker that takes answers in over HTTP, and where.
fn with_a_door(fleet: &Fleet) -> (Process, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    (fleet.worker(&["--callback-listen", &address]), address)
}

#[tokio::test]
async fn over_http_an_answer_is_taken_in_once_and_only_under_the_token_of_the_attempt() {
    let fleet = fleet("{deadline: 1h}").await;
    let (worker, _) = with_a_door(&fleet);
    begun(&fleet, "http.1").await;
    let url = told(&fleet, "http.1", 1, "cronfleet-callback");
    let guessed = format!("{}/{}", url.rsplit_once('/').expect("a token").0, "0".repeat(32));
    let elsewhere = url.replace("/http/1/", "/http/2/");
    for wrong in [&guessed, &elsewhere, &url[..url.len() - 1], &url.replace("callbacks", "others")] {
        assert_eq!(post(wrong, "{}").await.0, 404, "{wrong}");
    }
    let (status, words) = post(&url, "done").await;
    assert!(status == 400 && words.contains("write {"), "{status} {words}");
    for failure in
        [r#"{"erorr":{"message":"boom"}}"#, r#"{"error":{"mesage":"boom"}}"#, r#"{"success":false}"#]
    {
        let (status, words) = post(&url, failure).await;
        assert!(status == 400 && words.contains("unknown field"), "{failure}: {status} {words}");
    }
    assert_eq!(post(&url, &" ".repeat(600 * 1024)).await.0, 413);
    assert_eq!(post(&url, r#"{"status":"progress"}"#).await.0, 202);
    assert_eq!(fleet.record("http.1").await.map(|record| record.status), Some(RunState::Running));
    assert_eq!(post(&url, r#"{"output":{"rows":3}}"#).await.0, 202);
    let record = fleet.end_of("http.1").await;
    assert_eq!(ends(&record), (RunState::Success, 1, Some(&json!({"rows": 3}))));
    let (status, words) = post(&url, r#"{"output":"again"}"#).await;
    assert!(status == 409 && words.contains("the run is SUCCESS"), "{status} {words}");
    assert_eq!(fleet.record("http.1").await, Some(record));
    let token = url.rsplit('/').next().expect("a token");
    assert!(!worker.said().contains(token), "no log has the token");
}

#[tokio::test]
async fn over_http_an_answer_that_comes_before_its_targets_202_is_kept_waiting_and_counts() {
    let fleet = fleet("{deadline: 1h}").await;
    let (_worker, _) = with_a_door(&fleet);
    // At once there is no record, later one that awaits nothing yet.
    for (run, ms) in [("early.1", 200), ("early.2", 2_000)] {
        let mut task = task("taken_slowly");
        task["parameters"] = json!({"ms": ms});
        fleet.submit_until_called(run, &task).await;
        assert_eq!(fleet.target.calls_of(run)[0].ended_ms, None, "it has not answered yet");
        let answer = post(&told(&fleet, run, 1, "cronfleet-callback"), r#"{"output":7}"#).await;
        assert_eq!(answer.0, 202, "{run}: {}", answer.1);
        assert_eq!(ends(&fleet.end_of(run).await), (RunState::Success, 1, Some(&json!(7))));
    }
}

#[tokio::test]
async fn over_http_whoever_guesses_tokens_shuts_the_door_to_nobody_whose_answer_is_awaited() {
    let fleet = fleet("{deadline: 1h}").await;
    let (_worker, _) = with_a_door(&fleet);
    begun(&fleet, "http.1").await;
    let url = told(&fleet, "http.1", 1, "cronfleet-callback");
    fleet.submit_until_called("running.1", &task("hang")).await;
    let guess = url.rsplit_once('/').expect("a token").0.replace("/http/1", "/running/1");
    let mut guesses: FuturesUnordered<_> = (0..60)
        .map(|number| {
            let guess = format!("{guess}/{number:032x}");
            async move { post(&guess, "{}").await.0 }
        })
        .collect();
    // As many are refused at once as find no place; the others still wait.
    for _ in 0..20 {
        assert_eq!(guesses.next().await, Some(503));
    }
    assert_eq!(post(&url, r#"{"output":3}"#).await.0, 202);
    assert_eq!(ends(&fleet.end_of("http.1").await), (RunState::Success, 1, Some(&json!(3))));
    let rest: Vec<u16> = guesses.collect().await;
    assert!(rest.iter().all(|status| [404, 503].contains(status)), "{rest:?}");
    assert!(rest.contains(&404), "those that waited waited in vain: {rest:?}");
}

#[tokio::test]
async fn a_service_on_nats_may_answer_later_too_and_one_that_only_listens_always_does() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets:
           asked: {message: svc.asked, async: {deadline: 1h}}
           told: {message: svc.told, reply: none, async: {deadline: 1h}}",
    );
    let _worker = fleet.worker(&[]);
    for target in ["asked", "told"] {
        let mut service = PlainClient::connect(&fleet.nats.url()).await;
        service.subscribe(&format!("svc.{target}.later")).await;
        let run = format!("nats.{target}");
        let mut task = task("later");
        task["target_service"] = target.into();
        fleet.submit(&run, &task).await.expect("submitted");
        let request = service.next().await;
        if target == "asked" {
            service.answer(&request, &[("Cronfleet-Accepted", "true")]).await;
        }
        let subject =
            request.headers.lines().find_map(|line| line.strip_prefix("Cronfleet-Callback-Subject: "));
        leave(&fleet, subject.expect("a subject"), &json!({"output": target})).await;
        assert_eq!(ends(&fleet.end_of(&run).await), (RunState::Success, 1, Some(&json!(target))));
    }
}

#[tokio::test]
async fn of_two_answers_that_the_server_acknowledged_the_first_counts() {
    let fleet = fleet("{deadline: 1h}").await;
    let _workers = (fleet.worker(&[]), fleet.worker(&[]));
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    for number in 0..12 {
        let run = format!("twice.{number}");
        let subject = begun(&fleet, &run).await;
        for answer in [r#"{"output":1}"#, r#"{"error":{"message":"no","retryable":false}}"#] {
            let ack = client.request(&subject, answer.as_bytes()).await;
            assert!(ack.payload.contains("_CALLBACKS\""), "{ack:?}");
        }
        assert_eq!(ends(&fleet.end_of(&run).await), (RunState::Success, 1, Some(&json!(1))), "{run}");
    }
}

#[tokio::test]
async fn what_others_leave_for_a_run_under_tokens_of_their_own_hides_no_answer_that_nobody_heard() {
    let fleet = fleet("{deadline: 1h}").await;
    let mut worker = fleet.worker(&[]);
    let subject = begun(&fleet, "noise.1").await;
    worker.kill();
    let run = "noise.1".parse().expect("a run");
    for _ in 0..300 {
        let token = shared::callback::CallbackToken::new().text();
        let left = fleet.streams.leave(&run, &token, CallbackStatus::Success, "{}".into()).await;
        left.expect("left");
    }
    leave(&fleet, &subject, &json!({"output": "right"})).await;
    let _next = fleet.worker(&[]);
    assert_eq!(ends(&fleet.end_of("noise.1").await), (RunState::Success, 1, Some(&json!("right"))));
}

#[tokio::test]
async fn half_sent_requests_keep_no_answer_from_being_taken_in_for_long() {
    const HALVES: usize = 300;
    let fleet = fleet("{deadline: 1h}").await;
    let (_worker, address) = with_a_door(&fleet);
    begun(&fleet, "open.1").await;
    let url = told(&fleet, "open.1", 1, "cronfleet-callback");
    let mut halves = Vec::new();
    for number in 0..HALVES {
        let mut half = TcpStream::connect(&address).await.expect("a connection");
        let rest = if number % 2 == 0 { "" } else { "Content-Length: 9\r\n\r\n{" };
        let begun = format!("POST /callbacks/open/1/x HTTP/1.1\r\nHost: {address}\r\n{rest}");
        half.write_all(begun.as_bytes()).await.expect("sent");
        halves.push(half);
    }
    let (status, body) = post(&url, r#"{"output":5}"#).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(ends(&fleet.end_of("open.1").await), (RunState::Success, 1, Some(&json!(5))));
    for mut half in halves {
        let mut said = Vec::new();
        // However it is ended.
        tokio::select! {
            _ = half.read_to_end(&mut said) => {}
            () = fleet.streams.clock().sleep(Duration::from_mins(2)) => panic!("half a request is waited for"),
        }
    }
}
