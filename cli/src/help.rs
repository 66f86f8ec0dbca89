//! The page `docs/cli.md`: what every verb's `--help` says, the same at any terminal width.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use crate::args::Cli;

/// Columns of the page's help texts.
const WIDTH: usize = 110;

/// The page `docs/cli.md`, generated from the command line itself; a spec compares them.
pub fn help_page() -> String {
    let root = Cli::command();
    let mut page = String::from(
        "# The command line\n\nGenerated from the program's own `--help`; a test compares them. \
         The global options, shown once here, go with every verb.\n",
    );
    // Not built as a whole: every verb would repeat the global options.
    section(&mut page, &root, "cronfleet");
    for verb in visible(&root) {
        let name = format!("cronfleet {}", verb.get_name());
        section(&mut page, verb, &name);
        for object in visible(verb) {
            section(&mut page, object, &format!("{name} {}", object.get_name()));
        }
    }
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn section(page: &mut String, command: &Command, name: &str) {
    let mut command = command
        .clone()
        .bin_name(name)
        .display_name(name)
        .term_width(WIDTH)
        .disable_help_flag(true)
        .color(clap::ColorChoice::Never);
    if name != "cronfleet" {
        command = command.disable_version_flag(true);
    }
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_verb_and_none_that_is_hidden() {
        let page = help_page();
        for verb in ["init", "apply", "get runs", "describe schedule", "next", "trigger", "submit", "doctor"]
        {
            assert!(page.contains(&format!("\n## cronfleet {verb}\n")), "{verb}");
        }
        assert!(!page.contains("cronfleet guard") && !page.contains("cronfleet probe"));
        assert!(
            page.lines()
                .filter(|line| !line.starts_with("Generated"))
                .all(|line| line.chars().count() <= WIDTH)
        );
        assert_eq!(page, help_page());
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in visible(&Cli::command()).filter(|verb| verb.get_name() != "up") {
            let help = verb.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", verb.get_name());
        }
    }
}
