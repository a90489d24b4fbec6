//! What a command says, and the exit code that comes of it: the one way to stdout, and to stderr for why there is
//! no answer. An answer that is lost to a full disk is no success; one that nobody is left to read is.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use super::client::{Failure, lines_for_a_terminal, told};

/// Prints all of `text`. `code`, unless it could not be written.
pub(super) fn printed(text: impl AsRef<[u8]>, code: ExitCode) -> ExitCode {
    ended(put(text), code)
}

/// Prints all of `text` now, of an answer that goes on.
pub(super) fn put(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// `code`, unless the `outcome` of printing is that something is lost; but nobody may be left to read it.
pub(super) fn ended(outcome: io::Result<()>, code: ExitCode) -> ExitCode {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format_args!("cannot write the answer: {}", told(&error)));
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => code,
    }
}

/// Tells on stderr why there is no answer: 3.
pub(super) fn complain(failure: &Failure) -> ExitCode {
    say(failure);
    ExitCode::from(UNANSWERED)
}

/// Tells something on stderr.
pub(super) fn say(what: &dyn Display) {
    let text = lines_for_a_terminal(&format!("ballast: {what}\n"));
    // With stderr closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Stdout in the hands of a thread that tells nobody how it went.
#[derive(Clone, Debug, Default)]
pub(super) struct Stdout {
    failed: Arc<OnceLock<io::Error>>,
}

impl Stdout {
    /// What became of what was written to it or a clone.
    pub(super) fn outcome(&self) -> io::Result<()> {
        match self.failed.get() {
            Some(error) => Err(copied(error)),
            None => Ok(()),
        }
    }

    fn noted<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        outcome.inspect_err(|error| {
            if ![Interrupted, WouldBlock].contains(&error.kind()) {
                // The first is why the others are.
                let _ = self.failed.set(copied(error));
            }
        })
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.noted(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.noted(io::stdout().flush())
    }
}

fn copied(error: &io::Error) -> io::Error {
    let of_the_system = error.raw_os_error().map(io::Error::from_raw_os_error);
    of_the_system.unwrap_or_else(|| error.kind().into())
}

/// The exit code of a command that has no answer.
const UNANSWERED: u8 = 3;
