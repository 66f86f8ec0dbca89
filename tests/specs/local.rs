//! Commands: they use what they may, end with all they began, and what comes of them is read as their entry says.

use harness::{
    Fleet, Proxy, eventually,
    scripts::{Scripts, is_gone},
};
use serde_json::{Value, json};
use shared::{
    run_record::{ErrorKind, Reason, RunRecord},
    run_state::RunState,
};

/// A command that ignores SIGTERM, as its child in a session of its own does. Its second attempt ends at once. Each first
/// notes whom it finds alive of an earlier one.
const STUBBORN: &str = r#"
trap '' TERM
for file in DIR/pid.*; do
  [ -e "$file" ] && kill -0 "$(cat $file)" 2>/dev/null && echo "$file lives" >> DIR/overlap
done
[ "$CRONFLEET_ATTEMPT" = 2 ] && { echo '{"second": true}'; exit 0; }
note() { echo $1 > DIR/new.$2; mv DIR/new.$2 DIR/pid.$2; }
setsid sh -c 'trap "" TERM; echo $$ > DIR/new.daemon; mv DIR/new.daemon DIR/pid.daemon; while :; do sleep 1; done' &
note $$ parent
while :; do sleep 1; done
"#;

struct Stubborn {
    fleet: Fleet,
    file: String,
}

impl Stubborn {
    async fn new() -> Self {
        let fleet = Fleet::start().await;
        fleet.apply("queues: {default: {ack_wait: 4s}}");
        let file = Scripts::of(&fleet).with("stubborn", STUBBORN, "").file();
        Self { fleet, file }
    }

    async fn submit(&self, timeout: &str) {
        let task = json!({"command": ["stubborn"], "timeout": timeout, "retry": {"attempts": 2, "backoff": "100ms"}});
        self.fleet.submit("stubborn.1", &task).await.expect("submitted");
    }

    async fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for name in ["pid.parent", "pid.daemon"] {
            let file = self.fleet.folder().join(name);
            pids.push(
                eventually(name, async || {
                    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
                    text.trim().parse().map_err(|_| text)
                })
                .await,
            );
        }
        assert!(!pids.iter().any(|pid| is_gone(*pid)), "both are at work");
        pids
    }

    /// The end of the second attempt, which began when nobody of the first lived any more.
    async fn second_attempt(&self) -> RunRecord {
        let run = self.fleet.end_of("stubborn.1").await;
        assert_eq!((run.status, run.attempt), (RunState::Success, 2), "{run:?}");
        let overlap = std::fs::read_to_string(self.fleet.folder().join("overlap")).unwrap_or_default();
        assert_eq!(overlap, "", "the second attempt began beside the first");
        run
    }
}

#[tokio::test]
async fn a_command_that_ignores_being_told_to_stop_at_its_timeout_is_killed_before_the_next_attempt_begins() {
    let stubborn = Stubborn::new().await;
    let _worker = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.submit("2s").await;
    let pids = stubborn.pids().await;
    stubborn.second_attempt().await;
    assert!(pids.into_iter().all(is_gone));
}

#[tokio::test]
async fn a_cancelled_command_that_ignores_being_told_to_stop_is_gone_with_its_tree_when_its_end_is_recorded()
{
    let stubborn = Stubborn::new().await;
    let _worker = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.submit("10m").await;
    let pids = stubborn.pids().await;
    stubborn.fleet.cronfleet(&["cancel", "stubborn.1"]);
    let run = stubborn.fleet.end_of("stubborn.1").await;
    assert_eq!((run.status, run.reason), (RunState::Cancelled, Some(Reason::ByOperator)));
    assert!(pids.into_iter().all(is_gone));
    let log = stubborn.fleet.cronfleet(&["logs", "stubborn.1"]);
    assert!(log.contains("command stubborn is told to end, and killed if it has not after"), "{log}");
}

#[tokio::test]
async fn a_command_that_ignores_being_told_to_stop_does_not_outlive_its_killed_worker_into_the_next_attempt()
{
    let stubborn = Stubborn::new().await;
    let mut worker = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.submit("10m").await;
    let pids = stubborn.pids().await;
    worker.kill();
    let _other = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.second_attempt().await;
    assert!(pids.into_iter().all(is_gone));
}

