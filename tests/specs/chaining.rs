//! Chains: every end that a schedule follows makes one run of it, and hands on what came of the other.

use harness::{Fleet, PlainClient, eventually};
use serde_json::{Value, json};
use shared::{
    after::run_after,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
    schedule::Schedule,
};
use tokio_util::sync::CancellationToken;

pub(crate) const YEARLY: &str = "cron: '0 0 1 1 *'";

pub(crate) fn schedule(when: &str, more: &str, action: &str, parameters: &str) -> String {
    format!(
        "{{{when}, {more} task: {{target_service: target, action: {action}, parameters: {{{parameters}}}, retry: {{attempts: \
         1}}}}}}"
    )
}

pub(crate) fn apply(fleet: &Fleet, schedules: &[(&str, String)]) -> String {
    let lines: Vec<String> = schedules.iter().map(|(name, text)| format!("  {name}: {text}\n")).collect();
    fleet.apply(&format!("targets: {{target: {{http: TARGET}}}}\nschedules:\n{}", lines.concat()))
}

pub(crate) fn after(upstream: &str, on: &str) -> String {
    format!("after: {{schedule: {upstream}, on: {on}}}")
}

/// The run of a schedule that follows this one.
pub(crate) fn following(schedule: &str, upstream: &str) -> String {
    run_after(&schedule.parse().expect("name"), &upstream.parse().expect("run")).to_string()
}

/// Runs a schedule now and waits for its end.
pub(crate) async fn trigger(fleet: &Fleet, schedule: &str) -> RunRecord {
    let run = fleet.cronfleet(&["trigger", schedule]).trim().to_owned();
    fleet.end_of(&run).await
}

/// The records of a schedule's runs.
pub(crate) async fn runs_of(fleet: &Fleet, schedule: &str) -> Vec<RunRecord> {
    let records = fleet.records().await.into_iter().map(|stored| stored.value);
    records.filter(|record| record.id.name.as_str() == schedule).collect()
}

/// Waits until all planners have dealt with every end so far: those of a run that came after them, too.
pub(crate) async fn all_is_followed(fleet: &Fleet, upstream: &str, follower: &str) {
    let last = trigger(fleet, upstream).await;
    fleet.end_of(&following(follower, &last.id.to_string())).await;
}

