//! Targets that are NATS micro services, and those that nobody waits for.

use harness::{Fleet, PlainClient, eventually};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, RunRecord},
    run_state::RunState,
};
use streams::{Bytes, Streams, headers, responder::ServiceError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn task(target: &str, action: &str, n: i64) -> Value {
    json!({
        "target_service": target, "action": action, "timeout": "5s", "parameters": {"n": n},
        "retry": {"attempts": 2, "backoff": "100ms", "max_backoff": "200ms"},
    })
}

/// A real micro service that doubles numbers, on this prefix, until it is told to stop.
fn doubler(streams: &Streams, prefix: &'static str, stop: &CancellationToken) -> JoinHandle<()> {
    let (streams, stop) = (streams.clone(), stop.clone());
    tokio::spawn(async move {
        let handler = |action: String, body: Bytes| async move {
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            match action.as_str() {
                "double" => Ok((body["parameters"]["n"].as_i64().unwrap_or(0) * 2).to_string().into()),
                _ => Err(ServiceError { code: 404, message: "no such action".to_owned() }),
            }
        };
        streams.respond("doubler", prefix, handler, stop).await.expect("served");
    })
}

async fn ended(fleet: &Fleet, run: &str, task: &Value) -> RunRecord {
    fleet.submit(run, task).await.expect("submitted");
    fleet.end_of(run).await
}

#[tokio::test]
async fn a_micro_service_is_found_by_its_name_wherever_it_listens_and_found_again_when_it_has_moved() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {doubler: {service: doubler}, nobody: {service: nobody}}");
    let _worker = fleet.worker(&[]);
    let (here, there) = (CancellationToken::new(), CancellationToken::new());
    let service = doubler(&fleet.streams, "svc.here", &here);
    let name = "doubler".parse().expect("a name");
    let found = eventually("the service to be found", async || {
        let endpoint =
            fleet.streams.find_endpoint(&name, std::time::Duration::from_secs(1), |all| all.first().cloned());
        endpoint.await.map_err(|error| error.to_string())?.ok_or("none".to_owned())
    })
    .await;
    assert_eq!(found.subject, "svc.here.*");
    let record = ended(&fleet, "micro.first", &task("doubler", "double", 21)).await;
    assert_eq!((record.status, record.output), (RunState::Success, Some(json!(42))), "{:?}", record.error);
    let record = ended(&fleet, "micro.other", &task("doubler", "halve", 21)).await;
    assert_eq!((record.status, record.attempt), (RunState::Failed, 1), "its own 404");
    here.cancel();
    service.await.expect("stopped");
    let service = doubler(&fleet.streams, "svc.there", &there);
    let patient = json!({"attempts": 50, "backoff": "100ms", "max_backoff": "200ms"});
    let mut moved = task("doubler", "double", 4);
    moved["retry"] = patient;
    let record = ended(&fleet, "micro.moved", &moved).await;
    assert_eq!((record.status, record.output), (RunState::Success, Some(json!(8))), "{:?}", record.error);
    let record = ended(&fleet, "micro.nobody", &task("nobody", "double", 1)).await;
    let error = record.error.expect("an error");
    assert_eq!((error.kind, record.attempt), (ErrorKind::Unreachable, 2));
    assert!(error.message.contains("service nobody cannot be found"), "{}", error.message);
    there.cancel();
    service.await.expect("stopped");
}

#[tokio::test]
async fn a_message_that_nobody_answers_has_gone_well_once_the_server_has_it() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {feed: {message: svc.feed, reply: none, actions: {ask: {reply: wait}}}}");
    let _worker = fleet.worker(&[]);
    let mut heard = PlainClient::connect(&fleet.nats.url()).await;
    heard.subscribe("svc.feed.*").await;
    let record = ended(&fleet, "told.1", &task("feed", "tell", 7)).await;
    assert_eq!((record.status, record.output), (RunState::Success, None), "{:?}", record.error);
    let message = heard.next().await;
    assert_eq!((message.subject.as_str(), &message.reply), ("svc.feed.tell", &None));
    for name in [headers::RUN, headers::IDEMPOTENCY_KEY] {
        assert!(message.headers.contains(&format!("{name}: told.1\r\n")), "{}", message.headers);
    }
    let body: Value = serde_json::from_str(&message.payload).expect("JSON");
    assert_eq!((&body["action"], &body["parameters"]["n"]), (&json!("tell"), &json!(7)));
    drop(heard);
    let record = ended(&fleet, "told.2", &task("feed", "tell", 7)).await;
    assert_eq!(record.status, RunState::Success, "nobody listens, and nobody is asked whether");
    let record = ended(&fleet, "told.3", &task("feed", "ask", 7)).await;
    assert_eq!(
        record.error.expect("an error").kind,
        ErrorKind::Unreachable,
        "this action waits for an answer"
    );
}

#[tokio::test]
async fn an_answer_over_nats_says_itself_whether_and_when_another_attempt_makes_sense() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {feed: {message: svc.feed}}");
    let _worker = fleet.worker(&[]);
    let mut asked = PlainClient::connect(&fleet.nats.url()).await;
    asked.subscribe("svc.feed.*").await;
    let answering = tokio::spawn(async move {
        loop {
            let message = asked.next().await;
            let answer = match message.subject.rsplit('.').next() {
                Some("never") => [("Nats-Service-Error-Code", "503"), (headers::RETRYABLE, "false")],
                Some("soon") => [("Nats-Service-Error-Code", "400"), (headers::RETRYABLE, "true")],
                _ => [("Nats-Service-Error-Code", "429"), (headers::RETRY_AFTER, "600")],
            };
            asked.answer(&message, &answer).await;
        }
    });
    for (action, status, attempt) in [("never", RunState::Failed, 1), ("soon", RunState::Failed, 2)] {
        let record = ended(&fleet, &format!("answer.{action}"), &task("feed", action, 1)).await;
        assert_eq!((record.status, record.attempt), (status, attempt), "{action}: {:?}", record.error);
    }
    fleet.submit("answer.later", &task("feed", "later", 1)).await.expect("submitted");
    let wait = eventually("the run to wait", async || match fleet.record("answer.later").await {
        Some(record) if record.status == RunState::Retry => {
            Ok(record.next_attempt_at.expect("an instant") - record.started_at.expect("an instant"))
        }
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(wait.num_seconds() >= 600, "{wait}");
    answering.abort();
}
