//! What `doctor` says when every process is well and the runs are not.

use harness::{Fleet, eventually};
use serde_json::{Value, json};

/// What doctor found of one thing: whether it is well, what it found, and the repair.
fn finding(fleet: &Fleet, what: &str) -> Result<(bool, String, String), String> {
    let output = fleet.try_cronfleet(&["doctor", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    let found = findings.as_array().expect("an array").iter().find(|one| one["what"] == what);
    let found = found.ok_or_else(|| format!("nothing of {what}: {said}"))?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((found["ok"] == true, text("found"), text("repair")))
}

#[tokio::test]
async fn a_queue_that_a_schedule_uses_and_nobody_serves_is_ill_and_one_that_nobody_uses_is_not() {
    let fleet = Fleet::start().await;
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    fleet.is_well().await;
    fleet.apply(
        "queues: {reports: {}, idle: {}}\nschedules:\n  yearly: {cron: '0 0 1 1 *', queue: reports, task: {command: [x]}}",
    );
    let (ok, found, repair) = finding(&fleet, "queue reports").expect("found");
    assert!(!ok && found.contains("no worker"), "{found}");
    assert!(repair.contains("cronfleet worker --queue reports"), "{repair}");
    let (ok, found, _) = finding(&fleet, "queue idle").expect("found");
    assert!(ok && found.contains("no schedule uses it"), "{found}");
    let _other = fleet.worker(&["--queue", "reports"]);
    fleet.is_well().await;
    let (_, found, _) = finding(&fleet, "queue reports").expect("found");
    assert!(found.ends_with("1 worker"), "{found}");
}

#[tokio::test]
async fn a_target_that_no_run_reached_is_ill_until_one_reaches_it() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {storage: {http: 'http://127.0.0.1:1'}}");
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    fleet.is_well().await;
    let task = json!({"target_service": "storage", "action": "ok", "retry": {"attempts": 1}});
    fleet.submit("archive.1", &task).await.expect("submitted");
    fleet.end_of("archive.1").await;
    let (ok, found, repair) = finding(&fleet, "target storage").expect("found");
    assert!(!ok && found.contains("archive.1") && found.contains("not reached since 20"), "{found}");
    assert!(repair.contains("cronfleet get targets storage"), "{repair}");
    fleet.apply("targets: {storage: {http: TARGET}}");
    // A worker may know the old address for a moment: then another run, as a schedule would have it.
    let runs = std::cell::Cell::new(1);
    eventually("a run that reaches it", async || {
        runs.set(runs.get() + 1);
        let run = format!("archive.{}", runs.get());
        fleet.submit(&run, &task).await.map_err(|error| error.to_string())?;
        let end = fleet.end_of(&run).await;
        if end.error.is_none() { Ok(()) } else { Err(format!("{:?}", end.error)) }
    })
    .await;
    fleet.is_well().await;
}

#[tokio::test]
async fn of_a_large_ledger_only_the_newest_records_since_a_moment_are_read() {
    let fleet = Fleet::start().await;
    let ledger = fleet.streams.ledger();
    let create = async |number: usize| {
        let id = format!("bulk.{number}").parse().expect("id");
        let record =
            shared::run_record::RunRecord::pending(id, "default".parse().expect("queue"), fleet.now());
        ledger.create(&record).await.expect("created");
    };
    for number in 0..30 {
        create(number).await;
    }
    let newest = ledger.written_since(shared::Timestamp::UNIX_EPOCH, 10).await.expect("read");
    let keys: Vec<String> = newest.iter().map(|stored| stored.value.id.key.to_string()).collect();
    assert_eq!(keys, (20..30).map(|number| number.to_string()).collect::<Vec<_>>(), "the newest, in order");
    let all = ledger.written_since(shared::Timestamp::UNIX_EPOCH, 100).await.expect("read");
    let before = all.last().expect("one").stored_at;
    create(30).await;
    let since = before + chrono::TimeDelta::nanoseconds(1);
    let later = ledger.written_since(since, 100).await.expect("read");
    let keys: Vec<String> = later.iter().map(|stored| stored.value.id.to_string()).collect();
    assert_eq!((all.len(), keys), (30, vec!["bulk.30".to_owned()]));
    let never = before + chrono::TimeDelta::hours(1);
    assert!(ledger.written_since(never, 100).await.expect("read").is_empty());
}
