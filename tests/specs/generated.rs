//! Pages that are generated from the code are what the code says. `make docs-generate` writes them anew.

use harness::repository;

fn check(path: &str, wanted: &str) {
    let file = repository().join(path);
    if std::env::var_os("CRONFLEET_UPDATE_DOCS").is_some() {
        std::fs::write(&file, wanted).expect("written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == wanted, "{path} is not what the code says; repair: make docs-generate");
}

#[test]
fn generated_run_states_page_is_the_transition_table() {
    check("docs/run-states.md", &shared::run_state::states_page());
}

#[test]
fn generated_json_schema_is_the_file_format() {
    check("docs/definitions.schema.json", &shared::definitions::json_schema());
}

#[test]
fn generated_cli_page_is_the_help() {
    check("docs/cli.md", &cli::help_page());
}

#[test]
fn every_promise_names_specs_that_exist_or_says_that_it_is_not_yet_proven() {
    let page = std::fs::read_to_string(repository().join("docs/GUARANTEES.md")).expect("the page");
    let mut sources = String::new();
    for entry in std::fs::read_dir(repository().join("tests/specs")).expect("specs") {
        sources.push_str(&std::fs::read_to_string(entry.expect("an entry").path()).expect("text"));
    }
    let folders = ["planner/src", "planner/src/simulation", "shared/src", "shared/src/cron"];
    for folder in folders.into_iter().chain(["shared/tests/cron_oracle", "worker/src"]) {
        for entry in std::fs::read_dir(repository().join(folder)).expect("sources") {
            sources.push_str(&std::fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default());
        }
    }
    let promises = page.lines().filter(|line| line.starts_with("## ")).count();
    assert!(promises >= 7, "the page lists {promises} promises");
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("- `")) {
        let spec = line.split('`').nth(1).expect("a name");
        assert!(
            sources.contains(&format!("fn {spec}(")),
            "{spec} is named in docs/GUARANTEES.md and does not exist"
        );
        named += 1;
    }
    assert!(named >= promises, "{named} specs for {promises} promises");
}
