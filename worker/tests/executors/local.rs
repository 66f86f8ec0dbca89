//! Commands that run without a guard. With one: the test binary `guard`.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tokio_util::sync::CancellationToken;
use worker::executors::{
    Attempt, Failure,
    local::{CommandSettings, LocalExecutor, LocalSettings},
};

use crate::support::{body, command, executor, is_gone, pid_in, program, script, upstream, wait_for};

async fn run(tool: CommandSettings, attempt: &Attempt) -> Result<Value, Failure> {
    executor(tool, Vec::new()).execute(attempt, &CancellationToken::new()).await
}

#[tokio::test]
async fn only_what_the_operator_allowed_is_run() {
    let commands = BTreeMap::from([("tools".parse().expect("a name"), program("/bin/true", &[]))]);
    let executor = LocalExecutor::new(LocalSettings { commands, guard: Vec::new() }, SystemClock::shared());
    let failure = executor.execute(&command(&[]), &CancellationToken::new()).await.expect_err("not allowed");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::CommandNotAllowed, true));
    for part in ["command tool is not on", "did you mean tools?", "`tool: {program: /absolute/path}`"] {
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
    let nothing = LocalExecutor::new(LocalSettings::default(), SystemClock::shared());
    let failure = nothing.execute(&command(&[]), &CancellationToken::new()).await.expect_err("not allowed");
    assert_eq!(failure.error.kind, ErrorKind::CommandNotAllowed);
}

#[tokio::test]
async fn an_allow_list_from_a_file_is_used_as_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("commands.yaml");
    let text = "commands:\n  tool: {program: /bin/pwd, args: [-P], cwd: /proc}\n";
    std::fs::write(&file, text).expect("written");
    let settings = LocalSettings::from_file(&file, Vec::new()).expect("an allow-list");
    let executor = LocalExecutor::new(settings, SystemClock::shared());
    let output = executor.execute(&command(&[]), &CancellationToken::new()).await;
    assert_eq!(output, Ok(json!({"text": "/proc"})));
    std::fs::write(&file, "commands:\n  tool: {program: pwd}\n").expect("written");
    let error = LocalSettings::from_file(&file, Vec::new()).expect_err("no allow-list").to_string();
    assert!(error.contains("commands.yaml") && error.contains("absolute path"), "{error}");
}

#[tokio::test]
async fn a_command_is_handed_its_task_on_its_input_and_answers_on_its_output() {
    let output = run(program("/bin/cat", &[]), &command(&["-"])).await.expect("a success");
    assert_eq!(output, body(&command(&["-"])));
    assert_eq!(output["parameters"], json!({"batch_size": 10_000}));
    let talking = script(r#"echo starting; echo '{"rows": 3}'; echo; echo done >&2"#);
    assert_eq!(run(talking, &command(&[])).await, Ok(json!({"rows": 3})));
    assert_eq!(run(program("/bin/true", &[]), &command(&[])).await, Ok(Value::Null));
}

#[tokio::test]
async fn arguments_arrive_as_they_are_and_no_shell_reads_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let trap = directory.path().join("trap");
    let touch = format!("$(touch {})", trap.display());
    let arguments = ["; rm -rf /", "$(id)", &touch, "`id`", "--output=/etc/x", "a\nb", "*", "", "|", "运维"];
    let printf = program("/usr/bin/printf", &["%s\\0", "fixed"]);
    let text = run(printf, &command(&arguments)).await.expect("a success");
    // NUL bytes are control characters, which a text loses: what is left are the arguments, one after another.
    assert_eq!(text, json!({ "text": format!("fixed{}", arguments.concat()) }));
    assert!(!trap.exists());
}

