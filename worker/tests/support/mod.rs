//! What the tests of executors share: attempts with defaults, and waiting for facts.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use serde_json::{Value, json};
use shared::{
    clock::{Clock as _, SystemClock},
    run_state::RunState,
    task::Task,
};
use worker::executors::{
    Attempt, UpstreamEnd,
    local::{CommandSettings, LocalExecutor, LocalSettings},
};
use worker::run_log::RunLog;

/// The longest any of these tests waits for a fact.
const PATIENCE: Duration = Duration::from_secs(30);

/// An attempt at this task; everything else is what it happens to be.
pub(crate) fn attempt(task: Value) -> Attempt {
    let task: Task = serde_json::from_value(task).expect("a task");
    Attempt {
        run: "nightly.20261124T020000Z".parse().expect("a run id"),
        number: 2,
        fence: 4711,
        slot: Some("2026-11-24T02:00:00Z".parse().expect("an instant")),
        shard: None,
        upstream: None,
        task: task.into(),
        target: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        grace: Duration::from_secs(5),
        silence: Duration::from_secs(15),
        log: RunLog::silent(),
        offer: None,
    }
}

/// The end of a run that others follow.
pub(crate) fn upstream(output: Value) -> UpstreamEnd {
    UpstreamEnd {
        run: "load.20261124T010000Z".parse().expect("a run id"),
        status: RunState::Success,
        ended_at: "2026-11-24T01:00:09Z".parse().expect("an instant"),
        output: Some(output),
        error: None,
    }
}

/// What the target is told in the body of a request.
pub(crate) fn body(attempt: &Attempt) -> Value {
    serde_json::from_slice(&attempt.body()).expect("JSON")
}

/// An attempt at the command `tool`.
pub(crate) fn command(arguments: &[&str]) -> Attempt {
    let command: Vec<&str> = std::iter::once("tool").chain(arguments.iter().copied()).collect();
    attempt(json!({ "command": command, "parameters": { "batch_size": 10_000 } }))
}

/// A command of the allow-list.
pub(crate) fn program(program: &str, args: &[&str]) -> CommandSettings {
    CommandSettings {
        program: program.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..CommandSettings::default()
    }
}

/// A shell script of the allow-list: the operator may allow one, nobody else gets one.
pub(crate) fn script(text: &str) -> CommandSettings {
    program("/bin/sh", &["-c", text, "tool"])
}

/// An executor that allows this as `tool`, with a short grace.
pub(crate) fn executor(tool: CommandSettings, guard: Vec<OsString>) -> LocalExecutor {
    let commands = BTreeMap::from([("tool".parse().expect("a name"), tool)]);
    LocalExecutor::new(LocalSettings { commands, guard }, SystemClock::shared())
        .with_grace(Duration::from_millis(300))
}

/// Looks again and again until there is something to see.
pub(crate) async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = SystemClock.elapsed() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(SystemClock.elapsed() < until, "waited {PATIENCE:?} in vain for {what}");
        SystemClock.sleep(Duration::from_millis(10)).await;
    }
}

/// Whether this process runs no more: it is not there, or a zombie that its new parent has not looked at yet.
pub(crate) fn is_gone(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The process id that a script has written to a file, once it is there.
pub(crate) fn pid_in(path: &std::path::Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
}
