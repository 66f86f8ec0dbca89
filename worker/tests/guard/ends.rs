//! However a command's time ends, so does its whole process tree.

use std::{path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::{clock::SystemClock, run_record::ErrorKind};
use tempfile::TempDir;
use tokio::{process::Command, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use worker::executors::{Failure, local::guard::GuardedCommand};

use crate::{
    guard_words,
    runner::{Test, tests},
    support::{attempt, command, executor, is_gone, pid_in, script, wait_for},
};

pub(crate) const TESTS: &[Test] = tests![
    a_stopped_command_takes_its_whole_tree_along,
    a_command_that_ends_when_it_is_asked_to_is_not_killed,
    a_command_is_stopped_although_it_never_read_its_input,
    what_a_command_leaves_behind_ends_with_it,
    when_the_worker_is_killed_the_tree_ends,
    when_the_guard_is_told_to_end_the_tree_ends,
    when_the_handle_is_dropped_the_tree_ends,
    a_guard_that_hangs_is_ended_with_the_tree,
];

/// Four processes that write down their numbers: a parent, a child that ignores TERM, a daemon that detached itself
/// from parent and group, and a grandchild in a session of its own.
struct Family {
    directory: TempDir,
}

const FAMILY: [&str; 4] = ["parent", "stubborn", "daemon", "grandchild"];

impl Family {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The script; the parent goes on with `last`.
    fn script(&self, last: &str) -> String {
        format!(
            r#"cd {directory}
note() {{ echo "$2" > "$1.new"; mv "$1.new" "$1"; }}
(trap '' TERM; sh -c 'echo $PPID' > stubborn.new; mv stubborn.new stubborn; while :; do sleep 1000; done) >/dev/null 2>&1 &
(setsid sh -c 'trap "" TERM; echo $$ > daemon.new; mv daemon.new daemon; while :; do sleep 1000; done' >/dev/null 2>&1 &)
setsid sh -c 'echo $$ > grandchild.new; mv grandchild.new grandchild; exec sleep 1000' &
note parent $$
while [ ! -e stubborn ] || [ ! -e daemon ] || [ ! -e grandchild ]; do sleep 0.01; done
{last}"#,
            directory = self.directory.path().display()
        )
    }

    async fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for name in FAMILY {
            let path = self.path(name);
            pids.push(wait_for(name, || pid_in(&path)).await);
        }
        pids
    }

    async fn wait_until_gone(&self) {
        for (name, pid) in FAMILY.into_iter().zip(self.pids().await) {
            wait_for(&format!("the end of the {name}"), || is_gone(pid).then_some(())).await;
        }
    }
}

fn start(text: &str, stop: &CancellationToken) -> JoinHandle<Result<Value, Failure>> {
    let (executor, stop) = (executor(script(text), guard_words()), stop.clone());
    tokio::spawn(async move { executor.execute(&command(&[]), &stop).await })
}

fn guarded(text: &str) -> GuardedCommand {
    GuardedCommand::new(&guard_words(), "/bin/sh")
        .args(["-c", text])
        .environment(std::env::vars_os())
        .grace(Duration::from_millis(300))
        .outputs(Stdio::null(), Stdio::null())
}

fn pid(id: Option<u32>) -> Pid {
    Pid::from_raw(i32::try_from(id.expect("it runs")).expect("a process id")).expect("not 0")
}

async fn a_stopped_command_takes_its_whole_tree_along() {
    let (family, stop) = (Family::new(), CancellationToken::new());
    let running =
        start(&family.script("trap '' TERM; echo waiting >&2; while :; do sleep 1000; done"), &stop);
    let pids = family.pids().await;
    assert!(pids.iter().all(|pid| !is_gone(*pid)), "all are at work");
    stop.cancel();
    let failure = running.await.expect("no panic").expect_err("a failure");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Timeout, false));
    // Not some time later: when the attempt has ended, so have they.
    let left: Vec<&str> =
        FAMILY.into_iter().zip(pids).filter(|(_, pid)| !is_gone(*pid)).map(|(name, _)| name).collect();
    assert!(left.is_empty(), "{left:?} are left");
}

