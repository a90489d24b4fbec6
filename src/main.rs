//! The `ballast` command: arguments → subcommand → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ballast::cli::main()
}