#[tokio::test]
async fn a_worker_that_is_cut_off_has_killed_a_stubborn_command_before_another_worker_begins_it() {
    let stubborn = Stubborn::new().await;
    let way = Proxy::to(&stubborn.fleet.nats.url());
    let arguments = ["worker", "--commands", &stubborn.file];
    let mut cut_off = stubborn.fleet.spawn_with("worker", &arguments, &[("NATS_URL", way.url())]);
    stubborn.submit("10m").await;
    let pids = stubborn.pids().await;
    way.cut();
    let _other = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.second_attempt().await;
    assert!(pids.into_iter().all(is_gone));
    assert!(cut_off.is_running(), "it lives, and has stopped its attempt itself");
    way.mend();
    cut_off.stop().await;
    let run = stubborn.fleet.record("stubborn.1").await.expect("a record");
    assert_eq!((run.status, run.attempt), (RunState::Success, 2), "what it knew of the first is refused");
}

#[tokio::test]
async fn a_worker_that_stands_still_has_its_stubborn_command_killed_before_another_worker_begins_it() {
    let stubborn = Stubborn::new().await;
    let mut frozen = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.submit("10m").await;
    let pids = stubborn.pids().await;
    frozen.pause();
    let _other = stubborn.fleet.worker(&["--commands", &stubborn.file]);
    stubborn.second_attempt().await;
    assert!(pids.into_iter().all(is_gone));
    frozen.resume();
    frozen.stop().await;
    let run = stubborn.fleet.record("stubborn.1").await.expect("a record");
    assert_eq!((run.status, run.attempt), (RunState::Success, 2), "what it says of the first is refused");
}

async fn end_of(fleet: &Fleet, command: &str) -> RunRecord {
    let run = format!("{command}.1");
    let task = json!({"command": [command], "retry": {"attempts": 1}});
    fleet.submit(&run, &task).await.expect("submitted");
    fleet.end_of(&run).await
}

#[tokio::test]
async fn a_command_uses_what_it_may_and_more_than_that_ends_it_in_words() {
    let fleet = Fleet::start().await;
    // `tail` holds what has no line end.
    let hog = "head -c 400000000 /dev/zero | tail | wc -c; sleep 60";
    let limits = "limits: {address_space_mib: 2048, open_files: 64, nice: 7, memory_mib: 100, processes: 5}";
    let scripts = Scripts::of(&fleet)
        .with("ask", "echo $(ulimit -v) $(ulimit -n) $(nice) $(ps -o sid= -p $$) $$", limits)
        .with("hog", hog, "limits: {memory_mib: 100}")
        .with("many", "for n in 1 2 3 4 5; do sleep 60 & done; wait", "limits: {processes: 3}")
        .with("slow", "echo at it >&2; sleep 60", "limits: {time: 300ms}")
        .with(
            "bound",
            "exec 2>&1; head -c 400000000 /dev/zero | tail | wc -c",
            "limits: {address_space_mib: 100}",
        );
    let _worker = fleet.worker(&["--commands", &scripts.file()]);
    let output = end_of(&fleet, "ask").await.output.expect("an output");
    let words: Vec<&str> = output["text"].as_str().expect("text").split_whitespace().collect();
    // `nice` adds to how nice its worker is, which whoever runs these tests decides.
    let ours = std::process::Command::new("nice").output().expect("nice");
    let ours: i32 = String::from_utf8_lossy(&ours.stdout).trim().parse().expect("a number");
    let nice = (ours + 7).min(19).to_string();
    assert_eq!(words[..3], [(2_048 * 1_024).to_string().as_str(), "64", nice.as_str()]);
    assert_eq!(words[3], words[4], "it leads a session of its own");
    for (command, kind, words) in [
        ("hog", ErrorKind::Command, "MiB of memory, and may use 100 (memory_mib)"),
        ("many", ErrorKind::Command, "processes, and may be 3 (processes)"),
        ("slow", ErrorKind::Timeout, "took longer than the 300ms it may"),
    ] {
        let run = end_of(&fleet, command).await;
        let error = run.error.expect("an error");
        assert_eq!((run.status, error.kind), (RunState::Failed, kind), "{error:?}");
        assert!(error.message.contains(words), "{command}: {}", error.message);
    }
    let said = end_of(&fleet, "bound").await.output.expect("an output").to_string();
    assert!(said.contains("memory"), "the kernel refused, and the program says so itself: {said}");
}

