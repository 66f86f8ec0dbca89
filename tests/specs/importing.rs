//! `import`: what other schedulers were told is taken over by `apply` as it is printed, and runs.

use harness::{Fleet, Process, eventually, repository};
use serde_json::Value;
use shared::run_state::RunState;

/// Imports files that lie in the folder of the fleet; what was printed, and what was said.
fn import(fleet: &Fleet, arguments: &[&str]) -> (String, String) {
    let output = fleet.try_cronfleet(&[&["import"], arguments].concat());
    let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {talk}");
    (out.into_owned(), talk.into_owned())
}

#[tokio::test]
async fn what_is_imported_from_crontabs_kubernetes_and_xxl_job_passes_a_dry_run() {
    let fleet = Fleet::start().await;
    for (source, name, more) in [
        ("crontab", "crontab-user", None),
        ("crontab", "crontab-system", Some("--system")),
        ("k8s-cronjob", "kubernetes", None),
        ("xxl-job", "xxl-api", Some("--timezone=Asia/Shanghai")),
        ("xxl-job", "xxl-table", None),
    ] {
        let file = repository().join(format!("cli/testdata/import/{name}.in"));
        let arguments: Vec<&str> = [source, file.to_str().expect("a path")].into_iter().chain(more).collect();
        let (printed, talk) = import(&fleet, &arguments);
        // Each note stands on stderr with its line, and in the file.
        let notes: Vec<&str> = talk.lines().filter_map(|line| line.strip_prefix("note: ")).collect();
        assert!(!notes.is_empty() && notes.iter().all(|note| printed.contains(note)), "{talk}\n{printed}");
        let definitions = fleet.folder().join("imported.yaml");
        std::fs::write(&definitions, &printed).expect("a file");
        let changes =
            fleet.cronfleet_json(&["apply", "--dry-run", "-f", definitions.to_str().expect("a path")]);
        let schedules = |change: &&Value| change["kind"] == "schedule" && change["change"] == "created";
        assert!(changes.as_array().expect("a list").iter().filter(schedules).count() >= 2, "{changes}");
    }
    assert!(fleet.streams.schedules().list().await.expect("schedules").is_empty(), "nothing was written");
}

#[tokio::test]
async fn a_line_of_a_crontab_runs_as_it_did_once_a_worker_allows_it() {
    let fleet = Fleet::start().await;
    let line = "0 2 * * * cat > DIR/got && echo \"did 100\\%\"%first line%second \\% line\n";
    let crontab = fleet.folder().join("crontab");
    std::fs::write(&crontab, line.replace("DIR", fleet.folder().to_str().expect("a path"))).expect("a file");
    let commands = fleet.folder().join("commands.yaml");
    let commands = commands.to_str().expect("a path");
    let arguments = ["crontab", crontab.to_str().expect("a path"), "--commands", commands];
    let (printed, _) = import(&fleet, &arguments);
    fleet.apply(&printed);
    let again = fleet.try_cronfleet(&[&["import"], &arguments[..]].concat());
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("not there yet"),
        "an allow-list is not written over"
    );
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&["--commands", commands]));
    let run = fleet.cronfleet(&["trigger", "cat", "-o", "name"]);
    let record = fleet.end_of(run.trim()).await;
    assert_eq!(record.status, RunState::Success, "{:?}", record.error);
    let got = std::fs::read_to_string(fleet.folder().join("got")).expect("its input");
    assert_eq!(got, "first line\nsecond % line\n");
    let logs = fleet.cronfleet(&["logs", run.trim()]);
    assert!(logs.contains("did 100%"), "{logs}");
}

#[tokio::test]
async fn what_holds_no_schedule_is_an_error_that_names_the_file() {
    let fleet = Fleet::start().await;
    let empty = fleet.folder().join("empty");
    std::fs::write(&empty, "# nothing\n").expect("a file");
    let empty = empty.to_str().expect("a path");
    for (arguments, part) in [
        (["import", "crontab", empty], "nothing was found"),
        (["import", "xxl-job", empty], "names neither"),
        (["import", "crontab", "/nowhere"], "cannot read /nowhere"),
    ] {
        let output = fleet.try_cronfleet(&arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && talk.contains(part), "{arguments:?}: {talk}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// Waits until a watch has said all of this.
async fn has_said(watch: &mut Process, parts: &[&str]) -> String {
    eventually(&format!("{parts:?} in what is watched"), async || {
        let said = watch.said();
        if parts.iter().all(|part| said.contains(part)) { Ok(said) } else { Err(said) }
    })
    .await
}

#[tokio::test]
async fn a_watch_of_runs_lists_them_and_shows_each_change_also_after_the_server_was_away() {
    let mut fleet = Fleet::start().await;
    fleet.declare_target();
    let _worker = fleet.worker(&[]);
    let task = serde_json::json!({"target_service": "target", "action": "ok"});
    fleet.submit("reindex.before", &task).await.expect("submitted");
    fleet.end_of("reindex.before").await;
    let mut table = fleet.spawn("watch", &["get", "runs", "--watch", "--schedule", "reindex"]);
    let mut json = fleet.spawn("watch", &["get", "runs", "--watch", "--status", "SUCCESS", "-o", "json"]);
    has_said(&mut table, &["STATUS", "reindex.before"]).await;
    has_said(&mut json, &["reindex.before"]).await;
    for (name, run) in [("reindex", "reindex.live"), ("other", "other.live")] {
        fleet.submit(run, &task).await.expect("submitted");
        fleet.end_of(run).await;
        has_said(&mut json, &[name, run]).await;
    }
    has_said(&mut table, &["reindex.live"]).await;
    fleet.nats.kill();
    fleet.nats.restart().await;
    eventually("a submission", async || {
        fleet.submit("reindex.after", &task).await.map_err(|error| error.to_string())
    })
    .await;
    eventually("the end of reindex.after", async || {
        let id = "reindex.after".parse().expect("a run id");
        match fleet.streams.ledger().get(&id).await {
            Ok(Some(stored)) if stored.value.status.is_final() => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    let said = has_said(&mut table, &["reindex.after"]).await;
    assert!(!said.contains("other.live"), "filters hold for changes, too: {said}");
    assert_eq!(said.matches("STATUS").count(), 1, "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("reindex.")).collect();
    let column = said.lines().find_map(|line| line.find("STATUS")).expect("a header");
    assert!(lines.iter().all(|line| line[..column].ends_with(' ')), "{said}");
    let said = has_said(&mut json, &["reindex.after"]).await;
    let runs: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert!(runs.iter().all(|run| run["status"] == "SUCCESS"), "{said}");
    let times = |id: &str| runs.iter().filter(|run| run["id"] == id).count();
    assert_eq!(
        ["reindex.before", "reindex.live", "other.live", "reindex.after"].map(times),
        [1; 4],
        "{said}"
    );
    assert!(table.stop().await.success() && json.stop().await.success(), "ctrl-C ends it");
}
