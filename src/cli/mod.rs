//! placeholder
use std::process::ExitCode;
/// The whole command.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
