//! Bad input at the door: a clear error with the value, the rule and the repair, and nothing changed.

use harness::Fleet;

fn refused(fleet: &Fleet, definitions: &str, parts: &[&str]) {
    let output = fleet.try_apply(definitions);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{definitions}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}\nfor: {definitions}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_applied_changes_nothing_and_says_why() {
    let fleet = Fleet::start().await;
    let schedule = |name: &str, fields: &str| {
        format!(
            "targets: {{target: {{http: TARGET}}}}\nschedules:\n  {name}:\n    {fields}\n    \
             task: {{target_service: target, action: ok}}\n"
        )
    };
    refused(&fleet, "schedules: [", &[]);
    refused(&fleet, "schedules:\n\t- x", &[]);
    refused(&fleet, "", &["empty"]);
    refused(&fleet, &schedule("daily", "timezon: UTC"), &["did you mean `timezone`"]);
    refused(&fleet, &schedule("a.b", "every: 1m"), &["a.b", "a_b"]);
    refused(&fleet, &schedule(&"x".repeat(65), "every: 1m"), &["65 characters; at most 64"]);
    refused(&fleet, &schedule("never", "cron: '0 0 31 2 *'"), &["0 0 31 2 *", "never"]);
    refused(&fleet, &schedule("weekday", "cron: '0 0 * * 8'"), &["8"]);
    refused(&fleet, &schedule("often", "every: 0s"), &["every"]);
    refused(&fleet, &schedule("zone", "cron: '@daily'\n    timezone: Europe/Pariss"), &["Europe/Paris"]);
    refused(&fleet, &schedule("twice", "every: 1m\n    cron: '@daily'"), &["more than one"]);
    refused(
        &fleet,
        "schedules: {lost: {every: 1m, task: {target_service: nobody, action: ok}}}",
        &["lost", "nobody", "targets:", "definitions.yaml:1:54"],
    );
    let large = format!("{}\n# {}", schedule("large", "every: 1m"), "x".repeat(5 * 1024 * 1024));
    refused(&fleet, &large, &["at most"]);
    let catalog = fleet.streams.catalog().all().await.expect("catalog");
    assert!(catalog.targets.is_empty(), "nothing of a refused file is applied");
    assert!(fleet.streams.schedules().list().await.expect("schedules").is_empty());
}

#[tokio::test]
async fn a_submission_that_makes_no_sense_is_refused_before_it_is_sent() {
    let fleet = Fleet::start().await;
    for (arguments, part) in [
        (vec!["submit", "a.b", "-d", "{}"], "a_b"),
        (vec!["submit", "reindex", "-d", "{\"target_service\":"], "EOF"),
        (
            vec![
                "submit",
                "reindex",
                "-d",
                "{\"target_service\":\"a\",\"action\":\"b\"}",
                "--key",
                "20261124T020000Z",
            ],
            "planners' own",
        ),
        (
            vec![
                "submit",
                "reindex",
                "-d",
                "{\"target_service\":\"a\",\"action\":\"b\"}",
                "--queue",
                "nowhere",
            ],
            "nowhere",
        ),
        (vec!["trigger", "nothing"], "nothing"),
        (vec!["describe", "run", "no-dot"], "<name>.<key>"),
        (vec!["describe", "schedule", "nothing"], "nothing"),
    ] {
        let output = fleet.try_cronfleet(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {:?}", output.status);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let large = format!("{{\"parameters\":{{\"x\":\"{}\"}}}}", "y".repeat(300 * 1024));
    let file = fleet.folder().join("large.json");
    std::fs::write(&file, large).expect("written");
    let output = fleet.try_cronfleet(&["submit", "reindex", "-d", &format!("@{}", file.display())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("pass a reference"), "{said}");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_by_the_server_too() {
    let fleet = Fleet::start().await;
    let run = "reindex.large".parse().expect("run");
    let queue = "default".parse().expect("queue");
    let error =
        fleet.streams.submit(&queue, &run, &vec![b'x'; 900 * 1024], None).await.expect_err("too large");
    assert!(matches!(error, streams::WriteError::TooLarge { .. }), "{error}");
}