#[tokio::test]
async fn a_command_is_told_how_the_run_ended_that_its_run_follows() {
    let words = r#"echo "$CRONFLEET_UPSTREAM_RUN $CRONFLEET_UPSTREAM_STATUS $CRONFLEET_UPSTREAM_OUTPUT $CRONFLEET_UPSTREAM_OUTPUT_BYTES""#;
    let attempt = |output| Attempt { upstream: Some(upstream(output)), ..command(&[]) };
    let output = run(script(words), &attempt(json!({"rows": 3}))).await.expect("a success");
    assert_eq!(output["text"], "load.20261124T010000Z SUCCESS {\"rows\":3}");
    let long = json!("x".repeat(shared::limits::OUTPUT_BYTES_MAX - 2));
    let output = run(script(words), &attempt(long.clone())).await.expect("a success");
    assert_eq!(output["text"], "load.20261124T010000Z SUCCESS  65536");
    let input = run(script("wc -c"), &attempt(long)).await.expect("a success");
    assert!(input.as_u64().is_some_and(|bytes| bytes > 65_536), "its input has all of it: {input}");
}

#[tokio::test]
async fn a_commands_environment_holds_what_it_was_given_and_nothing_of_the_workers() {
    let tool = CommandSettings {
        env: vec!["CARGO_MANIFEST_DIR".to_owned(), "NOT_SET_ANYWHERE".to_owned()],
        ..program("/usr/bin/env", &[])
    };
    assert!(std::env::vars().count() > 5, "the worker has an environment of its own");
    let output = run(tool, &command(&[])).await.expect("a success");
    let mut lines: Vec<&str> = output["text"].as_str().expect("text").lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            concat!("CARGO_MANIFEST_DIR=", env!("CARGO_MANIFEST_DIR")),
            "CRONFLEET_ATTEMPT=2",
            "CRONFLEET_FENCE=4711",
            "CRONFLEET_RUN=nightly.20261124T020000Z",
            "CRONFLEET_SLOT=2026-11-24T02:00:00Z",
            "CRONFLEET_TASK=nightly",
            "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ]
    );
}

#[tokio::test]
async fn a_bad_end_is_told_with_the_commands_last_words() {
    for (text, part, permanent) in [
        ("echo 'no such table' >&2; exit 3", "exit code 3; its last words: no such table", false),
        ("exit 1", "exit code 1; it wrote nothing", false),
        ("exit 64", "exit code 64", true),
        ("exit 65", "exit code 65", true),
        ("kill -9 $$", "signal 9", false),
    ] {
        let failure = run(script(text), &command(&[])).await.expect_err("a failure");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, permanent), "{text}");
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_not_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "no program").expect("written");
    let elsewhere = CommandSettings { cwd: Some("/nowhere".into()), ..program("/bin/true", &[]) };
    let large = "x".repeat(200_000);
    for (tool, arguments, part) in [
        (program("/nowhere/tool", &[]), &[][..], "/nowhere/tool cannot be looked at"),
        (program(plain.to_str().expect("text"), &[]), &[], "plain is not executable"),
        (program("/etc", &[]), &[], "/etc is not a file"),
        (elsewhere, &[], "/nowhere is not a directory"),
        (program("/bin/true", &[]), &[large.as_str()], "could not be started: Argument list too long"),
    ] {
        let failure = run(tool, &command(arguments)).await.expect_err("a failure");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, true), "{part}");
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
}

#[tokio::test]
async fn without_a_guard_a_stopped_command_takes_its_process_group_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let (parent, child) = (directory.path().join("parent"), directory.path().join("child"));
    let tool = script(&format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; echo $$ > {}; echo waiting >&2; wait; sleep 1000",
        child.display(),
        parent.display()
    ));
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let running =
        tokio::spawn(async move { executor(tool, Vec::new()).execute(&command(&[]), &stopping).await });
    let pids =
        [wait_for("the child", || pid_in(&child)).await, wait_for("the parent", || pid_in(&parent)).await];
    stop.cancel();
    let failure = running.await.expect("no panic").expect_err("a failure");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Timeout, false));
    assert!(failure.error.message.contains("its last words: waiting"), "{}", failure.error.message);
    for pid in pids {
        wait_for("the group to end", || is_gone(pid).then_some(())).await;
    }
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("made");
    let stop = CancellationToken::new();
    stop.cancel();
    let tool = program("/usr/bin/touch", &[file.to_str().expect("text")]);
    let failure = executor(tool, Vec::new()).execute(&command(&[]), &stop).await.expect_err("a failure");
    assert_eq!(failure.error.kind, ErrorKind::Timeout);
    assert!(!Path::new(&file).exists());
}
