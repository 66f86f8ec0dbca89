//! A command under a guard runs as it would without one.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tokio_util::sync::CancellationToken;
use worker::executors::{
    Attempt, Failure,
    local::{CommandSettings, guard::GuardedCommand},
};

use crate::{
    guard_words,
    runner::{Test, tests},
    support::{attempt, body, command, executor, program, script},
};

pub(crate) const TESTS: &[Test] = tests![
    a_command_is_handed_its_task_and_answers,
    arguments_pass_through_the_guard_as_they_are,
    the_guard_adds_nothing_to_the_environment,
    a_bad_end_is_told_as_it_was,
    a_program_that_the_kernel_refuses_is_not_tried_again,
    an_output_without_measure_is_kept_in_measure,
    a_command_that_does_not_read_its_input_is_not_held_up,
    a_command_without_input_finds_its_end_at_once,
    a_guard_that_cannot_be_started_is_no_fault_of_the_command,
];

async fn run(tool: CommandSettings, attempt: &Attempt) -> Result<Value, Failure> {
    executor(tool, guard_words()).execute(attempt, &CancellationToken::new()).await
}

async fn a_command_is_handed_its_task_and_answers() {
    let output = run(program("/bin/cat", &[]), &command(&[])).await;
    assert_eq!(output, Ok(body(&command(&[]))));
    let tool = CommandSettings { cwd: Some("/proc".into()), ..program("/bin/pwd", &["-P"]) };
    assert_eq!(run(tool, &command(&[])).await, Ok(json!({"text": "/proc"})));
    assert_eq!(run(program("/bin/true", &[]), &command(&[])).await, Ok(Value::Null));
}

async fn arguments_pass_through_the_guard_as_they_are() {
    let arguments = ["--grace", "0s", "--", "; rm -rf /", "$(id)", "--output=/etc/x", "a\nb", "", "运维"];
    let printf = program("/usr/bin/printf", &["%s|", "--", "fixed"]);
    let text = run(printf, &command(&arguments)).await;
    assert_eq!(text, Ok(json!({ "text": format!("--|fixed|{}|", arguments.join("|")) })));
}

async fn the_guard_adds_nothing_to_the_environment() {
    assert!(std::env::vars().count() > 5, "the worker has an environment of its own");
    let output = run(program("/usr/bin/env", &[]), &command(&[])).await.expect("a success");
    let lines: Vec<&str> = output["text"].as_str().expect("text").lines().collect();
    let given = |line: &&&str| {
        ["CRONFLEET_", "PATH=", "LANG=", "TRACEPARENT="].iter().any(|name| line.starts_with(name))
    };
    assert_eq!((lines.iter().filter(given).count(), lines.len()), (8, 8), "{lines:?}");
}

async fn a_bad_end_is_told_as_it_was() {
    for (text, part, permanent) in [
        ("echo 'no such table' >&2; exit 3", "exit code 3; its last words: no such table", false),
        ("exit 64", "exit code 64", true),
        ("exit 65", "exit code 65", true),
        ("exit 127", "exit code 127", false),
        ("kill -9 $$", "exit code 137 (signal 9): killed", false),
        ("kill -15 $$", "exit code 143 (signal 15)", false),
    ] {
        let failure = run(script(text), &command(&[])).await.expect_err("a failure");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, permanent), "{text}");
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
}

async fn a_program_that_the_kernel_refuses_is_not_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    for (text, part) in [("#!/nowhere/sh\n", "No such file"), ("\u{1}\u{2}\u{3}", "Exec format error")] {
        let file = directory.path().join("tool");
        // Copied, so that no thread of this process holds it open for writing while another forks.
        executable(directory.path(), &file, text).await;
        let failure =
            run(program(file.to_str().expect("text"), &[]), &command(&[])).await.expect_err("a failure");
        assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, true));
        let message = &failure.error.message;
        assert!(message.contains("could not be started") && message.contains(part), "{message}");
    }
}

async fn executable(directory: &Path, file: &Path, text: &str) {
    let written = directory.join("written");
    std::fs::write(&written, text).expect("written");
    let install = program("/usr/bin/install", &["-m", "755"]);
    let paths = [written, file.to_owned()].map(|path| path.to_str().expect("text").to_owned());
    run(install, &command(&[&paths[0], &paths[1]])).await.expect("installed");
}

async fn an_output_without_measure_is_kept_in_measure() {
    let tool = script("head -c 10000000 /dev/zero | tr '\\0' x; head -c 10000000 /dev/zero | tr '\\0' y >&2");
    let output = run(tool, &command(&[])).await.expect("a success");
    assert_eq!((&output["truncated"], &output["bytes"]), (&json!(true), &json!(10_000_000)));
    let kept = output["text"].as_str().expect("text").len();
    assert!((1_000..64 * 1024).contains(&kept), "{kept} bytes were kept");
    let tool = script("head -c 10000000 /dev/zero | tr '\\0' y >&2; echo '; the end' >&2; exit 1");
    let message = run(tool, &command(&[])).await.expect_err("a failure").error.message;
    assert!(message.len() < 1_200 && message.ends_with("; the end"), "{message}");
}

async fn a_command_that_does_not_read_its_input_is_not_held_up() {
    let large = attempt(json!({ "command": ["tool"], "parameters": { "data": "x".repeat(200_000) } }));
    assert_eq!(run(program("/bin/true", &[]), &large).await, Ok(Value::Null));
    let count = run(program("/usr/bin/wc", &["-c"]), &large).await;
    assert_eq!(count, Ok(json!(large.body().len())));
}

async fn a_command_without_input_finds_its_end_at_once() {
    let mut running = GuardedCommand::new(&guard_words(), "/bin/cat")
        .outputs(Stdio::null(), Stdio::null())
        .spawn()
        .expect("spawned");
    assert!(running.wait().await.expect("its end").success());
    assert!(
        running.stop(&SystemClock).await.expect("still known").success(),
        "stopping what has ended is no fault"
    );
}

async fn a_guard_that_cannot_be_started_is_no_fault_of_the_command() {
    let executor = executor(program("/bin/true", &[]), vec!["/nowhere/cronfleet".into(), "guard".into()]);
    let failure = executor.execute(&command(&[]), &CancellationToken::new()).await.expect_err("a failure");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Command, false));
}
