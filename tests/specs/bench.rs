//! `bench`: that it measures what it says, on a small scale. Its figures are for a quiet machine and a release build.

use harness::{Fleet, process};
use serde_json::Value;

fn measured(scenario: &[&str]) -> Value {
    let folder = tempfile::TempDir::new().expect("a folder");
    let server = harness::nats::server_binary().display().to_string();
    let arguments = [&["bench", "--json"], scenario].concat();
    let output =
        process::run(&harness::binary(), &arguments, folder.path(), &[("CRONFLEET_NATS_SERVER", server)]);
    let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}{talk}", output.status);
    serde_json::from_str(out.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn a_burst_is_measured_to_its_last_run_and_nothing_of_it_is_missed_or_doubled() {
    let report = measured(&["burst", "--n", "200"]);
    assert_eq!((&report["n"], &report["missed"], &report["double"]), (&200.into(), &0.into(), &0.into()));
    assert!(report["last_ms"].as_f64().expect("a figure") >= report["p50_ms"].as_f64().expect("a figure"));
}

#[test]
fn the_rate_of_dispatch_is_measured_by_the_raw_rate_of_the_same_server() {
    let report = measured(&["dispatch", "--n", "300"]);
    let figure = |name: &str| report[name].as_f64().expect("a figure");
    assert!((figure("per_s") / figure("raw_per_s") - figure("ratio")).abs() < 1e-9);
}

#[test]
fn many_schedules_are_measured_from_the_start_of_their_planner_to_changes_in_force() {
    let report = measured(&["schedules", "--n", "2000", "--seconds", "2"]);
    let figure = |name: &str| report[name].as_f64().expect("a figure");
    assert!(figure("ready_s") > 0.0 && figure("rss_mb") > 0.0, "{report}");
    assert!(figure("idle_cpu_pct") >= 0.0 && figure("update_ms") >= 0.0, "{report}");
}

#[test]
fn what_waits_is_measured_from_its_instant_and_nothing_of_it_is_early_missed_doubled_or_lost() {
    let report = measured(&["delayed", "--n", "200", "--seconds", "2"]);
    for count in ["early", "missed", "double", "lost"] {
        assert_eq!(report[count], 0, "{report}");
    }
    let figure = |name: &str| report[name].as_f64().expect("a figure");
    assert!(
        figure("recorded_p50_ms") <= figure("p50_ms") && figure("p50_ms") <= figure("p99_ms"),
        "{report}"
    );
}

#[test]
fn lateness_is_measured_beside_what_the_same_server_needs_for_as_many_raw_messages() {
    let report = measured(&["lateness", "--n", "20", "--seconds", "2"]);
    assert_eq!((&report["missed"], &report["double"]), (&0.into(), &0.into()), "{report}");
    let figure = |name: &str| report[name].as_f64().expect("a figure");
    assert!(0.0 < figure("raw_p50_ms") && figure("raw_p50_ms") <= figure("raw_p99_ms"), "{report}");
}

#[tokio::test]
async fn a_scenario_nobody_knows_is_refused_with_those_there_are() {
    let fleet = Fleet::start().await;
    let output = fleet.try_cronfleet(&["bench", "sprint"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are lateness, burst, dispatch"));
}
