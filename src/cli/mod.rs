//! placeholder
mod check;
use std::process::ExitCode;
/// The whole command.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (
        arguments.next().as_deref(),
        arguments.next().as_deref(),
        arguments.next(),
    ) {
        (Some("check"), Some("-c"), Some(path)) => check::run(std::path::Path::new(&path)),
        _ => ExitCode::from(2),
    }
}
