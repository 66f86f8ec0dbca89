//! Both READMEs show the same: whoever reads Chinese is told no less.

use harness::repository;

/// The fenced blocks of a page, without comments and without the picture, whose labels are translated.
fn blocks(page: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(repository().join(page)).expect("the page");
    let fenced = text.split("```").skip(1).step_by(2).filter(|block| !block.starts_with("mermaid"));
    let without_comment = |line: &str| line.split(" #").next().unwrap_or_default().trim_end().to_owned();
    fenced.map(|block| block.lines().map(without_comment).collect()).collect()
}

/// What is written as code in the running text.
fn words_in_code(page: &str) -> std::collections::BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join(page)).expect("the page");
    let prose = text.split("```").step_by(2).collect::<String>();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn both_readmes_show_the_same_commands_and_files() {
    let (english, chinese) = (blocks("README.md"), blocks("README.zh.md"));
    assert!(english.len() > 10, "{} blocks", english.len());
    for (english, chinese) in english.iter().zip(&chinese) {
        assert_eq!(english, chinese);
    }
    assert_eq!(english.len(), chinese.len());
}

#[test]
fn what_is_named_in_one_readme_is_named_in_the_other() {
    let missing: Vec<String> =
        words_in_code("README.md").difference(&words_in_code("README.zh.md")).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "missing in README.zh.md");
}
