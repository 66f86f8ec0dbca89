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
fn generated_openapi_document_is_what_the_console_serves() {
    check("docs/openapi.json", &console::api::openapi::page());
}

#[test]
fn generated_problems_page_lists_every_kind() {
    check("docs/PROBLEMS.md", &console::api::kinds::page());
}

#[test]
fn every_promise_names_specs_that_exist_or_says_that_it_is_not_yet_proven() {
    let page = std::fs::read_to_string(repository().join("docs/GUARANTEES.md")).expect("the page");
    let mut sources = String::new();
    for folder in ["tests/specs", "planner/src", "shared", "streams/src", "worker"] {
        read_sources(&repository().join(folder), &mut sources);
    }
    let promises = page.lines().filter(|line| line.starts_with("## ")).count();
    assert!(promises >= 7, "the page lists {promises} promises");
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("- `")) {
        let spec = line.split('`').nth(1).expect("a name");
        assert!(
            // Those of crash points come out of a table.
            sources.contains(&format!("fn {spec}(")) || sources.contains(&format!("{spec}: \"")),
            "{spec} is named in docs/GUARANTEES.md and does not exist"
        );
        named += 1;
    }
    assert!(named >= promises, "{named} specs for {promises} promises");
}

/// Reads all Rust sources below a folder.
fn read_sources(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("text"));
        }
    }
}