#[tokio::test]
async fn each_end_makes_one_run_of_those_that_follow_it_whichever_of_two_planners_sees_it() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planners = [fleet.planner(), fleet.planner()];
    fleet.members("planner", 2).await;
    let mut schedules = vec![
        ("good", schedule(YEARLY, "", "ok", "")),
        ("bad", schedule(YEARLY, "", "refuse", "")),
        ("slow", schedule(YEARLY, "", "slow", "ms: 60000")),
    ];
    let names: Vec<(String, &str, &str)> = ["good", "bad", "slow"]
        .into_iter()
        .flat_map(|upstream| {
            ["success", "failure", "always"].map(|on| (format!("{on}_of_{upstream}"), upstream, on))
        })
        .collect();
    for (name, upstream, on) in &names {
        schedules.push((name, schedule(&after(upstream, on), "", "echo", "")));
    }
    schedules.push(("third", schedule(&after("always_of_good", "success"), "", "echo", "")));
    apply(&fleet, &schedules);
    let good = trigger(&fleet, "good").await;
    let bad = trigger(&fleet, "bad").await;
    let slow = fleet.cronfleet(&["trigger", "slow"]).trim().to_owned();
    eventually("a call of the slow one", async || {
        if fleet.target.calls_of(&slow).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    fleet.cronfleet(&["cancel", &slow]);
    let slow = fleet.end_of(&slow).await;
    assert_eq!(
        [good.status, bad.status, slow.status],
        [RunState::Success, RunState::Failed, RunState::Cancelled]
    );
    let ends = [("good", &good, ["success", "always"]), ("bad", &bad, ["failure", "always"])];
    for (name, upstream, kinds) in ends {
        for on in kinds {
            let run = following(&format!("{on}_of_{name}"), &upstream.id.to_string());
            let record = fleet.end_of(&run).await;
            assert_eq!((record.status, record.late), (RunState::Success, false), "{run}");
            let said = record.upstream.expect("the run it follows");
            assert_eq!((said.run, said.status), (upstream.id.clone(), upstream.status));
            assert_eq!(record.schedule, Some(record.id.name));
        }
    }
    let cancelled = fleet.end_of(&following("always_of_slow", &slow.id.to_string())).await;
    assert_eq!(cancelled.upstream.map(|said| said.status), Some(RunState::Cancelled));
    let second = following("always_of_good", &good.id.to_string());
    assert_eq!(fleet.end_of(&following("third", &second)).await.status, RunState::Success);
    for (upstream, follower) in [("good", "success_of_good"), ("bad", "failure_of_bad")] {
        all_is_followed(&fleet, upstream, follower).await;
    }
    for (name, upstream, on) in &names {
        let expected = match (*upstream, *on) {
            ("good", "success" | "always") | ("bad", "failure" | "always") => 2,
            ("slow", "always") => 1,
            _ => 0,
        };
        let runs = eventually(&format!("{expected} runs of {name}"), async || {
            let runs = runs_of(&fleet, name).await;
            if runs.len() == expected { Ok(runs) } else { Err(format!("{}", runs.len())) }
        })
        .await;
        for run in runs {
            let calls = fleet.target.calls_of(&fleet.end_of(&run.id.to_string()).await.id.to_string());
            assert_eq!(calls.len(), 1, "{} was run once", run.id);
        }
    }
}

#[tokio::test]
async fn what_came_of_a_run_is_handed_on_over_http_over_nats_and_to_a_command() {
    let fleet = Fleet::start().await;
    let commands = fleet.folder().join("commands.yaml");
    std::fs::write(&commands, "commands:\n  env: {program: /usr/bin/env}\n  cat: {program: /bin/cat}\n")
        .expect("written");
    let _worker = fleet.worker(&["--commands", commands.to_str().expect("a path")]);
    let _planner = fleet.planner();
    let stop = CancellationToken::new();
    let (streams, until) = (fleet.streams.clone(), stop.clone());
    let service = tokio::spawn(async move {
        let echo = |_: String, body: streams::Bytes| async move { Ok(body) };
        streams.respond("other", "svc.other", echo, until).await
    });
    let mut listener = PlainClient::connect(&fleet.nats.url()).await;
    listener.subscribe("svc.other.listen").await;
    let after = |on: &str| after("up", on);
    let up = schedule(YEARLY, "", "echo", "rows: 7");
    let http = schedule(&after("success"), "", "echo", "");
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}, other: {{message: svc.other}}}}\nschedules:\n  up: {up}\n  http: {http}\n  \
         nats: {{{}, task: {{target_service: other, action: listen}}}}\n  env: {{{}, task: {{command: [env]}}}}\n  \
         cat: {{{}, task: {{command: [cat]}}}}\n",
        after("success"),
        after("success"),
        after("always"),
    ));
    let upstream = trigger(&fleet, "up").await;
    let output = upstream.output.clone().expect("an output");
    assert_eq!(output["parameters"]["rows"], 7);
    let id = upstream.id.to_string();
    let ended = async |name: &str| {
        let record = fleet.end_of(&following(name, &id)).await;
        assert_eq!(record.status, RunState::Success, "{name}: {:?}", record.error);
        record.output.expect("an output")
    };
    let check = |body: &Value| {
        let said = &body["upstream"];
        assert_eq!(
            (&said["run"], &said["status"], &said["output"]),
            (&json!(id), &json!("SUCCESS"), &output)
        );
    };
    for name in ["http", "nats", "cat"] {
        check(&ended(name).await);
    }
    let call = fleet.target.calls_of(&following("http", &id)).remove(0);
    assert_eq!(call.headers["cronfleet-upstream-run"], id);
    assert_eq!(call.headers["cronfleet-upstream-status"], "SUCCESS");
    let message = listener.next().await;
    assert!(message.headers.contains(&format!("Cronfleet-Upstream-Run: {id}")), "{}", message.headers);
    check(&serde_json::from_str(&message.payload).expect("JSON"));
    let variables = ended("env").await.to_string();
    for variable in [format!("CRONFLEET_UPSTREAM_RUN={id}"), "CRONFLEET_UPSTREAM_STATUS=SUCCESS".to_owned()] {
        assert!(variables.contains(&variable), "{variable}: {variables}");
    }
    assert!(variables.contains("CRONFLEET_UPSTREAM_OUTPUT={"), "{variables}");
    stop.cancel();
    service.await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn a_run_that_follows_is_subject_to_pause_calendar_queue_and_overlap_of_its_own_schedule() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    let closed = "{weekdays: mon-sun, except: [TODAY, TOMORROW]}"
        .replace("TODAY", &fleet.now().format("%Y-%m-%d").to_string())
        .replace("TOMORROW", &(fleet.now() + chrono::TimeDelta::days(1)).format("%Y-%m-%d").to_string());
    let always = after("up", "always");
    let future = (fleet.now() + chrono::TimeDelta::days(1)).to_rfc3339();
    fleet.apply(&format!(
        "targets: {{target: {{http: TARGET}}}}\ncalendars: {{holidays: {closed}}}\nschedules:\n  up: {}\n  paused: {}\n  \
         closed: {}\n  later: {}\n  skips: {}\n  waits: {}\n  plain: {}\n",
        schedule(YEARLY, "", "ok", ""),
        schedule(&always, "", "ok", ""),
        schedule(&always, "calendar: holidays,", "ok", ""),
        schedule(&always, &format!("start: '{future}',"), "ok", ""),
        schedule(&always, "", "slow", "ms: 4000"),
        schedule(&always, "overlap: buffer_all,", "slow", "ms: 1500"),
        schedule(&always, "", "ok", ""),
    ));
    fleet.cronfleet(&["pause", "paused", "--reason", "the disk is full"]);
    let ups = [trigger(&fleet, "up").await, trigger(&fleet, "up").await].map(|run| run.id.to_string());
    let record = fleet.end_of(&following("paused", &ups[0])).await;
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::Paused)));
    assert!(record.note.is_some_and(|note| note.contains("the disk is full")));
    let record = fleet.end_of(&following("closed", &ups[0])).await;
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::SkippedCalendar)));
    let record = fleet.end_of(&following("skips", &ups[1])).await;
    assert_eq!((record.status, record.reason), (RunState::Cancelled, Some(Reason::SkippedOverlap)));
    for up in &ups {
        let run = following("waits", up);
        assert_eq!(fleet.end_of(&run).await.status, RunState::Success);
        let call = fleet.target.calls_of(&run).remove(0);
        assert_eq!(call.body["upstream"]["run"], json!(up), "also after it waited");
    }
    fleet.target.assert_never_two_at_once("waits");
    assert_eq!(fleet.end_of(&following("skips", &ups[0])).await.status, RunState::Success);
    all_is_followed(&fleet, "up", "plain").await;
    assert!(runs_of(&fleet, "later").await.is_empty(), "it has not begun");
    fleet.cronfleet(&["resume", "paused"]);
    all_is_followed(&fleet, "up", "paused").await;
    // A chained run that was skipped is no run: nothing follows it, and a schedule that is deleted follows nothing.
    all_is_followed(&fleet, "up", "plain").await;
    fleet.cronfleet(&["delete", "plain"]);
    all_is_followed(&fleet, "up", "paused").await;
    assert_eq!(runs_of(&fleet, "plain").await.len(), 5);
}

