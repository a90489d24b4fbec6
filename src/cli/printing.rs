//! An answer on stdout, and the exit code that comes of it.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// Prints all of `text`. `code`, unless it could not be written; but nobody may be left to read it.
pub(super) fn printed(text: &[u8], code: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Ok(()) | Err(_) => code,
    }
}