#[tokio::test]
async fn exit_codes_mean_what_the_entry_says() {
    let fleet = Fleet::start().await;
    let codes = "exit_codes: {success: [0, 3], retryable: [75], others: permanent}";
    let scripts = Scripts::of(&fleet)
        .with("three", "echo '{\"found\": 0}'; exit 3", codes)
        .with("four", "exit 4", codes)
        .with("again", "[ $CRONFLEET_ATTEMPT = 2 ] || exit 75", codes)
        .with("usual", "[ $CRONFLEET_ATTEMPT = 2 ] || exit 4", "")
        .with("usage", "exit 64", "");
    let _worker = fleet.worker(&["--commands", &scripts.file()]);
    for (command, status, attempt, reason) in [
        ("three", RunState::Success, 1, None),
        ("four", RunState::Failed, 1, Some(Reason::Permanent)),
        ("again", RunState::Success, 2, None),
        ("usual", RunState::Success, 2, None),
        ("usage", RunState::Failed, 1, Some(Reason::Permanent)),
    ] {
        let id = format!("{command}.1");
        let task = json!({"command": [command], "retry": {"attempts": 3, "backoff": "100ms"}});
        fleet.submit(&id, &task).await.expect("submitted");
        let run = fleet.end_of(&id).await;
        assert_eq!(
            (run.status, run.attempt, run.reason),
            (status, attempt, reason),
            "{command}: {:?}",
            run.error
        );
    }
}

#[tokio::test]
async fn an_answer_is_read_whatever_stands_around_it() {
    let fleet = Fleet::start().await;
    let scripts = Scripts::of(&fleet)
        .with("last", "echo '{\"n\": 1}'; echo working; echo '{\"n\": 2}'; echo done", "")
        .with("no-end", "printf '{\"n\": 3}'", "")
        .with("no-input", "exec <&-; echo '{\"n\": 4}'", "")
        .with("binary", "head -c 3000 /dev/urandom | tr -d '{['; echo; echo '{\"n\": 5}'", "")
        .with("huge", "head -c 200000 /dev/zero | tr '\\0' z", "")
        .with("nothing", "exit 0", "");
    let _worker = fleet.worker(&["--commands", &scripts.file()]);
    for (command, output) in [
        ("last", json!({"n": 2})),
        ("no-end", json!({"n": 3})),
        ("no-input", json!({"n": 4})),
        ("binary", json!({"n": 5})),
        ("nothing", Value::Null),
    ] {
        let run = end_of(&fleet, command).await;
        assert_eq!((run.status, run.output.unwrap_or_default()), (RunState::Success, output), "{command}");
    }
    let huge = end_of(&fleet, "huge").await.output.expect("an output");
    assert_eq!((&huge["truncated"], &huge["bytes"]), (&json!(true), &json!(200_000)));
}

#[tokio::test]
async fn what_cannot_be_started_is_said_at_the_workers_start_and_by_the_first_run() {
    let fleet = Fleet::start().await;
    let plain = fleet.folder().join("plain");
    std::fs::write(&plain, "no program").expect("written");
    let file = fleet.folder().join("commands.yaml");
    let list = format!(
        "commands:\n  missing: {{program: /nowhere/tool}}\n  plain: {{program: {}}}\n  blind: {{program: /bin/true, secrets: [NOT_SET]}}\n",
        plain.display()
    );
    std::fs::write(&file, list).expect("written");
    let worker = fleet.worker(&["--commands", file.to_str().expect("a path")]);
    for words in
        ["/nowhere/tool cannot be looked at", "plain is not executable", "the secret NOT_SET is not set"]
    {
        eventually(words, async || if worker.said().contains(words) { Ok(()) } else { Err(worker.said()) })
            .await;
    }
    for (command, words) in [("missing", "/nowhere/tool cannot be looked at"), ("plain", "is not executable")]
    {
        let run = end_of(&fleet, command).await;
        let error = run.error.expect("an error");
        assert_eq!((run.status, run.reason), (RunState::Failed, Some(Reason::Permanent)));
        assert!(error.message.contains(words) && error.message.contains("allow-list"), "{}", error.message);
    }
}
