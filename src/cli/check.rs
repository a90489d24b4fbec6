//! stub
use std::path::Path;
use std::process::ExitCode;
pub(super) fn run(path: &Path) -> ExitCode {
    match crate::config::load(path) {
        Ok(loaded) => {
            eprint!("{}", loaded.warnings);
            ExitCode::SUCCESS
        }
        Err(rejected) => {
            eprint!("{rejected}");
            ExitCode::FAILURE
        }
    }
}