async fn a_command_that_ends_when_it_is_asked_to_is_not_killed() {
    let (directory, stop) = (tempfile::tempdir().expect("a directory"), CancellationToken::new());
    let path = |name: &str| directory.path().join(name);
    let text = format!(
        "trap 'echo tidied > {}; exit 0' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        path("tidied").display(),
        path("pid").display()
    );
    let running = start(&text, &stop);
    wait_for("the command", || pid_in(&path("pid"))).await;
    stop.cancel();
    let failure = running.await.expect("no panic").expect_err("stopped, however politely it ended");
    assert_eq!(failure.error.kind, ErrorKind::Timeout);
    assert!(path("tidied").exists());
}

async fn a_command_is_stopped_although_it_never_read_its_input() {
    let (directory, stop) = (tempfile::tempdir().expect("a directory"), CancellationToken::new());
    let file = directory.path().join("pid");
    let executor = executor(script(&format!("echo $$ > {}; sleep 1000", file.display())), guard_words());
    let large = attempt(json!({ "command": ["tool"], "parameters": { "data": "x".repeat(200_000) } }));
    let stopping = stop.clone();
    let running = tokio::spawn(async move { executor.execute(&large, &stopping).await });
    let pid = wait_for("the command", || pid_in(&file)).await;
    stop.cancel();
    assert_eq!(running.await.expect("no panic").expect_err("a failure").error.kind, ErrorKind::Timeout);
    assert!(is_gone(pid));
}

async fn what_a_command_leaves_behind_ends_with_it() {
    let family = Family::new();
    let running = start(&family.script("echo '{\"rows\": 3}'; exit 0"), &CancellationToken::new());
    let pids = family.pids().await;
    assert_eq!(running.await.expect("no panic"), Ok(json!({"rows": 3})), "the command itself ended well");
    assert!(pids.into_iter().all(is_gone));
}

async fn when_the_worker_is_killed_the_tree_ends() {
    let family = Family::new();
    let mut worker = Command::new(std::env::current_exe().expect("this program"))
        .arg("stand-in")
        .arg(family.script("while :; do sleep 1000; done"))
        .stdin(Stdio::null())
        .spawn()
        .expect("spawned");
    let pids = family.pids().await;
    assert!(pids.iter().all(|pid| !is_gone(*pid)), "all are at work");
    kill_process(pid(worker.id()), Signal::KILL).expect("killed");
    worker.wait().await.expect("its end");
    family.wait_until_gone().await;
}

async fn when_the_guard_is_told_to_end_the_tree_ends() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let family = Family::new();
        let mut running = guarded(&family.script("while :; do sleep 1000; done")).spawn().expect("spawned");
        let pids = family.pids().await;
        kill_process(pid(running.id()), signal).expect("sent");
        let status = running.wait().await.expect("its end");
        assert_eq!(status.code(), Some(143), "the command ended by TERM");
        assert!(pids.into_iter().all(is_gone));
    }
}

async fn when_the_handle_is_dropped_the_tree_ends() {
    let family = Family::new();
    let running = guarded(&family.script("while :; do sleep 1000; done")).spawn().expect("spawned");
    family.pids().await;
    drop(running);
    family.wait_until_gone().await;
}

async fn a_guard_that_hangs_is_ended_with_the_tree() {
    let family = Family::new();
    let mut running = guarded(&family.script("while :; do sleep 1000; done")).spawn().expect("spawned");
    family.pids().await;
    kill_process(pid(running.id()), Signal::STOP).expect("sent");
    let status = running.stop(&SystemClock).await.expect("its end");
    assert_eq!(status.code(), None, "{status}");
    family.wait_until_gone().await;
}
