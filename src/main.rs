//! The `ballast` command: arguments → subcommand → exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ballast::allocator::Packed = ballast::allocator::Packed::new();

fn main() -> ExitCode {
    ballast::cli::main()
}
