//! What runs say while they run: seen at once, kept without their worker, bounded, harmless, without secrets.

use std::time::Duration;

use harness::{Fleet, PlainClient, Process, crash, eventually, scripts::Scripts, within};
use serde_json::{Value, json};
use shared::run_state::RunState;

/// The log of a run, line by line.
fn log_of(fleet: &Fleet, run: &str) -> Vec<Value> {
    let text = fleet.cronfleet(&["logs", run, "-o", "json"]);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["text"].as_str().expect("a text")).collect()
}

async fn says(fleet: &Fleet, run: &str, words: &str) {
    eventually(&format!("{run} says {words:?}"), async || {
        let said = fleet.try_cronfleet(&["logs", run]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
}

fn go_on(fleet: &Fleet) {
    std::fs::write(fleet.folder().join("go"), "").expect("written");
}

const UNTIL_GO: &str = "while [ ! -e DIR/go ]; do sleep 0.05; done\n";

async fn submit(fleet: &Fleet, run: &str, command: &[&str]) {
    let task = json!({"command": command, "retry": {"attempts": 3, "backoff": "100ms"}});
    fleet.submit(run, &task).await.expect("submitted");
}

#[tokio::test]
async fn what_a_command_says_is_seen_while_it_runs_and_followed_to_its_end() {
    let fleet = Fleet::start().await;
    let script = format!("echo first; echo careful >&2\n{UNTIL_GO}echo last; printf 'no end'");
    let _worker = fleet.worker(&["--commands", &Scripts::of(&fleet).with("talk", &script, "").file()]);
    submit(&fleet, "talk.1", &["talk"]).await;
    says(&fleet, "talk.1", "first").await;
    let mut follower: Process = fleet.spawn("logs", &["logs", "talk.1", "--follow"]);
    eventually("the follower shows what was said", async || {
        let said = follower.said();
        if said.contains("stdout  first") && said.contains("stderr  careful") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(fleet.record("talk.1").await.map(|run| run.status), Some(RunState::Running));
    assert!(follower.is_running() && !follower.said().contains("last"));
    go_on(&fleet);
    assert!(follower.ended().await.success());
    assert!(follower.said().contains("stdout  no end"), "{}", follower.said());
    let log = log_of(&fleet, "talk.1");
    let mut sorted = texts(&log);
    sorted.sort_unstable();
    assert_eq!(sorted, ["careful", "first", "last", "no end"]);
    for (line, n) in log.iter().zip(1..) {
        assert_eq!((&line["n"], &line["attempt"]), (&json!(n), &json!(1)), "{line}");
    }
    let described = fleet.cronfleet(&["describe", "run", "talk.1"]);
    assert!(described.contains("stdout  last"), "{described}");
}

#[tokio::test]
async fn what_was_said_survives_the_worker_that_was_killed_and_each_attempt_has_its_own() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {default: {ack_wait: 4s}}");
    let script = format!(
        "echo attempt $CRONFLEET_ATTEMPT says this\n[ $CRONFLEET_ATTEMPT = 2 ] && exit 0\n{UNTIL_GO}"
    );
    let file = Scripts::of(&fleet).with("talk", &script, "").file();
    let mut first = fleet.worker(&["--commands", &file]);
    submit(&fleet, "talk.1", &["talk"]).await;
    says(&fleet, "talk.1", "attempt 1 says this").await;
    first.kill();
    says(&fleet, "talk.1", "attempt 1 says this").await;
    let _second = fleet.worker(&["--commands", &file]);
    assert_eq!(fleet.end_of("talk.1").await.status, RunState::Success);
    assert_eq!(texts(&log_of(&fleet, "talk.1")), ["attempt 1 says this", "attempt 2 says this"]);
    let second = fleet.cronfleet(&["logs", "talk.1", "--attempt", "2", "-o", "name"]);
    assert_eq!(second, "attempt 2 says this\n");
}

#[tokio::test]
async fn killed_after_it_wrote_lines_a_worker_leaves_them_and_the_run_goes_on_at_another() {
    let fleet = Fleet::start().await;
    fleet.apply("queues: {default: {ack_wait: 4s}}");
    let file = Scripts::of(&fleet).with("talk", "echo here $CRONFLEET_ATTEMPT; sleep 1", "").file();
    let at = (crash::CRASH_AT, "log:1".to_owned());
    let mut mortal = fleet.spawn_with("worker", &["worker", "--commands", &file], &[at]);
    submit(&fleet, "talk.1", &["talk"]).await;
    mortal.ended().await;
    let _other = fleet.worker(&["--commands", &file]);
    let run = fleet.end_of("talk.1").await;
    assert_eq!((run.status, run.attempt), (RunState::Success, 2));
    assert_eq!(texts(&log_of(&fleet, "talk.1")), ["here 1", "here 2"]);
}

#[tokio::test]
async fn a_flood_is_bounded_hurts_nobody_and_its_last_line_says_what_is_missing() {
    let fleet = Fleet::start().await;
    let flood = "yes 'what it says again and again' | head -c 300000000; yes on the other | head -c 20000000 >&2\necho; echo '{\"done\": true}'";
    let file = Scripts::of(&fleet).with("flood", flood, "").with("quiet", "echo heard", "").file();
    let worker = fleet.worker(&["--commands", &file]);
    submit(&fleet, "flood.1", &["flood"]).await;
    let began =
        eventually("the flood begins", async || fleet.record("flood.1").await.ok_or("no record".to_owned()))
            .await;
    assert_eq!(began.attempt, 1);
    for n in 0..5 {
        let run = format!("quiet.{n}");
        submit(&fleet, &run, &["quiet"]).await;
        assert_eq!(fleet.end_of(&run).await.status, RunState::Success);
        assert_eq!(texts(&log_of(&fleet, &run)), ["heard"]);
    }
    let run = fleet.end_of("flood.1").await;
    assert_eq!((run.status, run.output, run.attempt), (RunState::Success, Some(json!({"done": true})), 1));
    let log = log_of(&fleet, "flood.1");
    let bytes: usize = texts(&log).iter().map(|text| text.len()).sum();
    assert!(bytes <= shared::limits::LOG_ATTEMPT_BYTES_MAX, "{bytes} bytes");
    assert!(log.len() > 1_000, "the beginning is there: {} lines", log.len());
    let last = log.last().expect("a line");
    let left_out = last["text"].as_str().expect("text").split(' ').next().and_then(|n| n.parse::<u64>().ok());
    assert_eq!(last["from"], "worker");
    assert_eq!(left_out.map(|lines| lines + log.len() as u64), last["n"].as_u64(), "{last}");
    let rss = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("its status");
    let peak = rss.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak").trim();
    let kib: u64 = peak.trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 300_000, "320 MB came through, and the worker once had {peak}");
}

#[tokio::test]
async fn secrets_are_seen_nowhere_whatever_way_a_command_says_them() {
    let fleet = Fleet::start().await;
    let secrets = "secrets: [THE_SECRET, THE_KEY]";
    let says = r#"
echo "password is $THE_SECRET!" ; echo "$THE_KEY" >&2
s=$THE_SECRET; printf 'in two pieces: %.4s' "$s"; sleep 0.3; printf '%s\n' "${s#????}"
head -c 8185 /dev/zero | tr '\0' x; echo "$THE_SECRET"
echo '> Authorization: Bearer h3ader-t0ken'
printf '{"progress": 0.5, "note": "with %s"}\n' "$THE_SECRET"
"#;
    let well = format!("{says}\nprintf '{{\"token\": \"%s\", \"rows\": 3}}\\n' \"$THE_SECRET\"");
    let ill = format!("{says}\necho \"cannot log in with $THE_SECRET\" >&2; exit 1");
    let text = format!("{says}\necho done with $THE_SECRET");
    let scripts = Scripts::of(&fleet);
    let scripts =
        scripts.with("well", &well, secrets).with("ill", &ill, secrets).with("text", &text, secrets);
    let variables = [
        ("THE_SECRET", "hunter2-hunter2".to_owned()),
        ("THE_KEY", "-----BEGIN\nMIIEkey1\nMIIEkey2\n-----END".to_owned()),
    ];
    let arguments = ["worker", "--commands", &scripts.file(), "--log", "trace"];
    let worker = fleet.spawn_with("worker", &arguments, &variables);
    let once = |command: &str| json!({"command": [command], "retry": {"attempts": 1}});
    let mut seen = String::new();
    for (command, status) in
        [("well", RunState::Success), ("ill", RunState::Failed), ("text", RunState::Success)]
    {
        let id = format!("{command}.1");
        fleet.submit(&id, &once(command)).await.expect("submitted");
        let run = fleet.end_of(&id).await;
        assert_eq!(run.status, status, "{run:?}");
        if command == "well" {
            assert_eq!(run.output, Some(json!({"token": "***", "rows": 3})));
        }
        if command == "ill" {
            let letter = fleet.dead_letter(&run).await;
            seen += &serde_json::to_string(&letter).expect("JSON");
        }
        let log = log_of(&fleet, &id);
        assert!(texts(&log).contains(&"password is ***!"), "{log:?}");
        assert!(texts(&log).contains(&"in two pieces: ***"), "{log:?}");
        seen += &serde_json::to_string(&log).expect("JSON");
        seen += &fleet.cronfleet(&["describe", "run", &id, "-o", "json"]);
        seen += &fleet.cronfleet(&["describe", "run", &id]);
    }
    seen += &worker.said();
    assert!(seen.contains("cannot log in with ***"));
    for part in ["hunter2", "unter2", "MIIEkey1", "MIIEkey2", "h3ader"] {
        assert!(!seen.contains(part), "{part} is seen: {seen}");
    }
    let stored = fleet.nats.folder().to_path_buf();
    assert!(!is_in_a_file(&stored, b"hunter2"), "the server's files hold it");
}

/// Whether a file below this folder holds these bytes.
fn is_in_a_file(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return is_in_a_file(&path, bytes);
        }
        let held = std::fs::read(&path).unwrap_or_default();
        held.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn progress_is_seen_while_a_run_is_under_way_and_afterwards_in_its_log() {
    let fleet = Fleet::start().await;
    let script = format!(
        "echo '{{\"progress\": 0.4, \"note\": \"four of ten\"}}'\n{UNTIL_GO}for n in 5 6 7 8 9; do echo \"{{\\\"progress\\\": 0.$n}}\"; done\n\
         echo '{{\"rows\": 10}}'; echo '{{\"progress\": 1, \"note\": \"all\"}}'"
    );
    let _worker = fleet.worker(&["--commands", &Scripts::of(&fleet).with("steps", &script, "").file()]);
    submit(&fleet, "steps.1", &["steps"]).await;
    let wanted = json!({"progress": 0.4, "note": "four of ten"});
    eventually("its progress is listed", async || {
        let runs = fleet.cronfleet_json(&["get", "runs"]);
        if runs[0]["progress"] == wanted { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    assert_eq!(fleet.cronfleet_json(&["describe", "run", "steps.1"])["progress"], wanted);
    let table = fleet.cronfleet(&["get", "runs", "steps.1"]);
    assert!(table.contains("40 %: four of ten"), "{table}");
    go_on(&fleet);
    let run = fleet.end_of("steps.1").await;
    assert_eq!(run.output, Some(json!({"rows": 10})), "progress is no answer");
    let described = fleet.cronfleet_json(&["describe", "run", "steps.1"]);
    assert_eq!(described["progress"], json!({"progress": 1.0, "note": "all"}));
    let log = log_of(&fleet, "steps.1");
    let said: Vec<&str> = texts(&log).into_iter().filter(|text| text.contains('%')).collect();
    assert!((2..=4).contains(&said.len()), "not every step is written: {said:?}");
    within(Duration::from_secs(20), "its worker tells it no more", async || {
        let workers = fleet.cronfleet(&["get", "workers", "-o", "json"]);
        if workers.contains("four of ten") || workers.contains("\"all\"") { Err(workers) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn what_a_terminal_would_obey_is_kept_as_it_came_and_shown_harmless() {
    let fleet = Fleet::start().await;
    let script = r"printf '\033[2Jgone\n\342\200\256flipped\n\377\376binary\000\nbar 1\rbar 2\r\n'; head -c 20000 /dev/zero | tr '\0' y";
    let _worker = fleet.worker(&["--commands", &Scripts::of(&fleet).with("odd", script, "").file()]);
    submit(&fleet, "odd.1", &["odd"]).await;
    fleet.end_of("odd.1").await;
    let log = log_of(&fleet, "odd.1");
    assert_eq!(
        texts(&log)[..5],
        ["\u{1b}[2Jgone", "\u{202e}flipped", "\u{fffd}\u{fffd}binary\0", "bar 1", "bar 2"]
    );
    assert_eq!((&log[1]["lossy"], &log[2]["lossy"]), (&Value::Null, &json!(true)));
    assert_eq!((texts(&log)[5].len(), &log[5]["cut"]), (8_192, &json!(20_000 - 8_192)));
    for shown in [fleet.cronfleet(&["logs", "odd.1"]), fleet.cronfleet(&["describe", "run", "odd.1"])] {
        let is_harmless = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(shown.chars().all(is_harmless), "{shown:?}");
        assert!(shown.contains("␛[2Jgone") && shown.contains("[11808 bytes more]"), "{shown}");
    }
}

#[tokio::test]
async fn a_log_that_shows_nothing_says_why() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let task = json!({"target_service": "target", "action": "ok"});
    fleet.submit("silent.1", &task).await.expect("submitted");
    fleet.end_of("silent.1").await;
    for arguments in [&["logs", "silent.1"][..], &["logs", "silent.1", "-f"]] {
        let output = fleet.try_cronfleet(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains("run silent.1 is SUCCESS and said nothing"), "{said}");
    }
    for arguments in [&["logs", "nobody.1"][..], &["logs", "nobody.1", "--follow"]] {
        let output = fleet.try_cronfleet(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("there is no record of run nobody.1"), "{said}");
    }
    let later = fleet.try_cronfleet(&["logs", "silent.1", "--attempt", "7"]);
    let said = String::from_utf8_lossy(&later.stderr).into_owned();
    assert!(said.contains("has had 1 attempt,"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_away_holds_up_no_command_and_what_was_said_meanwhile_is_stored_later() {
    let mut fleet = Fleet::start().await;
    let script = format!(
        "echo before\n{UNTIL_GO}yes meanwhile | head -c 3000000; echo through > DIR/through\n\
                          while [ ! -e DIR/back ]; do sleep 0.05; done; echo after"
    );
    let file = Scripts::of(&fleet).with("talk", &script, "").file();
    let _worker = fleet.worker(&["--commands", &file]);
    submit(&fleet, "talk.1", &["talk"]).await;
    says(&fleet, "talk.1", "before").await;
    fleet.nats.kill();
    go_on(&fleet);
    eventually("the command has said it all although nobody listens", async || {
        if fleet.folder().join("through").exists() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    fleet.nats.restart().await;
    std::fs::write(fleet.folder().join("back"), "").expect("written");
    let run = fleet.end_of("talk.1").await;
    assert_eq!((run.status, run.attempt), (RunState::Success, 1));
    let log = log_of(&fleet, "talk.1");
    assert_eq!(texts(&log)[..2], ["before", "meanwhile"]);
    assert!(texts(&log).last().expect("a line").contains("are left out"), "{:?}", log.last());
}

#[tokio::test]
async fn a_fleet_that_has_no_stream_for_logs_yet_runs_its_commands_and_is_told_what_to_do() {
    let fleet = Fleet::start().await;
    let mut operator = PlainClient::connect(&fleet.nats.url()).await;
    let deleted = operator.request("$JS.API.STREAM.DELETE.cronfleet_LOG", b"").await;
    assert!(deleted.payload.contains("\"success\":true"), "{}", deleted.payload);
    let worker =
        fleet.worker(&["--commands", &Scripts::of(&fleet).with("talk", "echo '{\"n\": 1}'", "").file()]);
    submit(&fleet, "talk.1", &["talk"]).await;
    let run = fleet.end_of("talk.1").await;
    assert_eq!((run.status, run.output, run.attempt), (RunState::Success, Some(json!({"n": 1})), 1));
    eventually("the worker says it", async || {
        let said = worker.said();
        if said.contains("the stream for it is missing; run `cronfleet init`") { Ok(()) } else { Err(said) }
    })
    .await;
    fleet.cronfleet(&["describe", "run", "talk.1"]);
    for verb in [&["logs", "talk.1"][..], &["doctor"]] {
        let output = fleet.try_cronfleet(verb);
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cronfleet_LOG") && said.contains("cronfleet init"), "{said}");
    }
    fleet.cronfleet(&["init"]);
    submit(&fleet, "talk.2", &["talk"]).await;
    says(&fleet, "talk.2", "{\"n\": 1}").await;
}
