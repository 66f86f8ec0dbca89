//! The shape of the repository: arrows that point one way, one crate that knows NATS, words that are not used.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

/// What each of our crates may depend on, of ours.
const ARROWS: [(&str, &[&str]); 9] = [
    ("cronfleet-shared", &[]),
    ("cronfleet-streams", &["cronfleet-shared"]),
    ("cronfleet-planner", &["cronfleet-shared", "cronfleet-streams"]),
    ("cronfleet-worker", &["cronfleet-shared", "cronfleet-streams"]),
    ("cronfleet-console", &["cronfleet-shared", "cronfleet-streams"]),
    ("cronfleet-bench", &["cronfleet-shared", "cronfleet-streams"]),
    ("marketprism", &[]),
    (
        "cronfleet-cli",
        &[
            "cronfleet-shared",
            "cronfleet-streams",
            "cronfleet-planner",
            "cronfleet-worker",
            "cronfleet-console",
            "cronfleet-bench",
            "marketprism",
        ],
    ),
    (
        "cronfleet-specs",
        &[
            "cronfleet-shared",
            "cronfleet-streams",
            "cronfleet-planner",
            "cronfleet-worker",
            "cronfleet-console",
            "cronfleet-cli",
            "marketprism",
        ],
    ),
];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(harness::repository())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let needed = package["dependencies"].as_array().expect("dependencies").iter();
            let names = needed.map(|one| one["name"].as_str().expect("a name").to_owned()).collect();
            (package["name"].as_str().expect("a name").to_owned(), names)
        })
        .collect()
}

#[test]
fn the_arrows_between_the_crates_point_one_way() {
    let found = dependencies();
    assert_eq!(found.len(), ARROWS.len(), "a new crate needs its place here: {:?}", found.keys());
    for (crate_name, allowed) in ARROWS {
        let ours = found[crate_name].iter().filter(|name| found.contains_key(*name));
        for dependency in ours {
            assert!(allowed.contains(&dependency.as_str()), "{crate_name} must not depend on {dependency}");
        }
    }
}

#[test]
fn only_streams_imports_async_nats() {
    for (crate_name, needed) in dependencies() {
        let imports = needed.iter().any(|name| name == "async-nats");
        assert_eq!(imports, crate_name == "cronfleet-streams", "{crate_name}");
    }
}

#[test]
fn no_other_crate_spells_a_subject() {
    for_each_source(
        &["planner/src", "worker/src", "console/src", "bench/src", "cli/src", "shared/src"],
        |path, text| {
            for spelled in [
                "cronfleet.due",
                "cronfleet.tasks",
                "cronfleet.delayed",
                "cronfleet.results",
                "cronfleet.control",
                "cronfleet.callback",
                "$KV.",
                "$JS.",
            ] {
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let found = lines
                    .filter(|line| line.contains(spelled) && !line.contains("nats pub"))
                    .collect::<Vec<_>>();
                assert!(found.is_empty(), "{} spells {spelled}: {found:?}", path.display());
            }
        },
    );
}

#[test]
fn files_can_be_held_in_the_head() {
    for_each_source(
        &[
            "shared/src",
            "streams/src",
            "planner/src",
            "worker/src",
            "console/src",
            "bench/src",
            "cli/src",
            "tests",
        ],
        |path, text| {
            let lines = text.lines().count();
            assert!(lines <= 480, "{} has {lines} lines: split it by what it does", path.display());
        },
    );
}

fn for_each_source(folders: &[&str], mut check: impl FnMut(&Path, &str)) {
    let mut seen = 0;
    let mut waiting: Vec<_> = folders.iter().map(|folder| harness::repository().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check(&path, &std::fs::read_to_string(&path).expect("text"));
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} files seen in {folders:?}");
}
