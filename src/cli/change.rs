//! What the subcommands share that change something: the question before it, the exit code after it.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::client::{Failure, lines_for_a_terminal};
use super::printing::{complain, printed};

/// Shows what would be done, puts the `question`, and waits for a word.
pub(super) fn agreed(outlook: &str, question: &str) -> bool {
    let mut err = io::stderr();
    let is_asked = io::stdin().is_terminal() && err.is_terminal();
    let text = match is_asked {
        true => format!("{outlook}{question} [y/N] "),
        false => format!(
            "{outlook}Nothing was done: there is no terminal to ask at. Add --yes to do it.\n"
        ),
    };
    let text = lines_for_a_terminal(&text);
    if err.write_all(text.as_bytes()).is_err() || !is_asked {
        return false;
    }
    let mut answer = String::new();
    let is_read = io::stdin().read_line(&mut answer).is_ok();
    let agrees = is_read && ["y", "yes"].contains(&&*answer.trim().to_lowercase());
    if !agrees {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(err, "Nothing was done.");
    }
    agrees
}

/// Prints what was `done`: 0, but 1 when nothing was or it was refused, and 3 when there was no answer.
pub(super) fn exit_code(done: Result<Option<String>, Failure>) -> ExitCode {
    match done {
        Ok(Some(text)) => printed(text, ExitCode::SUCCESS),
        Ok(None) => ExitCode::FAILURE,
        Err(failure) if failure.is_refusal() => {
            complain(&failure);
            ExitCode::FAILURE
        }
        Err(failure) => complain(&failure),
    }
}
