//! `ballast completions`: what a shell needs to complete the command line, from its definition.

use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::Arguments;
use super::printing::printed;

/// Prints the completions of `shell`.
pub(super) fn run(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    generate(shell, &mut visible(), "ballast", &mut script);
    printed(script, ExitCode::SUCCESS)
}

/// The command line without what nobody is meant to type: generators do not mind what is hidden.
fn visible() -> Command {
    let all = Arguments::command();
    let shown = all.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new("ballast")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown.cloned())
}

pub(super) const DETAILS: &str = "\
Examples:
  source <(ballast completions bash)           for this shell
  ballast completions bash | sudo tee /etc/bash_completion.d/ballast
  ballast completions zsh  | sudo tee /usr/share/zsh/site-functions/_ballast
  ballast completions fish > ~/.config/fish/completions/ballast.fish";