#[tokio::test]
async fn a_cycle_and_a_schedule_nobody_knows_are_refused_with_the_way_and_the_nearest_name() {
    let fleet = Fleet::start().await;
    apply(
        &fleet,
        &[
            ("load", schedule(YEARLY, "", "ok", "")),
            ("check", schedule(&after("load", "success"), "", "ok", "")),
            ("report", schedule(&after("check", "success"), "", "ok", "")),
        ],
    );
    let table = [
        (
            "load",
            after("report", "always"),
            "its `after` leads back to itself: load after report after check after load",
        ),
        ("check", after("check", "always"), "check after check; a chain has a beginning"),
        (
            "mail",
            after("reprot", "success"),
            "schedule \"reprot\" is not declared (did you mean \"report\"?)",
        ),
        ("mail", "after: {schedule: report, on: succes}".to_owned(), "did you mean `success`?"),
    ];
    for (name, when, words) in table {
        let text = format!("schedules:\n  {name}: {}\n", schedule(&when, "", "ok", ""));
        let output = fleet.try_apply(&text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{when}: {said}");
        assert!(said.contains("line 2"), "with its place: {said}");
    }
    let alone = fleet.folder().join("alone.yaml");
    let text = format!("schedules:\n  report: {}\n", schedule(&after("check", "success"), "", "ok", ""));
    std::fs::write(&alone, text).expect("a file");
    let arguments = ["apply", "-f", alone.to_str().expect("a path"), "--prune"];
    let said = String::from_utf8_lossy(&fleet.try_cronfleet(&arguments).stderr).into_owned();
    assert!(said.contains("schedule \"check\" is not declared"), "it would be gone: {said}");
    let shown = fleet.cronfleet_json(&["get", "schedules"]);
    assert_eq!(shown.as_array().map(Vec::len), Some(3), "{shown}");
    let table = fleet.cronfleet(&["get", "schedules"]);
    assert!(table.contains("after check (success)"), "{table}");
    let next = fleet.cronfleet(&["next", "report", "--lang", "en"]);
    assert!(next.contains("report: whenever a run of check succeeds"), "{next}");
    fleet.cronfleet(&["delete", "check"]);
    let doctor = String::from_utf8_lossy(&fleet.try_cronfleet(&["doctor"]).stdout).into_owned();
    assert!(
        doctor.contains("schedule \"check\" is not declared"),
        "its follower waits, and it is seen: {doctor}"
    );
}

#[tokio::test]
async fn a_cycle_that_a_stranger_wrote_into_the_bucket_is_seen_and_runs_nothing() {
    let fleet = Fleet::start().await;
    let _worker = fleet.worker(&[]);
    let _planner = fleet.planner();
    fleet.apply("targets: {target: {http: TARGET}}");
    for (name, upstream) in [("a", "b"), ("b", "a"), ("hangs_on", "a")] {
        let json = format!(
            r#"{{"after":{{"schedule":"{upstream}","on":"always"}},"task":{{"target_service":"target","action":"ok"}}}}"#
        );
        let schedule: Schedule = serde_json::from_str(&json).expect("schedule");
        let name = name.parse().expect("name");
        fleet.streams.schedules().apply(&name, &schedule.named(&name)).await.expect("applied");
    }
    eventually("the planner says so", async || {
        let planners = fleet.cronfleet_json(&["get", "planners"]).to_string();
        let says_so = planners.contains("a after b after a") && planners.contains("b after a after b");
        if says_so { Ok(()) } else { Err(planners) }
    })
    .await;
    all_is_followed(&fleet, "a", "hangs_on").await;
    all_is_followed(&fleet, "a", "hangs_on").await;
    let runs: Vec<RunId> = fleet.records().await.into_iter().map(|stored| stored.value.id).collect();
    assert_eq!(runs.len(), 4, "two by hand, two that follow them: {runs:?}");
    let shown = fleet.cronfleet(&["get", "schedules"]);
    assert!(shown.contains("invalid: its `after` leads back to itself: a after b after a"), "{shown}");
    assert!(!fleet.try_cronfleet(&["doctor"]).status.success());
}
