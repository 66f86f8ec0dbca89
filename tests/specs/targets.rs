//! Targets that answer badly, or not at all; commands; services on NATS.

use harness::{Fleet, eventually};
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
async fn a_target_that_is_disabled_is_not_asked_and_its_runs_wait_or_are_skipped_as_is_declared() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets:
           target: {http: TARGET, enabled: false, reason: disk is being replaced}
           sick: {http: TARGET, health: /no-such-page, precheck: skip}",
    );
    let _worker = fleet.worker(&[]);
    let skip = task("ok", &json!({"precheck": "skip"}));
    let sick = |more: &Value| {
        let mut task = task("ok", more);
        task["target_service"] = "sick".into();
        task
    };
    for (run, task) in [("off.skip", skip), ("off.sick", sick(&json!({})))] {
        fleet.submit(run, &task).await.expect("submitted");
        let record = fleet.end_of(run).await;
        assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::Precheck)), "{run}");
        assert_eq!(record.error.expect("why").kind, ErrorKind::Precheck, "{run}");
    }
    fleet.submit("off.retry", &sick(&json!({"precheck": "retry"}))).await.expect("submitted");
    assert_eq!(fleet.end_of("off.retry").await.status, RunState::Failed, "the task's word counts");
    let patient = json!({"retry": {"attempts": 100, "backoff": "100ms", "max_backoff": "200ms"}});
    fleet.submit("off.wait", &task("ok", &patient)).await.expect("submitted");
    let why = eventually("the run to say why it waits", async || match fleet.record("off.wait").await {
        Some(record) if record.status == RunState::Retry => Ok(record.error.expect("why").message),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(why.contains("target target is disabled: disk is being replaced"), "{why}");
    assert!(fleet.target.calls().is_empty());
    assert!(fleet.cronfleet(&["get", "targets"]).contains("disabled: disk is being replaced"));
    fleet.apply("targets: {target: {http: TARGET}}");
    assert_eq!(fleet.end_of("off.wait").await.status, RunState::Success);
}

#[tokio::test]
async fn a_secret_of_the_worker_reaches_the_target_and_nothing_that_is_kept() {
    let fleet = Fleet::start().await;
    fleet.apply(
        "targets:
           target:
             http: TARGET
             headers: {Authorization: {env: CRONFLEET_SECRET_STORAGE, prefix: 'Bearer '}, X-Key: {file: key}}",
    );
    std::fs::write(fleet.folder().join("key"), "file-canary\n").expect("written");
    let secrets = [
        ("CRONFLEET_SECRET_STORAGE", "env-canary".to_owned()),
        ("CRONFLEET_SECRETS", fleet.folder().display().to_string()),
    ];
    let worker = fleet.spawn_with("worker", &["worker"], &secrets);
    for action in ["echo", "fail"] {
        fleet.submit(&format!("secret.{action}"), &task(action, &json!({}))).await.expect("submitted");
        fleet.end_of(&format!("secret.{action}")).await;
    }
    let call = fleet.target.calls_of("secret.echo").remove(0);
    assert_eq!(call.headers["authorization"], "Bearer env-canary");
    assert_eq!(call.headers["x-key"], "file-canary");
    let kept = [
        worker.said(),
        format!("{:?}", fleet.records().await),
        fleet.cronfleet(&["get", "targets", "-o", "json"]),
        fleet.cronfleet(&["describe", "run", "secret.fail"]),
    ];
    for text in kept {
        assert!(!text.contains("canary"), "{text}");
    }
    let refused =
        fleet.try_apply("targets: {target: {http: TARGET, headers: {X-Key: {env: NATS_PASSWORD}}}}");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("CRONFLEET_SECRET_"), "{words}");
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
