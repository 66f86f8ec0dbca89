//! `completion`: a script that lets a shell complete verbs and options.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args::Cli, exit::Exit, output::write};

const EXAMPLES: &str = "\
Examples:
  cronfleet completion bash > ~/.local/share/bash-completion/completions/cronfleet
  cronfleet completion zsh > \"${fpath[1]}/_cronfleet\"
  cronfleet completion fish > ~/.config/fish/completions/cronfleet.fish";

/// The arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Writes the script.
pub fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cronfleet", &mut script);
    write(&String::from_utf8(script)?)?;
    Ok(Exit::Done.into())
}
