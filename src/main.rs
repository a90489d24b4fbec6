//! The `ballast` command: arguments → subcommand → exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ballast::memory::Packed = ballast::memory::Packed::new();

fn main() -> ExitCode {
    ballast::cli::main()
}
