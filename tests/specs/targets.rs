//! Targets that answer badly, or not at all; commands; services on NATS.

use harness::Fleet;
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason},
    run_state::RunState,
};
use streams::responder::ServiceError;
use tokio_util::sync::CancellationToken;

/// Two attempts, quickly.
fn task(action: &str, more: &Value) -> Value {
    let mut task = json!({
        "target_service": "target", "action": action, "timeout": "1s",
        "retry": {"attempts": 2, "backoff": "100ms", "max_backoff": "200ms"},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        task[name] = value.clone();
    }
    task
}

#[tokio::test]
async fn a_target_that_answers_badly_is_tried_again_where_that_may_help_and_ends_among_the_dead_letters() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}, nobody: {http: 'http://127.0.0.1:1'}}");
    let _worker = fleet.worker(&[]);
    let table = [
        ("fail", json!({}), 2, ErrorKind::Target, Reason::AttemptsExhausted),
        ("refuse", json!({}), 1, ErrorKind::Target, Reason::Permanent),
        ("hang", json!({}), 2, ErrorKind::Timeout, Reason::Timeout),
        ("endless", json!({"timeout": "20s"}), 1, ErrorKind::ResponseTooLarge, Reason::Permanent),
        ("nobody", json!({"target_service": "nobody"}), 2, ErrorKind::Unreachable, Reason::AttemptsExhausted),
        ("unknown", json!({"target_service": "unheard-of"}), 2, ErrorKind::UnknownTarget, Reason::Unknown),
    ];
    for (action, more, ..) in &table {
        fleet.submit(&format!("bad.{action}"), &task(action, more)).await.expect("submitted");
    }
    for (action, _, attempts, kind, reason) in table {
        let record = fleet.end_of(&format!("bad.{action}")).await;
        let error = record.error.clone().expect("an error");
        assert_eq!((record.status, record.attempt), (RunState::Failed, attempts), "{action}: {error:?}");
        assert_eq!((error.kind, record.reason), (kind, Some(reason)), "{action}: {}", error.message);
        let letter = fleet.dead_letter(&record).await;
        assert!(letter.task.is_some(), "the whole task is kept");
        assert_eq!(letter.run.error, record.error);
    }
    fleet.submit("good.after", &task("ok", &json!({}))).await.expect("submitted");
    assert_eq!(fleet.end_of("good.after").await.status, RunState::Success);
}

#[tokio::test]
async fn a_target_that_is_declared_sick_is_not_asked() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET, health: /no-such-page}}");
    let _worker = fleet.worker(&[]);
    fleet.submit("sick.1", &task("ok", &json!({}))).await.expect("submitted");
    let record = fleet.end_of("sick.1").await;
    assert_eq!((record.status, record.reason), (RunState::Failed, Some(Reason::Precheck)));
    assert!(fleet.target.calls().is_empty());
}

#[tokio::test]
async fn a_service_on_nats_is_asked_and_its_errors_are_told_apart() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {message: svc.target}}");
    let _worker = fleet.worker(&[]);
    let stop = CancellationToken::new();
    let (streams, until) = (fleet.streams.clone(), stop.clone());
    let service = tokio::spawn(async move {
        let handler = |action: String, body: streams::Bytes| async move {
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            match action.as_str() {
                "double" => Ok((body["parameters"]["n"].as_i64().unwrap_or(0) * 2).to_string().into()),
                "refuse" => Err(ServiceError { code: 400, message: "not\r\nlike this".to_owned() }),
                _ => Err(ServiceError { code: 503, message: "later".to_owned() }),
            }
        };
        streams.respond("target", "svc.target", handler, until).await
    });
    for (action, status, attempts) in
        [("double", RunState::Success, 1), ("refuse", RunState::Failed, 1), ("later", RunState::Failed, 2)]
    {
        let run = format!("message.{action}");
        fleet.submit(&run, &task(action, &json!({"parameters": {"n": 21}}))).await.expect("submitted");
        let record = fleet.end_of(&run).await;
        assert_eq!((record.status, record.attempt), (status, attempts), "{action}: {:?}", record.error);
        if action == "double" {
            assert_eq!(record.output, Some(json!(42)));
        }
    }
    stop.cancel();
    service.await.expect("joined").expect("stopped");
    fleet.submit("message.gone", &task("double", &json!({}))).await.expect("submitted");
    let record = fleet.end_of("message.gone").await;
    assert_eq!(record.error.expect("an error").kind, ErrorKind::Unreachable, "nobody listens");
}

#[tokio::test]
async fn a_command_runs_only_if_the_workers_own_settings_allow_it_and_never_through_a_shell() {
    let fleet = Fleet::start().await;
    let commands = fleet.folder().join("commands.yaml");
    std::fs::write(&commands, "commands:\n  say: {program: /bin/echo}\n  env: {program: /usr/bin/env}\n")
        .expect("written");
    let _worker = fleet.worker(&["--commands", commands.to_str().expect("a path")]);
    let local = |command: Value| json!({"command": command, "retry": {"attempts": 1}});
    fleet
        .submit("command.say", &local(json!(["say", "$(id); rm -rf /", "{\"n\": 7}"])))
        .await
        .expect("submitted");
    let output = fleet.end_of("command.say").await.output.expect("output");
    assert!(output.to_string().contains("$(id); rm -rf /"), "literally: {output}");
    fleet.submit("command.forbidden", &local(json!(["sh", "-c", "id"]))).await.expect("submitted");
    let record = fleet.end_of("command.forbidden").await;
    let error = record.error.expect("an error");
    assert_eq!(
        (record.status, error.kind),
        (RunState::Failed, ErrorKind::CommandNotAllowed),
        "{}",
        error.message
    );
    fleet.submit("command.env", &local(json!(["env"]))).await.expect("submitted");
    let output = fleet.end_of("command.env").await.output.expect("output").to_string();
    assert!(output.contains("CRONFLEET_RUN=command.env"), "{output}");
    assert!(!output.contains("NATS_URL"), "the worker's own environment stays its own: {output}");
}
