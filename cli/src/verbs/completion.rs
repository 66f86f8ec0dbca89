//! `completion`: a script that lets a shell complete verbs and options.

use std::process::ExitCode;

use clap::Args;
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
    write(&script(args.shell)?)?;
    Ok(Exit::Done.into())
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::visible(), "cronfleet", &mut script);
    Ok(String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_shell_completes_every_verb_that_is_shown_and_no_hidden_one() {
        for shell in Shell::value_variants() {
            let script = script(*shell).expect("a script");
            for word in ["apply", "doctor", "planners", "namespace", "replicas"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for hidden in ["guard", "probe", "data-storage-service"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }
}
